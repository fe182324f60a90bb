from __future__ import annotations

import random
import tracemalloc
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rustmq_sdk._core import varint
from rustmq_sdk._core.checkpoint import (
    ATTEMPTS,
    HEADER,
    NONCE,
    SETTLED_BITS,
    SETTLED_STEPS,
    VERSION,
    CorruptCheckpoint,
    Remembered,
    decode,
    encode,
)
from rustmq_sdk._core.settled_runs import MAX_OFFSET, MAX_SPAN, write_bits, write_steps

Runs = list[tuple[int, int]]

watermarks = st.integers(0, 1 << 48)
steps = st.one_of(st.integers(1, 4), st.integers(1, 300), st.integers(1, 1 << 40))


@st.composite
def remembered(draw: st.DrawFn) -> tuple[int, Remembered]:
    watermark = draw(watermarks)
    # Ragged windows with many small steps are where bits win, few and wide runs are where steps win.
    kind = draw(st.sampled_from([st.integers(1, 2), steps]))
    edges = [watermark]
    for step in draw(st.lists(st.tuples(kind, kind), max_size=60)):
        edges += (edges[-1] + step[0], edges[-1] + step[0] + step[1])

    settled = list(zip(edges[1::2], edges[2::2], strict=True))
    inside = st.integers(watermark, edges[-1] + 10)
    attempts = draw(st.dictionaries(inside, st.one_of(st.integers(1, 6), st.integers(1, 1 << 40)), max_size=20))
    nonce = draw(st.none() | st.integers(0, (1 << 64) - 1))
    return watermark, Remembered(settled, attempts, nonce)


def ragged(span: int, share: float, seed: int = 1) -> Runs:
    """Each offset of the window is settled with this probability."""
    rng = random.Random(seed)
    flags = [False, *(rng.random() < share for _ in range(span - 1)), False]
    edges = [offset for offset in range(1, len(flags)) if flags[offset] != flags[offset - 1]]
    return list(zip(edges[::2], edges[1::2], strict=True))


def sealed(watermark: int, sections: bytes) -> bytes:
    """Sections as somebody would write them who knows the format and means no good."""
    check = zlib.crc32(sections, zlib.crc32(b"%d:" % watermark))
    return bytes((VERSION,)) + check.to_bytes(4, "big") + sections


def section(tag: int, body: bytes) -> bytes:
    return bytes((tag,)) + varint.framed(body)


def deflated(data: bytes) -> bytes:
    squeezer = zlib.compressobj(wbits=-15)
    return squeezer.compress(data) + squeezer.flush()


@given(remembered())
@example((0, Remembered([(1, 2)])))
@example((5, Remembered([(MAX_OFFSET - 1, MAX_OFFSET)], {5: 1}, (1 << 64) - 1)))
@example((7, Remembered([(8, 8 + MAX_SPAN), (9 + MAX_SPAN, 20 + MAX_SPAN)])))
def test_what_is_encoded_is_decoded_to_the_same(case: tuple[int, Remembered]) -> None:
    watermark, given_ = case
    extra, covered = encode(watermark, given_, None)
    assert decode(watermark, extra) == given_
    assert covered == (given_.settled[-1][1] if given_.settled else watermark)


def test_nothing_to_remember_takes_no_bytes() -> None:
    assert encode(42, Remembered(), None) == (b"", 42)
    assert encode(42, Remembered(), 0) == (b"", 42)
    assert decode(42, b"") == Remembered()


@given(remembered(), st.integers(-5, 400))
def test_what_does_not_fit_is_cut_at_the_high_end(case: tuple[int, Remembered], room: int) -> None:
    watermark, given_ = case
    extra, covered = encode(watermark, given_, room)
    assert len(extra) <= max(room, 0)
    found = decode(watermark, extra)
    assert found.settled == [run for run in given_.settled if run[1] <= covered]
    assert covered == (found.settled[-1][1] if found.settled else watermark)
    kept = sorted(found.attempts)
    assert kept == sorted(given_.attempts)[: len(kept)]
    assert all(found.attempts[offset] == given_.attempts[offset] for offset in kept)
    assert found.nonce == (given_.nonce if extra else None)


@given(remembered())
def test_attempts_go_before_any_settled_run_does(case: tuple[int, Remembered]) -> None:
    watermark, given_ = case
    without, _ = encode(watermark, Remembered(given_.settled, {}, given_.nonce), None)
    room = max(len(without), HEADER)
    extra, covered = encode(watermark, given_, room)
    assert decode(watermark, extra).settled == given_.settled
    assert covered == (given_.settled[-1][1] if given_.settled else watermark)


@given(remembered(), st.integers(0, 300))
def test_a_little_more_room_never_covers_much_less(case: tuple[int, Remembered], room: int) -> None:
    # Deflated prefixes do not grow strictly, so the bisection may stop a run early, never many.
    watermark, given_ = case
    _, less = encode(watermark, given_, room)
    _, more = encode(watermark, given_, room + 16)
    assert more >= less


