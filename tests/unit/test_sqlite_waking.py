"""The files beside the embedded log: who rings, who hears it, whose lock is free. Without a log."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from rustmq_sdk.drivers.sqlite import doorbell, file_watch, filelocks, inotify, kqueue
from rustmq_sdk.drivers.sqlite.broadcast import Broadcast, Changed, LoopListener
from rustmq_sdk.drivers.sqlite.doorbell import Doorbell, DoorbellWatch, doorbell_path
from rustmq_sdk.drivers.sqlite.file_events import FileEvent
from rustmq_sdk.drivers.sqlite.file_watch import EventFileWatch, PollingFileWatch, Seen, open_file_watch
from rustmq_sdk.drivers.sqlite.member_lock import MemberLock, PeerLock, lock_path, remove, sweep

A, B = b"a" * 16, b"b" * 16


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def watch(log: Path) -> Iterator[DoorbellWatch]:
    watch = DoorbellWatch(log)
    yield watch
    watch.close()


def ring_elsewhere(log: Path) -> None:
    """As another process does that has drawn another slot, as nearly all do."""
    ring = f"""
        from pathlib import Path
        from rustmq_sdk.drivers.sqlite.doorbell import Doorbell, _our_slot
        while _our_slot.offset == {doorbell._our_slot.offset}:
            _our_slot.draw()

        Doorbell(Path({str(log)!r})).ring()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(ring)], check=True)


# Broadcasts


async def test_what_is_broadcast_while_the_loop_is_blocked_is_told_at_once(log: Path) -> None:
    told: list[Changed] = []
    listener, broadcast = LoopListener(told.append), Broadcast(log)
    broadcast.listen(listener.hear)
    for partition in range(1000):
        broadcast.tell_here(frozenset({partition}))

    await anyio.wait_all_tasks_blocked()
    broadcast.tell_here(frozenset({1}))
    broadcast.tell_here(None)
    broadcast.tell_here(frozenset({2}))
    await anyio.wait_all_tasks_blocked()
    broadcast.tell_here(frozenset({3}))
    await anyio.wait_all_tasks_blocked()
    assert told == [frozenset(range(1000)), None, frozenset({3})]
    broadcast.close()


def test_a_forked_child_waits_for_no_lock_of_its_parent_and_wakes_nobody_there(log: Path) -> None:
    program = f"""
        import os, signal
        from pathlib import Path
        from rustmq_sdk.drivers.sqlite.broadcast import Broadcast, _Listeners
        log = Path({str(log)!r})
        told = []
        broadcast = Broadcast(log)
        broadcast.listen(told.append)
        with _Listeners.lock:  # as another thread may have it
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                Broadcast(log).tell_here(None)
                os._exit(len(told))

            assert os.waitpid(child, 0)[1] == 0

        Broadcast(log).tell_here(None)
        assert told == [None], "the parent's are its own still"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


# The doorbell


def test_another_process_is_heard_once_for_each_ring(log: Path, watch: DoorbellWatch) -> None:
    assert not watch.rung()
    ring_elsewhere(log)
    assert watch.rung()
    assert not watch.rung()
    ring_elsewhere(log)
    assert watch.rung()


def test_our_own_rings_are_passed_over(log: Path, watch: DoorbellWatch) -> None:
    bell = Doorbell(log)
    bell.ring()
    assert os.fstat(watch.fd).st_size > 0
    assert not watch.rung()
    ring_elsewhere(log)
    bell.ring()
    assert watch.rung(), "ours did not cover up theirs"
    bell.close()


def test_another_process_in_our_slot_is_heard(log: Path, watch: DoorbellWatch) -> None:
    os.pwrite(watch.fd, doorbell._SLOT.pack(doorbell._our_slot.token ^ 1, 1), doorbell._our_slot.offset)
    assert watch.rung()


def test_a_forked_child_is_another_process(log: Path) -> None:
    program = f"""
        import os
        from pathlib import Path
        from rustmq_sdk.drivers.sqlite.doorbell import Doorbell, DoorbellWatch
        log = Path({str(log)!r})
        watch = DoorbellWatch(log)
        child = os.fork()
        if child == 0:
            Doorbell(log).ring()
            os._exit(0)

        os.waitpid(child, 0)
        assert watch.rung()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_where_nobody_waits_there_is_no_file(log: Path) -> None:
    bell = Doorbell(log)
    bell.ring()
    bell.ring()
    assert not doorbell_path(log).exists()


def test_the_last_who_waits_removes_the_file(log: Path) -> None:
    first, second = DoorbellWatch(log), DoorbellWatch(log)
    first.close()
    assert doorbell_path(log).exists()
    second.close()
    assert not doorbell_path(log).exists()


@pytest.mark.parametrize("moved", [False, True])
def test_who_rings_finds_the_file_that_took_the_place_of_another(log: Path, watch: DoorbellWatch, moved: bool) -> None:
    bell = Doorbell(log)
    bell.ring()
    if moved:
        doorbell_path(log).rename(log.with_name("elsewhere"))
    else:
        doorbell_path(log).unlink()

    assert not watch.in_place
    again = DoorbellWatch(log)
    bell.ring()
    assert os.fstat(again.fd).st_size > 0
    bell.close()
    again.close()


