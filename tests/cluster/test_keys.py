"""A revoked key in a running cluster: every node rejects it for ever, even a node that missed the revocation."""

from chaos.testbed.api import Api
from chaos.testbed.cluster import NODES, Cluster, check, wait_for
from tests.rigs.clusters import OWNER, SECONDS


def test_a_key_revoked_through_one_node_is_dead_on_all_also_on_one_that_was_down(own_cluster: Cluster) -> None:
    """Proves: a revoked key stays revoked. The key file, which all three nodes share here, no longer records the revocation."""
    cluster, config = own_cluster, ("--config", str(own_cluster.directory / "cluster.yaml"))
    key, file = cluster.make_key(OWNER, "detokenize"), cluster.directory / "api_keys.yaml"
    key_id, before = key.split("_")[1], file.read_bytes()

    def answer(node: str, text: str = key) -> int:
        return Api(cluster.nodes[node].address, text).get("/fields").status

    assert [answer(node) for node in NODES] == [200, 200, 200]
    cluster.kill("n3")
    check("keys", "revoke", *config, key_id)
    file.write_bytes(before)
    assert wait_for(lambda: answer("n1") == answer("n2") == 401, SECONDS)
    cluster.kill("n1")
    cluster.start("n3")
    statuses = set[int]()

    def serves() -> bool:
        if not cluster.health("n3"):
            return False
        statuses.add(answer("n3"))
        return answer("n3", cluster.api_key(OWNER)) == 200

    assert wait_for(serves, SECONDS)
    assert statuses <= {401, 503}  # n3 may learn of it between the two requests of one turn
    assert answer("n3") == 401
    cluster.kill("n2")  # and n3 has no peer left to ask
    assert wait_for(lambda: answer("n3", cluster.api_key(OWNER)) == 503, SECONDS)
    assert answer("n3") == 401
    cluster.kill("n3")
    cluster.start()
    cluster.wait_ready(reachable=3)
    assert [answer(node) for node in NODES] == [401, 401, 401]
    assert [answer(node, cluster.api_key(OWNER)) for node in NODES] == [200, 200, 200]
    (line,) = [line for line in check("keys", "list", *config).decode().splitlines() if line.startswith(key_id)]
    assert "\tin the cluster\t" in line
