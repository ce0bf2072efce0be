"""Background loops rest in proportion to their work, also when they share a throttle."""

import asyncio

import pytest

from quorumvault.server.healing import throttle
from quorumvault.server.healing.throttle import Throttle


async def test_each_piece_of_work_is_rested_for_whoever_else_began_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    shared, now = Throttle(0.25), asyncio.get_running_loop().time()
    monkeypatch.setattr(throttle, "pause", rest)
    await shared.rest(now - 1.5)
    await shared.rest(now - 0.5)
    one, other = rests
    assert one >= 4.5
    assert one - other == pytest.approx(3.0, abs=0.5)
