"""A finished request is counted and has a line: its own if it did something. Refused requests share a line a second."""

import asyncio

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


def shares(lines: list[Event]) -> list[tuple[str | None, int | None]]:
    """The request id of each line, and how many more requests the line stands for."""
    return [(event.request_id, event.more) for event in lines]


def recording() -> tuple[RequestRecorder, Log]:
    log = Log()
    return RequestRecorder(log, log.counted.append), log


async def test_the_shared_line_is_written_when_the_second_is_over() -> None:
    recorder, log = recording()
    await recorder.write(stranger("a"))
    log.written.clear()
    await recorder.write(stranger("b"))
    await recorder.write(stranger("c"))
    async with asyncio.timeout(20):
        await log.written.wait()
    assert shares(log.lines) == [("a", None), ("c", 1)]


async def test_a_line_that_was_shared_makes_the_next_second_quiet_too() -> None:
    recorder, log = recording()
    async with asyncio.timeout(20):
        for name in "abcde":
            log.written.clear()
            await recorder.write(stranger(name))
            if name in "bd":
                await log.written.wait()
    assert [event.request_id for event in log.lines] == ["a", "b", "d"]
    recorder.flush()
    assert shares(log.lines) == [("a", None), ("b", None), ("d", 1), ("e", None)]


async def made(events: list[Event]) -> list[Event]:
    """Write these events within one second, and flush. Return the lines."""
    recorder, log = recording()
    for event in events:
        assert await recorder.write(event)
    recorder.flush()
    recorder.flush()
    assert log.counted == events
    return log.lines


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
async def test_the_first_has_its_line_and_those_of_the_same_second_share_the_next_one(events: list[Event], lines: object) -> None:
    assert shares(await made(events)) == lines


@pytest.mark.parametrize("outcome", sorted(REFUSED))
async def test_whatever_is_refused_shares_a_line(outcome: str) -> None:
    lines = await made([Event(event="tokenize", outcome=outcome, request_id=f"r{n}", key_id="k") for n in range(50)])
    assert shares(lines) == [("r0", None), ("r49", 48)]


@pytest.mark.parametrize("outcome", ["ok", "not-found", "no-quorum", "token-collision", "internal", "cancelled"])
async def test_what_may_have_told_or_stored_a_value_has_a_line_each(outcome: str) -> None:
    events = [Event(event="detokenize", outcome=outcome, request_id=f"r{n}", key_id="k", items=1) for n in range(50)]
    assert await made(events) == events


def test_every_outcome_of_a_request_is_one_or_the_other() -> None:
    own = {"not-found", "no-quorum", "token-collision", "internal", "ok", "cancelled"}
    elsewhere = {"method-not-allowed"}  # the router's outcome, which has no line at all
    assert {*OUTCOMES, *codes()} == own | elsewhere | REFUSED


async def test_each_operation_and_outcome_of_a_key_has_lines_of_its_own() -> None:
    kinds = [(event, outcome) for event in ("rotate_epoch", "detokenize") for outcome in ("not-permitted", "rate-limited")]
    lines = await made([Event(event=event, outcome=outcome, key_id="k") for _ in range(5) for event, outcome in kinds])
    assert [(line.event, line.outcome, line.more) for line in lines] == [(*kind, more) for more in (None, 3) for kind in kinds]


@pytest.mark.parametrize(
    "event",
    [Event(event="epoch", outcome="ok"), Event(event="fields", outcome="ok"), Event(event="tokenize", outcome="ok", items=0)],
)
async def test_asking_for_no_value_has_a_line_each_until_it_is_a_flood(event: Event) -> None:
    lines = await made([replace(event, request_id=f"r{number}") for number in range(100)])
    assert shares(lines) == [*((f"r{number}", None) for number in range(16)), ("r99", 83)]


async def test_nothing_is_counted_twice_and_nothing_is_left_out_over_seconds() -> None:
    recorder, log = recording()
    async with asyncio.timeout(20):
        for _ in range(3):
            log.written.clear()
            for _ in range(40):
                await recorder.write(Event(event="epoch", outcome="ok", key_id="k"))
            log.written.clear()
            await log.written.wait()
    recorder.flush()
    assert sum(1 + (line.more or 0) for line in log.lines) == 120


async def test_what_could_not_be_recorded_counts_as_what_it_was_answered_with() -> None:
    recorder, log = recording()
    log.refuses = "the disk is full"
    assert recorder.refuses == "the disk is full"
    for outcome in ("ok", "invalid", "internal"):
        # An error has no result to withhold. After the first refused request of a second, the others need no line at once.
        assert not await recorder.write(Event(event="detokenize", outcome=outcome, items=1))
    assert [event.outcome for event in log.counted] == ["no-quorum", "invalid", "internal"]
