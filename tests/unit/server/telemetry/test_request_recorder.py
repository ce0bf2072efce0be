"""A finished request is counted and has a line: one each if it did something; refused ones share a line a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from quorumvault.server.telemetry.event_log import Event
from quorumvault.server.telemetry.request_recorder import REFUSED, RequestRecorder
from tests.unit.server.telemetry.test_metrics import OUTCOMES, codes

pytestmark = pytest.mark.slow


class Log:
    def __init__(self) -> None:
        self.refuses: str | None = None
        self.lines: list[Event] = []
        self.counted: list[Event] = []
        self.written = asyncio.Event()

    async def write(self, event: Event) -> bool:
        self.note(event)
        return self.refuses is None

    def note(self, event: Event) -> None:
        self.lines.append(event)
        self.written.set()


def stranger(request_id: str) -> Event:
    return Event(event="tokenize", outcome="unauthenticated", request_id=request_id)


def scene(test: Callable[[RequestRecorder, Log], Awaitable[None]]) -> list[tuple[str | None, int | None]]:
    """The request id of each line, and how many more it stands for."""

    async def run() -> Log:
        log = Log()
        await test(RequestRecorder(log, log.counted.append), log)
        return log

    return [(event.request_id, event.more) for event in asyncio.run(run()).lines]


def test_the_shared_line_is_written_when_the_second_is_over() -> None:
    async def test(events: RequestRecorder, log: Log) -> None:
        await events.write(stranger("a"))
        log.written.clear()
        await events.write(stranger("b"))
        await events.write(stranger("c"))
        async with asyncio.timeout(20):
            await log.written.wait()

    assert scene(test) == [("a", None), ("c", 1)]


def test_a_line_that_was_shared_makes_the_next_second_quiet_too() -> None:
    async def test(events: RequestRecorder, log: Log) -> None:
        async with asyncio.timeout(20):
            for name in "abcde":
                log.written.clear()
                await events.write(stranger(name))
                if name in "bd":
                    await log.written.wait()
        assert [event.request_id for event in log.lines] == ["a", "b", "d"]
        events.flush()

    assert scene(test) == [("a", None), ("b", None), ("d", 1), ("e", None)]


def made(events: list[Event]) -> list[Event]:
    """The lines of these events, all within a second, and then the end."""

    async def test(recorder: RequestRecorder, log: Log) -> None:
        for event in events:
            assert await recorder.write(event)
        recorder.flush()
        recorder.flush()
        lines.extend(log.lines)
        assert log.counted == events

    lines: list[Event] = []
    scene(test)
    return lines


def busy(number: int, key: str) -> Event:
    return Event(event="tokenize", outcome="busy", request_id=f"{key} {number}", key_id=key)


@pytest.mark.parametrize(
    ("events", "lines"),
    [
        ([stranger(f"r{number}") for number in range(1000)], [("r0", None), ("r999", 998)]),
        ([stranger("a"), stranger("b")], [("a", None), ("b", None)]),
        (
            [*(busy(number, key) for number in range(3) for key in ("one", "other")), stranger("nobody")],
            [("one 0", None), ("other 0", None), ("nobody", None), ("one 2", 1), ("other 2", 1)],
        ),
    ],
    ids=["a flood", "a line for one says nothing of more", "each key that finds no place has lines of its own"],
)
def test_the_first_has_its_line_and_those_of_the_same_second_share_the_next_one(events: list[Event], lines: object) -> None:
    assert [(line.request_id, line.more) for line in made(events)] == lines


@pytest.mark.parametrize("outcome", sorted(REFUSED))
def test_whatever_is_refused_shares_a_line(outcome: str) -> None:
    lines = made([Event(event="tokenize", outcome=outcome, request_id=f"r{n}", key_id="k") for n in range(50)])
    assert [(line.request_id, line.more) for line in lines] == [("r0", None), ("r49", 48)]


@pytest.mark.parametrize("outcome", ["ok", "not-found", "no-quorum", "token-collision", "internal", "cancelled"])
def test_what_may_have_told_or_stored_a_value_has_a_line_each(outcome: str) -> None:
    events = [Event(event="detokenize", outcome=outcome, request_id=f"r{n}", key_id="k", items=1) for n in range(50)]
    assert made(events) == events


def test_every_outcome_of_a_request_is_one_or_the_other() -> None:
    own = {"not-found", "no-quorum", "token-collision", "internal", "ok", "cancelled"}
    elsewhere = {"method-not-allowed"}  # the router's, which has no line at all
    assert {*OUTCOMES, *codes()} == own | elsewhere | REFUSED


def test_each_operation_and_outcome_of_a_key_has_lines_of_its_own() -> None:
    kinds = [(event, outcome) for event in ("rotate_epoch", "detokenize") for outcome in ("not-permitted", "rate-limited")]
    lines = made([Event(event=event, outcome=outcome, key_id="k") for _ in range(5) for event, outcome in kinds])
    assert [(line.event, line.outcome, line.more) for line in lines] == [(*kind, more) for more in (None, 3) for kind in kinds]


@pytest.mark.parametrize(
    "event",
    [Event(event="epoch", outcome="ok"), Event(event="fields", outcome="ok"), Event(event="tokenize", outcome="ok", items=0)],
)
def test_asking_for_no_value_has_a_line_each_until_it_is_a_flood(event: Event) -> None:
    lines = made([replace(event, request_id=f"r{number}") for number in range(100)])
    assert [line.request_id for line in lines] == [*(f"r{number}" for number in range(16)), "r99"]
    assert [line.more for line in lines] == [*[None] * 16, 83]


def test_nothing_is_counted_twice_and_nothing_is_left_out_over_seconds() -> None:
    async def test(events: RequestRecorder, log: Log) -> None:
        async with asyncio.timeout(20):
            for _ in range(3):
                log.written.clear()
                for _ in range(40):
                    await events.write(Event(event="epoch", outcome="ok", key_id="k"))
                log.written.clear()
                await log.written.wait()
        events.flush()

    assert sum(1 + (more or 0) for _, more in scene(test)) == 120


def test_what_could_not_be_recorded_counts_as_what_it_was_answered_with() -> None:
    async def test(events: RequestRecorder, log: Log) -> None:
        log.refuses = "the disk is full"
        assert events.refuses == "the disk is full"
        for outcome in ("ok", "invalid", "internal"):
            # An error has nothing to withhold; a refused one beyond the first of its second needs no line at once.
            assert not await events.write(Event(event="detokenize", outcome=outcome, items=1))
        assert [event.outcome for event in log.counted] == ["no-quorum", "invalid", "internal"]

    scene(test)
