"""docs/files.md has a row for each file of the package, and none for a file that is not there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rustmq_sdk"
PAGE = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")

# What only names the others needs no row of its own.
OF_COURSE = ("__init__.py", "__main__.py")


def mapped() -> list[str]:
    """The files that the page names, as paths in the package."""
    found = []
    for part in PAGE.split("\n## ")[1:]:
        title = part.partition("\n")[0]
        folder = "" if title == "rustmq_sdk" else f"{title}/"
        found += [folder + name for name in re.findall(r"^\| `([\w/]+\.py)` \| \S", part, re.MULTILINE)]

    return found


def test_every_file_of_the_package_has_a_row() -> None:
    files = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.name not in OF_COURSE}
    assert files - set(mapped()) == set()


def test_every_row_is_about_a_file_that_exists() -> None:
    assert [name for name in mapped() if not (PACKAGE / name).is_file()] == []


def test_no_file_has_two_rows() -> None:
    assert [name for name, rows in Counter(mapped()).items() if rows > 1] == []


def test_every_package_has_a_section() -> None:
    titles = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    table = re.findall(r"^\| \[`([\w/]+)`\]", PAGE, re.MULTILINE)
    assert table == titles
