"""Free space is looked at on a thread, again and again, and is unknown while it cannot be told."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from quorumvault import freespace
from quorumvault.freespace import FreeSpace


def test_it_is_looked_at_until_it_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freespace, "_SECONDS", 0)
    directory = tmp_path / "n1"
    directory.mkdir()

    async def scene() -> list[bool]:
        space = FreeSpace(directory)
        known = [space.bytes is not None]
        watching = asyncio.create_task(space.watch())
        async with asyncio.timeout(20):
            for _ in range(2):
                while (space.bytes is not None) is known[-1]:  # noqa: ASYNC110 - the thread has no event
                    await asyncio.sleep(0.001)
                known.append(space.bytes is not None)
                shutil.rmtree(directory, ignore_errors=True)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        return known

    assert asyncio.run(scene()) == [False, True, False]
