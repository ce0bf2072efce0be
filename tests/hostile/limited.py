"""Requests to a node under attack, and the state that it has to be in after the attack."""

import json
import socket
from collections.abc import Sequence

from chaos.testbed.cluster import NODES, Cluster, wait_for
from tests.hostile.tenants import JSON, Reply, exchange
from tests.rigs.clusters import health, metrics

#: The attacker's owner, and another one.
LOUD, QUIET = "loud", "quiet"
#: The name of the attacker's second key.
LOUD_TOO = "loud, too"
#: Longer than any step here takes on a busy machine.
PATIENCE = 60.0


def ask(cluster: Cluster, path: str, body: bytes | None, key: str = LOUD, media: str = JSON) -> Reply:
    reply = exchange(cluster.nodes["n1"].address, cluster.api_key(key), path, body, media, timeout=PATIENCE)
    assert reply is not None, f"{path} of {key} was not answered"
    return reply


def raw_connection(cluster: Cluster, node: str = "n1", receives: int | None = None) -> socket.socket:
    """A socket to the API. ``receives``: the size of the kernel's receive buffer; the kernel enforces a minimum."""
    host, _, port = cluster.nodes[node].address.rpartition(":")
    connection = socket.socket()
    if receives is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    connection.settimeout(PATIENCE)
    connection.connect((host, int(port)))
    return connection


def post(cluster: Cluster, path: str, body: bytes, key: str = LOUD, media: str = JSON) -> bytes:
    """A request in bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {cluster.api_key(key)}\r\nContent-Type: {media}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def tokens_of(cluster: Cluster, values: Sequence[str], key: str = LOUD) -> list[str]:
    answer = ask(cluster, "/tokenize", json.dumps({"values": values}).encode(), key)
    assert answer.status == 200, answer.body[:300]
    tokens: list[str] = answer.json()["tokens"]
    return tokens


def assert_unharmed(cluster: Cluster) -> None:
    """All three nodes run and have lost no peer, other owners are served, and nothing of the attack is held any more."""
    for node in NODES:
        assert cluster.nodes[node].running, cluster.nodes[node].log_tail()
    (token,) = tokens_of(cluster, ["somebody else's"], QUIET)
    answer = ask(cluster, "/detokenize", json.dumps({"token": token}).encode(), QUIET)
    assert (answer.status, answer.json()["value"]) == (200, "somebody else's")
    assert health(cluster, "n1").body["quorum"]["reachable"] == 3
    assert wait_for(lambda: metrics(cluster, "n1")["quorumvault_in_flight"] == 0, PATIENCE)
    assert metrics(cluster, "n1")["quorumvault_request_memory_bytes"] == 0
    for node in NODES:
        log = cluster.nodes[node].log.read_text()
        assert "Traceback" not in log
        assert " is down" not in log
