"""``python -m rustmq_sdk.cli`` is ``rustmq``."""

from rustmq_sdk.cli import main

main()
