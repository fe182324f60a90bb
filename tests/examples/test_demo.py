"""The tour accounts for every event, on both loops, and would not hide a loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo import verdict
from demo_parts import feed
from demo_parts.screen import Screen, table
from demo_parts.tally import Tally
from rustmq_sdk.testing import BACKENDS

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def account(said: str) -> dict[str, float]:
    """The table at the end."""
    _, _, rows = said.rpartition("     published")
    return {
        words[0]: float(words[1].replace(",", "")) for words in map(str.split, f"published{rows}".splitlines()) if words
    }


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_tour_accounts_for_every_event(backend: str, run: Callable[..., Any]) -> None:
    ended = run(DEMO, "--backend", backend, "--seconds", "1")
    assert ended.stderr == ""
    assert "consumer B is cancelled" in ended.stdout
    assert "consumer B is back" in ended.stdout
    assert "ALARM  magnitude 6.4  22km NNE of Hualian, Taiwan" in ended.stdout

    counts = account(ended.stdout)
    assert counts["published"] == 1707
    assert counts["handled"] == 1679
    assert counts["dead-lettered"] == 28
    assert counts["retried"] == 134, "the look-up fails for the same events on every run"
    assert counts["redelivered"] >= counts["retried"]
    assert counts["lost"] == counts["lag"] == counts["duplicates"] == 0


def test_a_url_that_nobody_answers_to_is_explained(run: Callable[..., Any]) -> None:
    ended = run(DEMO, "--url", "nonsense://here", exits=2)
    assert "The tour cannot go on. url='nonsense://here': no driver answers to nonsense://" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_loss_is_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally(published={"a", "b", "c"})
    tally.handled["a"] += 1
    tally.dead["b"] = "not an earthquake"
    assert tally.lost == {"c"}
    assert verdict(tally, lag=0) == 1
    assert "Some of them: c" in capsys.readouterr().err
    assert "     lost       1" in table(tally, lag=0, seconds=1)


def test_lag_that_is_left_is_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(Tally(), lag=3) == 1
    assert "3 messages are not committed" in capsys.readouterr().err


def test_what_is_handled_twice_is_a_duplicate() -> None:
    tally = Tally(published={"a"})
    tally.handled["a"] += 2
    tally.delivered["a"] += 3
    assert (tally.duplicates, tally.redelivered) == (1, 2)


def test_the_feed_is_the_week_it_says_it_is() -> None:
    events = feed.read()
    assert len(events) == len({event.id for event, _ in events}) == 1707
    assert {event.type for event, _ in events} == {"earthquake", "explosion", "quarry blast"}
    assert all(json.loads(line)["id"] == event.id for event, line in events[:10])


def test_a_line_that_moves_is_wiped_before_one_that_stays(tmp_path: Path) -> None:
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
    Screen(Tally(), 10, out).say("ALARM")
    assert out.text.startswith("\r\x1b[KALARM\n[....")
