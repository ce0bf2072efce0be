"""The client on real sockets, some of which misbehave."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from quorumvault import errors
from quorumvault.client import Client, ClientPolicy
from quorumvault.testing.serving import served
from tests.rigs.clients import InLoop
from tests.rigs.served import answering
from tests.rigs.vault import SMALL, Rig, key_text

KEY = key_text("clinic")


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    with served(Rig(limits=SMALL).app) as url:
        yield url


@contextlib.contextmanager
def listener(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that mishandles each connection as ``behave`` does; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                behave(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


def stay_silent(connection: socket.socket) -> None:
    """Behave like a stopped process: the kernel has accepted the connection."""


def break_off(connection: socket.socket) -> None:
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def begin_to_answer(connection: socket.socket) -> None:
    """Send the answer only as far as the request's id. The headers of the request arrive in one piece."""
    headers = connection.recv(65536).splitlines()
    its_id = next(line for line in headers if line.lower().startswith(b"x-request-id:"))
    connection.sendall(b"HTTP/1.1 200 OK\r\n" + its_id + b"\r\n")


def stop_halfway(connection: socket.socket) -> None:
    begin_to_answer(connection)
    connection.sendall(b"Content-Length: 100\r\n\r\n{")
    connection.close()


def talk_nonsense(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    connection.close()


both = pytest.mark.parametrize("kind", [Client, InLoop])
QUICK = ClientPolicy(silence=0.3, backoff_first=0.01, backoff_last=0.02)
#: The client asks each of two nodes once, however long that takes here.
ONE_LAP = ClientPolicy(retries_saved=1, retries_per_second=0)


@both
@pytest.mark.parametrize("behave", [stay_silent, break_off, stop_halfway, talk_nonsense])
def test_a_node_that_misbehaves_costs_a_try_and_no_more(
    api: str, nobody: str, behave: Callable[[socket.socket], None], kind: Any
) -> None:
    with listener(behave) as bad, kind([bad, nobody, api], api_key=KEY, policy=QUICK) as vault:
        assert len({token for _ in range(4) for token in vault.tokenize(["x"])}) == 1


def test_with_no_node_there_the_error_says_who_was_asked(nobody: str) -> None:
    with (
        listener(break_off) as bad,
        Client([bad, nobody], api_key=KEY, policy=ONE_LAP) as vault,
        pytest.raises(errors.Unreachable) as caught,
    ):
        vault.tokenize(["hush"])
    assert {asked.node for asked in caught.value.asked} == {bad, nobody}
    assert isinstance(caught.value, errors.NoQuorum)
    assert KEY not in str(caught.value)
    assert "hush" not in str(caught.value)


@both
def test_an_answer_that_trickles_is_given_up_at_the_deadline(kind: Any) -> None:
    trickles = threading.Event()

    def trickle(connection: socket.socket) -> None:
        begin_to_answer(connection)
        with contextlib.suppress(OSError):
            connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
            while True:
                connection.sendall(b"1\r\n \r\n")
                trickles.set()

    with (
        listener(trickle) as url,
        kind(url, api_key=KEY, clock=lambda: 100.0 if trickles.is_set() else 0.0) as vault,
        pytest.raises(errors.Unreachable, match="no answer in time"),
    ):
        vault.epoch(deadline=10)


@both
def test_an_answer_longer_than_any_is_cut_off(kind: Any) -> None:
    flood = answering(lambda request: httpx2.Response(200, content=b" " * 2000))
    vault = kind("http://n1", api_key=KEY, policy=ClientPolicy(reply_bytes=1000), transport=flood)
    with vault, pytest.raises(errors.UnexpectedAnswer, match="longer"):
        vault.epoch()
