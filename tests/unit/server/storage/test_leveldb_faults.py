"""Rot, crashes and full disks under a real LevelDB: no wrong value, no false "absent", no write after one that failed."""

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from quorumvault.errors import StorageFailed, StoreMissing
from quorumvault.server.storage import layout
from quorumvault.server.storage.binding import plyvel
from quorumvault.server.storage.leveldb import LevelDBStore
from quorumvault.server.storage.store import CORRUPT

DISK = bytes(range(16))
OWNER = b"an owner's id..."
RECORDS = 600
BATCH = 20
FOOTER = 48
#: The first block also holds the store's description, without which the store does not open.
SECOND_BLOCK = 3000


def _key(number: int) -> bytes:
    digest = random.Random(number).randbytes(20)
    return layout.record_keys(OWNER, [1], [digest])[0]


#: Record keys as they are on disk: spread by their hash, so that neighbours on disk were not written together.
KEYS = [_key(number) for number in range(RECORDS)]
ABSENT = [_key(number) for number in range(RECORDS, 2 * RECORDS)]
PAIRS = {key: random.Random(key).randbytes(20 + number % 60) for number, key in enumerate(KEYS)}


class Disk(NamedTuple):
    """A closed store, and its newest file of one kind."""

    path: Path
    file: Path

    @property
    def contents(self) -> bytes:
        return self.file.read_bytes()


#: Makes a copy of a store in which one file has other contents, or is missing.
Damage = Callable[[Disk, bytes | None], Path]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    """A store that has all its records in the log, in batches of BATCH."""
    path = tmp_path_factory.mktemp("log") / "store"
    with closing(LevelDBStore.create(path, DISK)) as store:
        for first in range(0, RECORDS, BATCH):
            store.write({key: PAIRS[key] for key in KEYS[first : first + BATCH]})
    (file,) = path.glob("*.log")
    return Disk(path, file)


@pytest.fixture(scope="module")
def table(log: Disk, tmp_path_factory: pytest.TempPathFactory) -> Disk:
    """The store of ``log`` after a start, which turns the log into a table."""
    path = tmp_path_factory.mktemp("table") / "store"
    shutil.copytree(log.path, path)
    LevelDBStore.open(path, DISK).close()
    (file,) = path.glob("*.ldb")
    return Disk(path, file)


@pytest.fixture
def damaged(tmp_path: Path) -> Damage:
    places: Iterator[Path] = (tmp_path / str(number) / "store" for number in range(100_000))

    def damage(disk: Disk, contents: bytes | None) -> Path:
        place = next(places)
        shutil.copytree(disk.path, place)
        if contents is None:
            (place / disk.file.name).unlink()
        else:
            (place / disk.file.name).write_bytes(contents)
        return place

    return damage


def _flipped(contents: bytes, bit: int) -> bytes:
    changed = bytearray(contents)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _holds_what_was_written(path: Path) -> bool:
    """True if every record came back. Any other record is CORRUPT or made the store fail, and is neither wrong nor absent."""
    try:
        with closing(LevelDBStore.open(path, DISK)) as store:
            found, absent, scanned = store.get(KEYS), store.get(ABSENT), list(store.scan(layout.RECORD))
    except StorageFailed:
        return False
    assert all(value in (PAIRS[key], CORRUPT) for key, value in zip(KEYS, found, strict=True))
    assert set(absent) <= {None, CORRUPT}
    assert scanned == sorted(PAIRS.items()), "a scan that ended had not seen everything"
    return CORRUPT not in found


class Parts(NamedTuple):
    """The parts of a table: data blocks from 0 to ``filter_start``, the filter from there to ``filter_end``."""

    filter_start: int
    filter_end: int
    footer: int


def _varints(data: bytes) -> list[int]:
    """The first two numbers: seven bits a byte, lowest bits first. Each byte of a number except the last has the top bit set."""
    numbers = re.findall(rb"[\x80-\xff]*[\x00-\x7f]", data)[:2]
    return [sum((byte & 0x7F) << 7 * place for place, byte in enumerate(number)) for number in numbers]


