"""A disk is replaced while another store has damaged blocks, with real processes and real damage: the remaining bytes suffice."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.testbed.cluster import Cluster, run, wait_for
from chaos.testbed.host import flip_bits
from tests.rigs.clusters import SECONDS, Acknowledged, becomes_active, filled, health, resolves


@pytest.fixture
def damaged(own_cluster: Cluster) -> tuple[Cluster, Acknowledged]:
    """n1 and n3 have acknowledged records that n2 never received, n1 has unreadable blocks, and n3 has been given a new disk."""
    own_cluster.kill("n2")
    acknowledged = filled(own_cluster, 6)
    own_cluster.kill("n1", "n3")
    own_cluster.start("n1", "n3")
    own_cluster.wait_ready("n1", "n3")  # by now the logs have been written to tables
    own_cluster.kill("n1", "n3")
    table = max((own_cluster.nodes["n1"].data / "store").glob("*.ldb"), key=lambda path: path.stat().st_size)
    flip_bits(table, [(int(table.stat().st_size * share), 1) for share in (0.3, 0.6)])
    own_cluster.replace_disk("n3")
    return own_cluster, acknowledged


def is_whole(cluster: Cluster, node: str) -> bool:
    """Active, and not about to end because of an unreadable block."""
    answer = cluster.health(node)
    return answer is not None and answer.body["state"] == "active" and "damaged" not in answer.body


def is_salvaged(cluster: Cluster, node: str) -> bool:
    """Active on what was left of its damaged store, with gaps: it does not end again."""
    answer = cluster.health(node)
    return (
        answer is not None
        and answer.body["state"] == "active"
        and "this node does not know what it had" in str(answer.body.get("warnings"))
    )


def supervised(cluster: Cluster, done: Callable[[], bool]) -> bool:
    """Waits, and restarts n1 whenever it has ended: n1 gives up its damaged store, and salvages it on its next start."""

    def look() -> bool:
        if not cluster.nodes["n1"].running:
            cluster.start("n1")
        return done()

    return wait_for(look, SECONDS)


def aside(cluster: Cluster) -> Path:
    return cluster.directory / "n3.set-aside-1"


def test_the_old_disk_beside_the_new_one_gives_what_a_survivor_cannot_read(damaged: tuple[Cluster, Acknowledged]) -> None:
    """Proves: donors have no voice."""
    cluster, acknowledged = damaged
    cluster.start()
    assert supervised(cluster, lambda: cluster.state("n3") == "active"), cluster.nodes["n3"].log_tail()
    assert supervised(cluster, lambda: is_whole(cluster, "n1")), cluster.nodes["n1"].log_tail()
    cluster.wait_ready("n3")
    resolves(cluster, "n3", acknowledged.tokens)
    cluster.kill("n1")
    cluster.wait_ready("n2", "n3")
    resolves(cluster, "n2", acknowledged.tokens)


def test_without_the_old_disk_the_new_one_takes_no_place_so_that_it_can_be_put_back(
    damaged: tuple[Cluster, Acknowledged], tmp_path: Path
) -> None:
    """Proves: read before the view changes."""
    cluster, acknowledged = damaged
    shutil.move(aside(cluster), tmp_path / "old")
    cluster.start()

    def waits() -> bool:
        answer = cluster.health("n3")
        return answer is not None and "n1 cannot read all of its store" in str(answer.body.get("joining"))

    assert supervised(cluster, waits), cluster.nodes["n3"].log_tail()
    assert supervised(cluster, lambda: is_salvaged(cluster, "n1")), cluster.nodes["n1"].log_tail()
    assert supervised(cluster, waits), cluster.nodes["n3"].log_tail()
    assert "Put it back if there is any way: stop n3" in str(health(cluster, "n3").body["warnings"])
    refused = run("init", str(cluster.directory), "--replace", "n3")
    assert refused.returncode == 1
    assert "n1 cannot read all that it has" in refused.stderr.decode()
    cluster.stop("n3")
    shutil.rmtree(cluster.nodes["n3"].data)
    shutil.move(tmp_path / "old", cluster.nodes["n3"].data)
    cluster.start("n3")
    assert supervised(cluster, lambda: cluster.state("n3") == cluster.state("n1") == "active"), cluster.nodes["n3"].log_tail()
    cluster.wait_ready("n3")
    resolves(cluster, "n3", acknowledged.tokens)


def test_a_recovery_unites_what_is_left_with_the_old_disk_from_elsewhere(
    damaged: tuple[Cluster, Acknowledged], tmp_path: Path
) -> None:
    cluster, acknowledged = damaged
    shutil.move(aside(cluster), tmp_path / "old")
    refused = run("recover", str(cluster.directory))
    assert refused.returncode == 1
    assert "--donor PATH" in refused.stderr.decode()
    done = run("recover", str(cluster.directory), "--donor", str(tmp_path / "old"))
    assert done.returncode == 0, done.stderr.decode()
    assert b"n1: its store was made anew" in done.stdout
    cluster.start()
    becomes_active(cluster, "n3")
    for node in ("n1", "n2", "n3"):
        resolves(cluster, node, acknowledged.tokens)
