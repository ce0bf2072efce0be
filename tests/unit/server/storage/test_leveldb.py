"""A store on disk is created, opened and written; refusals are in words that an operator can act on."""

import math
import os
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest

from quorumvault.errors import ConfigError, NoRoom, StorageFailed, StoreMissing
from quorumvault.server.storage import layout
from quorumvault.server.storage.binding import plyvel
from quorumvault.server.storage.leveldb import LevelDBStore

DISK = bytes(range(16))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a store that was created and closed."""
    LevelDBStore.create(tmp_path / "store", DISK).close()
    return tmp_path / "store"


@pytest.mark.parametrize("left", ["nothing", "a file", "another store"])
def test_nothing_is_written_to_files_that_are_not_there_any_more(path: Path, left: str) -> None:
    """LevelDB itself would go on writing to files that have no name. Proves: durable before acknowledged."""
    with closing(LevelDBStore.open(path, DISK)) as store:
        store.write({b"r1": b"a"})
        path.rename(path.with_name("away"))
        if left == "a file":
            path.write_bytes(b"")
        elif left == "another store":
            path.mkdir()
            (path / "LOCK").touch()
        with pytest.raises(StorageFailed, match="its files were removed, or replaced"):
            store.write({b"r2": b"b"})
        if left != "nothing":
            path.rename(path.with_name("other"))
        path.with_name("away").rename(path)
        store.write({b"r2": b"b"})
        assert store.get([b"r1", b"r2"]) == [b"a", b"b"]


def test_every_write_asks_for_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LevelDB does not sync unless asked, and only a power cut would show that. Proves: durable before acknowledged."""
    real, opened = plyvel.DB, list[mock.Mock]()

    def watched(*arguments: object, **options: object) -> mock.Mock:
        opened.append(mock.Mock(wraps=real(*arguments, **options), closed=False))
        return opened[-1]

    monkeypatch.setattr(plyvel, "DB", watched)
    store = LevelDBStore.create(tmp_path / "store", DISK)
    took: list[float] = []
    store.on_write = took.append
    store.write({b"r1": b"one"})
    store.close()
    assert [call.kwargs for db in opened for call in db.write_batch.call_args_list] == [{"sync": True}] * 2
    assert len(took) == 1
    assert took[0] > 0


@pytest.mark.parametrize("batch", [8, 64, 100, 128, 1000])
def test_batches_are_charged_for_few_of_their_look_ups_in_all_parts_of_the_keys(path: Path, batch: int) -> None:
    """LevelDB counts each ``get`` that touches two tables towards a compaction, but no seek of an iterator."""
    keys = [b"r%04d" % number for number in range(batch)]
    batches = 60_000 // batch
    with closing(LevelDBStore.open(path, DISK)) as store:
        store.write({keys[0]: b"one", b"s": b"follows them all"})
        store._db = watched = mock.Mock(wraps=store._db, closed=False)
        for _ in range(batches):
            assert store.get(keys) == [b"one", *[None] * (batch - 1)]
    charged = Counter(call.args[0] for call in watched.get.call_args_list)
    assert charged.total() == math.ceil(batch * batches / 257)
    tenths = [sum(charged[key] for key in keys[batch * tenth // 10 : batch * (tenth + 1) // 10]) for tenth in range(10)]
    assert batch < 10 or min(tenths) > 5


def test_few_look_ups_are_charged_each(path: Path) -> None:
    with closing(LevelDBStore.open(path, DISK)) as store:
        store._db = watched = mock.Mock(wraps=store._db, closed=False)
        assert store.get([b"r2", b"r1"]) == [None, None]
    assert watched.get.call_count == 2
    assert not watched.iterator.called


def test_the_name_of_a_new_store_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    LevelDBStore.create(tmp_path / "store", DISK).close()
    assert synced == [str(tmp_path)]


OPENS_AND_HOLDS = """
import sys
from contextlib import closing
from pathlib import Path
from quorumvault.server.storage.leveldb import LevelDBStore
store = LevelDBStore.open(Path(sys.argv[1]), bytes(range(16)))
print("open", flush=True)
sys.stdin.read()
"""


def test_a_store_that_another_process_has_open_is_a_matter_for_the_operator(path: Path) -> None:
    command = [sys.executable, "-c", OPENS_AND_HOLDS, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(ConfigError, match=f"{path}: expected to be the only process"):
            LevelDBStore.open(path, DISK)
        holder.communicate()
    LevelDBStore.open(path, DISK).close()


@pytest.mark.parametrize(
    ("reason", "refusal"),
    [
        ("Permission denied", ConfigError),
        ("No space left on device", NoRoom),
        ("Too many open files", ConfigError),
        ("Input/output error", StorageFailed),
    ],
)
def test_what_is_wrong_around_a_store_is_no_damage_to_it(
    reason: str, refusal: type[Exception], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **options: object) -> None:
        raise plyvel.IOError(f"IO error: {path}/000003.log: {reason}".encode())

    monkeypatch.setattr(plyvel, "DB", refuse)
    with pytest.raises(refusal, match=f"cannot be opened: IO error: .*{reason}"):
        LevelDBStore.open(path, DISK)


def test_opening_never_creates(tmp_path: Path) -> None:
    """Proves: disk identity."""
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        with pytest.raises(StoreMissing, match=f"{tmp_path}/{name}: there is no store"):
            LevelDBStore.open(tmp_path / name, DISK)
    assert os.listdir(tmp_path) == ["empty"]
    assert os.listdir(tmp_path / "empty") == []


@pytest.mark.parametrize(
    ("description", "refusal", "words"),
    [
        ({layout.DISK_KEY: b"\xff" * 16}, StorageFailed, f"the store of disk {DISK.hex()}, found that of disk {'ff' * 16}"),
        ({layout.FORMAT_KEY: b"\x02"}, ConfigError, "expected a store of format 01, found 02"),
    ],
)
def test_another_disks_store_and_another_versions_are_refused(
    path: Path, description: dict[bytes, bytes], refusal: type[Exception], words: str
) -> None:
    with closing(LevelDBStore.open(path, DISK)) as store:
        store.write(description)
    for _ in range(2):  # the first refusal closed the store again
        with pytest.raises(refusal, match=words):
            LevelDBStore.open(path, DISK)


def test_a_store_whose_creation_was_interrupted_is_refused(tmp_path: Path) -> None:
    plyvel.DB(str(tmp_path / "store"), create_if_missing=True).close()
    with pytest.raises(StorageFailed, match="creation was interrupted"):
        LevelDBStore.open(tmp_path / "store", DISK)


def test_creating_never_touches_what_is_there(tmp_path: Path) -> None:
    with closing(LevelDBStore.create(tmp_path / "store", DISK)) as store:
        store.write({b"r1": b"one"})
    (tmp_path / "empty").mkdir()
    for name in ("store", "empty"):
        with pytest.raises(ConfigError, match=f"{tmp_path}/{name}: expected to make a new store here: File exists"):
            LevelDBStore.create(tmp_path / name, b"\xff" * 16)
    with closing(LevelDBStore.open(tmp_path / "store", DISK)) as store:
        assert store.get([b"r1"]) == [b"one"]


def test_a_batch_that_cannot_be_put_together_is_not_written(path: Path) -> None:
    with closing(LevelDBStore.open(path, DISK)) as store:
        with pytest.raises(TypeError):
            store.write({b"r1": b"one", b"r2": None})  # type: ignore[dict-item]
        assert store.get([b"r1", b"r2"]) == [None, None]
        store.write({b"r1": b"one"})
        assert store.get([b"r1"]) == [b"one"]
