"""Stores with unreadable blocks: the rest is read around them and salvaged, and no unreadable record is called absent."""

import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.errors import NoRoom, StoreMissing
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.server.storage import layout
from quorumvault.server.storage import store as stores
from quorumvault.server.storage.gaps import END_OF_PLACES, Gap, Gaps, bucket_gap, records_around, united
from quorumvault.server.storage.leveldb import LevelDBStore
from quorumvault.server.storage.leveldb_tables import Tables
from quorumvault.server.storage.salvage import salvage, take_place
from quorumvault.server.storage.store import CORRUPT

DISK = bytes(range(16))
OWNER = b"an owner's id..."
RECORDS = 1500
REGISTER = {layout.register_key(OWNER): layout.encode_register(3, "s1")}
HINT = {layout.hint_key(DISK, 1): b"a hint"}
KEYS = layout.record_keys(OWNER, [1] * RECORDS, [random.Random(number).randbytes(20) for number in range(RECORDS)])
PAIRS = {key: random.Random(key).randbytes(30 + number % 60) for number, key in enumerate(KEYS)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with three tables: two thirds of the records, the rest, and some that are also in one of the other tables."""
    path = tmp_path_factory.mktemp("whole") / "store"
    with closing(LevelDBStore.create(path, DISK)) as store:
        store.write(REGISTER | HINT)
    for part in (KEYS[:1000], KEYS[1000:], KEYS[::7]):
        with closing(LevelDBStore.open(path, DISK)) as store:
            store.write({key: PAIRS[key] for key in part})
    LevelDBStore.open(path, DISK).close()
    assert len(list(path.glob("*.ldb"))) > 2
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "n1" / "store")
    return tmp_path / "n1" / "store"


def table_of(store: Path) -> Path:
    """The largest table. Its first block has records; what a disk cannot do without is in another table."""
    return max(store.glob("*.ldb"), key=lambda path: path.stat().st_size)


def rot(table: Path, *offsets: int) -> None:
    contents = bytearray(table.read_bytes())
    for offset in offsets:
        contents[offset] ^= 0x10
    table.write_bytes(contents)


def every(step: int) -> Callable[[Path], Iterator[int]]:
    """Offsets in the data blocks except the first, which is also read by a scan of what is before the records."""
    return lambda table: iter(range(3000, table.stat().st_size * 8 // 10, step))


#: By name, the offsets that rot in the largest table.
ROT: dict[str, Callable[[Path], Iterator[int]]] = {
    "one block": lambda table: iter([table.stat().st_size // 2]),
    "every fourth block": every(8000),
    "every block but the first": every(700),
    "the last data block": lambda table: iter([table.stat().st_size * 93 // 100]),
    "the index": lambda table: iter([table.stat().st_size - 200]),
    "the footer": lambda table: iter([table.stat().st_size - 3]),
}


@pytest.mark.parametrize("name", ROT)
def test_what_is_not_read_around_bad_blocks_is_in_a_gap_and_nothing_else_is_lost(name: str, store: Path) -> None:
    """What a look-up of one key can read is never lost, and every record returned is the one that was written.

    Proves: what is not known is not absent.
    """
    rot(table_of(store), *ROT[name](table_of(store)))
    with closing(LevelDBStore.open(store, DISK)) as opened:
        found = list(records_around(opened))
        told = {pair[0]: pair[1] for pair in found if not isinstance(pair, Gap)}
        gaps = Gaps(each for each in found if isinstance(each, Gap))
        looked_up = dict(zip(KEYS, opened.get(KEYS), strict=True))
    assert list(told) == sorted(told)
    assert told.items() <= PAIRS.items()
    missing = PAIRS.keys() - told.keys()
    assert missing
    assert all(gaps.covers(key[1:]) for key in missing)
    assert {key for key, value in looked_up.items() if value is CORRUPT} >= missing
    if name == "one block":
        assert len(missing) < 40
        assert gaps.count == 1
    if name == "every fourth block":
        assert gaps.count > 5
        assert len(missing) < RECORDS / 4


def test_a_store_that_can_all_be_read_has_no_gap(store: Path) -> None:
    with closing(LevelDBStore.open(store, DISK)) as opened:
        assert dict(pair for pair in records_around(opened) if not isinstance(pair, Gap)) == PAIRS


def test_a_table_is_read_as_leveldb_reads_it(store: Path) -> None:
    assert dict(Tables(store).pairs(layout.RECORD, b"s")) == PAIRS
    first, end = sorted(KEYS)[10], sorted(KEYS)[20]
    assert [key for key, _ in Tables(store).pairs(first, end)] == sorted(KEYS)[10:20]


@pytest.mark.parametrize("name", ["one block", "every block but the first"])
def test_a_salvaged_store_can_all_be_read_and_says_what_it_does_not_know(name: str, store: Path) -> None:
    rot(table_of(store), *ROT[name](table_of(store)))
    fresh = salvage(store, DISK)
    assert fresh is not None
    shutil.rmtree(store)
    assert salvage(store, DISK) == fresh  # as after a crash between the two renames
    take_place(fresh, store)
    with closing(LevelDBStore.open(store, DISK)) as opened:
        records, gaps = dict(opened.scan(layout.RECORD)), Gaps.of(opened)
        assert records.items() <= PAIRS.items()
        assert gaps.count
        assert all(gaps.covers(key[1:]) for key in PAIRS.keys() - records.keys())
        assert dict(opened.scan(layout.REGISTER)) == REGISTER
        assert dict(opened.scan(layout.HINT)) == HINT
    again = salvage(store, DISK)
    assert again is not None
    with closing(LevelDBStore.open(again, DISK)) as opened:
        assert Gaps.of(opened).pairs() == gaps.pairs()


def test_a_disk_that_cannot_read_its_registers_is_not_salvaged(store: Path) -> None:
    rot(next(table for table in store.glob("*.ldb") if OWNER in table.read_bytes()[:60]), 10)
    assert salvage(store, DISK) is None
    assert list(store.parent.iterdir()) == [store]


def test_a_salvage_that_did_not_come_to_its_end_is_never_taken_for_the_disk(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds even though the old store is gone: the unfinished new store lacks records, and has no gaps for them.

    Proves: what is not known is not absent.
    """
    rot(table_of(store), *ROT["one block"](table_of(store)))
    write, written = LevelDBStore.write, 0

    def fills_up(self: LevelDBStore, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        nonlocal written
        written += 1
        if written == 4:
            raise NoRoom("no space left")
        write(self, puts, deletes)

    monkeypatch.setattr(stores, "BATCH_BYTES", 20_000)
    monkeypatch.setattr(LevelDBStore, "write", fills_up)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as if the process had been killed
    with pytest.raises(NoRoom):
        salvage(store, DISK)
    assert [path.name for path in store.parent.iterdir() if path != store] == ["store.salvaging"]
    store.rename(store.with_name("elsewhere"))
    with pytest.raises(StoreMissing):
        salvage(store, DISK)


def test_nor_one_whose_register_is_none(store: Path) -> None:
    with closing(LevelDBStore.open(store, DISK)) as opened:
        opened.write({layout.register_key(b"o" * 16): b"?"})
    assert salvage(store, DISK) is None


places = st.builds(lambda high, low: bytes([high]) + low, st.integers(0, 1), st.binary(min_size=1, max_size=2))
some_gaps = st.lists(st.builds(Gap, places, places), max_size=8)


@given(some_gaps, places, st.integers(1, 4))
def test_gaps_that_are_united_cover_what_each_of_them_did(gaps: list[Gap], place: bytes, most: int) -> None:
    covered = any(gap.first <= place < gap.end for gap in gaps)
    assert Gaps(gaps).covers(place) == covered
    fewer = united(gaps, most)
    assert len(fewer) <= most
    assert covered <= Gaps(fewer).covers(place)


@given(some_gaps, st.sets(st.integers(0, 300)), places)
def test_a_gap_is_closed_bucket_by_bucket(gaps: list[Gap], buckets: set[int], place: bytes) -> None:
    bucket = int.from_bytes(place[:2], "big")
    left = Gaps(gaps)
    before = left.covers(place)
    left.close(buckets)
    assert left.covers(place) == (before and bucket not in buckets)
    assert left.meets(bucket) == (bucket in left.buckets())
    assert left.meets(bucket) or not left.covers(place)


def test_the_last_bucket_ends_behind_all_places() -> None:
    assert bucket_gap(BUCKETS - 1) == Gap(b"\xff\xff", END_OF_PLACES)
    assert Gaps([bucket_gap(BUCKETS - 1)]).buckets() == {BUCKETS - 1}
