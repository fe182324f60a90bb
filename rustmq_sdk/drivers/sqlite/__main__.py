"""``python -m rustmq_sdk.drivers.sqlite FILE…`` checks logs; the exit status is 1 if any of them is damaged."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rustmq_sdk.drivers.sqlite.integrity import check_files


def main(arguments: Sequence[str]) -> int:
    """Prints what is wrong with each file; without one it exits with 2 and says how it is called."""
    return check_files(_paths(arguments), print)


def _paths(arguments: Sequence[str]) -> list[str]:
    parser = argparse.ArgumentParser(
        prog="python -m rustmq_sdk.drivers.sqlite",
        description="Checks files of the embedded log: structure, checksums, offsets. Exits with 1 if one is damaged.",
    )
    parser.add_argument("paths", nargs="+", metavar="FILE", help="a file of the embedded log; it may be in use")
    paths: list[str] = parser.parse_args(arguments).paths
    return paths


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
