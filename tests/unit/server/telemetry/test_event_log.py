"""The event log: whole lines in order, whatever the file ends with, however it rotates, and while its disk is full or gone."""

import asyncio
import contextlib
import json
import os
import resource
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.config.cluster import EventLogSettings
from quorumvault.server.telemetry.event_file import EventFile, rotated, rotated_files
from quorumvault.server.telemetry.event_log import Event, EventLog

SETTINGS = EventLogSettings(file_bytes=10_000, keep=3, keep_days=0, retry=0.01)
NOON = 1_750_000_000.25
DEADLINE = 10


@contextlib.asynccontextmanager
async def event_log(path: Path, settings: EventLogSettings = SETTINGS) -> AsyncIterator[EventLog]:
    log = EventLog(path, "n1", settings, lambda: NOON, lambda: True)
    log.start()
    try:
        yield log
    finally:
        await log.close()


@dataclass
class Surroundings:
    """A clock, late enough that every existing file is old, and a disk with or without room."""

    now: float = 4e9
    room: bool = True


def event_file(path: Path, settings: EventLogSettings = SETTINGS, around: Surroundings | None = None) -> EventFile:
    around = around or Surroundings()
    return EventFile(path, settings, lambda: around.now, lambda: around.room)


def append(path: Path, *lines: bytes, settings: EventLogSettings = SETTINGS) -> None:
    """Open the file, append the lines in one group, and close it."""
    file = event_file(path, settings)
    file.append(deque(lines))
    file.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 (the condition has no event of its own)
            await asyncio.sleep(0.001)


def events_in(*paths: Path) -> list[dict[str, Any]]:
    text = b"".join(path.read_bytes() for path in paths)
    assert not text or text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


