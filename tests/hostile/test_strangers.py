"""What clients without a key send: the node survives, holds little of it, and serves others in the meantime."""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.processes import memory
from chaos.testbed.cluster import Cluster
from tests.hostile.limited import LOUD, QUIET, ask, assert_unharmed, post, raw_connection, tokens_of

HEALTH = b"GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
#: MiB by which a node's memory may grow during an attack: the tables of its store, and what the allocator keeps.
SPARE_MIB = 200


def received(connection: socket.socket) -> bytes:
    """All bytes until the other side closes or resets the connection."""
    got = b""
    with contextlib.suppress(OSError):
        while more := connection.recv(1 << 16):
            got += more
    return got


def send_all_it_takes(connection: socket.socket, begin: bytes, block: bytes) -> None:
    connection.sendall(begin)
    with contextlib.suppress(OSError):
        for _ in range(640):
            connection.sendall(block)


CHUNKED = b"POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
#: The beginning of a request that never ends, and the block that it repeats.
ENDLESS = {
    "trailers": (CHUNKED + b"1\r\n \r\n0\r\n", b"a:\r\n" * 16_384),
    "one-trailer": (CHUNKED + b"1\r\n \r\n0\r\na: ", b"x" * 65_536),
    "chunk-extension": (CHUNKED + b"1;", b"x" * 65_536),
    "tiny-chunks": (CHUNKED, b"1\r\n \r\n" * 10_000),
    "headers": (b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 10_000),
    "target": (b"GET /", b"x" * 65_536),
    "behind-an-answer": (b"POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 65_536),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_request_that_does_not_end_is_cut_off_and_little_of_it_kept(cluster: Cluster, kind: str) -> None:
    begin, more = ENDLESS[kind]
    before = sum(memory(cluster.pid("n1")))
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(4) as senders:
        connections = [stack.enter_context(raw_connection(cluster)) for _ in range(4)]
        sent = [senders.submit(send_all_it_takes, connection, begin, more) for connection in connections]
        while not all(each.done() for each in sent):
            assert ask(cluster, "/livez", None).status == 200
            assert sum(memory(cluster.pid("n1"))) < before + SPARE_MIB
    assert_unharmed(cluster)


@pytest.mark.parametrize(
    "trailer",
    [f"Authorization: Bearer {{{LOUD}}}", f"X-API-Key: {{{LOUD}}}", "X-Purpose: from-a-trailer", "Content-Encoding: gzip"],
)
def test_a_trailer_is_no_header(cluster: Cluster, trailer: str) -> None:
    body = b'{"values":["x"]}'
    last = trailer.format(**{LOUD: cluster.api_key(LOUD)}).encode()
    with raw_connection(cluster) as connection:
        connection.sendall(CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        connection.sendall(b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(body), body, last))
        assert received(connection).startswith(b"HTTP/1.1 401 ")


def test_requests_without_end_whose_answers_nobody_reads(cluster: Cluster) -> None:
    """A hundred connections, each with a quarter of a megabyte of the shortest requests."""
    before = sum(memory(cluster.pid("n1")))
    with contextlib.ExitStack() as stack:
        for connection in [stack.enter_context(raw_connection(cluster, receives=4096)) for _ in range(100)]:
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                connection.send(b"GET / HTTP/1.1\r\n\r\n" * 14_000)
        for _ in range(10):
            assert ask(cluster, "/livez", None).status == 200
            tokens_of(cluster, ["meanwhile"], QUIET)
            assert sum(memory(cluster.pid("n1"))) < before + SPARE_MIB
    assert_unharmed(cluster)


def test_connections_that_say_nothing_make_room_for_others(cluster: Cluster) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(1100):
            with contextlib.suppress(OSError):
                stack.enter_context(raw_connection(cluster)).sendall(b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n")
        for _ in range(10):
            with raw_connection(cluster) as connection:
                connection.sendall(HEALTH)
                assert received(connection).startswith(b"HTTP/1.1 200 ")
            tokens_of(cluster, ["meanwhile"], QUIET)
    assert_unharmed(cluster)


def test_refusals_of_one_key_share_lines_of_the_event_log(cluster: Cluster) -> None:
    """Ten thousand forbidden requests of one key write no more than a line or two a second."""
    log = cluster.nodes["n1"].data / "events.jsonl"
    before = log.stat().st_size
    request = post(cluster, "/tokens", b"") * 50
    with raw_connection(cluster) as connection:
        for _ in range(200):
            connection.sendall(request)
            answered = 0
            while answered < 50:
                got = connection.recv(1 << 20)
                assert got
                answered += got.count(b"HTTP/1.1 403 ")
    assert log.stat().st_size < before + (64 << 10)
    assert_unharmed(cluster)
