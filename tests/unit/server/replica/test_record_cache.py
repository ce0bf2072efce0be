"""The cache of settled records: it returns what was added, or nothing."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from quorumvault.model import Owner
from quorumvault.server.replica.record_cache import LONGEST, SLOT_BYTES, RecordCache
from quorumvault.server.storage import layout

OWNERS = [Owner("acme").id, Owner("clinic").id]


def key(number: int, owner: int = 0, epoch: int = 1) -> bytes:
    return layout.record_keys(OWNERS[owner], [epoch], [number.to_bytes(20, "big")])[0]


def record(place: bytes, length: int = 20) -> bytes:
    """The record that belongs to a key, unlike that of every other key."""
    return (place[1:] * 3)[-length:] if length else b""


_KEYS = st.builds(key, st.integers(0, 12), st.integers(0, 1), st.integers(1, 2))


@given(st.lists(st.lists(_KEYS, max_size=8, unique=True), max_size=30), st.integers(0, 9), st.integers(0, LONGEST + 1))
def test_it_returns_what_was_added_under_the_key_or_nothing(reads: Sequence[list[bytes]], slots: int, length: int) -> None:
    cache = RecordCache(slots * SLOT_BYTES)  # an odd slot has no partner
    asked = 0
    for keys in reads:
        found = cache.get(keys)
        asked += len(keys)
        assert all(told in (None, record(place, length)) for place, told in zip(keys, found, strict=True))
        cache.add({place: record(place, length) for place, told in zip(keys, found, strict=True) if told is None})
    assert cache.hits + cache.misses == asked


def test_while_there_is_room_each_record_stays() -> None:
    cache = RecordCache(100 * SLOT_BYTES)
    keys = [key(number) for number in range(100)]  # two for each of the 50 pairs
    cache.add({place: record(place) for place in keys})
    assert cache.get(keys) == [record(place) for place in keys]


@given(st.integers(1, 50))
def test_a_scan_takes_few_slots_away_and_what_is_read_often_gets_one(size: int) -> None:
    cache = RecordCache(100 * SLOT_BYTES)
    often = [key(number) for number in range(100)]
    cache.add({place: record(place) for place in often})
    scanned = [key(number) for number in range(100, 170)]
    for start in range(0, len(scanned), size):
        cache.add({place: record(place) for place in scanned[start : start + size]})
    assert cache.get(often).count(None) == 10
    for _ in range(7):
        cache.add({scanned[0]: record(scanned[0])})
    assert cache.get(scanned[:1]) == [record(scanned[0])]


def test_a_long_record_is_not_kept_and_pushes_none_out() -> None:
    cache = RecordCache(2 * SLOT_BYTES)
    long, longest = key(1), key(2)
    cache.add({long: record(long, LONGEST + 1)})
    cache.add({longest: record(longest, LONGEST)})
    cache.add({key(3): record(key(3))})
    for _ in range(14):
        cache.add({long: record(long, LONGEST + 1)})
    assert cache.get([long, longest, key(3)]) == [None, record(longest, LONGEST), record(key(3))]


def test_without_room_it_keeps_nothing() -> None:
    cache = RecordCache(2 * SLOT_BYTES - 1)
    cache.add({key(1): record(key(1))})
    assert cache.get([key(1), key(1)]) == [None, None]


def test_cleared_it_knows_nothing() -> None:
    cache = RecordCache(10 * SLOT_BYTES)
    keys = [key(number) for number in range(10)]
    cache.add({place: record(place) for place in keys})
    cache.clear()
    assert cache.get(keys) == [None] * 10