def _parts(contents: bytes) -> Parts:
    """Read from the footer: (offset, size) of the meta-index, whose one entry has (offset, size) of the filter block."""
    offset, size = _varints(contents[-FOOTER:])
    _, _, entry = contents[offset : offset + size].partition(b"filter.leveldb.BuiltinBloomFilter2")
    filter_start, filter_size = _varints(entry)
    return Parts(filter_start, filter_start + filter_size, len(contents) - FOOTER)


def _without_filter(contents: bytes) -> bytes:
    start, end, _ = _parts(contents)
    return contents[:start] + bytes(end - start) + contents[end:]


@pytest.mark.slow
def test_a_flipped_bit_in_a_table_hides_and_changes_nothing(table: Disk, damaged: Damage) -> None:
    contents = table.contents
    parts, chance = _parts(contents), random.Random(6)
    regions = {
        "data": (0, parts.filter_start, 150),
        "filter": (parts.filter_start, parts.filter_end, 60),
        "index": (parts.filter_end, parts.footer, 60),
        "footer": (parts.footer, len(contents), 80),
    }
    whole = dict.fromkeys(regions, 0)
    for region, (start, end, flips) in regions.items():
        for bit in chance.sample(range(8 * start, 8 * end), flips):
            path = damaged(table, _flipped(contents, bit))
            whole[region] += _holds_what_was_written(path)
            shutil.rmtree(path)
    assert whole["data"] == 0, "a flip in a data block went unseen"
    assert whole["filter"] == 60, "a table is read without its filter if that is rotten"


def test_every_block_is_checked_by_get_and_by_scan(table: Disk, damaged: Damage) -> None:
    """This includes the last block, where an iterator's end could pass for the end of the records."""
    contents = table.contents
    corrupt: set[bytes] = set()
    for offset in range(SECOND_BLOCK, _parts(contents).filter_start, 1000):
        with closing(LevelDBStore.open(damaged(table, _flipped(contents, 8 * offset)), DISK)) as store:
            found = dict(zip(KEYS, store.get(KEYS), strict=True))
            hit = {key for key, value in found.items() if value is CORRUPT}
            assert 0 < store.corrupt_reads == len(hit) < 60
            assert all(found[key] == PAIRS[key] for key in KEYS if key not in hit)
            with pytest.raises(StorageFailed, match="cannot be scanned: Corruption"):
                list(store.scan(layout.RECORD))
            assert store.corrupt_reads == len(hit) + 1
        corrupt |= hit
    first_block = sorted(KEYS)[:60]
    assert corrupt >= set(KEYS).difference(first_block)


@pytest.mark.parametrize("few", [1, RECORDS])
def test_a_rotten_block_shows_nothing_older_under_its_keys(few: int, table: Disk, damaged: Damage) -> None:
    """Each key is in two tables. If the newer table cannot be read, the value in the older one is not an answer."""
    path = damaged(table, table.contents)
    with closing(LevelDBStore.open(path, DISK)) as store:
        store.write(dict.fromkeys(KEYS, b"newer, and as long as most of the values are"))
    LevelDBStore.open(path, DISK).close()
    newest = max(path.glob("*.ldb"))
    contents = newest.read_bytes()
    parts, corrupt = _parts(contents), 0
    for offset in range(100, parts.filter_start, 2500):
        newest.write_bytes(_flipped(contents, 8 * offset))
        with closing(LevelDBStore.open(path, DISK)) as store:
            found = [value for first in range(0, RECORDS, few) for value in store.get(KEYS[first : first + few])]
        assert set(found) == {CORRUPT, b"newer, and as long as most of the values are"}
        corrupt += found.count(CORRUPT)
    assert 0 < corrupt < RECORDS


def test_a_scan_needs_only_the_blocks_that_it_reads(table: Disk, damaged: Damage) -> None:
    contents = table.contents
    path = damaged(table, _flipped(contents, 8 * (_parts(contents).filter_start - 100)))
    with closing(LevelDBStore.open(path, DISK)) as store:
        assert list(store.scan(b"r\x00")) == sorted((key, value) for key, value in PAIRS.items() if key.startswith(b"r\x00"))
        with pytest.raises(StorageFailed, match="cannot be scanned"):
            list(store.scan(b"s"))
        assert store.corrupt_reads == 1


