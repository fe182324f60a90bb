"""The processes of the tour: what they note survives them, and none of them survives the tour."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import takewhile
from pathlib import Path

import pytest

from demo_parts import processes
from demo_parts.child import UnexpectedEnd
from demo_parts.journal import Follower, Journal, Line
from demo_parts.processes import Processes
from demo_parts.tally import Tally
from rustmq_sdk.testing import BACKENDS

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLES}"}


@contextmanager
def tour(folder: Path, backend: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A tour whose consumers are at work, and what it has said."""
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "demo.py"), "--backend", backend],
        env={**ENVIRONMENT, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        try:
            said = "".join(takewhile(lambda line: not line.startswith("ALARM"), running.stdout))
            yield running, said
        finally:
            running.kill()


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_tour_leaves_no_process_and_no_file(backend: str, number: int, tmp_path: Path) -> None:
    with tour(tmp_path, backend) as (running, _):
        running.send_signal(number)
        # All share its output, so that comes to an end when the last of them has ended.
        _, errors = running.communicate(timeout=50)

    assert running.returncode == 130
    assert errors == "\nInterrupted before its end.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_no_process_survives_a_tour_that_is_killed(tmp_path: Path) -> None:
    with tour(tmp_path, "asyncio") as (running, _):
        running.kill()
        _, errors = running.communicate(timeout=50)

    assert errors == "", "they finish what they have in hand, and go"


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tour_that_nobody_reads_ends_without_a_word(backend: str, tmp_path: Path) -> None:
    with tour(tmp_path, backend) as (running, _):
        assert running.stdout is not None
        running.stdout.close()
        assert running.stderr is not None
        assert running.stderr.read() == ""
        assert running.wait(50) == 141

    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_tour_says_which_process_has_ended_before_its_time(tmp_path: Path) -> None:
    with tour(tmp_path, "asyncio") as (running, said):
        producer = re.search(r"producer (\d+)", said)
        assert producer is not None
        os.kill(int(producer[1]), signal.SIGKILL)
        _, errors = running.communicate(timeout=50)

    assert running.returncode == 2
    assert errors == "\nThe tour cannot go on. The producer has ended with exit status -9.\n"


def start(code: str, folder: Path, tally: Tally | None = None) -> Processes:
    return Processes(["-c", code], folder, tally or Tally(), lambda line: None)


WRITE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from demo_parts.journal import Journal
journal = Journal(Path(sys.argv[-1]))
for number in range(100):
    journal.note("published", str(number))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_is_noted_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    ended = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(path)], env=ENVIRONMENT, check=False)
    assert ended.returncode == -signal.SIGKILL
    with closing(Follower(path)) as follower:
        assert [line.id for line in follower.read()] == [str(number) for number in range(100)]


def test_half_a_line_counts_when_it_is_whole(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "journal")
    assert follower.read() == []

    journal = Journal(tmp_path / "journal")
    journal.note("taken", "a")
    journal.note("handled", "a", text="ALARM")
    written = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(written[:-5])
    assert follower.read() == [Line("taken", "a")]

    (tmp_path / "journal").write_bytes(written)
    assert follower.read() == [Line("handled", "a", "ALARM")]
    journal.close()
    follower.close()


async def test_a_process_that_ends_although_nobody_wants_it_to_ends_the_tour(tmp_path: Path) -> None:
    with start("import sys; sys.exit(7)", tmp_path) as cast:
        cast.start_consumer("A")
        with pytest.raises(UnexpectedEnd, match=r"The consumer A has ended with exit status 7\."):
            await cast.watch()


async def test_a_producer_that_is_killed_ends_the_tour_as_well(tmp_path: Path) -> None:
    with start("import os; os.kill(os.getpid(), 9)", tmp_path) as cast:
        cast.start_producer()
        with pytest.raises(UnexpectedEnd, match=r"The producer has ended with exit status -9\."):
            await cast.watch()


def test_a_process_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE", 0.1)
    with start("import time; time.sleep(60)", tmp_path) as cast:
        child = cast.start_consumer("A")
        assert child.status is None

    assert child.status == -signal.SIGKILL


HANGS = """
import time
from demo_parts import lifeline
lifeline.GRACE = 0.1
lifeline.when_the_tour_ends(lambda: print("told", flush=True))
time.sleep(60)
"""


def test_a_process_that_hangs_ends_itself_when_the_tour_is_gone() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANGS],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("told\n", "", 1)


def test_the_last_who_says_so_has_a_partition(tmp_path: Path) -> None:
    tally = Tally()
    with start("import sys; sys.stdin.read()", tmp_path, tally) as cast:
        a, b = cast.start_consumer("A"), cast.start_consumer("B")
        journals = {path.name: Journal(path) for path in tmp_path.iterdir()}
        journals["consumer-0.journal"].note("assigned", partitions=(0, 1, 2))
        journals["consumer-1.journal"].note("assigned", partitions=(0, 2))
        cast.look()
        assert (cast.partitions_of("A"), cast.partitions_of("B")) == ([1], [0, 2])

        journals["consumer-1.journal"].note("taken", "a")
        journals["consumer-1.journal"].note("taken", "b")
        journals["consumer-1.journal"].note("handled", "a")
        b.kill()
        cast.look()
        cast.check()
        assert b.in_hand == {"b"}
        assert (a.status, b.status) == (None, -signal.SIGKILL)

        journals["consumer-0.journal"].note("assigned", partitions=(0, 2))
        cast.look()
        assert cast.partitions_of("A") == [0, 1, 2]
        assert tally.taken.total() == 2

    assert a.status == 0
    for journal in journals.values():
        journal.close()