# The watches of files


@pytest.fixture(params=["auto", "poll"])
def looking(request: pytest.FixtureRequest, log: Path) -> Iterator[file_watch.FileWatch]:
    looking = open_file_watch(log, request.param)
    assert isinstance(looking, PollingFileWatch if request.param == "poll" else EventFileWatch)
    yield looking
    looking.close()


def until_committed(looking: file_watch.FileWatch) -> bool:
    return any(looking.wait(0.1).committed for _ in range(50))


def test_a_file_watch_sees_a_ring_and_nothing_else(log: Path, looking: file_watch.FileWatch) -> None:
    bell = Doorbell(log)
    bell.ring()
    assert looking.wait(0.02) == looking.wait(0.02) == Seen()
    ring_elsewhere(log)
    assert until_committed(looking)
    assert looking.wait(0.02) == Seen()
    bell.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_removed_file_is_made_again_and_watched(log: Path, looking: file_watch.FileWatch, replaced: bool) -> None:
    path = doorbell_path(log)
    if replaced:
        path.with_suffix(".new").write_bytes(b"")
        path.with_suffix(".new").rename(path)
    else:
        path.unlink()

    assert until_committed(looking), "who rang meanwhile was not heard: it is told that somebody may have"
    assert path.exists()
    ring_elsewhere(log)
    assert until_committed(looking)


def test_a_file_watch_does_not_wait_after_an_interruption(looking: file_watch.FileWatch) -> None:
    looking.interrupt()
    assert looking.wait(60) == Seen()


