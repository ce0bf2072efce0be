"""The watch checks whether all three replicas are the same whenever no fault is active, and only then."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import httpx2
import pytest

from chaos import convergence
from chaos.convergence import ConvergenceWatch, Nodes, difference_told, nodes_told
from chaos.recorder import Recorder
from chaos.testbed import history
from chaos.testbed.history import Convergence, Mending, Note, Record, Whole


class Cluster:
    """Stands in for Replicas. Every question waits until the test answers it."""

    def __init__(self, file: Path) -> None:
        self.answers: asyncio.Queue[object] = asyncio.Queue()
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        self.file = file

    async def nodes(self) -> Nodes:
        return cast("Nodes", await self._answer("nodes"))

    async def difference(self) -> str | None:
        told = await self._answer("difference")
        return None if told is None else str(told)

    async def _answer(self, question: str) -> object:
        self.asked.put_nowait(question)
        return await self.answers.get()

    async def tell(self, question: str, answer: object) -> None:
        assert await self.asked.get() == question
        self.answers.put_nowait(answer)

    def seen(self) -> list[type[Record]]:
        return [type(record) for record in history.read(self.file)]


@contextmanager
def watching(directory: Path) -> Iterator[tuple[Cluster, ConvergenceWatch]]:
    """A watch that records into a new file in this directory, and closes it."""
    with Recorder.to(directory / "history") as recorder:
        cluster = Cluster(directory / "history")
        yield cluster, ConvergenceWatch(cluster.nodes, cluster.difference, recorder)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convergence, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(convergence, "_LOOKS", 1)


def test_it_looks_once_the_last_fault_is_over_until_all_are_the_same(tmp_path: Path) -> None:
    async def story() -> None:
        with watching(tmp_path) as (cluster, watch):
            watch.begun()
            watch.begun()
            watch.ended()
            await asyncio.sleep(0)
            assert cluster.asked.empty(), "one fault is there still"
            watch.ended()
            await cluster.tell("nodes", Nodes.AWAY)
            await cluster.tell("nodes", Nodes.WHOLE)
            await cluster.tell("difference", "n2: 3 records")
            await cluster.tell("nodes", Nodes.WHOLE)
            await cluster.tell("difference", None)
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        assert cluster.seen() == [Whole, Note, Whole, Convergence]

    asyncio.run(story())


def test_it_says_since_when_a_disk_is_being_mended_also_if_it_finds_that_late(tmp_path: Path) -> None:
    async def story() -> None:
        with watching(tmp_path) as (cluster, watch):
            watch.begun()
            watch.ended()
            for nodes in (Nodes.AWAY, Nodes.MENDING, Nodes.MENDING, Nodes.WHOLE):
                await cluster.tell("nodes", nodes)
            await cluster.tell("difference", "n2: 3 records")
            for nodes in (Nodes.MENDING, Nodes.WHOLE):
                await cluster.tell("nodes", nodes)
            await cluster.tell("difference", None)
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        assert cluster.seen() == [Mending, Whole, Note, Mending, Whole, Convergence]

    asyncio.run(story())


def test_it_is_enough_that_one_of_two_who_look_finds_no_difference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(convergence, "_LOOKS", 2)
    monkeypatch.setattr(convergence, "_APART_SECONDS", 0.0)

    async def story() -> None:
        with watching(tmp_path) as (cluster, watch):
            watch.begun()
            watch.ended()
            await cluster.tell("nodes", Nodes.WHOLE)
            assert await cluster.asked.get() == await cluster.asked.get() == "difference"
            cluster.answers.put_nowait(None)
            await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
        assert cluster.seen() == [Whole, Convergence]

    asyncio.run(story())


def test_it_leaves_off_when_the_next_fault_comes(tmp_path: Path) -> None:
    async def story() -> None:
        with watching(tmp_path) as (cluster, watch):
            watch.begun()
            watch.ended()
            await cluster.tell("nodes", Nodes.WHOLE)
            assert await cluster.asked.get() == "difference"
            watch.begun()
            cluster.answers.put_nowait(None)  # too late
            await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
        assert cluster.seen() == [Whole]

    asyncio.run(story())


def test_at_the_end_it_waits_no_longer_than_the_aim_says(tmp_path: Path) -> None:
    async def story() -> list[Record]:
        with watching(tmp_path) as (cluster, watch):
            await watch.finish(0.01)
        return history.read(cluster.file)

    (record,) = asyncio.run(story())
    assert isinstance(record, Convergence)
    assert not record.equal


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, b'{"node":"n1","peers":{"n2":{"records":9},"n3":{"records":9}}}', None),
        (
            200,
            b'{"node":"n1","peers":{"n2":{"records":9},"n3":{"records":9,"only_here":1}}}',
            "n3: {'records': 9, 'only_here': 1}",
        ),
        (200, b'{"node":"n1","peers":{"n2":{"records":9},"n3":{"problem":"it is down"}}}', "n3: {'problem': 'it is down'}"),
        (200, b'{"node":"n1","peers":{"n2":{"records":9}}}', "n1 compares itself with 1 others"),
        (503, b'{"code":"draining"}', "n1 does not compare them (ValidationError)"),
    ],
)
def test_replicas_are_the_same_if_a_node_finds_no_difference_to_both_others(status: int, body: bytes, told: str | None) -> None:
    async def ask() -> str | None:
        transport = httpx2.MockTransport(lambda _: httpx2.Response(status, content=body))
        async with httpx2.AsyncClient(transport=transport) as client:
            return await difference_told(client)

    assert asyncio.run(ask()) == told


@pytest.mark.parametrize(
    ("third", "found"),
    [
        ({}, Nodes.WHOLE),
        ({"damaged": True}, Nodes.MENDING),
        ({"state": "joining"}, Nodes.MENDING),
        ({"state": "full"}, Nodes.AWAY),
        ({"quorum": {"reachable": 2}}, Nodes.AWAY),
        (None, Nodes.AWAY),
    ],
)
def test_nodes_are_whole_if_each_is_and_mend_if_one_does(third: dict[str, object] | None, found: Nodes) -> None:
    whole = {"state": "active", "quorum": {"reachable": 3}}

    def answered(request: httpx2.Request) -> httpx2.Response:
        if request.url.host != "n3":
            return httpx2.Response(200, json=whole)
        return httpx2.Response(200, content=b"no answer") if third is None else httpx2.Response(200, json=whole | third)

    async def look() -> Nodes:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answered)) as client:
            return await nodes_told(client, ["http://n1", "http://n2", "http://n3"])

    assert asyncio.run(look()) is found
