"""Kafka through rebalances, crashes, broker restarts and cut networks, on real brokers.

    python -m tests.kafka                       the long forms, each with the account at its end
    python -m tests.kafka rebalances            one of them

The short forms are the tests of this folder, each on asyncio and on trio. ``tests/kills`` kills consumers and
producers.
"""
