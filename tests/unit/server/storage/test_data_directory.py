"""A node's disk at start: trusted, lost, or left to the operator; and a new disk in place of a lost one, despite crashes."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from quorumvault.config.cluster import NodeConfig, load_node
from quorumvault.errors import ConfigError, NoRoom, StorageFailed
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.protocol.views import Mode
from quorumvault.server.storage import data_directory, layout
from quorumvault.server.storage.binding import plyvel
from quorumvault.server.storage.data_directory import (
    IDENTITY_FILE,
    MOST_QUARANTINED,
    PUT_BACK,
    STORE_DIRECTORY,
    UNTRUSTED_FILE,
    create_replacement,
    mark_untrusted,
    open_disk,
    remove_quarantined,
    why_untrusted,
)
from quorumvault.server.storage.disk_identity import DiskIdentity, read_identity, write_identity
from quorumvault.server.storage.leveldb import UNREADABLE, LevelDBStore
from quorumvault.server.storage.set_aside import open_donor
from quorumvault.server.storage.store import CORRUPT, Corrupt
from tests.rigs.made import made


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    return load_node(made(tmp_path / "vault") / "cluster.yaml", "n2")


@pytest.fixture
def identity(config: NodeConfig) -> DiskIdentity:
    return identity_on(config)


def identity_on(config: NodeConfig) -> DiskIdentity:
    found = read_identity(config.data_directory / IDENTITY_FILE)
    assert found is not None
    return found


def trusted(config: NodeConfig) -> bool:
    return not (config.data_directory / UNTRUSTED_FILE).exists()


def started(config: NodeConfig) -> data_directory.NodeDisk:
    """Open the node's disk, and close it again."""
    disk = open_disk(config)
    if disk.store is not None:
        disk.store.close()
    return disk


def tear(config: NodeConfig) -> None:
    """Damage the store, and start the node: its process ends."""
    (config.data_directory / STORE_DIRECTORY / "CURRENT").write_text("nothing")
    with pytest.raises(StorageFailed):
        open_disk(config)


def replaced(config: NodeConfig) -> data_directory.NodeDisk:
    """Provide a new disk for a lost one. Return what the next start finds."""
    lost = started(config)
    assert lost.replaceable
    identity, store = create_replacement(config, lost.identity)
    store.close()
    assert (identity.disk, identity.mode, identity.view, identity.incarnation) == (lost.identity.disk, Mode.JOINING, None, 1)
    return started(config)


def test_a_whole_disk_is_what_it_was_and_a_start_older(config: NodeConfig, identity: DiskIdentity) -> None:
    disk = started(config)
    assert (disk.identity, disk.problem, disk.replaceable) == (replace(identity, incarnation=1), None, False)


def test_a_store_that_does_not_open_ends_the_process_and_is_lost_from_the_next_start_on(
    config: NodeConfig, identity: DiskIdentity
) -> None:
    tear(config)
    lost = started(config)
    assert (lost.store, lost.identity.mode, lost.identity.view, lost.replaceable) == (None, Mode.JOINING, None, True)
    # Until others are there to copy from, all that the disk had stays where it was.
    assert identity_on(config) == identity
    assert (config.data_directory / STORE_DIRECTORY / "CURRENT").read_text() == "nothing"


def test_a_lost_disk_s_store_is_set_aside_for_an_empty_one_under_a_new_id(config: NodeConfig) -> None:
    """Proves: a lost disk gets a new identity."""
    tear(config)
    fresh = replaced(config)
    assert fresh.store is not None
    assert (fresh.identity.mode, fresh.identity.view, fresh.identity.incarnation) == (Mode.JOINING, None, 2)
    assert (config.data_directory / "store.set-aside-1" / "CURRENT").read_text() == "nothing"
    assert trusted(config)


def test_a_store_that_is_gone_is_lost_at_once(config: NodeConfig) -> None:
    (config.data_directory / STORE_DIRECTORY).rename(config.data_directory / "elsewhere")
    assert replaced(config).store is not None
    assert not (config.data_directory / "store.set-aside-1").exists()


def test_what_was_found_at_run_time_counts_at_the_next_start(config: NodeConfig) -> None:
    mark_untrusted(config.data_directory, "a register cannot be read")
    lost = started(config)
    assert lost.replaceable
    assert "a register cannot be read" in str(lost.problem)


