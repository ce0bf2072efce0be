"""What is turned away unread has a line a second in the event log, however much it is; everything else a line each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from quorumvault.events import Event
from quorumvault.refusals import RefusalsTogether


class Log:
    def __init__(self) -> None:
        self.lines: list[Event] = []
        self.written = asyncio.Event()

    async def write(self, event: Event) -> None:
        self.note(event)

    def note(self, event: Event) -> None:
        self.lines.append(event)
        self.written.set()


def stranger(request_id: str) -> Event:
    return Event(event="tokenize", outcome="unauthenticated", request_id=request_id)


def scene(test: Callable[[RefusalsTogether, Log], Awaitable[None]]) -> list[tuple[str | None, int | None]]:
    """The request id of each line, and how many more it stands for."""

    async def run() -> Log:
        log = Log()
        await test(RefusalsTogether(log), log)
        return log

    return [(event.request_id, event.more) for event in asyncio.run(run()).lines]


def test_the_first_has_its_line_at_once_and_those_of_the_same_second_share_the_next_one() -> None:
    async def test(events: RefusalsTogether, log: Log) -> None:
        for number in range(1000):
            await events.write(stranger(f"r{number}"))
        assert len(log.lines) == 1
        events.flush()

    assert scene(test) == [("r0", None), ("r999", 998)]


def test_the_shared_line_is_written_when_the_second_is_over() -> None:
    async def test(events: RefusalsTogether, log: Log) -> None:
        await events.write(stranger("a"))
        log.written.clear()
        await events.write(stranger("b"))
        await events.write(stranger("c"))
        async with asyncio.timeout(20):
            await log.written.wait()

    assert scene(test) == [("a", None), ("c", 1)]


def test_a_line_for_one_says_nothing_of_more() -> None:
    async def test(events: RefusalsTogether, log: Log) -> None:
        await events.write(stranger("a"))
        await events.write(stranger("b"))
        events.flush()
        events.flush()

    assert scene(test) == [("a", None), ("b", None)]


def test_a_line_that_was_shared_makes_the_next_second_quiet_too() -> None:
    async def test(events: RefusalsTogether, log: Log) -> None:
        async with asyncio.timeout(20):
            for name in "abcde":
                log.written.clear()
                await events.write(stranger(name))
                if name in "bd":
                    await log.written.wait()
        assert [event.request_id for event in log.lines] == ["a", "b", "d"]
        events.flush()

    assert scene(test) == [("a", None), ("b", None), ("d", 1), ("e", None)]


def test_each_key_that_finds_no_place_has_lines_of_its_own() -> None:
    async def test(events: RefusalsTogether, log: Log) -> None:
        for number in range(3):
            for key in ("one", "other"):
                await events.write(Event(event="tokenize", outcome="busy", request_id=f"{key} {number}", key_id=key))
        await events.write(stranger("nobody"))
        events.flush()

    assert scene(test) == [("one 0", None), ("other 0", None), ("nobody", None), ("one 2", 1), ("other 2", 1)]


def test_who_has_a_key_has_a_line_for_each_request() -> None:
    async def test(events: RefusalsTogether, log: Log) -> None:
        for number in range(5):
            await events.write(stranger("stranger"))
            await events.write(Event(event="tokenize", outcome="ok", request_id=f"r{number}", key_id="k"))
            await events.write(Event(event="tokenize", outcome="not-permitted", request_id=f"p{number}", key_id="k"))

    lines = scene(test)
    assert [name for name, _ in lines if name != "stranger"] == [name for n in range(5) for name in (f"r{n}", f"p{n}")]
    assert lines.count(("stranger", None)) == 1
