"""Group commit: the size of a group, and the bounds on what waits for the storage thread."""

import asyncio
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

from quorumvault.config.limits import Limits
from quorumvault.protocol.messages import AnyRequest, Get, GetSettled, Put, ReadEpoch, RoundId, WriteBack
from quorumvault.protocol.peer import NoReply
from quorumvault.server.replica.group_commit import GroupCommit

HEAD = (RoundId(b"D" * 16, b"boot", 1), (1, bytes(16)))
KiB = 1 << 10


class HeldReplica:
    """Handles a group when the test lets it, and records the size of each group."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.groups: list[int] = []

    def handle(self, requests: Sequence[Any]) -> list[Any]:
        self.groups.append(len(requests))
        self.began.release()
        assert self.go.acquire(timeout=20)
        return [f"reply to {id(request)}" for request in requests]


def put(size: int) -> Put:
    return Put(*HEAD, b"o" * 16, 1, "s1", b"h" * 11, [b"d" * 20], [bytes(size)])


def write_back(size: int) -> WriteBack:
    return WriteBack(*HEAD, "clinic", [1], [b"d" * 20], [bytes(size)])


def get(count: int) -> Get:
    return Get(*HEAD, b"o" * 16, [1] * count, [b"d" * 20] * count)


def get_settled(count: int) -> GetSettled:
    return GetSettled(*HEAD, b"o" * 16, [1] * count, [b"d" * 20] * count)


ASK = ReadEpoch(*HEAD, b"o" * 16)


class Scene:
    """A storage thread that is busy with a first group, so that all later requests wait."""

    def __init__(self, limits: Limits) -> None:
        self.replica = HeldReplica()
        self.failures: list[BaseException] = []
        self.replies: list[Any] = []
        self.commit = GroupCommit(self.replica, asyncio.get_running_loop(), limits, self.failures.append)  # type: ignore[arg-type]
        self.submit(ASK)
        assert self.replica.began.acquire(timeout=20)

    def submit(self, *requests: Any) -> None:
        for request in requests:
            self.commit.submit(request, self.replies.append)

    @property
    def refused(self) -> int:
        return self.replies.count(NoReply(sent=False))

    async def settle(self, replies: int) -> None:
        """Wait until this many requests have a reply. Refusals count."""
        self.replica.go.release(100)
        async with asyncio.timeout(20):
            while len(self.replies) < replies:  # noqa: ASYNC110 - replies come by callback, and none is marked as the last
                await asyncio.sleep(0.001)

    async def end(self) -> None:
        self.replica.go.release(100)
        assert await asyncio.to_thread(self.commit.close, 20)
        assert self.failures == []


async def test_a_group_is_as_large_as_its_bytes_whatever_kind_they_are_of() -> None:
    for requests, groups in (
        ([put(4 * KiB)] * 5, [2, 2, 1]),
        ([write_back(4 * KiB)] * 5, [2, 2, 1]),
        ([get(4)] * 5, [2, 2, 1]),
        ([get_settled(4)] * 5, [2, 2, 1]),
        ([put(3 * KiB), get(2), write_back(3 * KiB), get(8), ASK, ASK], [1, 2, 1, 2]),
        ([ASK] * 100, [64, 36]),
        ([put(100 * KiB), put(1)], [1, 1]),
    ):
        one = Scene(Limits(group_bytes=8 * KiB))
        one.submit(*requests)
        await one.settle(1 + len(requests))
        assert one.replica.groups == [1, *groups]
        await one.end()


def _note(answered: list[Any], request: AnyRequest, reply: object) -> None:
    answered.append(request)


async def test_reads_are_answered_in_parts_and_before_the_writes_that_share_a_sync() -> None:
    one = Scene(Limits())
    requests: list[AnyRequest] = [put(1), get(63), get_settled(1), get(300), put(1), get(1), ASK]
    for request in requests:
        one.commit.submit(request, partial(_note, one.replies, request))
    await one.settle(1 + len(requests))
    assert one.replica.groups == [1, 2, 1, 2, 2]
    assert one.replies[1:] == [requests[index] for index in (1, 2, 3, 5, 6, 0, 4)]
    await one.end()


async def test_a_read_is_answered_before_the_next_part_is_looked_up() -> None:
    one = Scene(Limits())
    one.submit(get(64), get(64), put(1))
    for answered in (1, 2, 3):
        one.replica.go.release()
        async with asyncio.timeout(20):
            while len(one.replies) < answered:  # noqa: ASYNC110 - replies come by callback
                await asyncio.sleep(0.001)
        assert len(one.replies) == answered
    await one.settle(4)
    await one.end()


async def test_bytes_that_wait_for_the_disk_are_bounded() -> None:
    """Writes that the two other replicas have acknowledged keep coming while this disk hangs."""
    one = Scene(Limits(storage_queue_bytes=10 * KiB))
    one.submit(*[put(4 * KiB)] * 2, get(2))
    assert one.refused == 0
    one.submit(put(1), get(1), write_back(1))
    assert one.refused == 3
    one.submit(ASK)
    assert one.refused == 3
    await one.settle(8)
    one.submit(*[put(4 * KiB)] * 2)
    assert one.refused == 3
    await one.end()


async def test_requests_that_wait_are_bounded() -> None:
    one = Scene(Limits(storage_queue=3))
    one.submit(*[ASK] * 5)
    assert one.refused == 2
    await one.end()
