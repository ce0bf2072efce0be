"""The log reader compared with LevelDB: LevelDB's logs are whole, a crash leaves a tail, and damage before it is reported."""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quorumvault.errors import StoreCorrupt
from quorumvault.server.storage.binding import plyvel
from quorumvault.server.storage.leveldb_log import BLOCK_BYTES, LogScan, scan_log, scan_logs

PAGE = 4096


@dataclass(frozen=True)
class Written:
    """A log that LevelDB wrote, and the offsets at which its batches end."""

    log: bytes
    ends: tuple[int, ...]


@cache
def written(sizes: tuple[int, ...], place: Path) -> Written:
    directory = place / "-".join(map(str, sizes))
    ends = []
    with plyvel.DB(str(directory), create_if_missing=True) as db:
        chance = random.Random(1)
        for number, size in enumerate(sizes):
            with db.write_batch(sync=True) as batch:
                batch.put(b"a%d" % number, b"")
                batch.put(b"b%d" % number, chance.randbytes(size))
            (log,) = directory.glob("*.log")
            ends.append(log.stat().st_size)
        data = log.read_bytes()
    shutil.rmtree(directory)
    return Written(data, tuple(ends))


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Written]:
    place = tmp_path_factory.mktemp("logs")
    return lambda *sizes: written(sizes, place)


def whole_scan(one: Written, batches: int) -> LogScan:
    """The scan of the whole log: each batch has two entries."""
    return LogScan(len(one.log), len(one.log), batches, 1, 2 * batches, None)


Make = Callable[..., Written]
#: Small batches; batches that end at, just before or just after the end of a block; and batches over many blocks.
sizes = st.integers(0, 300) | st.integers(BLOCK_BYTES - 60, BLOCK_BYTES + 60) | st.integers(0, 5 * BLOCK_BYTES)
same_place = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@same_place
@given(st.lists(sizes, max_size=6))
def test_what_leveldb_wrote_is_whole(make: Make, wanted: list[int]) -> None:
    one = make(*wanted, 10)
    assert scan_log(one.log) == whole_scan(one, len(wanted) + 1)


@same_place
@given(st.lists(sizes, max_size=3), sizes, st.data())
def test_whatever_is_left_of_the_last_batch_the_earlier_ones_end_where_they_did(
    make: Make, earlier: list[int], last: int, data: st.DataObject
) -> None:
    """Pages of the last batch are there, are zeros, or are what the disk had before. The file may also be shorter."""
    one = make(*earlier, 10, last)
    start = one.ends[-2]
    torn = bytearray(one.log)
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    for page in range(start - start % PAGE, len(torn), PAGE):
        first, end = max(page, start), min(page + PAGE, len(torn))
        fate = data.draw(st.sampled_from(["there", "zeros", "garbage"]))
        if fate != "there":
            torn[first:end] = bytes(end - first) if fate == "zeros" else chance.randbytes(end - first)
    del torn[data.draw(st.integers(start, len(torn))) :]
    scan = scan_log(bytes(torn))
    if torn == one.log:
        assert scan == whole_scan(one, len(earlier) + 2)
    else:
        assert (scan.whole, scan.batches) == (start, len(earlier) + 1)
        assert scan.torn_entries in (None, 2)


@same_place
@given(st.lists(sizes, min_size=1, max_size=4), st.integers(0, 400), st.data())
def test_damage_before_a_later_batch_is_told(make: Make, wanted: list[int], last: int, data: st.DataObject) -> None:
    one = make(*wanted, last)
    at = data.draw(st.integers(0, one.ends[-2] - 1))
    before = max((end for end in (0, *one.ends) if end <= at), default=0)
    if BLOCK_BYTES - before % BLOCK_BYTES < 7 and at < before + BLOCK_BYTES - before % BLOCK_BYTES:
        return  # in the unused bytes at the end of a block, which nobody reads
    damaged = bytearray(one.log)
    damaged[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StoreCorrupt, match=f"behind its first {before} bytes"):
        scan_log(bytes(damaged))


def test_the_beginning_of_a_torn_batch_says_how_large_it_was(make: Make) -> None:
    one = make(10, 100_000)
    assert scan_log(one.log[: 2 * BLOCK_BYTES]) == LogScan(2 * BLOCK_BYTES, one.ends[0], 1, 1, 2, 2)
    assert scan_log(one.log[: one.ends[0] + 20]).torn_entries is None


