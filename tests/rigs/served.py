"""Stand-ins for the network; clients that do not wait."""

import functools
from collections.abc import Callable

import httpx2
import pytest

import quorumvault.client


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
