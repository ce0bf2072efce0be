"""Free space: below the floor there is no room, a quarter above it there is again, and a failed check changes nothing."""

import asyncio
import os
from pathlib import Path

import pytest

from quorumvault.server.storage import free_space
from quorumvault.server.storage.free_space import FreeSpace, free_bytes

FLOOR = 1000


class Disk:
    """Has as many bytes free as a test says, or cannot be asked."""

    def __init__(self, free: int) -> None:
        self.free: int | None = free
        self.directory = Path("/data/n1")
        self.looks = 0
        #: What the node was told about the disk's room.
        self.told: asyncio.Queue[bool] = asyncio.Queue()

    def __call__(self, directory: Path) -> int:
        self.looks += 1
        if self.free is None:
            raise OSError("the file system hangs up")
        return self.free

    def space(self) -> FreeSpace:
        return FreeSpace(self.directory, FLOOR, self.told.put_nowait, free=self)


@pytest.mark.parametrize(
    "looks",
    [
        ((1000, True), (999, False), (1000, False), (1249, False), (1250, True), (1000, True), (0, False)),
        ((None, True), (5, False), (None, False), (5000, True)),
    ],
    ids=["full below the floor until there is a quarter more", "a disk that cannot be asked stays what it was"],
)
async def test_every_look_asks_the_disk_anew(looks: tuple[tuple[int | None, bool], ...]) -> None:
    disk = Disk(FLOOR)
    space = disk.space()
    for count, (free, room) in enumerate(looks, 1):
        disk.free = free
        assert (space.has_room(), space.full, space.bytes, disk.looks) == (room, not room, free, count)


async def test_its_words_say_what_is_refused_and_what_to_do() -> None:
    disk = Disk(999)
    space = disk.space()
    full = " are free at /data/n1, and limits.free_space_floor is 1,000: "
    assert space.problem is None
    for free, problem in ((999, f"disk full: 999 bytes{full}"), (None, f"disk full: an unknown number of bytes{full}")):
        disk.free = free
        space.has_room()
        assert str(space.problem).startswith(problem)
    disk.free = 2000
    space.has_room()
    assert space.problem is None


async def test_a_change_is_told_once_whoever_looked_and_on_the_event_loops_thread() -> None:
    disk = Disk(10)
    space = disk.space()
    async with asyncio.timeout(20):
        for free, full in ((10, True), (5_000, False)):
            disk.free = free
            await asyncio.gather(*(asyncio.to_thread(space.has_room) for _ in range(8)))
            assert await disk.told.get() is full
    assert disk.told.empty()


async def test_a_change_that_was_taken_back_before_it_could_be_told_is_none() -> None:
    disk = Disk(10)
    space = disk.space()
    space.has_room()
    disk.free = 5_000
    space.has_room()
    await asyncio.sleep(0)
    assert disk.told.empty()


async def test_the_event_loop_looks_until_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_space, "_SECONDS", 0)
    disk = Disk(5_000)
    watching = asyncio.create_task(disk.space().watch())
    async with asyncio.timeout(20):
        for free, full in ((10, True), (5_000, False)):
            disk.free = free
            assert await disk.told.get() is full
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


def test_what_is_free_is_what_a_node_may_write(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert 0 <= free_bytes(tmp_path) <= status.f_blocks * status.f_frsize
    with pytest.raises(OSError, match="No such file"):
        free_bytes(tmp_path / "gone")


async def test_the_files_of_the_store_are_measured(tmp_path: Path) -> None:
    disk = Disk(FLOOR)
    disk.directory = tmp_path
    space = disk.space()
    space.look()
    assert space.stored == 0
    (tmp_path / "store").mkdir()
    for name, length in {"a": 10, "b": 5}.items():
        (tmp_path / "store" / name).write_bytes(bytes(length))
    space.look()
    assert (space.stored, space.bytes) == (15, FLOOR)
