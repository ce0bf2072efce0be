"""A node that sends or takes a few bytes at a time: it delays no call past its deadline, and keeps none from other nodes."""

import itertools
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from quorumvault import errors
from quorumvault.client import Client, ClientPolicy
from quorumvault.client.deadline import Deadline
from quorumvault.client.plan import Send
from quorumvault.testing.serving import served
from tests.rigs.clients import InLoop
from tests.rigs.vault import SMALL, Rig, key_text
from tests.unit.client.test_failover import begin_to_answer, listener

KEY = key_text("clinic")
QUICK = ClientPolicy(silence=0.3, health_silence=0.3, failover=0.2, failover_bytes=1 << 30, backoff_first=0.01, backoff_last=0.02)
#: The number of pieces that a node sends, and the seconds between two: in total far longer than any deadline here.
TIMES, PAUSE = 500, 0.02
both = pytest.mark.parametrize("kind", [Client, InLoop])


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    with served(Rig(limits=SMALL).app) as url:
        yield url


class Trickle:
    """Handles a connection: runs ``first`` once, then sends ``piece`` repeatedly until the other end closes the connection."""

    def __init__(self, first: Callable[[socket.socket], object], piece: bytes) -> None:
        self.first, self.piece = first, piece
        self.to_its_end = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        try:
            self.first(connection)
            for _ in range(TIMES):
                connection.sendall(self.piece)
                if select.select([connection], [], [], PAUSE)[0] and not connection.recv(1 << 16):
                    return
        except OSError:
            return
        self.to_its_end.set()


def endless_head(connection: socket.socket) -> None:
    begin_to_answer(connection)
    connection.sendall(b"X-Endless: ")


def endless_chunk_line(connection: socket.socket) -> None:
    begin_to_answer(connection)
    connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n")


def take_request(connection: socket.socket) -> None:
    connection.recv(1 << 16)


EARLY_HINTS, CONTINUE = b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"
HEADS = [(endless_head, b"a"), (take_request, EARLY_HINTS), (take_request, CONTINUE)]
head_of = pytest.mark.parametrize(("first", "piece"), HEADS, ids=["head", "103", "100"])
any_of = pytest.mark.parametrize(
    ("first", "piece"), [*HEADS, (endless_chunk_line, b"0")], ids=["head", "103", "100", "chunk line"]
)


@both
@any_of
def test_a_call_ends_at_its_deadline(first: Callable[[socket.socket], object], piece: bytes, kind: Any) -> None:
    trickle = Trickle(first, piece)
    with (
        listener(trickle) as url,
        kind(url, api_key=KEY, policy=QUICK) as vault,
        pytest.raises(errors.Unreachable, match="no answer in time"),
    ):
        vault.epoch(deadline=0.6)
    assert not trickle.to_its_end.is_set()


@both
@any_of
def test_so_does_a_question_about_health(first: Callable[[socket.socket], object], piece: bytes, kind: Any) -> None:
    trickle = Trickle(first, piece)
    with listener(trickle) as url, kind(url, policy=QUICK) as vault:
        (node,) = vault.health()
    assert node.problem == "no answer in time (connected)"
    assert not trickle.to_its_end.is_set()


@both
@head_of
def test_another_node_is_asked_after_the_silence(
    api: str, first: Callable[[socket.socket], object], piece: bytes, kind: Any
) -> None:
    trickle = Trickle(first, piece)
    with listener(trickle) as bad, kind([bad, api], api_key=KEY, policy=QUICK) as vault:
        assert [vault.epoch() for _ in range(3)] == [1, 1, 1]
    assert not trickle.to_its_end.is_set()


@both
def test_a_body_that_is_taken_slowly_is_given_up_too(kind: Any) -> None:
    done = threading.Event()
    ran_out = threading.Event()

    def sip(connection: socket.socket) -> None:
        for _ in range(TIMES):
            if done.wait(PAUSE / 2) or not connection.recv(1 << 16):
                return
        ran_out.set()

    with listener(sip) as url, kind(url, api_key=KEY) as vault:
        with pytest.raises(errors.Unreachable, match="no answer in time"):
            vault.exchange_arrow("tokenize", lambda run: bytes(64 << 20), 1, deadline=0.6)
        done.set()
    assert not ran_out.is_set()


def test_the_stages_of_an_exchange() -> None:
    clock = itertools.count()
    send = Send("http://n1/epoch", "POST", {}, bytes(3000), silence=10.0, until=100.0)
    deadline = Deadline(send, ClientPolicy(failover_bytes=1000), 100.0, lambda: float(next(clock)))
    assert deadline.by == 100
    told = [
        (deadline.advance(event), deadline.by)
        for event in (
            "connection.connect_tcp.started",
            "connection.connect_tcp.complete",
            "http11.send_request_headers.started",
            "http11.send_request_body.started",
            "http11.send_request_body.complete",
            "http11.receive_response_headers.complete",
        )
    ]
    # at second 1: ten seconds of silence and three for the body; at second 2: ten seconds of silence
    assert told == [(True, 100), (False, 100), (True, 14), (False, 14), (True, 12), (True, 100)]
    assert deadline.left() == 97
