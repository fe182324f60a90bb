"""The tour accounts for every event, on both loops, and would not hide a loss."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo_parts import feed
from demo_parts.journal import Line
from demo_parts.screen import Screen
from demo_parts.tally import Tally, table, verdict
from rustmq_sdk.testing import BACKENDS
from tests.services.kafka_server import KafkaServer

pytestmark = pytest.mark.timeout(180)

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def account(said: str) -> dict[str, float]:
    """The table at the end."""
    _, _, rows = said.rpartition("     published")
    rows, _, _ = rows.partition("\n\n")
    return {
        words[0]: float(words[1].replace(",", "")) for words in map(str.split, f"published{rows}".splitlines()) if words
    }


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_tour_accounts_for_every_event(
    backend: str, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")  # for the processes that the tour starts
    ended = run(DEMO, "--backend", backend, "--seconds", "1")
    assert ended.stderr == ""
    assert "ALARM  magnitude 6.4  22km NNE of Hualian, Taiwan" in ended.stdout

    counts = account(ended.stdout)
    assert counts["published"] == 1707
    assert counts["handled"] == 1679
    assert counts["dead-lettered"] == 28
    assert counts["retried"] >= 134, "the look-up fails for the same events on every run, and again after a kill"
    assert counts["redelivered"] >= counts["retried"] + counts["duplicates"]
    assert counts["lost"] == counts["lag"] == 0

    killed = re.search(r"consumer ([AB]) \(process (\d+)\) is killed \(-9\), events in its hands: \d", ended.stdout)
    assert killed is not None
    victim, heir = killed[1], "AB".replace(killed[1], "")
    taken_over = re.search(rf"ms later consumer {heir} has its partitions \d\+\d\n", ended.stdout)
    back = re.search(rf"consumer {victim} is back \(process (\d+)\)", ended.stdout)
    shares = re.search(rf"consumer {victim} has partitions \d\+\d now", ended.stdout)
    assert taken_over is not None
    assert back is not None
    assert shares is not None
    assert killed.start() < taken_over.start() < back.start() < shares.start()
    assert killed[2] != back[1], "it is another process"


@pytest.mark.slow
@pytest.mark.parametrize("temporary", [True, False], ids=["temporary", "lasting"])
def test_the_tour_accounts_for_every_event_on_kafka(
    run: Callable[..., Any], kafka: KafkaServer, temporary: bool
) -> None:
    url = f"kafka://{kafka.bootstrap}"
    options = ("--temporary",) if temporary else ()
    ended = run(DEMO, "--backend", "trio", "--seconds", "1", "--url", url, *options, options=())
    assert ("are left there, to look at" in ended.stdout) is not temporary, "topics of a Kafka that ends are gone"
    counts = account(ended.stdout)
    assert counts["published"] == 1707
    assert counts["handled"] == 1679
    assert counts["dead-lettered"] == 28
    assert counts["lost"] == counts["lag"] == 0
    assert re.search(r"consumer [AB] \(process \d+\) is killed \(-9\)", ended.stdout)
    assert re.search(r"ms later consumer [AB] has its partitions \d\+\d\n", ended.stdout)
    assert "waiting for partitions" in ended.stdout, "nobody looks at a screen that stands still for a lease"


def test_a_url_that_nobody_answers_to_is_explained(run: Callable[..., Any]) -> None:
    ended = run(DEMO, "--url", "nonsense://here", exits=2)
    assert "The tour cannot go on. url='nonsense://here': no driver answers to nonsense://" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "explanation"),
    [
        (("--url", "memory://"), "memory:// lives in one process, and the tour runs several. Name a log that they can"),
        (("--seconds", "0"), "--seconds 0.0: expected a positive number"),
        (("--seconds", "nan"), "--seconds nan: expected a positive number"),
        (("--role", "consumer"), "--role consumer needs --url, --topic and --journal"),
    ],
)
def test_an_argument_that_cannot_work_is_explained(
    arguments: tuple[str, ...], explanation: str, run: Callable[..., Any]
) -> None:
    ended = run(DEMO, *arguments, exits=2)
    assert explanation in ended.stderr
    assert ended.stdout == ""


def test_a_loss_is_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally()
    for event in ("a", "b", "c"):
        tally.take(Line("published", event))
        tally.take(Line("taken", event))

    tally.take(Line("handled", "a"))
    tally.take(Line("dead", "b"))
    tally.take(Line("put_down", "c"))
    assert tally.lost == {"c"}
    assert verdict(tally, lag=0) == 1
    assert "Some of them: c" in capsys.readouterr().err
    assert "     lost       1" in table(tally, lag=0, seconds=1)


def test_lag_that_is_left_is_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(Tally(), lag=3) == 1
    assert "3 messages are not committed" in capsys.readouterr().err


def test_what_is_handled_twice_is_a_duplicate() -> None:
    tally = Tally(published={"a"})
    for what in ("taken", "put_down", "retried", "taken", "handled", "taken", "handled"):
        tally.take(Line(what, "a"))

    assert (tally.retried, tally.redelivered, tally.duplicates, tally.settled) == (1, 2, 1, 1)
    assert verdict(tally, lag=0) == 0, "at least once is what is promised"


def test_the_feed_is_the_week_it_says_it_is() -> None:
    events = feed.read()
    assert len(events) == len({event.id for event, _ in events}) == 1707
    assert {event.type for event, _ in events} == {"earthquake", "explosion", "quarry blast"}
    assert all(json.loads(line)["id"] == event.id for event, line in events[:10])


def test_a_line_that_moves_is_wiped_before_one_that_stays() -> None:
    class Terminal:
        def __init__(self) -> None:
            self.text = ""

        def write(self, text: str) -> int:
            self.text += text
            return len(text)

        def flush(self) -> None: ...

        def isatty(self) -> bool:
            return True

    out: Any = Terminal()
    screen = Screen(lambda: "[....] half-way", out)
    screen.say("ALARM")
    screen.end()
    assert out.text == "\r\x1b[KALARM\n[....] half-way\r\x1b[K"