def test_an_older_log_that_the_disk_had_there_before_is_no_later_batch(make: Make) -> None:
    """On file systems that do not clear blocks, a file that has grown shows what its blocks had in them before."""
    one = make(10, 10, 10)
    assert scan_log(one.log + one.log[: one.ends[1]]) == LogScan(len(one.log) + one.ends[1], len(one.log), 3, 1, 6, None)


def test_a_later_batch_is_found_wherever_it_begins(make: Make) -> None:
    """A changed length misleads the reader from there on, although what follows is as it was written."""
    one = make(10, 10, 10, 10)
    for byte in (4, 5):
        astray = bytearray(one.log)
        astray[one.ends[0] + byte] ^= 0x40
        with pytest.raises(StoreCorrupt, match="damaged in the middle"):
            scan_log(bytes(astray))


def test_a_log_without_a_batch(make: Make) -> None:
    assert scan_log(b"") == LogScan(0, 0, 0, 0, 0, None)
    assert scan_log(bytes(50)) == LogScan(50, 0, 0, 0, 0, None)
    one = make(10)
    assert scan_log(one.log[:-1]) == LogScan(len(one.log) - 1, 0, 0, 0, 0, None)
    with pytest.raises(StoreCorrupt):
        scan_log(b"\0" * 9 + make(10, 10).log)


@pytest.mark.parametrize("kind", [2, 3, 4])
def test_pieces_that_do_not_follow_each_other_end_what_is_whole(make: Make, kind: int) -> None:
    """A last piece without its first, or a first piece without a last before the next batch, made from LevelDB's own records."""
    pieces = make(10, 100_000)
    first, second = pieces.log[: pieces.ends[0]], pieces.log[BLOCK_BYTES : 2 * BLOCK_BYTES]
    last = pieces.log[3 * BLOCK_BYTES :]
    tails = {2: pieces.log[pieces.ends[0] : BLOCK_BYTES], 3: bytes(BLOCK_BYTES - len(first)) + second,
             4: bytes(BLOCK_BYTES - len(first)) + last}  # fmt: skip
    assert scan_log(first + tails[kind]).whole == len(first)


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Path]:
    def write(**logs: bytes) -> Path:
        for name, content in logs.items():
            (tmp_path / f"{name.removeprefix('log')}.log").write_bytes(content)
        return tmp_path

    return write


def split(one: Written, batches: int) -> tuple[bytes, bytes]:
    """Split the log, as if LevelDB had gone on in a second log after the first ``batches`` of these small batches."""
    return one.log[: one.ends[batches - 1]], one.log[one.ends[batches - 1] :]


def test_logs_are_read_in_the_order_of_their_numbers(make: Make, store: Callable[..., Path]) -> None:
    first, second = split(make(10, 10, 10), 1)
    (older, scan), (newer, later) = scan_logs(store(log000100=second, log000009=first))
    assert (older.name, newer.name) == ("000009.log", "000100.log")
    assert (scan.first, scan.last, later.first, later.last) == (1, 2, 3, 6)


def test_a_tail_that_was_torn_before_the_next_log_was_begun_is_no_damage(make: Make, store: Callable[..., Path]) -> None:
    """A crash cut the log short, the store was opened and written to, and the older log was not removed, or is back."""
    first, second = split(make(10, 10, 10), 1)
    (_, scan), (_, later) = scan_logs(store(log000009=first + b"torn", log000010=b"", log000011=second))[::2]
    assert (scan.torn, later.torn) == (4, 0)


Damage = Callable[[Written], dict[str, bytes]]
#: Logs of three batches that are damaged in the middle, and the message for each.
DAMAGES: dict[str, tuple[Damage, str]] = {
    "a batch is missing between two logs": (
        lambda one: {"log000009": one.log[: one.ends[1] - 1] + b"?", "log000010": split(one, 2)[1]},
        "what follows its first {0} bytes is damaged",
    ),
    "no batch is left before a later log": (lambda one: {"log000009": split(one, 1)[0][:-1], "log000010": split(one, 1)[1]}, ""),
    "in one log": (lambda one: {"log000009": one.log[:20] + b"?" + one.log[21:]}, "a log is damaged in the middle"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_in_the_middle_names_the_log(make: Make, store: Callable[..., Path], name: str) -> None:
    one, (damage, words) = make(10, 10, 10), DAMAGES[name]
    with pytest.raises(StoreCorrupt, match=rf"000009\.log: {words.format(one.ends[0])}"):
        scan_logs(store(**damage(one)))
