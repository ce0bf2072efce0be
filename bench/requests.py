"""``bin/bench requests``: the cost of one small request to the HTTP half of a node, in microseconds of CPU, without sockets.

The application is the one that nodes serve, over a vault with one fixed answer. Requests are tasks with an ASGI scope like
uvicorn's, several at once or one after the other. The cost of the driver, measured with an application that answers at once, is
subtracted. The second column is without an event log: the difference is the cost of an event line, including the hand-over to
the writer thread and the write.
"""

import asyncio
import hashlib
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bench.report import Account, Report, Table, Tell, today
from bench.work import WrongAnswer
from quorumvault.config.api_keys import DEFAULT_ALLOW, NO_LIMIT, ApiKey, KeyTable
from quorumvault.config.cluster import EventLogSettings
from quorumvault.config.limits import Limits, Timeouts
from quorumvault.formats.fields import FieldSet
from quorumvault.model import Owner
from quorumvault.server.coordinator.vault import Take, Tokenized, Vault
from quorumvault.server.http.admission import Admission
from quorumvault.server.http.dependencies import Services
from quorumvault.server.http.request_ids import fresh_ids
from quorumvault.server.http.routes import create_app
from quorumvault.server.http.scope import CONNECTION
from quorumvault.server.telemetry.event_log import Event, EventLog, EventSink
from quorumvault.server.telemetry.metrics import Metrics, Reading
from quorumvault.server.telemetry.request_recorder import RequestRecorder

_KEY = f"qvk_bench_{'b' * 32}"
_TOKEN = f"qv_1_{'a' * 48}"
_OWNER = Owner("bench")
_KEYS = KeyTable([_OWNER], [ApiKey("bench", _OWNER, frozenset(DEFAULT_ALLOW), NO_LIMIT, hashlib.sha256(_KEY.encode()).digest())])
_READING = Reading("active", 3, {}, 0, None, {}, cast("Any", None))


@dataclass(frozen=True, slots=True)
class RequestsPlan:
    """``inputs``: requests of each kind in a repetition."""

    name: str = "requests"
    inputs: int = 4_000
    repetitions: int = 5
    at_once: tuple[int, ...] = (16, 1)


@dataclass(frozen=True, slots=True)
class _Request:
    name: str
    method: str
    path: str
    body: bytes = b""

    def scope(self) -> Scope:
        fields = [(b"host", b"bench")]
        if self.body:
            length = b"%d" % len(self.body)
            fields += [(b"authorization", b"Bearer " + _KEY.encode()), (b"content-type", b"application/json")]
            fields += [(b"content-length", length)]
        return {
            "type": "http",
            "http_version": "1.1",
            "method": self.method,
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": fields,
            CONNECTION: _HERE,
        }


_REQUESTS = (
    _Request("GET /livez", "GET", "/livez"),
    _Request("POST /tokenize, one value", "POST", "/tokenize", b'{"values":["123-45-6789"]}'),
    _Request("POST /detokenize, one token", "POST", "/detokenize", b'{"token":"%s"}' % _TOKEN.encode()),
)


class _Here:
    """A connection on which each request has arrived whole, and each answer has been sent. Implements Connection (scope.py)."""

    received, ended = True, False

    def when_sent(self, callback: Any) -> None:
        callback()


_HERE = _Here()


class _Answering:
    """The part of Vault that the requests use. It waits for one iteration of the event loop."""

    async def tokenize(self, owner: Owner, canonicals: Sequence[bytes]) -> Tokenized:
        await asyncio.sleep(0)
        return Tokenized(1, [_TOKEN])

    async def detokenize(self, owner: Owner, tokens: Sequence[str], take: Take) -> list[bytes]:
        await asyncio.sleep(0)
        return [b"s123-45-6789"]


class _NoLog:
    """Implements EventSink, and drops all events."""

    refuses = None

    async def write(self, event: Event) -> bool:
        return True


class Row(msgspec.Struct, frozen=True):
    """The CPU of one request, in microseconds. ``without_event``: without its line in the event log."""

    request: str
    at_once: int
    whole: float
    without_event: float


class Requests(Report, frozen=True):
    rows: list[Row]

    def account(self) -> Account:
        columns = {"request": "{0.request}", "at once": "{0.at_once}", "µs": "{0.whole:.1f}", "no event": "{0.without_event:.1f}"}
        return Account([Table.of("CPU of one request", self.rows, columns)], [], [self.occasion])


def run(plan: RequestsPlan, directory: Path, tell: Tell) -> Requests:
    """Runs a plan. Raises WrongAnswer for a status that is not 200."""
    return Requests(*today(), plan.name, uvloop.run(_measure(plan, directory, tell)))


async def _measure(plan: RequestsPlan, directory: Path, tell: Tell) -> list[Row]:
    log = EventLog(directory / "events.jsonl", "n1", EventLogSettings(), time.time, lambda: True)
    log.start()
    recorder = RequestRecorder(log, Metrics([], lambda: _READING).request)
    whole, no_event = (create_app(_services(events)) for events in (recorder, _NoLog()))
    apps: dict[str, ASGIApp] = {"driving": _at_once, "whole": whole, "no event": no_event}
    cells = list(itertools.product(_REQUESTS, plan.at_once))
    found: dict[tuple[_Request, int, str], list[float]] = {(*cell, name): [] for cell in cells for name in apps}
    for done in range(plan.repetitions):
        tell("requests", done / plan.repetitions)
        for (request, at_once), name in itertools.product(cells, apps):
            found[request, at_once, name].append(await cost(apps[name], [request] * plan.inputs, at_once))
    recorder.flush()
    await log.close()
    medians = {of: statistics.median(costs) for of, costs in found.items()}
    return [
        Row(cell[0].name, cell[1], *(medians[*cell, name] - medians[*cell, "driving"] for name in ("whole", "no event")))
        for cell in cells
    ]


def _services(events: EventSink) -> Services:
    limits, timeouts = Limits(), Timeouts()
    unasked = cast("Any", None)
    return Services(
        vault=cast("Vault", _Answering()),
        keys=lambda: _KEYS,
        knows_revoked=lambda: True,
        learn_revoked=unasked,
        fields=FieldSet.compile(["$.ssn"], "fields.yaml"),
        events=events,
        limits=limits,
        timeouts=timeouts,
        health=unasked,
        metrics=unasked,
        admission=Admission(limits),
        clock=asyncio.get_running_loop().time,
        wall=time.time,
        request_ids=fresh_ids(),
    )


async def _at_once(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


async def cost(app: ASGIApp, requests: Sequence[_Request], at_once: int) -> float:
    """Returns the CPU of one of these requests in microseconds, driver included. Raises WrongAnswer."""
    waiting = iter(requests)
    await asyncio.sleep(0)
    begun = time.process_time()
    await asyncio.gather(*(_drive(app, waiting) for _ in range(at_once)))
    return (time.process_time() - begun) / len(requests) * 1e6


async def _drive(app: ASGIApp, waiting: Iterator[_Request]) -> None:
    loop = asyncio.get_running_loop()
    for request in waiting:

        async def receive(body: bytes = request.body) -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await loop.create_task(app(request.scope(), receive, _take))  # type: ignore[arg-type]  # ASGI applications are coroutines


async def _take(message: Message) -> None:
    if message.get("status", 200) != 200:
        raise WrongAnswer(f"status {message['status']}")
