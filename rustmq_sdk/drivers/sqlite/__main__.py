"""``python -m rustmq_sdk.drivers.sqlite FILE…`` checks logs; the exit status is 1 if any of them is damaged."""

from __future__ import annotations

import sys

from rustmq_sdk.drivers.sqlite.integrity import integrity_check
from rustmq_sdk.errors import RustMQError


def main(paths: list[str]) -> int:
    """Prints what is wrong with each file."""
    damaged = not paths
    for path in paths:
        try:
            problems = integrity_check(path)
        except RustMQError as error:
            problems = (str(error),)

        damaged = damaged or bool(problems)
        for line in problems or ("sound",):
            sys.stdout.write(f"{path}: {line}\n")

    return int(damaged)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
