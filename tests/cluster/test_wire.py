"""What crosses the network: proxies record every byte between nodes, and between clients and nodes."""

import asyncio
import contextlib
import socket
import threading
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import quorumvault as qv
from chaos.demo.partitions import Partitions
from chaos.network import Links
from chaos.testbed.cluster import NODES, Cluster, check
from quorumvault.config.cluster import load_cluster
from quorumvault.crypto.tokens import parse_token
from tests.rigs.clusters import OWNER

#: Sent in clear, to prove that the proxies would record it.
SAID = b"said in clear\r\n\r\n" * 10
VALUES = [f"planted-value-{number:04d}" for number in range(300)]

#: Every stream of every connection, by the proxies that it passed.
Streams = dict[Links, list[bytearray]]


@contextmanager
def taken_down() -> Iterator[Streams]:
    """Every proxy made in this block keeps what passes it."""
    streams: Streams = defaultdict(list)

    async def pump(self: Links, wire: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = bytearray()
        streams[self].append(stream)
        while data := await reader.read(1 << 16):
            stream += data
            writer.write(data)
            await writer.drain()

    with mock.patch.object(Links, "_pump", pump):
        yield streams


@contextmanager
def before_the_apis(cluster: Cluster) -> Iterator[list[str]]:
    """Yields the URLs of proxies in front of the APIs of all nodes."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def done(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result()

    nodes = load_cluster(cluster.directory / "cluster.yaml").nodes
    links = Links({node: (at.api.host, at.api.port) for node, at in nodes.items()}, seed=1)
    done(links.open())
    scheme = cluster.url("n1").partition("://")[0]
    try:
        yield [f"{scheme}://{links.address(NODES[number - 1], node)}" for number, node in enumerate(NODES)]
    finally:
        done(links.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def secrets_of(cluster: Cluster, tokens: list[str]) -> dict[str, list[bytes]]:
    """What no eavesdropper may see, in every form in which it could appear."""
    key = cluster.api_key(OWNER)
    master = bytes.fromhex((cluster.directory / "secrets" / "master-s1.key").read_text())
    parsed = [parsed for parsed in map(parse_token, tokens) if parsed is not None]
    assert len(parsed) == len(tokens)
    return {
        "a value": [b"planted-value", b"planted-value".hex().encode()],
        "an API key": [key.encode(), key.split("_")[2].encode()],
        "a token": [token.encode() for token in tokens],
        "a digest": [digest for _, digest in parsed],
        "the master secret": [master, master.hex().encode()],
    }


def ports_of(pid: int) -> set[int]:
    """The ports at which a process can be reached over the network."""
    sockets = set[str]()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed in the meantime
            sockets.add(str(file.readlink()))
    lists = (Path(f"/proc/{pid}/net/{kind}").read_text() for kind in ("tcp", "tcp6", "udp", "udp6"))
    rows = [line.split() for text in lists for line in text.splitlines()[1:]]
    open_to_all = [row[1] for row in rows if f"socket:[{row[9]}]" in sockets and row[2].endswith(":0000")]
    return {int(local.rpartition(":")[2], 16) for local in open_to_all}


def say_in_clear(address: str) -> None:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port))) as connection:
        connection.sendall(SAID)
        while connection.recv(1 << 12):
            pass


def test_nothing_secret_is_seen_by_who_listens_in(tmp_path: Path) -> None:
    """Tokenize, detokenize, a node that rejoins, and a backup. Bytes sent in clear to the same ports do show."""
    with ExitStack() as stack:
        streams = stack.enter_context(taken_down())
        cluster = stack.enter_context(Cluster.create(tmp_path / "vault", (OWNER,), tls=True))
        stack.enter_context(Partitions(cluster))
        urls = stack.enter_context(before_the_apis(cluster))
        cluster.bring_up()
        with qv.Client(urls, api_key=cluster.api_key(OWNER), cacert=cluster.cacert) as vault:
            tokens = [token for token in vault.tokenize(VALUES) if token is not None]
            assert [result.value for result in vault.detokenize(tokens)] == VALUES
            cluster.kill("n3")
            cluster.replace_disk("n3")
            cluster.start("n3")
            cluster.wait_ready(reachable=3)
        for node, at in load_cluster(cluster.directory / "cluster.yaml").nodes.items():
            assert ports_of(cluster.pid(node)) == {at.api.port, at.peer.port}  # there is no other way in
        check("backup", str(cluster.directory), "--node", "n1", "-o", str(tmp_path / "all.qvb"))
        for links in tuple(streams):
            say_in_clear(links.address("n1", "n2"))
        cluster.kill()
    assert len(streams) == 2  # the proxies between the nodes, and those in front of the APIs
    for taken in streams.values():
        assert sum(map(len, taken)) > 20 * len(VALUES)
        assert any(SAID in stream for stream in taken)
    for what, needles in secrets_of(cluster, tokens).items():
        assert not any(needle in stream for taken in streams.values() for stream in taken for needle in needles), what
