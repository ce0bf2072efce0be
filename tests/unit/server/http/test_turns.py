"""Between two steps of work on a large body, all other requests get a turn; a small body does not wait for turns."""

import asyncio

import pytest

from quorumvault.server.http.body import turn


@pytest.mark.parametrize(("size", "others"), [(100, 0), (256 << 10, 0), ((256 << 10) + 1, 3), (16 << 20, 3)])
async def test_who_has_a_turn(size: int, others: int) -> None:
    had: list[int] = []
    for other in range(3):
        asyncio.get_running_loop().call_soon(had.append, other)
    await turn(size)
    assert len(had) == others
