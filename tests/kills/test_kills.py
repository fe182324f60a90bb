"""Nothing is lost when processes are killed, and nothing comes again without a reason. The long form is `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from rustmq_sdk.drivers.sqlite import integrity_check
from tests.kills.conductor import Conductor, Plan
from tests.kills.crashing import sweep
from tests.kills.reckoning import Account
from tests.services.kafka_server import KafkaServer


def conduct(folder: Path, plan: Plan) -> Account:
    file = folder / "log.db"
    account = Conductor(f"sqlite:///{file}", folder, plan, print).run()
    assert integrity_check(file) == ()
    return account


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("clock", ["steady", "jumping"])
def test_nothing_is_lost_when_processes_are_killed(tmp_path: Path, clock: str) -> None:
    account = conduct(tmp_path, Plan(seed=1, kills=8, clock=clock))
    assert account.sound, str(account)
    assert account.kills == 8
    assert account.confirmed > 500
    assert account.durable > 50
    # What a kill brings again is what was at work, or acked since the last commit 0.2 s before: not the whole run.
    assert sum(account.again.values()) - account.again["its attempt had failed"] < account.stored / 4


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_nothing_is_lost_on_kafka_when_processes_are_killed(tmp_path: Path, kafka: KafkaServer) -> None:
    for seed in range(1, 5):
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        plan = Plan(seed=seed, kills=8, lease=2.0).on_server()
        account = Conductor(f"kafka://{kafka.bootstrap}", folder, plan, print).run()
        assert account.sound, str(account)
        assert account.kills == 8
        assert account.durable > 50
        assert sum(account.again.values()) - account.again["its attempt had failed"] < account.stored / 4
        # It is by chance that somebody is killed whose last commit had something above its watermark.
        if account.remembered > 0:
            break

    # Settled out of order, committed beside the watermark, and not run again: that would not be sound.
    assert account.remembered > 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_nothing_is_lost_when_a_consumer_stands_still_for_longer_than_its_lease(tmp_path: Path) -> None:
    account = conduct(tmp_path, Plan(seed=3, kills=0, stops=2, lease=2.0))
    assert account.sound, str(account)
    assert account.stops == 2


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("statements", [range(0, 60, 6), range(60, 2000, 45)], ids=["opening", "working"])
def test_nothing_is_lost_between_two_statements(tmp_path: Path, statements: range) -> None:
    tried = 0
    for number, account in sweep(tmp_path, statements):
        assert account.sound, f"a crash before statement {number}:\n{account}"
        tried += 1

    assert tried >= 10
