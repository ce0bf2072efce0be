"""Stand-ins for the network, and clients that do not wait."""

import functools
from collections.abc import Callable

import httpx2
import pytest

import quorumvault.client


def answering(node: Callable[[httpx2.Request], httpx2.Response]) -> httpx2.MockTransport:
    """A stand-in for the network: like every node, it answers with the request's id."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        response = node(request)
        response.headers["X-Request-ID"] = request.headers["X-Request-ID"]
        return response

    return httpx2.MockTransport(answer)


def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the clients of commands a clock that only their own pauses move, and makes these pauses take no time.

    So they give up after the usual number of tries, but at once, however slow the machine is.
    """
    seconds = 0.0

    def pause(length: float) -> None:
        nonlocal seconds
        seconds += length

    client = functools.partial(quorumvault.client.Client, clock=lambda: seconds, sleep=pause)
    monkeypatch.setattr(quorumvault.client, "Client", client)
