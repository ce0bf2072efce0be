"""A cluster whose nodes may have no more than 1.5 GB of memory each, and what is asked of a node under attack."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from chaos.testbed.cluster import NODES, Cluster, wait_for

#: Of address space, which is more than what is in memory.
LIMIT = 1_500_000_000
#: The attacker's owner, and somebody else's.
LOUD, QUIET = "loud", "quiet"
#: Longer than anything here takes on a busy machine.
PATIENCE = 60.0
JSON = "application/json"


class Answer(NamedTuple):
    status: int
    body: bytes


@contextmanager
def limited_cluster(directory: Path) -> Iterator[Cluster]:
    with Cluster.create(directory / "cluster", (LOUD, QUIET)) as cluster:
        for node in cluster.nodes.values():
            node.within = (str(shutil.which("prlimit")), f"--as={LIMIT}")
        cluster.start()
        cluster.wait_ready(reachable=3)
        for node in cluster.nodes.values():
            node.log.write_bytes(b"")  # what a start says of peers that are not there yet
        yield cluster


def ask(cluster: Cluster, path: str, body: bytes | None, key: str = LOUD, node: str = "n1", media: str = JSON) -> Answer:
    connection = connect(cluster, node)
    headers = {"Authorization": f"Bearer {cluster.api_key(key)}", "Content-Type": media}
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, response.read())
    finally:
        connection.close()


def connect(cluster: Cluster, node: str = "n1") -> http.client.HTTPConnection:
    host, _, port = cluster.nodes[node].address.rpartition(":")
    return http.client.HTTPConnection(host, int(port), timeout=PATIENCE)


def raw_connection(cluster: Cluster, node: str = "n1", receives: int | None = None) -> socket.socket:
    """A socket to the API. ``receives``: bytes of answers that the kernel keeps for it, as little as it may be."""
    host, _, port = cluster.nodes[node].address.rpartition(":")
    connection = socket.socket()
    if receives is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    connection.settimeout(PATIENCE)
    connection.connect((host, int(port)))
    return connection


def post(cluster: Cluster, path: str, body: bytes, key: str = LOUD, media: str = JSON) -> bytes:
    """A request as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {cluster.api_key(key)}\r\nContent-Type: {media}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def tokens_of(cluster: Cluster, values: Sequence[str], key: str = LOUD) -> list[str]:
    answer = ask(cluster, "/tokenize", json.dumps({"values": values}).encode(), key)
    assert answer.status == 200, answer.body[:300]
    tokens: list[str] = json.loads(answer.body)["tokens"]
    return tokens


def metric(cluster: Cluster, name: str, node: str = "n1") -> float:
    text = ask(cluster, "/metrics", None, node=node).body.decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name)


def health(cluster: Cluster, node: str = "n1") -> Any:
    return json.loads(ask(cluster, "/health", None, node=node).body)


def assert_unharmed(cluster: Cluster) -> None:
    """All three nodes run, none has lost a peer, others are served, and nothing of the attack is held any more."""
    for node in NODES:
        assert cluster.nodes[node].running, cluster.nodes[node].log_tail()
    (token,) = tokens_of(cluster, ["somebody else's"], QUIET)
    answer = ask(cluster, "/detokenize", json.dumps({"token": token}).encode(), QUIET)
    assert (answer.status, json.loads(answer.body)["value"]) == (200, "somebody else's")
    assert health(cluster)["quorum"]["reachable"] == 3
    assert wait_for(lambda: metric(cluster, "quorumvault_in_flight") == 0, PATIENCE)
    assert metric(cluster, "quorumvault_request_memory_bytes") == 0
    for node in NODES:
        log = cluster.nodes[node].log.read_text()
        assert "Traceback" not in log
        assert " is down" not in log
