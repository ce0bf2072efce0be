"""Disks that fill up under running nodes and have room again, logs torn by a power cut, and the loss of two disks at once."""

import json
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import combinations
from pathlib import Path

import pytest

from chaos.testbed.cluster import NODES, Cluster, check, run, wait_for
from tests.rigs import clusters

MiB = 1 << 20
FLOOR = 24 * MiB


@pytest.fixture
def idle_cluster(made: Cluster) -> Cluster:
    """A cluster that is not started yet. Its free-space floor is low enough for a small disk."""
    with (made.directory / "cluster.yaml").open("a") as file:
        file.write(f"\nlimits:\n  free_space_floor: {FLOOR}\n")
    return made


class ToldDisk:
    """A node's disk whose free space is read from a file."""

    def __init__(self, cluster: Cluster, node: str) -> None:
        self._told = cluster.directory / f"{node}.free"
        self.empty()
        usual, cluster.command_line = cluster.command_line, (sys.executable, "-m", "tests.rigs.roomy", str(self._told))
        cluster.start(node)
        cluster.command_line = usual

    def fill(self) -> None:
        self._tell(FLOOR - 1)

    def empty(self) -> None:
        self._tell(1 << 40)

    def _tell(self, free: int) -> None:
        """Replaces the file atomically, because the node may read it at any moment."""
        fresh = self._told.with_suffix(".new")
        fresh.write_text(str(free))
        fresh.replace(self._told)


class SmallDisk:
    """A node's disk that really is small: an in-memory file system, with a file in it that takes up the space."""

    SIZE = 80 * MiB

    def __init__(self, cluster: Cluster, node: str) -> None:
        self._place = cluster.directory / node
        self._ballast = self._place / "ballast"
        cluster.start(node)

    @classmethod
    @contextmanager
    def mounted(cls, cluster: Cluster, node: str) -> Iterator[None]:
        """Moves the node's data onto the small disk until the block ends."""
        place, aside = cluster.directory / node, cluster.directory / f"{node}.aside"
        place.rename(aside)
        place.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={cls.SIZE}", "none", str(place)], check=True)
        try:
            shutil.copytree(aside, place, dirs_exist_ok=True)
            yield
        finally:
            cluster.close()
            subprocess.run(["umount", str(place)], check=True)

    def fill(self) -> None:
        free = shutil.disk_usage(self._place).free
        self._ballast.write_bytes(bytes(max(0, free - FLOOR + MiB)))

    def empty(self) -> None:
        self._ballast.unlink()


def may_mount(place: Path) -> bool:
    """Root in a container may not be allowed to mount."""
    if os.geteuid() != 0:
        return False
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], capture_output=True, check=False).returncode != 0:
        return False
    subprocess.run(["umount", str(place)], check=True)
    return True


def test_a_full_disk_refuses_and_the_cluster_serves_until_there_is_room_again(idle_cluster: Cluster, tmp_path: Path) -> None:
    """Where no file system can be mounted, a file reports the disk to be full."""
    cluster, acknowledged = idle_cluster, clusters.Acknowledged()
    small = may_mount(tmp_path)
    with SmallDisk.mounted(cluster, "n3") if small else nullcontext():
        disk = SmallDisk(cluster, "n3") if small else ToldDisk(cluster, "n3")
        cluster.bring_up("n1", "n2")
        pid = cluster.pid("n3")
        with clusters.streaming(cluster, acknowledged) as progress:
            clusters.passes(progress)
            disk.fill()
            assert wait_for(lambda: cluster.state("n3") == "full", 20)
            assert wait_for(lambda: clusters.health(cluster, "n1").body["peers"]["n3"].get("state") == "full", 20)
            clusters.passes(progress, 30)
        warned = clusters.health(cluster, "n3").body
        assert (warned["status"], warned["quorum"]["reachable"]) == ("degraded", 3)
        assert any(words.startswith("disk full: ") for words in warned["warnings"])
        assert "n3 refuses writes: disk full" in clusters.health(cluster, "n1").body["warnings"]
        for node in NODES:
            clusters.resolves(cluster, node, acknowledged.tokens)
        disk.empty()
        assert wait_for(lambda: cluster.state("n3") == "active", 20)
        cluster.kill("n1")
        cluster.wait_ready("n2", "n3")
        again = [f"after {n}" for n in range(20)]
        acknowledged.tokenize(cluster, "n3", again)
        assert cluster.pid("n3") == pid
        kinds = [event["event"] for event in clusters.events(cluster, "n3") if event["event"].startswith("disk_")]
        assert [kind == "disk_full" for kind in kinds] == [True, False]
        cluster.kill("n2", "n3")
        cluster.bring_up()
        clusters.through_each_pair(cluster, lambda node: clusters.resolves(cluster, node, acknowledged.tokens))


def tear(cluster: Cluster, node: str, chance: random.Random) -> None:
    """Leaves what a power cut leaves of an unfinished write: its beginning, followed by whatever the disk held there before."""
    log = max((cluster.directory / node / "store").glob("*.log"), key=lambda path: int(path.stem))
    with log.open("ab") as file:
        file.write(struct.pack("<IHB", chance.getrandbits(32), 200, 1) + chance.randbytes(200 + chance.randrange(5_000)))


