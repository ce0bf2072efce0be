"""Damage to a node's disk, done while its process is down.

A store's files are found by their names, as on any LevelDB: ``n.log`` is the write-ahead log, ``n.ldb`` are tables. Whatever is
damaged here can be put right again, but for ``lose``: its node gets a new disk.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from chaos.testbed.host import Unavailable, flip_bits, move_all

#: LevelDB reads its log by blocks. A bit that flips in the last one, in a record's length, looks like a write that a crash has
#: cut short, so that whole batches are gone and nobody can tell: known, and documented (storage/leveldb.py). The blocks before
#: it have no excuse.
_LOG_BLOCK = 32 * 1024
#: A node's tables are read, and their checksums verified, in blocks of so many bytes.
_TABLE_BLOCK = 2 * 1024
_FILL_CHUNK = 4096

#: Puts right what was done; the words say how. It may be called once, with the node down.
Undo = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Damage:
    words: str
    undo: Undo


def flip_table(store: Path, rng: Random) -> Damage:
    """Flips up to three bits of one table, or one in each block of a stretch in its middle, where the records are.

    Raises Unavailable if there is no table.
    """
    tables = sorted(path for path in store.glob("*.ldb") if path.stat().st_size)
    if not tables:
        raise Unavailable("the store has no table yet")
    (table,) = rng.choices(tables, [path.stat().st_size for path in tables])
    size = table.stat().st_size
    if rng.random() < 0.5:
        return _flip(table, [rng.randrange(size) for _ in range(rng.randint(1, 3))], rng)
    first = int(size * rng.uniform(0.1, 0.5))
    return _flip(table, range(first, first + size // 3, _TABLE_BLOCK // 2), rng)


def flip_log(store: Path, rng: Random, since: int = 0) -> Damage:
    """Flips one bit of the log, from byte ``since`` on and before its last block. Raises Unavailable if nothing is there."""
    log = _log(store)
    whole = log.stat().st_size // _LOG_BLOCK * _LOG_BLOCK
    if whole <= since:
        raise Unavailable("the log is shorter than a block")
    return _flip(log, [rng.randrange(since, whole)], rng)


def logged(store: Path) -> int:
    """Bytes of its log."""
    return _log(store).stat().st_size


def tear_log(store: Path, rng: Random) -> Damage:
    """Appends what a crash leaves of a write, behind all that was acknowledged: zeros, garbage, or half of a record."""
    log = _log(store)
    length = log.stat().st_size
    half_a_record = rng.randbytes(4) + (500).to_bytes(2, "little") + b"\x01" + rng.randbytes(100)
    what, tail = rng.choice((("zeros", bytes(300)), ("garbage", rng.randbytes(200)), ("half a record", half_a_record)))
    with log.open("ab") as file:
        file.write(tail)

    def cut() -> None:
        if log.exists():  # a node that opened it has made a table of it, and begun another one
            os.truncate(log, length)

    return Damage(f"{len(tail)} bytes at the end of {log.name}: {what}", cut)


def empty(data: Path) -> None:
    for path in data.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def lose(data: Path) -> Damage:
    """Empties the data directory, for good."""
    empty(data)
    return Damage("its data directory is empty", lambda: None)


def take_away(data: Path) -> Damage:
    """Empties the data directory, as if its volume were not mounted. Undone, it is as before; what came meanwhile is gone."""
    away = data.with_name(f"{data.name}.away")
    move_all(data, away)

    def put_back() -> None:
        empty(data)
        move_all(away, data)
        away.rmdir()

    return Damage("its data directory is empty", put_back)


def fill(data: Path) -> Damage:
    """Fills the file system of a node's data, to the last byte."""
    ballast = data / "ballast"
    with ballast.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):  # its node takes some meanwhile
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(data).free)
        file.seek(0, os.SEEK_END)
        with contextlib.suppress(OSError):
            while file.write(bytes(_FILL_CHUNK)):
                pass
    return Damage("its disk is full", lambda: ballast.unlink(missing_ok=True))


def _log(store: Path) -> Path:
    logs = sorted(store.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)
    if not logs:
        raise Unavailable("the store has no log")
    return logs[-1]


def _flip(path: Path, offsets: Sequence[int], rng: Random) -> Damage:
    masks = {offset: 1 << rng.randrange(8) for offset in offsets}
    length = path.stat().st_size

    def flip_back() -> None:
        if path.exists() and path.stat().st_size == length:
            flip_bits(path, masks.items())

    flip_bits(path, masks.items())
    places = f"at {min(masks)}" if len(masks) == 1 else f"at {len(masks)} places from {min(masks)} to {max(masks)}"
    return Damage(f"bits flip in {path.name}, {places} of {length} bytes", flip_back)