def test_where_the_file_cannot_be_made_the_log_itself_is_looked_at_often(
    log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    doorbell_path(log).mkdir()
    looking = open_file_watch(log, "auto")
    assert isinstance(looking, PollingFileWatch)
    assert looking.look_every == file_watch.POLL_SECONDS
    assert looking.wait(0) == Seen()
    assert "wake=poll" in caplog.text
    looking.close()


@pytest.mark.parametrize("call", ["inotify_init1", "inotify_add_watch"])
def test_without_room_for_a_watch_it_polls_and_says_so(
    log: Path, call: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        def __init__(self, name: str | None, *, use_errno: bool) -> None:
            self.libc = real(name, use_errno=use_errno)

        def __getattr__(self, name: str) -> Any:
            return (lambda *_: -1) if name == call else getattr(self.libc, name)

    real = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", Full)
    looking = open_file_watch(log, "auto")
    assert isinstance(looking, PollingFileWatch)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    ring_elsewhere(log)
    assert until_committed(looking)
    looking.close()


def test_polling_that_was_asked_for_is_no_warning(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_file_watch(log, "poll").close()
    assert not caplog.records


@pytest.mark.skipif(not inotify.AVAILABLE, reason="needs inotify")
def test_events_that_the_system_dropped_count_as_anything(log: Path) -> None:
    files = [log.with_name(name) for name in "ab"]
    fds = [os.open(file, os.O_RDWR | os.O_CREAT) for file in files]
    events = inotify.Inotify()
    for file, fd in zip(files, fds, strict=True):
        events.on_write(file, fd)

    room = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(room + 2):  # to both in turn: two alike in a row are one event
        os.pwrite(fds[number % 2], b"x", 0)

    told = set[FileEvent]()
    while FileEvent(None, "written") not in told:
        (*fresh,) = events.wait(0)
        assert fresh
        told.update(fresh)

    for fd in fds:
        os.close(fd)

    events.close()


def test_kqueue_is_asked_for_the_file_and_answers_in_our_words(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    told: list[Any] = []

    class Queue:
        def control(self, changes: list[Any] | None, room: int, timeout: float) -> list[Any]:
            asked.extend(changes or ())
            answer, told[:] = list(told), []
            return answer

        def close(self) -> None: ...

    fake = SimpleNamespace(
        kqueue=Queue,
        kevent=lambda ident, kind, flags, notes: SimpleNamespace(ident=ident, kind=kind, flags=flags, fflags=notes),
        KQ_EV_ADD=1,
        KQ_EV_CLEAR=32,
        KQ_NOTE_DELETE=1,
        KQ_NOTE_WRITE=2,
        KQ_NOTE_RENAME=32,
        KQ_FILTER_READ=-1,
        KQ_FILTER_VNODE=-4,
    )
    monkeypatch.setattr(kqueue, "_kqueue", fake)
    written, stranger = 1_000_001, 1_000_002  # no descriptors of this process
    events = kqueue.Kqueue()
    events.on_write(log, written)
    events.on_end(log)
    assert [(each.kind, each.flags, each.fflags) for each in asked] == [(-1, 33, 0), (-4, 33, 35)]
    pipe = asked[0].ident
    told += [
        fake.kevent(written, -4, 0, 2),
        fake.kevent(written, -4, 0, 1),
        fake.kevent(stranger, -4, 0, 2),
        fake.kevent(pipe, -1, 0, 0),
    ]
    events.interrupt()
    assert events.wait(1) == [FileEvent(log, "written"), FileEvent(log, "gone")]
    assert not select.select([pipe], [], [], 0)[0], "the interruption was taken"
    events.close()


def test_the_files_have_the_permissions_of_the_log(log: Path) -> None:
    log.touch()
    log.chmod(0o660)
    watch, lock = DoorbellWatch(log), MemberLock(log, A)
    for path in (doorbell_path(log), lock_path(log, A)):
        assert path.stat().st_mode & 0o777 == 0o660

    watch.close()
    lock.release()


# The locks of members


def held(log: Path, member: bytes) -> tuple[MemberLock, PeerLock]:
    lock = MemberLock(log, member)
    assert lock.inode is not None
    return lock, PeerLock(lock_path(log, member), lock.inode)


def test_a_lock_is_free_when_its_member_has_ended(log: Path) -> None:
    lock, peer = held(log, A)
    assert not peer.free()
    lock.let_go()
    assert peer.free()
    with peer.path.open("rb") as file:
        assert filelocks.lock_shared(file.fileno())  # as somebody else does who tries it
        assert peer.free()


def test_nothing_is_said_by_a_file_that_is_missing_or_another_one(log: Path) -> None:
    lock, peer = held(log, A)
    peer.path.unlink()
    assert not peer.free()
    peer.path.touch()
    assert not peer.free(), "somebody made another file of this name"
    lock.let_go()


def test_leaving_removes_the_file(log: Path) -> None:
    lock, peer = held(log, A)
    lock.release()
    assert not peer.path.exists()


def test_a_lock_that_nobody_refers_to_is_let_go(log: Path) -> None:
    lock, peer = held(log, A)
    del lock
    assert peer.free()


def test_a_forked_child_does_not_keep_its_parents_lock_and_does_not_free_it(log: Path) -> None:
    program = f"""
        import os, signal
        from pathlib import Path
        from rustmq_sdk.drivers.sqlite.member_lock import MemberLock, PeerLock, lock_path
        log = Path({str(log)!r})
        (out, into), (go, start) = os.pipe(), os.pipe()
        parent = os.fork()
        if parent == 0:
            lock = MemberLock(log, {A!r})
            child = os.fork()
            if child == 0:
                lock.release()
                del lock
                os.write(into, b"x")

            signal.pause()

        os.read(out, 1)
        peer = PeerLock(lock_path(log, {A!r}), lock_path(log, {A!r}).stat().st_ino)
        assert not peer.free(), "the parent has it still"
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        assert peer.free(), "the child has not kept it"
        os.killpg(0, signal.SIGTERM)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], check=False, start_new_session=True, capture_output=True
    )
    assert done.returncode == -15, done.stderr.decode()


@pytest.mark.parametrize("answer", [False, True])
def test_locks_that_keep_nobody_out_are_none(log: Path, answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, operation: int) -> None:
        if not answer:
            raise OSError(95, "not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert MemberLock(log, A).inode is None
    assert not lock_path(log, A).exists()


def test_files_of_nobody_are_swept_and_those_that_are_held_stay(log: Path) -> None:
    lock, _ = held(log, A)
    lock_path(log, B).touch()
    other = log.with_name("another.db-member-00")
    other.touch()
    sweep(log, [B])
    assert lock_path(log, B).exists(), "there is a row for it"
    sweep(log, [])
    assert lock_path(log, A).exists()
    assert not lock_path(log, B).exists()
    assert other.exists()
    lock.let_go()
    remove(log, [A, B])
    assert not lock_path(log, A).exists()


def test_a_file_that_is_swept_before_it_is_locked_is_made_again(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = filelocks.lock_alone
    swept: list[int] = []

    def late(fd: int) -> bool:
        if not swept:
            swept.append(fd)
            lock_path(log, A).unlink()

        return real(fd)

    monkeypatch.setattr("rustmq_sdk.drivers.sqlite.member_lock.lock_alone", late)
    lock, peer = held(log, A)
    assert swept
    assert peer.held(), "the others find it under its name"
    lock.release()


def test_a_sweep_spares_the_file_that_took_the_place_of_the_one_it_has_opened(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sweep at once: one removes the file before its member has locked it, and the member makes another."""
    real = filelocks.lock_alone
    taken: list[tuple[MemberLock, PeerLock]] = []

    def late(fd: int) -> bool:
        monkeypatch.undo()
        lock_path(log, A).unlink()
        taken.append(held(log, A))
        return real(fd)

    lock_path(log, A).touch()
    monkeypatch.setattr("rustmq_sdk.drivers.sqlite.member_lock.lock_alone", late)
    sweep(log, [])
    ((lock, peer),) = taken
    assert peer.held()
    lock.release()