def test_after_a_power_cut_that_tore_one_log_that_node_rejoins_by_itself(own_cluster: Cluster) -> None:
    cluster, acknowledged = own_cluster, clusters.Acknowledged()
    with clusters.streaming(cluster, acknowledged) as progress:
        clusters.passes(progress)
        cluster.kill()
    tear(cluster, "n3", random.Random(3))
    cluster.start()
    assert cluster.nodes["n3"].require_process().wait(20) == 3
    cluster.wait_ready("n1", "n2")
    cluster.start("n3")
    assert wait_for(lambda: cluster.state("n3") == "active", 60)
    cluster.wait_ready(reachable=3)
    clusters.through_each_pair(cluster, lambda node: clusters.resolves(cluster, node, acknowledged.tokens))


def test_a_node_whose_data_directory_is_removed_ends_and_is_not_called_healthy(own_cluster: Cluster) -> None:
    """No client writes here: the node has to notice by itself, or its process would keep the removed files open for ever."""
    cluster = own_cluster
    tokens = clusters.filled(cluster, 1).tokens
    shutil.rmtree(cluster.nodes["n2"].data)
    assert cluster.nodes["n2"].require_process().wait(20) == 3
    cluster.replace_disk("n2")
    cluster.start("n2")
    cluster.wait_ready(reachable=3)
    clusters.through_each_pair(cluster, lambda node: clusters.resolves(cluster, node, tokens))


@pytest.mark.parametrize("torn", [("n1", "n2"), NODES])
def test_after_a_power_cut_that_tore_logs_the_cluster_is_recovered_and_nothing_acknowledged_is_lost(
    own_cluster: Cluster, torn: tuple[str, ...]
) -> None:
    """Too few intact stores remain to copy from. The nodes report this and wait across restarts, until an operator recovers."""
    cluster, acknowledged, chance = own_cluster, clusters.Acknowledged(), random.Random(1)
    with clusters.streaming(cluster, acknowledged) as progress:
        clusters.passes(progress)
        cluster.kill("n1")
        clusters.passes(progress)
        cluster.start("n1")
        cluster.wait_ready("n1")
        clusters.passes(progress)
        cluster.kill()
    for node in torn:
        tear(cluster, node, chance)
    for node in torn:
        cluster.start(node)
        assert cluster.nodes[node].require_process().wait(20) == 3
    cluster.start()
    assert wait_for(lambda: all(cluster.state(node) == "joining" for node in torn), 20)
    assert cluster.api(torn[0], clusters.OWNER).tokenize(["new"]).status == 503
    cluster.kill()
    told = json.loads(check("recover", str(cluster.directory), "--json"))
    assert told["left_out"] == {}
    assert {node for node, what in told["nodes"].items() if what["cuts"]} == set(torn)
    assert told["records"] >= len(acknowledged.tokens)
    cluster.bring_up()
    clusters.through_each_pair(cluster, lambda node: clusters.resolves(cluster, node, acknowledged.tokens))


def test_with_two_disks_lost_the_third_begins_a_new_cluster(own_cluster: Cluster, tmp_path: Path) -> None:
    known = clusters.Acknowledged()
    values = [f"known {n}" for n in range(50)]
    known.tokenize(own_cluster, "n1", values)
    assert wait_for(lambda: clusters.identical(own_cluster, len(values)), clusters.SECONDS)
    own_cluster.kill()
    for node in ("n2", "n3"):
        shutil.rmtree(own_cluster.directory / node)
    tear(own_cluster, "n1", random.Random(2))
    refused = run("recover", str(own_cluster.directory))
    assert refused.returncode == 1
    assert b"bring another one here" in refused.stderr
    new = tmp_path / "new"
    told = check("recover", str(own_cluster.directory), "--only", "n1", "--accept-loss", "--into", str(new), "--json")
    assert json.loads(told)["records"] == len(values)
    addresses = {node: own_cluster.nodes[node].address for node in NODES}
    with Cluster(new, addresses, {clusters.OWNER: own_cluster.api_key(clusters.OWNER)}) as cluster:
        cluster.bring_up()
        clusters.through_each_pair(cluster, lambda node: clusters.resolves(cluster, node, known.tokens))
        again = cluster.api("n2", clusters.OWNER).tokenize(values).body["tokens"]
        assert again == list(known.tokens.values())


def test_two_full_disks_refuse_what_is_new_say_why_and_lose_nothing(idle_cluster: Cluster) -> None:
    cluster, acknowledged = idle_cluster, clusters.Acknowledged()
    disks = {node: ToldDisk(cluster, node) for node in ("n2", "n3")}
    cluster.bring_up("n1")
    known = [f"known {n}" for n in range(20)]
    acknowledged.tokenize(cluster, "n1", known)
    for disk in disks.values():
        disk.fill()
    for node in disks:
        assert wait_for(lambda node=node: cluster.state(node) == "full", 20)  # type: ignore[misc]
    for node in NODES:
        refused = cluster.api(node, clusters.OWNER).tokenize(["new"])
        assert (refused.status, refused.body["code"], refused.body["outcome"]) == (503, "no-quorum", "unknown")
        for full in disks:
            assert f"{full}: refuses writes: disk full" in refused.body["detail"]
        clusters.resolves(cluster, node, acknowledged.tokens)
        assert clusters.health(cluster, node).status == 200
    for disk in disks.values():
        disk.empty()
    assert wait_for(lambda: cluster.api("n1", clusters.OWNER).tokenize(["new"]).status == 200, 20)
    for pair in combinations(NODES, 2):
        assert all(cluster.api(node, clusters.OWNER).tokenize(known).status == 200 for node in pair)