def test_the_nonce_is_the_last_thing_to_go() -> None:
    everything = Remembered([(11, 20)], {10: 3}, 0xABCD)
    extra, covered = encode(10, everything, HEADER + 4)
    assert decode(10, extra) == Remembered(nonce=0xABCD)
    assert covered == 10
    assert encode(10, everything, HEADER + 3) == (b"", 10)


@pytest.mark.parametrize(
    ("span", "share", "size"),
    [
        # Bytes of the extra; in brackets as base64, as Kafka's commit metadata (4,096 at most) carries it.
        (100, 0.5, 21),  # (28)
        (1_000, 0.9, 108),  # (144)
        (10_000, 0.999, 30),  # (40)
        (20_000, 0.999, 57),  # (76)
        (20_000, 0.99, 376),  # (504)
        (20_000, 0.5, 2_513),  # (3,352)
        (100_000, 0.99, 1_697),  # (2,264)
        (100_000, 0.9, 7_156),  # does not fit: 3,000 bytes cover 41,128 offsets
        (100_000, 0.5, 12_513),  # does not fit: 3,000 bytes cover 23,894 offsets
    ],
)
def test_typical_windows_stay_small(span: int, share: float, size: int) -> None:
    extra, _ = encode(0, Remembered(ragged(span, share)), None)
    # Other zlibs (zlib-ng) squeeze a little differently.
    assert len(extra) <= size * 1.05 + 2


def test_one_wide_run_above_one_gap_takes_a_dozen_bytes() -> None:
    extra, _ = encode(10**12, Remembered([(10**12 + 1, 10**12 + 5_000_000)], {10**12: 3}), None)
    assert len(extra) <= 16


def test_a_window_of_100_000_that_does_not_fit_still_uses_its_room() -> None:
    runs = ragged(100_000, 0.5)
    extra, covered = encode(0, Remembered(runs), 3_000)
    assert 2_900 <= len(extra) <= 3_000
    assert covered > 23_000


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_ragged_window_is_cut_between_two_runs_whatever_the_room(share: float) -> None:
    runs = ragged(1_000, share)
    reached = []
    for room in range(8, 150):
        extra, covered = encode(0, Remembered(runs), room)
        assert len(extra) <= room
        assert decode(0, extra).settled == [run for run in runs if run[1] <= covered]
        reached.append(covered)

    assert reached[0] < reached[50] < reached[-1]


def test_the_shorter_way_is_chosen() -> None:
    few = encode(0, Remembered([(1, 50_000), (50_001, 90_000)]), None)[0]
    many = encode(0, Remembered(ragged(5_000, 0.5)), None)[0]
    assert few[HEADER] == SETTLED_STEPS
    assert many[HEADER] == SETTLED_BITS


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=200), st.integers(0, 80))
def test_of_the_two_ways_the_one_that_covers_more_is_chosen(sizes: list[tuple[int, int]], room: int) -> None:
    edges = [0]
    for pause, length in sizes:
        edges += (edges[-1] + pause, edges[-1] + pause + length)

    runs = list(zip(edges[1::2], edges[2::2], strict=True))
    _, covered = encode(0, Remembered(runs), room)
    inner = varint.room_in_frame(room - HEADER - 1)
    assert covered == max(write_steps(0, edges[1:], inner)[1], write_bits(0, edges[1:], inner)[1])


