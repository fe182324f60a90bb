"""Kafka through rebalances, crashes, broker restarts and cut networks, on real brokers.

    python -m tests.kafka rebalances            the long form of a test, with the account at the end
    python -m tests.kafka --help                the others

The short forms are the tests of this folder, each on asyncio and on trio. ``tests/kills`` kills consumers and
producers.
"""
