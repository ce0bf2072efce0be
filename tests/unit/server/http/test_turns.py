"""Between two steps of work on a large body everybody else has a turn; small ones are not held up by it."""

from __future__ import annotations

import asyncio

import pytest

from quorumvault.server.http.body import turn


@pytest.mark.parametrize(("size", "others"), [(100, 0), (256 << 10, 0), ((256 << 10) + 1, 3), (16 << 20, 3)])
def test_who_has_a_turn(size: int, others: int) -> None:
    async def scene() -> int:
        had = 0

        async def other() -> None:
            nonlocal had
            had += 1

        tasks = [asyncio.create_task(other()) for _ in range(3)]
        await turn(size)
        seen = had
        await asyncio.gather(*tasks)
        return seen

    assert asyncio.run(scene()) == others
