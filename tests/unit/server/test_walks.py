"""docs/design.md shows a request's way from the route to the disk. These tests compare the page with a traced request.

The trace is of real code in one process: the ASGI application, a coordinator, and three replicas over LevelDB, each with its
storage thread. A file is on the way if one of its functions is running, or waits for a function it called, when the request

    has its next message made    the coordinator resumes a generator of protocol/
    passes to another thread     a queue takes it
    reaches the store            LevelDBStore.get or .write is called

All other files that are visited were called on the way, and have returned before the request goes on.
"""

import asyncio
import inspect
import itertools
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import quorumvault
from quorumvault.config.limits import Limits, Timeouts
from quorumvault.formats.fields import FieldSet
from quorumvault.protocol.clock import HybridClock
from quorumvault.server.http.admission import Admission
from quorumvault.server.http.dependencies import Services
from quorumvault.server.http.routes import create_app
from quorumvault.server.replica.group_commit import GroupCommit
from quorumvault.server.replica.local_peer import LocalPeer
from quorumvault.server.replica.replica import OwnWork
from quorumvault.server.storage.leveldb import LevelDBStore
from quorumvault.testing.fake import HEALTHY
from tests.rigs.trio import DISKS, NODES, Diary, make_coordinator, make_replica
from tests.rigs.vault import FIELDS, KEYS, Connection, EventList, bearer

PACKAGE = Path(quorumvault.__file__).parent
PAGE = PACKAGE.parent / "docs" / "design.md"
#: From the client to the disk.
ROOMS = ("server/http", "server/coordinator", "protocol", "server/replica", "server/storage")
STORE = "server/storage/leveldb.py"
MOST_FILES = 12


def room_of(file: str) -> str:
    return file.rpartition("/")[0]


class Trace:
    """Files of the package: all that were visited; those on the way, in the order in which the request reached them; and the
    stacks there, each from the outermost call in."""

    def __init__(self) -> None:
        self.visited: set[str] = set()
        self.way: dict[str, None] = {}
        self.stacks: list[list[str]] = []
        self.on = False

    def profile(self, frame: FrameType, event: str, called: Any) -> None:
        """For sys.setprofile, on each thread."""
        if not self.on or event not in ("call", "c_call"):
            return
        file = _file(frame)
        if file is None:
            return
        if event == "call":
            self.visited.add(file)
        if self._goes_on(frame, file, event, called):
            stack = [file for file in map(_file, _callers(frame)) if file is not None][::-1]
            self.stacks.append(stack)
            self.way.update(dict.fromkeys(stack))

    @staticmethod
    def _goes_on(frame: FrameType, file: str, event: str, called: Any) -> bool:
        if event == "c_call":
            return getattr(called, "__qualname__", "") == "SimpleQueue.put"
        if file == STORE:
            return frame.f_code.co_name in ("get", "write")
        is_generator = frame.f_code.co_flags & inspect.CO_GENERATOR and room_of(file) == "protocol"
        return bool(is_generator) and frame.f_back is not None and room_of(_file(frame.f_back) or "") == "server/coordinator"


def _file(frame: FrameType) -> str | None:
    path = frame.f_code.co_filename
    return path[len(str(PACKAGE)) + 1 :] if path.startswith(f"{PACKAGE}/") else None


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


@contextmanager
def traced() -> Iterator[Trace]:
    """Trace this thread, and threads that start inside the block, while ``on`` is set."""
    trace = Trace()
    before = sys.getprofile()
    threading.setprofile(trace.profile)
    sys.setprofile(trace.profile)
    try:
        yield trace
    finally:
        sys.setprofile(before)
        threading.setprofile(before)


