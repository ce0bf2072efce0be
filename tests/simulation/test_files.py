"""Data directories in the simulator: what a crash leaves in them, and what a start has to find."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from chaos.testbed.violation import Violation
from quorumvault import durable
from quorumvault.config.cluster import NodeConfig, load_node
from quorumvault.server.storage.data_directory import STORE_DIRECTORY, open_disk
from quorumvault.server.storage.disk_identity import DiskIdentity
from tests.rigs.made import made
from tests.rigs.undone.files import written_in_place
from tests.simulation.data_directories import FilesDisk
from tests.simulation.file_faults import KINDS
from tests.simulation.files import filing
from tests.simulation.power_cuts import PowerCut, PowerCuts

SEEDS = range(18)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> NodeConfig:
    return load_node(made(tmp_path_factory.mktemp("simulated") / "vault") / "cluster.yaml", "n2")


def opened(config: NodeConfig, dice: int, before: FilesDisk | None = None) -> FilesDisk:
    """Opens the disk by a start that checks what it finds against ``before``."""
    found = open_disk(config)
    assert found.store is not None
    if before is None:
        disk = FilesDisk(config, found.identity, Random(dice))
        disk.take(found.store, found.identity)
        return disk
    before.opened(found.store, found.identity)
    return before


def test_a_crash_leaves_what_was_synced_and_of_the_rest_as_much_as_got_there(config: NodeConfig) -> None:
    left = set()
    for dice in SEEDS:
        disk = opened(config, dice)
        disk.write({b"r1": b"%d" % dice})
        disk.sync()
        disk.write({b"r2": b"%d" % dice})
        disk.write({b"r3": b"%d" % dice}, [b"r1"])
        disk.crash(keeps=dice % 3 == 0)
        disk = opened(config, dice, disk)
        one, two, three = disk.get([b"r1", b"r2", b"r3"])
        mine = b"%d" % dice
        left.add((one == mine, two == mine, three == mine))
        disk.close()
    assert left == {(True, False, False), (True, True, False), (False, True, True)}


@pytest.mark.parametrize("cut", [1, 20])
def test_a_start_that_does_not_find_what_was_synced_is_noticed(config: NodeConfig, cut: int) -> None:
    disk = opened(config, 0)
    disk.write({b"r4": b"four"})
    disk.sync()
    disk.crash(keeps=True)
    log = disk.logs[-1]
    durable.extend(log, log.stat().st_size - cut)
    found = open_disk(config)
    assert found.store is not None
    with closing(found.store), pytest.raises(Violation, match="something else than was synced: 1 gone"):
        disk.opened(found.store, found.identity)


def test_an_identity_of_before_is_noticed(config: NodeConfig) -> None:
    disk = opened(config, 0)
    before: DiskIdentity = disk.identity
    disk.close()
    found = open_disk(config)
    assert found.store is not None
    with closing(found.store), pytest.raises(Violation, match="identity"):
        disk.opened(found.store, before)


def contents_after(write: Callable[[Path, bytes], None], path: Path) -> set[bytes]:
    """The possible contents of a file when power fails while a new content is written: at each step, a few times each."""
    found = set()
    for step in range(8):
        for dice in range(12):
            path.write_bytes(b"the old one")
            try:
                with PowerCuts(step, Random(dice)).wired():
                    write(path, b"the new one, which is longer")
            except PowerCut:
                pass
            found.add(path.read_bytes())
    return found


def test_a_replaced_file_is_the_old_or_the_new_one_whenever_the_power_fails(tmp_path: Path) -> None:
    path = tmp_path / "disk.json"
    assert contents_after(durable.replace, path) == {b"the old one", b"the new one, which is longer"}
    assert len(contents_after(written_in_place, path)) > 3


def set_aside(store: Path, rng: Random) -> None:
    """Power fails before the names are synced."""
    with PowerCuts(2, rng).wired():
        store.rename(store.with_name("aside"))
        store.with_name("fresh").mkdir()
        durable.sync_directory(store.parent)


def test_names_are_as_before_until_their_directory_is_synced(tmp_path: Path) -> None:
    store = tmp_path / STORE_DIRECTORY
    found = set()
    for dice in range(12):
        store.mkdir()
        with pytest.raises(PowerCut):
            set_aside(store, Random(dice))
        found.add(tuple(sorted(path.name for path in tmp_path.iterdir())))
        for path in tmp_path.iterdir():
            path.rmdir()
    assert found == {("store",), ("aside",), ("aside", "fresh")}


def test_all_that_may_happen_to_files_does() -> None:
    assert {fault.kind for seed in range(1, 30) for fault in filing(seed).faults} > KINDS.keys()
