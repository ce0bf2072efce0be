"""An ASGI application on a loopback port of this process, for clients that want sockets; stand-ins; clients that do not wait."""

import contextlib
import functools
import socket
import threading
from collections.abc import Callable, Iterator

import httpx2
import pytest
import uvicorn
from starlette.types import ASGIApp

import quorumvault.client


@contextlib.contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Yields its URL. Connections are taken from the start; what is under way at the end is finished."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, lifespan="off", ws="none", log_level="critical", access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def answering(node: Callable[[httpx2.Request], httpx2.Response]) -> httpx2.MockTransport:
    """A stand-in for the network: as every node does, it answers with the id of the request."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        response = node(request)
        response.headers["X-Request-ID"] = request.headers["X-Request-ID"]
        return response

    return httpx2.MockTransport(answer)


def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that commands make have a clock which goes on by their own pauses alone, and these take no time.

    So they give up after the same tries as ever, at once, and however slow the machine is.
    """
    seconds = 0.0

    def pause(length: float) -> None:
        nonlocal seconds
        seconds += length

    client = functools.partial(quorumvault.client.Client, clock=lambda: seconds, sleep=pause)
    monkeypatch.setattr(quorumvault.client, "Client", client)
