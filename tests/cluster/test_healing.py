"""Three processes that become the same again by themselves: what one missed reaches it, by hints or by comparison."""

from __future__ import annotations

import json

from chaos.testbed.cluster import NODES, Cluster, wait_for
from chaos.testbed.cluster import run as run_command

#: An operator's patience; on a machine that has nothing else to do all of it takes two seconds.
HEALED_SECONDS = 60.0


def owed(cluster: Cluster, node: str, peer: str) -> int:
    """Records, as /health has it."""
    answer = cluster.health(node)
    assert answer is not None
    return int(answer.body["peers"][peer].get("owed_records", 0))


def verify(cluster: Cluster, via: str = "n1") -> dict[str, dict[str, object]]:
    """What each of the two others differs in, by peer: only the count of records if they are identical."""
    done = run_command("verify", str(cluster.directory), "--node", via, "--json")
    found: dict[str, dict[str, object]] = json.loads(done.stdout)["peers"]
    assert (done.returncode == 0) == all(list(peer) == ["records"] for peer in found.values()), done.stderr
    return found


def identical(cluster: Cluster, records: int) -> bool:
    return all(verify(cluster, via) == {peer: {"records": records} for peer in NODES if peer != via} for via in NODES)


def test_what_a_node_missed_reaches_it_when_it_is_back_and_nobody_reads(own_cluster: Cluster) -> None:
    own_cluster.api("n1", "clinic").tokenize([f"before {number}" for number in range(100)])
    own_cluster.kill("n3")
    for via in ("n1", "n2"):
        own_cluster.api(via, "clinic").tokenize([f"{via} while n3 is away {number}" for number in range(500)])
        own_cluster.api(via, "registry").tokenize([f"{via} {number}" for number in range(50)])
    assert own_cluster.api("n1", "registry").post("/rotate-epoch", {"from_epoch": 1}).status == 200
    assert owed(own_cluster, "n2", "n3") == 550
    # Two nodes answered for the first hundred, and n3 may have died with them on the way.
    assert owed(own_cluster, "n1", "n3") in (550, 650)
    own_cluster.start("n3")
    own_cluster.wait_ready(reachable=3)
    assert wait_for(lambda: owed(own_cluster, "n1", "n3") + owed(own_cluster, "n2", "n3") == 0, HEALED_SECONDS)
    assert wait_for(lambda: identical(own_cluster, 1200), HEALED_SECONDS)
    assert "read_repair" not in (own_cluster.directory / "n1" / "events.jsonl").read_text()


def test_hints_that_died_with_their_coordinator_are_made_up_for_by_a_repair(own_cluster: Cluster) -> None:
    own_cluster.kill("n3")
    own_cluster.api("n1", "clinic").tokenize([f"{number}" for number in range(300)])
    own_cluster.kill("n1")  # perhaps before it stored them
    own_cluster.start("n1", "n3")
    own_cluster.wait_ready(reachable=3)
    done = run_command("repair", str(own_cluster.directory), "--node", "n2", "--json")
    assert done.returncode == 0, done.stderr
    assert wait_for(lambda: identical(own_cluster, 300), HEALED_SECONDS)


def test_lag_behind_a_stopped_peer_grows_and_drains_and_reads_are_right_throughout(own_cluster: Cluster) -> None:
    api = own_cluster.api("n1", "clinic")
    values = [f"{number}" for number in range(50)]
    tokens = dict(zip(values, tokens_of(own_cluster, values), strict=True))
    own_cluster.pause("n2")
    seen = [0]
    for batch in range(5):
        values = [f"batch {batch} value {number}" for number in range(100)]
        tokens |= dict(zip(values, tokens_of(own_cluster, values), strict=True))
        assert wait_for(lambda: owed(own_cluster, "n1", "n2") > seen[-1], HEALED_SECONDS)
        seen.append(owed(own_cluster, "n1", "n2"))
        answer = api.detokenize(list(tokens.values()))
        assert [result["value"] for result in answer.body["results"]] == list(tokens)
    own_cluster.resume("n2")
    assert wait_for(lambda: owed(own_cluster, "n1", "n2") == 0, HEALED_SECONDS)
    for via in NODES:
        answer = own_cluster.api(via, "clinic").detokenize(list(tokens.values()))
        assert [result["value"] for result in answer.body["results"]] == list(tokens)
    assert wait_for(lambda: identical(own_cluster, 550), HEALED_SECONDS)


def tokens_of(cluster: Cluster, values: list[str]) -> list[str]:
    answer = cluster.api("n1", "clinic").tokenize(values)
    assert answer.status == 200, answer.body
    return list(answer.body["tokens"])


def test_flipped_bits_on_disk_are_never_believed_and_the_store_comes_back_whole(own_cluster: Cluster) -> None:
    """A bit in every tenth of each table of one node. Its process ends when it meets them, and its next start rejoins."""
    values = [f"{number}" for number in range(2000)]
    tokens = tokens_of(own_cluster, values)
    own_cluster.stop("n3")
    own_cluster.start("n3")  # makes tables of what was in the log
    own_cluster.wait_ready(reachable=3)
    own_cluster.stop("n3")
    for table in (own_cluster.directory / "n3" / "store").glob("*.ldb"):
        data = bytearray(table.read_bytes())
        for tenth in range(10):
            data[len(data) * tenth // 10 + len(data) // 20] ^= 0x20
        table.write_bytes(bytes(data))
    for condition in (_ended, _votes):
        own_cluster.start("n3")
        assert wait_for(lambda: condition(own_cluster, "n3"), HEALED_SECONDS)  # noqa: B023
        for via in ("n1", "n2"):
            answer = own_cluster.api(via, "clinic").detokenize(tokens)
            assert [result["value"] for result in answer.body["results"]] == values
    answer = own_cluster.api("n3", "clinic").detokenize(tokens)
    assert [result["value"] for result in answer.body["results"]] == values
    assert wait_for(lambda: identical(own_cluster, len(values)), HEALED_SECONDS)


def _ended(cluster: Cluster, node: str) -> bool:
    """With the exit code for a store that cannot be trusted."""
    process = cluster.nodes[node].process
    return process is not None and process.poll() == 3


def _votes(cluster: Cluster, node: str) -> bool:
    answer = cluster.health(node)
    return answer is not None and answer.body["state"] == "active"