def test_a_store_that_cannot_say_whose_it_is_does_not_open(table: Disk, damaged: Damage) -> None:
    with pytest.raises(StorageFailed, match="description is corrupt"):
        LevelDBStore.open(damaged(table, _flipped(table.contents, 800)), DISK)


DAMAGES: dict[str, tuple[str, bytes | None, str]] = {
    "no table": ("*.ldb", None, "missing files"),
    "no CURRENT": ("CURRENT", None, "CURRENT is missing"),
    "an empty CURRENT": ("CURRENT", b"", "cannot be opened"),
    "a CURRENT of other files": ("CURRENT", b"MANIFEST-000099\n", "cannot be opened"),
    "a rotten CURRENT": ("CURRENT", b"garbage", "cannot be opened"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_store_that_is_damaged_does_not_open_and_is_not_missing(name: str, table: Disk, damaged: Damage) -> None:
    which, contents, words = DAMAGES[name]
    (file,) = table.path.glob(which)
    path = damaged(Disk(table.path, file), contents)
    before = sorted(os.listdir(path))
    with pytest.raises(StorageFailed, match=words) as refused:
        LevelDBStore.open(path, DISK)
    assert not isinstance(refused.value, StoreMissing)
    assert sorted(os.listdir(path)) == before


def test_what_only_a_rotten_block_could_tell_is_corrupt_not_absent(table: Disk, damaged: Damage) -> None:
    """Proves: a distrusted store stops."""
    path = damaged(table, _flipped(_without_filter(table.contents), 8 * 5000))
    with closing(LevelDBStore.open(path, DISK)) as store:
        assert set(store.get(ABSENT)) == {None, CORRUPT}


def test_a_zeroed_filter_hides_no_record(table: Disk, damaged: Damage) -> None:
    path = damaged(table, _without_filter(table.contents))
    with plyvel.DB(str(path), bloom_filter_bits=10) as trusting:
        assert any(trusting.get(key) is None for key in KEYS), "the filter is not what this test takes it for"
    assert _holds_what_was_written(path)


def test_a_filter_that_rots_in_memory_hides_records_from_look_ups_of_one_key_alone(table: Disk, damaged: Damage) -> None:
    """The scrub finds such a filter by these look-ups. Tables are memory-mapped, so a write to the file shows in memory."""
    path = damaged(table, table.contents)
    start, end, _ = _parts(table.contents)
    with closing(LevelDBStore.open(path, DISK)) as store, (path / table.file.name).open("r+b") as file:
        assert [store.get([key])[0] for key in KEYS] == list(PAIRS.values())
        file.seek(start)
        file.write(bytes(end - start))
        file.flush()
        assert {value for key in KEYS for value in store.get([key])} == {None}
        assert store.get(KEYS) == list(PAIRS.values())


def test_rot_that_a_compaction_meets_stops_the_writes_and_drops_nothing(table: Disk, damaged: Damage) -> None:
    store = LevelDBStore.open(damaged(table, _flipped(table.contents, 8 * 5000)), DISK)
    before = store.get(KEYS)
    ballast = {key: bytes(15_000) for key in ABSENT}

    def write_until_compactions_come() -> None:
        for _ in range(200):
            store.write(ballast)

    with pytest.raises(StorageFailed, match="cannot be written: Corruption"):
        write_until_compactions_come()
    assert store.get(KEYS) == before
    store.close()


def _batches_kept(path: Path) -> int | None:
    """Count the batches that are left: they are the first ones, each whole. None if the store does not open."""
    try:
        store = LevelDBStore.open(path, DISK)
    except StorageFailed:
        return None
    with closing(store):
        found = store.get(KEYS)
    kept = sum(value is not None for value in found)
    assert kept % BATCH == 0
    assert found == [PAIRS[key] for key in KEYS[:kept]] + [None] * (RECORDS - kept)
    return kept // BATCH


BATCHES = RECORDS // BATCH
TAILS = pytest.mark.parametrize("tail", [bytes, lambda length: random.Random(length).randbytes(length)], ids=["zeros", "garbage"])


@pytest.mark.parametrize("cut", [1, 7, 100, 1000])
def test_a_log_that_a_crash_cut_short_opens_without_the_batch_that_was_being_written(
    cut: int, log: Disk, damaged: Damage
) -> None:
    kept = _batches_kept(damaged(log, log.contents[:-cut]))
    assert kept == BATCHES - 1


@pytest.mark.parametrize("length", [1, 7, 64, 512, 1000])
@TAILS
def test_a_log_whose_last_record_is_torn_is_refused(
    tail: Callable[[int], bytes], length: int, log: Disk, damaged: Damage
) -> None:
    path = damaged(log, log.contents[:-length] + tail(length))
    with pytest.raises(StorageFailed, match="cannot be opened: Corruption"):
        LevelDBStore.open(path, DISK)


@pytest.mark.parametrize("length", [1, 6, 7, 8, 100, 5000, 100_000])
@TAILS
def test_what_follows_the_last_record_costs_no_batch(
    tail: Callable[[int], bytes], length: int, log: Disk, damaged: Damage
) -> None:
    assert _batches_kept(damaged(log, log.contents + tail(length))) in (BATCHES, None)


def test_a_flipped_bit_in_the_log_is_refused(log: Disk, damaged: Damage) -> None:
    """The one exception is named in storage/leveldb.py: there, the last batch is gone, and nothing else."""
    contents, chance = log.contents, random.Random(7)
    refused = 0
    for bit in chance.sample(range(8 * len(contents)), 200):
        path = damaged(log, _flipped(contents, bit))
        kept = _batches_kept(path)
        shutil.rmtree(path)
        assert kept in (None, BATCHES - 1)
        refused += kept is None
    assert refused >= 198


def test_a_flipped_bit_in_the_manifest_is_refused(table: Disk, damaged: Damage) -> None:
    (file,) = table.path.glob("MANIFEST-*")
    contents = file.read_bytes()
    for bit in random.Random(8).sample(range(8 * len(contents)), 100):
        path = damaged(Disk(table.path, file), _flipped(contents, bit))
        with pytest.raises(StorageFailed, match="cannot be opened"):
            LevelDBStore.open(path, DISK)
        shutil.rmtree(path)


FILLS_ITS_DISK = """
import resource, sys
from pathlib import Path
from quorumvault.errors import StorageFailed
from quorumvault.server.storage.leveldb import LevelDBStore

path = Path(sys.argv[1])
store = LevelDBStore.create(path, bytes(range(16)))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))   # Python ignores SIGXFSZ: a write beyond this gives EFBIG

def sizes():
    return {file.name: file.stat().st_size for file in path.iterdir()}

acknowledged = 0
try:
    while True:
        store.write({b"r%d" % acknowledged: bytes(3000)})
        acknowledged += 1
except StorageFailed as error:
    first = str(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))     # there is room again
full = sizes()
for _ in range(3):
    try:
        store.write({b"rlate": b""})
    except StorageFailed as error:
        assert str(error).startswith(first) and "nothing more is written" in str(error), error
    else:
        sys.exit("a write went through after one had failed")
assert sizes() == full
assert store.get([b"r0", b"rlate"]) == [bytes(3000), None]
print(acknowledged)
print(first)
"""


def test_after_a_failed_write_nothing_is_written_though_there_is_room_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FILLS_ITS_DISK, str(tmp_path / "store")]
    acknowledged, failure = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    assert f"{tmp_path}/store: cannot be written: IO error: " in failure
    assert "File too large" in failure
    with closing(LevelDBStore.open(tmp_path / "store", DISK)) as store:
        written = [b"r%d" % number for number in range(int(acknowledged))]
        assert store.get([*written, b"rlate"]) == [*[bytes(3000)] * len(written), None]
