"""Apache Kafka: ``kafka://[user:password@]host:port,host:port``."""
