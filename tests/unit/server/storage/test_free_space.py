"""Free space: below the floor there is no room, a quarter above it there is again, and what cannot be told changes nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from quorumvault.server.storage import free_space
from quorumvault.server.storage.free_space import FreeSpace, free_bytes

FLOOR = 1000


class Disk:
    """Has as many bytes free as a test says, or cannot be asked."""

    def __init__(self, free: int) -> None:
        self.free: int | None = free
        self.looks = 0

    def __call__(self, directory: Path) -> int:
        self.looks += 1
        if self.free is None:
            raise OSError("the file system hangs up")
        return self.free


def with_space(disk: Disk, test: Callable[[FreeSpace, list[bool]], None]) -> list[bool]:
    """Runs a test in a loop, and answers what the node was told of it."""
    told: list[bool] = []

    async def scene() -> None:
        test(FreeSpace(Path("/data/n1"), FLOOR, told.append, free=disk), told)
        await asyncio.sleep(0)

    asyncio.run(scene())
    return told


def test_it_is_full_below_the_floor_until_there_is_a_quarter_more() -> None:
    disk = Disk(FLOOR)

    def scene(space: FreeSpace, told: list[bool]) -> None:
        for free, room in ((1000, True), (999, False), (1000, False), (1249, False), (1250, True), (1000, True), (0, False)):
            disk.free = free
            assert space.has_room() is room, free
            assert space.full is not room
            assert space.bytes == free

    with_space(disk, scene)


def test_a_disk_that_cannot_be_asked_stays_what_it_was() -> None:
    disk = Disk(FLOOR)

    def scene(space: FreeSpace, told: list[bool]) -> None:
        for free, room in ((None, True), (5, False), (None, False), (5000, True)):
            disk.free = free
            assert space.has_room() is room
            assert space.bytes == free

    with_space(disk, scene)


def test_every_look_asks_the_disk_anew() -> None:
    disk = Disk(FLOOR)

    def scene(space: FreeSpace, told: list[bool]) -> None:
        for _ in range(3):
            space.has_room()

    with_space(disk, scene)
    assert disk.looks == 3


def test_its_words_say_what_is_refused_and_what_to_do() -> None:
    disk = Disk(999)

    def scene(space: FreeSpace, told: list[bool]) -> None:
        assert space.problem is None
        space.has_room()
        assert space.problem is not None
        assert space.problem.startswith("disk full: 999 bytes are free at /data/n1, and limits.free_space_floor is 1,000: ")
        disk.free = None
        space.has_room()
        assert "an unknown number of bytes" in space.problem
        disk.free = 2000
        space.has_room()
        assert space.problem is None

    with_space(disk, scene)


async def test_a_change_is_told_once_whoever_looked_and_on_the_event_loops_thread() -> None:
    disk = Disk(10)
    told: asyncio.Queue[bool] = asyncio.Queue()
    space = FreeSpace(Path("/data/n1"), FLOOR, told.put_nowait, free=disk)
    async with asyncio.timeout(20):
        await asyncio.gather(*(asyncio.to_thread(space.has_room) for _ in range(8)))
        assert await told.get()
        disk.free = 5_000
        await asyncio.gather(*(asyncio.to_thread(space.has_room) for _ in range(8)))
        assert not await told.get()
    assert told.empty()


def test_a_change_that_was_taken_back_before_it_could_be_told_is_none() -> None:
    disk = Disk(10)

    def scene(space: FreeSpace, told: list[bool]) -> None:
        space.has_room()
        disk.free = 5_000
        space.has_room()

    assert with_space(disk, scene) == []


async def test_the_event_loop_looks_until_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_space, "_SECONDS", 0)
    disk = Disk(5_000)
    told: asyncio.Queue[bool] = asyncio.Queue()
    watching = asyncio.create_task(FreeSpace(Path("/data/n1"), FLOOR, told.put_nowait, free=disk).watch())
    async with asyncio.timeout(20):
        for free, full in ((10, True), (5_000, False)):
            disk.free = free
            assert await told.get() is full
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


def test_what_is_free_is_what_a_node_may_write(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert 0 <= free_bytes(tmp_path) <= status.f_blocks * status.f_frsize
    with pytest.raises(OSError, match="No such file"):
        free_bytes(tmp_path / "gone")