def test_without_room_to_salvage_a_store_it_is_left_until_there_is(config: NodeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    mark_untrusted(config.data_directory, UNREADABLE)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
        with pytest.raises(NoRoom, match=r"needs [1-9].* bytes; 1 are free: make room"):
            started(config)
    assert not trusted(config)
    assert started(config).store is not None
    assert trusted(config)


def test_the_name_of_a_data_directory_is_no_cause(tmp_path: Path) -> None:
    directory = tmp_path / "checksum" / "n1"
    directory.mkdir(parents=True)
    mark_untrusted(directory, f"{directory}/store: the store cannot be read: Corruption: {directory}/store/000005.ldb: no table")
    untrusted = why_untrusted(directory)
    assert untrusted is not None
    assert not untrusted.causes
    assert untrusted.words == "store: the store cannot be read: Corruption: store/000005.ldb: no table"


@pytest.mark.parametrize("why", ["for the test", UNREADABLE])
@pytest.mark.parametrize("step", ["write_identity", "quarantine", "durable.sync_directory", "raise_incarnation"])
def test_a_crash_while_the_disk_is_replaced_leaves_it_lost_or_replaced(
    config: NodeConfig, step: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(config, layout.register_key(b"an owner's id..."), b"no register, so that it is not salvaged")
    mark_untrusted(config.data_directory, why)
    lost = started(config)

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(f"{data_directory.__name__}.{step}", crash)
        with pytest.raises(Crash):
            create_replacement(config, lost.identity)
    after = started(config)
    if after.store is None:
        assert after.replaceable
        after = replaced(config)
    assert (after.identity.mode, after.identity.view) == (Mode.JOINING, None)
    assert after.store is not None


def test_a_torn_store_tells_what_it_remembers_and_gives_what_it_has_as_a_donor(config: NodeConfig) -> None:
    """Proves: rollback marks.

    If the third node was away, only this node knows that another disk was put back. It says so before it has a new disk.
    Later, the old disk is read around the torn part.
    """
    other, store = b"o" * 16, config.data_directory / STORE_DIRECTORY
    _write(config, b"rin a table", b"value")
    _write(config, layout.mark_key(other), layout.encode_mark(Mark(3, 14)))
    _write(config, b"rin the log", b"value")
    log = max(store.glob("*.log"), key=lambda path: int(path.stem))
    with log.open("ab") as file:
        file.write(b"\1\2\3\4\x64\0\1" + bytes(range(100)))
    with pytest.raises(StorageFailed):
        open_disk(config)
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    lost = started(config)
    assert (lost.store, lost.replaceable, lost.remembered) == (None, True, {other: Mark(3, 14)})
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before
    with ExitStack() as ending:
        in_place = open_donor(config, ending)
        assert in_place is not None
        create_replacement(config, lost.identity)[1].close()
        assert in_place[1].get([b"rin a table", b"rin the log"]) == [b"value", b"value"]
    with ExitStack() as ending:
        found = open_donor(config, ending)
        assert found is not None
        assert found[1].get([b"rin a table", b"rin the log"]) == [b"value", b"value"]
    assert not list(config.data_directory.glob("reading-*"))


@pytest.mark.parametrize(("why", "known"), [(PUT_BACK, True), ("IO error: store/000005.ldb: Input/output error", False)])
def test_a_start_changes_nothing_in_a_store_that_is_not_trusted(config: NodeConfig, why: str, known: bool) -> None:
    """Nor does the start read from a device that cannot be read, which could end the process at each start."""
    other, store = b"o" * 16, config.data_directory / STORE_DIRECTORY
    _write(config, layout.mark_key(other), layout.encode_mark(Mark(3, 14)))
    mark_untrusted(config.data_directory, why)
    (config.data_directory / "reading-store").mkdir()
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    assert started(config).remembered == ({other: Mark(3, 14)} if known else {})
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before
    assert not list(config.data_directory.glob("reading-*"))


def test_a_lost_store_that_cannot_be_read_remembers_nothing(config: NodeConfig) -> None:
    tear(config)
    assert started(config).remembered == {}


def test_a_store_whose_fingerprint_of_the_secret_is_corrupt_is_distrusted(
    config: NodeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LevelDBStore.get
    key = layout.secret_key(config.cluster.secrets.master.id)

    def get(store: LevelDBStore, keys: Sequence[bytes]) -> list[bytes | Corrupt | None]:
        return [CORRUPT if list(keys) == [key] else value for value in real(store, keys)]

    monkeypatch.setattr(LevelDBStore, "get", get)
    with pytest.raises(StorageFailed, match="fingerprint"):
        open_disk(config)
    assert "fingerprint" in (config.data_directory / UNTRUSTED_FILE).read_text()


def test_no_identity_is_for_the_operator(config: NodeConfig) -> None:
    """Proves: disk identity."""
    (config.data_directory / IDENTITY_FILE).unlink()
    disk = started(config)
    assert (disk.store, disk.replaceable) == (None, False)
    assert "--replace n2" in str(disk.problem)
    assert not (config.data_directory / IDENTITY_FILE).exists()


def _opened(config: NodeConfig) -> closing[LevelDBStore]:
    return closing(LevelDBStore.open(config.data_directory / STORE_DIRECTORY, identity_on(config).disk))


def _write(config: NodeConfig, key: bytes, value: bytes) -> None:
    with _opened(config) as store:
        store.write({key: value})


SLIPS: dict[str, Callable[[NodeConfig, Path], object]] = {
    "another cluster": lambda config, file: write_identity(file, replace(identity_on(config), cluster_id="another")),
    "another secret": lambda config, file: _write(config, layout.secret_key(config.cluster.secrets.master.id), b"another"),
    "a later format": lambda config, file: _write(config, layout.FORMAT_KEY, bytes([layout.STORE_FORMAT + 1])),
    "an unreadable identity": lambda config, file: file.write_text("{"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_what_an_operator_has_to_mend_is_no_reason_to_give_up(config: NodeConfig, slip: str) -> None:
    SLIPS[slip](config, config.data_directory / IDENTITY_FILE)
    for _ in range(2):
        with pytest.raises(ConfigError):
            open_disk(config)
    assert trusted(config)


@pytest.mark.parametrize("when", ["open", "first write"])
def test_a_full_disk_keeps_its_trust(config: NodeConfig, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first write records the fingerprint of the master secret, in a new store or when the secret is another one."""

    def cannot_write(store: LevelDBStore, puts: object) -> None:
        raise StorageFailed("store: cannot be written: IO error: 000005.log: No space left on device; nothing more is written")

    def cannot_open(*_: object, **options: object) -> None:
        raise plyvel.IOError(b"IO error: store/000007.log: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(*((plyvel, "DB", cannot_open) if when == "open" else (LevelDBStore, "write", cannot_write)))
        with pytest.raises(StorageFailed, match="No space left"):
            open_disk(config)
    assert trusted(config)
    assert started(config).store is not None


def test_a_store_that_another_process_has_open_is_not_given_up(config: NodeConfig) -> None:
    with _opened(config), pytest.raises(ConfigError, match="another one has it"):
        open_disk(config)
    assert trusted(config)


def test_a_disk_that_spoils_one_store_after_the_other_is_for_the_operator(config: NodeConfig, identity: DiskIdentity) -> None:
    for number in range(MOST_QUARANTINED):
        write_identity(config.data_directory / IDENTITY_FILE, replace(identity, mode=Mode.ACTIVE))
        mark_untrusted(config.data_directory, f"rot {number}")
        assert replaced(config).store is not None
    mark_untrusted(config.data_directory, "rot again")
    disk = started(config)
    assert not disk.replaceable
    assert "look at the disk" in str(disk.problem)


def test_a_store_that_never_was_whole_is_not_kept_and_others_until_the_node_is_whole(config: NodeConfig) -> None:
    for reason in ("rot", "rot again, while it joined"):
        mark_untrusted(config.data_directory, reason)
        replaced(config)
        assert [path.name for path in config.data_directory.glob("store*")] == ["store", "store.set-aside-1"]
    remove_quarantined(config.data_directory)
    assert [path.name for path in config.data_directory.glob("store*")] == ["store"]


def test_a_disk_that_takes_nothing_any_more_is_distrusted_in_words_only(tmp_path: Path) -> None:
    mark_untrusted(tmp_path / "gone", "for the test")
    assert list(tmp_path.iterdir()) == []