def application(directory: Path, commits: list[GroupCommit]) -> Any:
    """The API of n1 over three replicas of this process, each behind its gate. ``commits`` gets their storage threads."""
    loop, limits, timeouts, clock = asyncio.get_running_loop(), Limits(), Timeouts(), HybridClock()
    for node in NODES:
        store = LevelDBStore.create(directory / node, DISKS[node])
        replica = make_replica(store, node, copy_bytes=limits.copy_bytes)
        replica.owners.introduce(KEYS.owners)
        commits.append(GroupCommit(replica, loop, limits, on_failure=lambda failure: None))
    peers = {
        node: LocalPeer(node, partial(_itself, commit), partial(_itself, DISKS[node]), lambda: True, clock, lambda: 1_000_000)
        for node, commit in zip(NODES, commits, strict=True)
    }
    vault = make_coordinator("n1", peers, Diary(), timeouts=timeouts, clock=clock)
    ids = itertools.count(1)
    services = Services(
        vault=vault,
        keys=lambda: KEYS,
        knows_revoked=lambda: True,
        learn_revoked=partial(asyncio.sleep, 0),
        fields=FieldSet.compile(FIELDS, "fields.yaml"),
        events=EventList(),
        limits=limits,
        timeouts=timeouts,
        health=lambda: HEALTHY,
        metrics=lambda: b"",
        admission=Admission(limits),
        clock=loop.time,
        wall=time.time,
        request_ids=lambda: f"r{next(ids)}",
    )
    return create_app(services)


def _itself(thing: Any) -> Any:
    return thing


async def ask(app: Any, path: str, body: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json", **bearer()}
    answer = await Connection(app, path, headers, json.dumps(body).encode()).run()
    assert answer.status == 200, answer.body
    return answer.json()


async def settled(commits: list[GroupCommit]) -> None:
    """Return once each replica has handled all that was sent to it: an answer waits for two of the three."""
    for commit in commits:
        handled = asyncio.get_running_loop().create_future()
        commit.submit(OwnWork(lambda replica: None), handled.set_result)
        await handled


@pytest.fixture(params=["tokenize", "detokenize"])
def walk(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Trace]:
    """The trace of one request. Earlier requests have loaded what is loaded once, and have derived the owner's keys."""

    async def run() -> Trace:
        commits: list[GroupCommit] = []
        with traced() as trace:
            app = application(tmp_path, commits)
            for value in ("99501", "02155"):  # at an owner's second write the store is asked whether it has the owner's name
                (token,) = (await ask(app, "/tokenize", {"values": [value]}))["tokens"]
                await settled(commits)
            bodies = {"tokenize": {"values": ["Zoë"]}, "detokenize": {"token": token}}
            assert (await ask(app, "/detokenize", bodies["detokenize"]))["value"] == "02155"
            await settled(commits)
            trace.on = True
            await ask(app, f"/{request.param}", bodies[request.param])
            await settled(commits)
            trace.on = False
            for commit in commits:
                commit.close()
        return trace

    return request.param, asyncio.run(run())


def shown(operation: str) -> tuple[list[str], set[str]]:
    """An operation's way, and the files asked on it, from docs/design.md: a numbered list, and the line after it."""
    section = PAGE.read_text().split("## A request's way\n", 1)[1].split("\n## ", 1)[0]
    part = section.split(f"### {operation.capitalize()}\n", 1)[1].split("\n### ", 1)[0]
    way = re.findall(r"^\d+\. `(.+?)`", part, re.MULTILINE)
    asked = part.split("Asked on the way:", 1)[1]
    return way, set(re.findall(r"`([a-z_/]+\.py)`", asked))


def test_the_way_is_the_one_on_the_page(walk: tuple[str, Trace]) -> None:
    operation, trace = walk
    way, asked = shown(operation)
    assert list(trace.way) == way
    assert trace.visited - trace.way.keys() == asked


def test_the_way_is_short_and_never_turns_back(walk: tuple[str, Trace]) -> None:
    _, trace = walk
    assert len(trace.way) <= MOST_FILES
    assert {*map(room_of, trace.way)} == {*ROOMS}
    for files in [[*trace.way], *trace.stacks]:
        rooms = [ROOMS.index(room_of(file)) for file in files]
        assert rooms == sorted(rooms), files
