"""Every program in the README and in docs/ runs as it stands and has types, and what is no program is Python.

A block of Python is a program if its last line runs something (then it is run), or if its first line is a comment with
the name of a file: then all such blocks of a section are written to one folder, and pytest runs there.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rustmq_sdk.letters import as_message
from rustmq_sdk.testing import BACKENDS
from rustmq_sdk.values import DeadLetter, TopicPartition

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")
LINK = re.compile(r"\]\(([^)\s]+)\)")
STARTS = re.compile(r"^(    )?(run|asyncio\.run|trio\.run|anyio\.run)\(", re.MULTILINE)


class Section(NamedTuple):
    """The Python of one section of a document."""

    title: str
    blocks: list[str]

    @property
    def files(self) -> dict[str, str]:
        return {found[1]: block for block in self.blocks if (found := FILE.match(block))}

    @property
    def programs(self) -> list[str]:
        return [block for block in self.blocks if not FILE.match(block) and STARTS.search(block)]

    @property
    def modules(self) -> dict[str, str]:
        """What can stand alone, by the name of a file: it imports what it needs."""
        begins = ("import ", "from ")
        alone = [block for block in self.blocks if block in self.programs or block.startswith(begins)]
        return {**self.files, **{f"program_{number}.py": block for number, block in enumerate(alone)}}


def sections() -> Iterator[Section]:
    for path in DOCUMENTS:
        for part in re.split(r"^##+ ", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if blocks := FENCE.findall(part):
                yield Section(f"{path.name}: {part.splitlines()[0]}", blocks)


SECTIONS = list(sections())
THE_READERS_DRIVER = "class PigeonDriver:\n    def __init__(self, *given: object) -> None: ...\n"
ENDLESS = "A program that goes on"
SENT_BACK = "Sending letters back"
PROGRAMS = [
    pytest.param(text, id=section.title)
    for section in SECTIONS
    if not section.title.endswith(ENDLESS)
    for text in section.programs
]
TESTS = [pytest.param(section.files, id=section.title) for section in SECTIONS if section.files]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_documentation_runs(program: str, tmp_path: Path, run: Callable[..., Any]) -> None:
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    ended = run(path)
    assert ended.stdout
    assert "Traceback" not in ended.stderr


def anchors(path: Path) -> set[str]:
    """What links into a document may name: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [pytest.param(path, id=path.name) for path in DOCUMENTS])
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if not link.startswith("https://"):
            target = document.parent / path if path else document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("files", TESTS)
def test_the_tests_of_the_documentation_pass(files: dict[str, str], tmp_path: Path, run: Callable[..., Any]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    assert re.search(
        r"^\d+ passed", run("-m", "pytest", "-q", "-p", "no:cacheprovider", options=()).stdout, re.MULTILINE
    )


def test_every_program_of_the_documentation_passes_a_strict_type_checker(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    (tmp_path / "pigeons").mkdir()
    (tmp_path / "pigeons" / "driver.pyi").write_text(THE_READERS_DRIVER)
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nstrict = True\nexplicit_package_bases = True\nfollow_imports = silent\nmypy_path = {ROOT}"
    )
    for section in SECTIONS:
        folder = tmp_path / re.sub(r"\W+", "_", section.title)
        folder.mkdir()
        for name, text in section.modules.items():
            (folder / name).write_text(text, encoding="utf-8")

    assert run("-m", "mypy", "--cache-dir=.cache", ".", options=()).stdout.startswith("Success")


def test_each_header_of_a_dead_letter_is_described() -> None:
    tp = TopicPartition("t", 0)
    letter = DeadLetter("id", b"", None, (), 1, tp, 2, "g", "reason", "type", "message", "stack", 3, 4, 5)
    text = (ROOT / "docs" / "dead-letters.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(rustmq-dead-letter-\S+)` \|", text, re.MULTILINE) == [
        name for name, _ in as_message(letter).headers
    ]


def test_a_letter_is_sent_back_as_the_message_that_it_was(tmp_path: Path, run: Callable[..., Any]) -> None:
    (program,) = (section.programs[0] for section in SECTIONS if section.title == f"dead-letters.md: {SENT_BACK}")
    path = tmp_path / "redrive.py"
    path.write_text(program, encoding="utf-8")
    assert run(path).stdout.splitlines() == [
        "1 sent back",
        "orders[0]@1 a lamp b'7' [('shop', b'north')] attempt 1",
    ]


@pytest.mark.parametrize("section", [pytest.param(section, id=section.title) for section in SECTIONS])
def test_what_is_shown_as_python_is_python(section: Section) -> None:
    for block in section.blocks:
        ast.parse(block)


def test_the_first_program_greets_and_goes_on_where_it_stopped_on_both_loops(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    (program,) = (section.programs[0] for section in SECTIONS if section.title == "README.md: The first program")
    path = tmp_path / "hello.py"
    path.write_text(program, encoding="utf-8")
    greetings = [f"Hello {name}! You are number" for name in ("Ada", "Grace", "Edsger")]
    assert run(path).stdout == "".join(f"{text} {number}.\n" for number, text in enumerate(greetings))

    on_trio = program.replace("asyncio.run(main())", "trio.run(main)").replace("import asyncio", "import trio")
    path.write_text(on_trio, encoding="utf-8")
    assert run(path).stdout == "".join(f"{text} {number}.\n" for number, text in enumerate(greetings, 3))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_program_that_goes_on_handles_what_is_there_and_stops_when_asked(
    backend: str, tmp_path: Path, run: Callable[..., Any]
) -> None:
    first, serve = (
        next(section.programs[0] for section in SECTIONS if section.title == f"README.md: {title}")
        for title in ("The first program", ENDLESS)
    )
    (tmp_path / "hello.py").write_text(first, encoding="utf-8")
    run(tmp_path / "hello.py")
    if backend == "trio":
        serve = serve.replace("asyncio.run(main())", "trio.run(main)").replace("import asyncio", "import trio")

    (tmp_path / "serve.py").write_text(serve, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "serve.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as program:
        assert program.stdout is not None
        assert sorted(program.stdout.readline().strip() for _ in range(3)) == ["Ada", "Edsger", "Grace"]
        program.terminate()
        assert program.wait(30) == 0
