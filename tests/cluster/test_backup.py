"""Backup of a running cluster and restore into a new one, with real processes: through a lagging node, and under writes."""

import json
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from chaos.testbed.cluster import NODES, Cluster, check, free_base_port, run
from tests.rigs.clusters import OTHER, OWNER, Acknowledged, events, passes, records, resolves, streaming


@pytest.fixture
def unhealing(made: Cluster) -> Cluster:
    """Three nodes that do not heal: a node never catches up on the writes that it misses."""
    made.command_line = (sys.executable, "-m", "tests.cluster.unhealing")
    made.bring_up()
    return made


def backup(cluster: Cluster, via: str, file: Path) -> CompletedProcess[bytes]:
    return run("backup", str(cluster.directory), "--node", via, "-o", str(file), "--json")


def restored(cluster: Cluster, file: Path, into: Path) -> Cluster:
    """The new cluster, with the old cluster's secret and API keys. It is not started yet."""
    given = {
        "--master-secret": cluster.directory / "secrets" / "master-s1.key",
        "--fields": cluster.directory / "fields.yaml",
        "--api-keys": cluster.directory / "api_keys.yaml",
        "--base-port": free_base_port(),
    }
    told = json.loads(check("restore", str(file), str(into), "--json", *(str(each) for pair in given.items() for each in pair)))
    addresses = {node: at["api"].removeprefix("http://") for node, at in told["nodes"].items()}
    return Cluster(into, addresses, {owner: cluster.api_key(owner) for owner in (OWNER, OTHER)})


def test_a_backup_from_a_node_that_lags_has_everything_and_the_cluster_out_of_it_gives_it_back(
    unhealing: Cluster, tmp_path: Path
) -> None:
    acknowledged, file = Acknowledged(), tmp_path / "b.qvb"
    acknowledged.tokenize(unhealing, "n1", [f"on all three {number}" for number in range(1000)])
    unhealing.kill("n3")
    acknowledged.tokenize(unhealing, "n1", [f"while n3 is away {number}" for number in range(1000)])
    assert unhealing.api("n2", OWNER).post("/rotate-epoch", {"from_epoch": 1}).status == 200
    acknowledged.tokenize(unhealing, "n2", [f"in the next epoch {number}" for number in range(1000)])
    unhealing.start("n3")
    unhealing.wait_ready("n3")
    unhealing.kill("n1")  # the backup then has to read n2's disk as well
    unhealing.wait_ready("n2", "n3")

    done = backup(unhealing, "n3", file)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["sources"] == ["n2", "n3"]
    assert told["records"] == len(acknowledged.tokens) == 3000
    assert Path(told["keep"]["master_secret"]).read_text().strip() not in file.read_bytes().hex()
    assert not any(value.encode() in file.read_bytes() for value in acknowledged.tokens)
    unhealing.kill("n2", "n3")
    assert len(list(records(unhealing, "n3"))) <= 1000  # n3's own disk holds no more than that

    with restored(unhealing, file, tmp_path / "new") as new:
        before, after = (list(map(each.identity, NODES)) for each in (unhealing, new))
        assert {identity["cluster_id"] for identity in after}.isdisjoint(identity["cluster_id"] for identity in before)
        assert len({identity["disk"] for identity in [*before, *after]}) == 6
        for node in NODES:
            assert len(list(records(new, node))) == 3000
        new.bring_up()
        for node in NODES:
            resolves(new, node, acknowledged.tokens)
            others = new.api(node, OTHER).detokenize(list(acknowledged.tokens.values())[:100])
            assert not any("value" in result for result in others.body["results"])
            assert len(others.body["results"]) == 100
            assert new.api(node, OWNER).get("/epoch").body["active_epoch"] == 2
        # A value that already has a token gets the same one: the keys and the epoch are unchanged.
        again = new.api("n1", OWNER).tokenize(["in the next epoch 7", "new"])
        assert again.body["tokens"][0] == acknowledged.tokens["in the next epoch 7"]


def test_a_backup_while_clients_write_has_all_that_was_acknowledged_before_it_began(own_cluster: Cluster, tmp_path: Path) -> None:
    acknowledged, file = Acknowledged(), tmp_path / "b.qvb"
    acknowledged.tokenize(own_cluster, "n1", [f"before {number}" for number in range(1000)])
    with streaming(own_cluster, acknowledged) as progress:
        passes(progress)
        before = dict(acknowledged.tokens)
        done = backup(own_cluster, "n2", file)
        passes(progress)
    assert done.returncode == 0, done.stderr
    with restored(own_cluster, file, tmp_path / "new") as new:
        new.bring_up()
        for node in NODES:
            resolves(new, node, before)
        assert len(before) < len(acknowledged.tokens)
    (event,) = [event for event in events(own_cluster, "n2") if event["event"] == "backup"]
    assert (event["outcome"], event["items"]) == ("ok", json.loads(done.stdout)["records"])


def test_with_one_active_node_alone_there_is_no_backup(own_cluster: Cluster, tmp_path: Path) -> None:
    own_cluster.kill("n2", "n3")
    done = backup(own_cluster, "n1", tmp_path / "b.qvb")
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.count(b"\n") == 1
    assert b"a backup is read from this node and one other, both active in one view: n" in done.stderr
    assert b"n2 does not answer; n3 does not answer" in done.stderr
    assert list(tmp_path.iterdir()) == []
