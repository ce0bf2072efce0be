"""An ASGI application on a loopback port of this process, for clients that want sockets; and clients that do not wait."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from collections.abc import Iterator

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
