"""How long the HTTP server waits for a stranger: for the head of a request, and between two requests of a connection.

Heads without an end, bodies, and all else that a connection bounds: tests/api/test_connections.py.
"""

from __future__ import annotations

import pytest

from quorumvault.config.cluster import Timeouts
from tests.api.test_connections import GET, SIZED, serving

HURRY = Timeouts(head=0.05)


@pytest.mark.parametrize("begun", [b"", b"GET / HT"])
async def test_a_head_that_does_not_come_ends_the_connection(begun: bytes) -> None:
    async with serving(timeouts=HURRY) as site:
        client = await site.sent(begun)
        assert await client.rest() == b""


async def test_an_idle_connection_may_wait_between_requests() -> None:
    async with serving(timeouts=HURRY) as site:
        client = await site.sent(GET % b"/a")
        await client.answer()
        other = await site.connect()
        assert await other.rest() == b""  # a stranger of the same age is gone by now
        client.send(GET % b"/b")
        assert (await client.answer()).endswith(b"/b:;")


async def test_a_connection_is_idle_after_the_rest_of_a_body_that_nobody_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that was refused at its head leaves such a rest."""
    monkeypatch.setattr("quorumvault.server.http.server._KEEP_ALIVE", 0.2)

    async with serving() as site:
        client = await site.sent(SIZED % (b"/early", 5))
        assert (await client.answer()).endswith(b"/early:;")
        client.send(b"01234")
        assert await client.rest() == b""
