"""Lost disks, with real processes: a node without its disk gets a new one, under load, and becomes a full replica again."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from chaos.testbed.cluster import Cluster, check, wait_for
from tests.rigs.clusters import OWNER, SECONDS, becomes_active, events, exits, filled, passes, resolves, streaming, without

#: On a single host, a node's peer port is its API port plus this.
PEER_OFFSET = 10


def test_a_lost_disk_is_replaced_under_load_and_its_node_is_as_good_as_any_other(own_cluster: Cluster) -> None:
    acknowledged = filled(own_cluster, 5)
    with streaming(own_cluster, acknowledged) as progress:
        passes(progress)
        own_cluster.kill("n2")
        shutil.rmtree(own_cluster.directory / "n2")
        passes(progress)
        own_cluster.replace_disk("n2")
        own_cluster.start("n2")
        becomes_active(own_cluster, "n2")
        passes(progress)
    steps = ["join_started", "view_entered", "join_done"]
    assert [event["event"] for event in events(own_cluster, "n2") if event["event"] in steps] == steps
    for away in ("n1", "n3"):
        with without(own_cluster, away):
            resolves(own_cluster, "n2", acknowledged.tokens)


def test_a_joining_node_serves_through_the_others_and_waits_for_both(own_cluster: Cluster) -> None:
    acknowledged = filled(own_cluster, 1)
    own_cluster.kill("n2", "n3")
    own_cluster.replace_disk("n2")
    own_cluster.start("n2")
    assert wait_for(lambda: own_cluster.state("n2") == "joining", SECONDS)
    answer = own_cluster.api("n1", OWNER).tokenize(["one disk of three"])
    assert (answer.status, answer.body["code"]) == (503, "no-quorum")
    own_cluster.start("n3")
    becomes_active(own_cluster, "n2")
    resolves(own_cluster, "n2", acknowledged.tokens)
    assert list(own_cluster.directory.glob("n2.set-aside-1/store/CURRENT"))


def test_a_store_that_is_gone_is_made_anew_where_the_identity_is_left(own_cluster: Cluster) -> None:
    acknowledged = filled(own_cluster, 1)
    own_cluster.kill("n2")
    shutil.rmtree(own_cluster.directory / "n2" / "store")
    own_cluster.start("n2")
    becomes_active(own_cluster, "n2")
    own_cluster.kill("n1")
    own_cluster.wait_ready("n2", "n3")
    resolves(own_cluster, "n2", acknowledged.tokens)


@pytest.mark.parametrize("instant", [0.0, 0.05, 0.3], ids="after {} s".format)
def test_both_survivors_and_the_joining_node_are_killed_in_the_middle(own_cluster: Cluster, instant: float) -> None:
    acknowledged = filled(own_cluster, 10)
    own_cluster.kill("n2")
    own_cluster.replace_disk("n2")
    own_cluster.start("n2")
    assert wait_for(lambda: "n2" in str(own_cluster.health("n2")), SECONDS)
    # At different instants. None has to be hit exactly: the join goes on from whatever was under way.
    wait_for(lambda: own_cluster.state("n2") == "active", instant)
    own_cluster.kill()
    own_cluster.start()
    becomes_active(own_cluster, "n2")
    own_cluster.kill("n3")
    own_cluster.wait_ready("n1", "n2")
    resolves(own_cluster, "n2", acknowledged.tokens)


def test_the_old_disk_is_sent_away_beside_the_new_one_and_in_its_place(own_cluster: Cluster, tmp_path: Path) -> None:
    own_cluster.kill("n2")
    own_cluster.replace_disk("n2")
    own_cluster.start("n2")
    becomes_active(own_cluster, "n2")
    for name in ("fields.yaml", "api_keys.yaml", "secrets"):
        (tmp_path / name).symlink_to(own_cluster.directory / name)
    home, address = own_cluster.directory / "n2", own_cluster.nodes["n2"].address
    (own_cluster.directory / "n2.set-aside-1").rename(tmp_path / "n2")
    peer = f"127.0.0.1:{int(address.rpartition(':')[2]) + PEER_OFFSET}"
    text = (own_cluster.directory / "cluster.yaml").read_text()
    for known in (address, peer):
        text = text.replace(f'"{known}"', f'"{known.replace("127.0.0.1", "127.0.0.2")}"')
    (tmp_path / "cluster.yaml").write_text(text)
    with Cluster(tmp_path, {"n2": address.replace("127.0.0.1", "127.0.0.2")}, {}) as beside:
        beside.start("n2")
        assert "n2 runs elsewhere already" in exits(beside, "n2", 1)
    assert own_cluster.state("n2") == "active"

    own_cluster.kill("n2")
    home.rename(own_cluster.directory / "new")
    (tmp_path / "n2").rename(home)
    own_cluster.start("n2")
    last = exits(own_cluster, "n2", 1)
    assert "n2 has been given another disk" in last
    assert "--replace n2" in last


def test_a_node_moves_to_another_address_without_a_restart_of_the_others(own_cluster: Cluster) -> None:
    acknowledged = filled(own_cluster, 1)
    own_cluster.kill("n2")
    check("init", str(own_cluster.directory), "--replace", "n2", "--host", "127.0.0.2")
    pids = [own_cluster.pid(node) for node in ("n1", "n3")]
    for pid in pids:
        os.kill(pid, signal.SIGHUP)
    node = own_cluster.nodes["n2"]
    node.address = node.address.replace("127.0.0.1", "127.0.0.2")
    own_cluster.start("n2")
    becomes_active(own_cluster, "n2")
    assert [own_cluster.pid(each) for each in ("n1", "n3")] == pids
    resolves(own_cluster, "n2", acknowledged.tokens)