async def test_a_line_has_time_node_and_what_applies(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    async with event_log(path) as log:
        await log.write(Event(event="tokenize", request_id="r1", owner="clinic", epoch=3, items=0, outcome="ok"))
        assert path.read_bytes().count(b"\n") == 1  # with the operating system before write() returned
    assert path.read_text() == (
        '{"ts":"2025-06-15T15:06:40.250000Z","node":"n1","event":"tokenize","request_id":"r1","owner":"clinic","epoch":3,'
        '"items":0,"outcome":"ok"}\n'
    )
    assert path.stat().st_mode & 0o777 == 0o600


async def test_text_of_a_caller_cannot_break_a_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    purpose = 'a "quoted"\nsecond line\u2028'
    async with event_log(path) as log:
        await log.write(Event(event="tokenize", purpose=purpose))
    (event,) = events_in(path)
    assert event["purpose"] == purpose


async def test_lines_of_concurrent_requests_are_all_there_in_order(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    async with event_log(path, EventLogSettings()) as log:
        await asyncio.gather(*(log.write(Event(event="tokenize", items=number)) for number in range(500)))
        log.note(Event(event="peer_down", peer="n2"))
    events = events_in(path)
    assert [event["items"] for event in events[:-1]] == list(range(500))
    assert events[-1]["event"] == "peer_down"  # close() writes the lines that wait


async def test_lines_of_one_turn_of_the_loop_are_handed_over_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []

    def write(file: EventFile, lines: deque[bytes]) -> None:
        groups.append(len(lines))
        lines.clear()

    monkeypatch.setattr(EventFile, "append", write)
    async with event_log(tmp_path / "events.jsonl") as log:
        await until(lambda: groups == [0])  # the first group only opens the file
        for _ in range(2):
            await asyncio.gather(*(log.write(Event(event="tokenize")) for _ in range(16)))
        assert groups == [0, 16, 16]


LINES = st.lists(st.binary(min_size=1, max_size=40).map(lambda line: line.replace(b"\n", b"") + b"\n"), max_size=8)


@given(whole=LINES, tail=st.binary(max_size=200))
def test_a_torn_tail_is_dropped_and_every_whole_line_survives(
    tmp_path_factory: pytest.TempPathFactory, whole: list[bytes], tail: bytes
) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    path.write_bytes(b"".join(whole) + tail)
    append(path, b"next\n")
    kept = tail[: tail.rfind(b"\n") + 1]
    assert path.read_bytes() == b"".join(whole) + kept + b"next\n"


def test_a_torn_tail_longer_than_a_block_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"whole\n" + bytes(200_000))
    append(path, settings=EventLogSettings())
    assert path.read_bytes() == b"whole\n"


@given(sizes=st.lists(st.integers(min_value=2, max_value=150), max_size=60), groups=st.integers(min_value=1, max_value=9))
def test_rotation_keeps_the_newest_lines_in_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], groups: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    lines = [b"%d".ljust(size, b".") % number + b"\n" for number, size in enumerate(sizes)]
    file = event_file(path, msgspec.structs.replace(SETTINGS, file_bytes=100))
    for first in range(groups):
        file.append(deque(lines[first * len(lines) // groups : (first + 1) * len(lines) // groups]))
    file.close()
    paths = [each for each in (rotated(path, 3), rotated(path, 2), rotated(path, 1), path) if each.exists()]
    contents = [each.read_bytes() for each in paths]
    assert b"".join(lines).endswith(b"".join(contents))
    assert all(len(content) <= 100 or content.count(b"\n") == 1 for content in contents)
    assert not rotated(path, 4).exists()
    assert len(paths) == 4 or b"".join(contents) == b"".join(lines)


def test_a_rotation_that_failed_half_way_loses_nothing_when_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"x" * 99 + b"\n")
    for number in (2, 3):  # file 1 had already been moved up when the rotation failed
        rotated(path, number).write_bytes(b"%d\n" % number)
    append(path, b"next\n", settings=msgspec.structs.replace(SETTINGS, file_bytes=100))
    assert [rotated(path, number).read_bytes()[-2:] for number in (1, 2, 3)] == [b"x\n", b"2\n", b"3\n"]
    assert path.read_bytes() == b"next\n"


DAY = 86_400


@dataclass
class Aged:
    """A log whose files have one line each and were written a day apart."""

    path: Path
    settings: EventLogSettings
    around: Surroundings = field(default_factory=Surroundings)

    def __post_init__(self) -> None:
        self.file = event_file(self.path, self.settings, self.around)

    def days(self, count: int, seconds: float = DAY) -> None:
        for _ in range(count):
            self.around.now += seconds
            self.file.append(deque([b"x" * 99 + b"\n"]))
            os.utime(self.path, (self.around.now, self.around.now))

    @property
    def kept(self) -> list[int]:
        return list(rotated_files(self.path))


def aged(path: Path, **settings: float) -> Aged:
    # A node's settings allow no limit as small as 100 bytes, but a test should not write as many lines as they would need.
    return Aged(path / "events.jsonl", EventLogSettings(**{"file_bytes": 100, "keep": 3, "keep_days": 10, **settings}))  # type: ignore[arg-type]


def test_a_file_that_is_young_is_kept_however_many_there_are(tmp_path: Path) -> None:
    log = aged(tmp_path)
    log.days(8)
    assert log.kept == [1, 2, 3, 4, 5, 6, 7]
    log.days(30)
    assert log.kept == list(range(1, 10))  # the files that are less than ten days old


def test_as_many_as_are_to_be_kept_stay_whatever_their_age(tmp_path: Path) -> None:
    log = aged(tmp_path, keep_days=0)
    log.days(9)
    log.around.now += 1000 * DAY
    log.days(1)
    assert log.kept == [1, 2, 3]


def test_a_flood_in_a_day_pushes_no_file_of_another_out_until_all_have_their_bytes(tmp_path: Path) -> None:
    log = aged(tmp_path, most_bytes=2000)
    log.days(1)
    first = log.path.stat().st_ino
    log.days(19, seconds=0)
    assert (len(log.kept), rotated(log.path, 19).stat().st_ino) == (19, first)
    log.days(1, seconds=0)
    assert len(log.kept) == 19
    assert rotated(log.path, 19).stat().st_ino != first


def test_a_disk_that_fills_up_gets_the_room_of_old_files_without_a_rotation(tmp_path: Path) -> None:
    log = aged(tmp_path, file_bytes=150)
    log.days(9)
    log.around.room = False
    log.file.append(deque([b"x\n"]))
    assert log.kept == [1, 2, 3]


def test_files_of_another_name_are_nobody_s_to_remove(tmp_path: Path) -> None:
    log = aged(tmp_path, keep_days=0)
    others = [tmp_path / f"events.jsonl{end}" for end in (".01", ".0", ".gz", ".9.gz", ".", ".-4", ".²", "9")]
    for other in others:
        other.write_text("mine")
    log.days(9)
    assert log.kept == [1, 2, 3]
    assert all(other.read_text() == "mine" for other in others)


def test_a_smaller_number_to_keep_holds_from_the_next_rotation(tmp_path: Path) -> None:
    log = aged(tmp_path)
    log.days(9)
    less = Aged(log.path, msgspec.structs.replace(log.settings, keep=2, keep_days=0), log.around)
    less.days(1)
    assert less.kept == [1, 2]


async def test_a_log_that_cannot_be_opened_is_reported_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "events.jsonl"
    async with event_log(path) as log:
        await until(lambda: log.problem is not None)
        await log.write(Event(event="tokenize", items=1))
        problem = log.problem
        assert problem == "event log: cannot be written: No such file or directory; events waiting: 1, lost: 0"
        path.parent.mkdir()
        await until(lambda: log.problem is None)
        await log.write(Event(event="tokenize", items=2))
    assert [event["items"] for event in events_in(path)] == [1, 2]


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes past ``size`` fail with EFBIG after writing as much as fits, like writes to a full disk. This needs no root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_line_torn_by_a_full_disk_is_written_whole_later(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines = deque(b"line %d\n" % number for number in range(10))
    file = event_file(path)
    with file_size_limit(20), pytest.raises(OSError, match="File too large"):
        file.append(lines)
    assert path.read_bytes() == b"line 0\nline 1\nline 2"
    file.append(lines)
    file.append(deque([b"end\n"]))
    file.close()
    assert path.read_bytes() == b"".join(b"line %d\n" % number for number in range(10)) + b"end\n"


def test_a_file_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    file = event_file(path)
    file.append(deque([b"seen\n"]))
    path.unlink()
    file.append(deque([b"next\n"]))
    file.close()
    assert path.read_bytes() == b"next\n"


async def test_a_log_that_refuses_says_so_until_it_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "events.jsonl"
    async with event_log(path, msgspec.structs.replace(SETTINGS, on_failure="refuse")) as log:
        await until(lambda: log.refuses is not None)
        assert not await log.write(Event(event="tokenize", items=1))
        path.parent.mkdir()
        await until(lambda: log.refuses is None)
        assert await log.write(Event(event="tokenize", items=2))
    assert [event["items"] for event in events_in(path)] == [1, 2]


async def test_a_log_that_goes_on_refuses_nothing(tmp_path: Path) -> None:
    async with event_log(tmp_path / "missing" / "events.jsonl") as log:
        await until(lambda: log.problem is not None)
        assert log.refuses is None
        assert await log.write(Event(event="tokenize"))


async def test_a_full_queue_loses_events_and_says_how_many(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "events.jsonl"
    async with event_log(path, msgspec.structs.replace(SETTINGS, queue=3)) as log:
        await until(lambda: log.problem is not None)
        for number in range(5):
            await log.write(Event(event="tokenize", items=number))
        assert log.problem is not None
        assert log.problem.endswith("events waiting: 3, lost: 2")
        assert (log.troubles, log.lost) == (1, 2)
        path.parent.mkdir()
        await until(lambda: log.problem is None)
    events = events_in(path)
    assert [event["event"] for event in events] == ["tokenize"] * 3 + ["log_gap"]
    assert events[-1]["detail"] == "2 events were lost"


@pytest.mark.parametrize("on_failure", ["continue", "refuse"])
async def test_a_hanging_disk_holds_up_no_request_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_failure: Literal["continue", "refuse"]
) -> None:
    path = tmp_path / "events.jsonl"
    disk_goes_on = threading.Event()
    append = EventFile.append

    def hang(file: EventFile, lines: deque[bytes]) -> None:
        assert disk_goes_on.wait(DEADLINE)
        append(file, lines)

    monkeypatch.setattr(EventFile, "append", hang)
    async with event_log(path, msgspec.structs.replace(SETTINGS, patience=0.02, on_failure=on_failure)) as log:
        may_be_answered = await log.write(Event(event="tokenize", items=1))
        assert log.problem is not None
        assert "its disk takes longer than 0.02 s; events waiting: 1" in log.problem
        assert may_be_answered is (on_failure == "continue")
        await log.write(Event(event="tokenize", items=2))
        disk_goes_on.set()
        await until(lambda: log.problem is None)
    assert [event["items"] for event in events_in(path)] == [1, 2]


async def test_closing_does_not_wait_for_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_goes_on = threading.Event()
    monkeypatch.setattr(EventFile, "append", lambda file, lines: disk_goes_on.wait(DEADLINE))
    async with event_log(tmp_path / "events.jsonl", msgspec.structs.replace(SETTINGS, patience=0.02)) as log:
        log.note(Event(event="tokenize"))
    assert not disk_goes_on.is_set()
    disk_goes_on.set()


async def test_closing_a_log_that_cannot_be_written_ends(tmp_path: Path) -> None:
    async with event_log(tmp_path / "missing" / "events.jsonl") as log:
        await log.write(Event(event="tokenize"))