@given(st.lists(st.integers(0, 200) | st.integers(0, 1 << 63), max_size=20), st.integers(1, 3), st.integers(-1, 60))
def test_of_a_row_of_numbers_as_many_whole_groups_are_written_as_fit(numbers: list[int], group: int, room: int) -> None:
    numbers = numbers[: len(numbers) // group * group]
    data, count = varint.write(numbers, group, room)
    assert varint.read_all(data) == numbers[:count]
    assert count % group == 0
    assert len(data) <= max(room, 0)
    assert count == len(numbers) or len(varint.write(numbers[: count + group])[0]) > room


def test_a_number_has_ten_bytes_at_most() -> None:
    assert varint.read(b"\x80" * 9 + b"\1") == (1 << 63, 10)
    with pytest.raises(ValueError, match="at most 10 bytes"):
        varint.read(b"\x80" * 10 + b"\1")


def test_a_bitset_that_inflates_to_gigabytes_is_not_inflated() -> None:
    squeezer = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(squeezer.compress(bytes(1 << 20)) for _ in range(64)) + squeezer.flush()
    tracemalloc.start()
    with pytest.raises(CorruptCheckpoint):
        decode(5, sealed(5, section(SETTLED_BITS, bomb)))

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


@given(st.integers(0, 1 << 20))
def test_the_longest_body_whose_frame_fits_is_known(room: int) -> None:
    body = varint.room_in_frame(room)
    assert len(varint.framed(b"")) + body <= room or body < 0
    if body >= 0:
        assert len(varint.framed(bytes(body))) <= room
        assert len(varint.framed(bytes(body + 1))) > room


@given(st.binary(max_size=200), watermarks)
def test_random_bytes_are_refused(data: bytes, watermark: int) -> None:
    if data:
        with pytest.raises(CorruptCheckpoint):
            decode(watermark, data)


@given(st.binary(max_size=60).map(lambda sections: sealed(7, sections)))
@example(sealed(7, section(SETTLED_STEPS, b"\xff")))
@example(sealed(7, bytes((SETTLED_STEPS, 0x80))))
@example(sealed(7, section(SETTLED_BITS, b"")))
def test_random_sections_after_a_valid_checksum_never_crash_and_never_contradict(extra: bytes) -> None:
    try:
        found = decode(7, extra)
    except CorruptCheckpoint:
        return

    # Whatever was accepted could have been written, so it means what it says.
    encode(7, found, None)


@given(remembered(), st.data())
def test_a_changed_byte_is_noticed(case: tuple[int, Remembered], data: st.DataObject) -> None:
    watermark, given_ = case
    extra = bytearray(encode(watermark, given_, None)[0])
    if extra:
        place = data.draw(st.integers(0, len(extra) - 1))
        extra[place] ^= data.draw(st.integers(1, 255))
        with pytest.raises(CorruptCheckpoint):
            decode(watermark, bytes(extra))


@given(remembered(), st.data())
def test_a_truncated_extra_is_noticed(case: tuple[int, Remembered], data: st.DataObject) -> None:
    watermark, given_ = case
    extra, _ = encode(watermark, given_, None)
    if extra:
        with pytest.raises(CorruptCheckpoint):
            decode(watermark, extra[: data.draw(st.integers(1, len(extra) - 1))])


@given(remembered(), watermarks)
def test_an_extra_at_another_position_is_noticed(case: tuple[int, Remembered], elsewhere: int) -> None:
    watermark, given_ = case
    extra, _ = encode(watermark, given_, None)
    if extra and elsewhere != watermark:
        with pytest.raises(CorruptCheckpoint, match="watermark"):
            decode(elsewhere, extra)


def test_sections_of_later_versions_are_skipped() -> None:
    known = encode(5, Remembered([(7, 9)], {5: 2}, 99), None)[0][HEADER:]
    extra = sealed(5, section(77, b"from the future") + known + section(200, b""))
    assert decode(5, extra) == Remembered([(7, 9)], {5: 2}, 99)


@pytest.mark.parametrize(
    ("problem", "sections"),
    [
        ("bitset that inflates to gigabytes", section(SETTLED_BITS, deflated(bytes(MAX_SPAN // 8 + 1)))),
        ("bitset that was cut off", section(SETTLED_BITS, deflated(b"\2" * 500)[:-1])),
        ("bitset with something after it", section(SETTLED_BITS, deflated(b"\2") + b"x")),
        ("bitset that is none", section(SETTLED_BITS, b"\xff\xff\xff")),
        ("settled watermark", section(SETTLED_BITS, deflated(b"\1"))),
        ("pause without length", section(SETTLED_STEPS, b"\1\1\1")),
        ("empty run", section(SETTLED_STEPS, b"\1\0")),
        ("settled watermark in steps", section(SETTLED_STEPS, b"\0\1")),
        ("run beyond all offsets", section(SETTLED_STEPS, varint.write([1, MAX_OFFSET])[0])),
        ("number that never ends", section(SETTLED_STEPS, b"\xff" * 30)),
        ("settled twice", section(SETTLED_STEPS, b"\1\1") + section(SETTLED_BITS, deflated(b"\2"))),
        ("one section twice", section(NONCE, b"\1") * 2),
        ("section longer than the rest", bytes((NONCE, 5)) + b"\1"),
        ("section without a length", bytes((NONCE,))),
        ("long nonce", section(NONCE, bytes(9))),
        ("empty nonce", section(NONCE, b"")),
        ("offset without attempts", section(ATTEMPTS, b"\1")),
        ("no attempts", section(ATTEMPTS, b"\1\0")),
        ("one offset twice", section(ATTEMPTS, b"\1\1\0\1")),
        ("attempts beyond all offsets", section(ATTEMPTS, varint.write([MAX_OFFSET, 1])[0])),
    ],
)
def test_what_cannot_have_been_written_is_refused(problem: str, sections: bytes) -> None:
    with pytest.raises(CorruptCheckpoint, match="runs again"):
        decode(5, sealed(5, sections))


def test_another_version_is_refused_by_name() -> None:
    with pytest.raises(CorruptCheckpoint, match="version 1"):
        decode(5, b"\2" + encode(5, Remembered(nonce=1), None)[0][1:])


@pytest.mark.parametrize(
    "wrong",
    [
        Remembered([(10, 12)]),
        Remembered([(5, 8)]),
        Remembered([(12, 12)]),
        Remembered([(13, 12)]),
        Remembered([(11, 13), (13, 15)]),
        Remembered([(20, 22), (11, 13)]),
        Remembered([(11, MAX_OFFSET + 1)]),
        Remembered(attempts={9: 1}),
        Remembered(attempts={11: 0}),
        Remembered(attempts={11: MAX_OFFSET}),
        Remembered(attempts={MAX_OFFSET: 1}),
        Remembered(nonce=-1),
        Remembered(nonce=1 << 64),
    ],
)
def test_a_contradiction_is_not_written_down(wrong: Remembered) -> None:
    with pytest.raises(ValueError, match="expected"):
        encode(10, wrong, None)
