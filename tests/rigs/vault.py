"""The HTTP API over a vault in memory, which a test can make fail."""

import asyncio
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message

from quorumvault.config.api_keys import DEFAULT_ALLOW, NO_LIMIT, PERMISSIONS, ApiKey, KeyTable, Permission, Rates
from quorumvault.config.limits import Limits, Timeouts
from quorumvault.crypto.keys import Keyring
from quorumvault.formats.fields import FieldSet
from quorumvault.model import FIRST_EPOCH, Owner
from quorumvault.server.coordinator.vault import Missing
from quorumvault.server.http.admission import Admission
from quorumvault.server.http.dependencies import Services
from quorumvault.server.http.health import Health
from quorumvault.server.http.routes import create_app
from quorumvault.server.telemetry.event_log import Event
from quorumvault.testing.fake import HEALTHY
from quorumvault.testing.memory import MemoryVault

CLINIC, LAB = Owner("clinic"), Owner("lab")
FIELDS = ("$.ssn", "$.name.family", "$.contacts[*].phone")
METRICS = b"# TYPE quorumvault_in_flight gauge\nquorumvault_in_flight 0.0\n"
#: Limits small enough for a test to reach.
SMALL = Limits(items=10, record_values=12, body_bytes=4096, value_bytes=100, in_flight=2, key_share=100)


class FaultyVault(MemoryVault):
    """``asked``: every list of values or tokens that the vault was given; ``failure`` is raised after that."""

    def __init__(self, digest_bits: int = 160) -> None:
        super().__init__(Keyring("s1", bytes(32), digest_bits=digest_bits))
        self.asked: list[tuple[str, list[Any]]] = []
        self.unavailable: set[str] = set()
        self.collided: set[str] = set()
        #: ``gate`` is set while calls may return; ``reached`` is set once a call has arrived.
        self.gate, self.reached = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def begin(self, operation: str, items: Iterable[Any]) -> None:
        self.asked.append((operation, list(items)))
        self.reached.set()
        await self.gate.wait()
        await super().begin(operation, items)

    def look_up(self, owner: Owner, token: str) -> bytes | Missing:
        if token in self.unavailable:
            return Missing.UNAVAILABLE
        if token in self.collided:
            return Missing.COLLISION
        return super().look_up(owner, token)

    def colliding_values(self, owner: Owner) -> tuple[str, str]:
        """Returns two values with one token in the first epoch; if tokens are cut short, a few values contain such a pair."""
        seen: dict[bytes, str] = {}
        for value in map(str, itertools.count()):
            (digest,) = self._keyring.epoch_keys(owner, FIRST_EPOCH).digests([b"s" + value.encode()])
            if digest in seen:
                return seen[digest], value
            seen[digest] = value
        raise AssertionError


class EventList:
    """Implements EventSink."""

    def __init__(self) -> None:
        self.written: list[Event] = []
        self.refuses: str | None = None
        #: The answer of ``write``.
        self.writable = True

    async def write(self, event: Event) -> bool:
        self.written.append(event)
        return self.writable


class Clock:
    """A clock that stands still until a test moves it, or moves by ``step`` at each reading."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def key_text(key_id: str) -> str:
    return f"qvk_{key_id}_{(key_id * 32)[:32]}"


def api_key(
    key_id: str, owner: Owner, allow: Iterable[Permission] = DEFAULT_ALLOW, rates: Rates = NO_LIMIT, expires: float | None = None
) -> ApiKey:
    return ApiKey(key_id, owner, frozenset(allow), rates, hashlib.sha256(key_text(key_id).encode()).digest(), expires)


KEYS = KeyTable(
    [CLINIC, LAB],
    [
        api_key("clinic", CLINIC),
        api_key("lab", LAB),
        api_key("admin", CLINIC, PERMISSIONS),
        api_key("labadmin", LAB, PERMISSIONS),
        api_key("reader", CLINIC, ["detokenize"]),
        api_key("slow", CLINIC, rates=Rates(2)),
    ],
)


def bearer(key_id: str = "clinic") -> dict[str, str]:
    return {"Authorization": f"Bearer {key_text(key_id)}"}


@dataclass
class Rig:
    """An application, the parts behind it, and a client in front of it."""

    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    vault: FaultyVault = field(default_factory=FaultyVault)
    fields: Sequence[str] = FIELDS
    health: Health = HEALTHY
    #: Whether the node may take keys, and the time in seconds since 1970.
    knows_revoked: bool = True
    #: Whether the node learns which keys are revoked when it asks now.
    learns_revoked: bool = False
    wall: float = 0.0

    def __post_init__(self) -> None:
        ids = itertools.count(1)
        self.events = EventList()
        self.clock = Clock()
        self.keys = KEYS
        self.admission = Admission(self.limits)
        self.services = Services(
            vault=self.vault,
            keys=lambda: self.keys,
            knows_revoked=lambda: self.knows_revoked,
            learn_revoked=self._learn_revoked,
            fields=FieldSet.compile(self.fields, "fields.yaml"),
            events=self.events,
            limits=self.limits,
            timeouts=self.timeouts,
            health=lambda: self.health,
            metrics=lambda: METRICS,
            admission=self.admission,
            clock=self.clock,
            wall=lambda: self.wall,
            request_ids=lambda: f"fresh-{next(ids)}",
        )
        self.app = create_app(self.services)
        self.client = TestClient(self.app, headers=bearer())

    async def _learn_revoked(self) -> None:
        self.knows_revoked = self.learns_revoked

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None, key: str = "clinic") -> Any:
        """Sends JSON (or bytes unchanged) as the key's holder. Returns the test client's response."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **bearer(key), **(headers or {})}
        return self.client.post(path, content=content, headers=sent)

    def rotate(self, from_epoch: int = 1) -> None:
        assert self.post("/rotate-epoch", {"from_epoch": from_epoch}, key="admin").status_code == 200

    def tokens(self, values: Sequence[Any], key: str = "clinic") -> list[Any]:
        tokens: list[Any] = self.told("/tokenize", {"values": values}, key)["tokens"]
        return tokens

    def told(self, path: str, body: Any, key: str = "clinic") -> dict[str, Any]:
        """Returns the answer to a request that succeeds; the answer must forbid caching."""
        answer = self.post(path, body, key=key)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), answer.text
        members: dict[str, Any] = answer.json()
        return members


@dataclass(frozen=True)
class Raw:
    """A response, as in ASGI messages."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One request at the level of ASGI: its chunks arrive when a test wants, or the client stays silent, or leaves."""

    def __init__(self, app: ASGIApp, path: str, headers: Mapping[str, str], body: bytes | None = None) -> None:
        """``body``: the whole body, in one chunk."""
        self._app = app
        self.headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": self.headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8700),
        }
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []
        #: The number of chunks that the application has asked for.
        self.received = 0
        if body is not None:
            self.chunk(body, more=False)

    def chunk(self, data: bytes, more: bool = True) -> None:
        self.incoming.put_nowait({"type": "http.request", "body": data, "more_body": more})

    async def run_in_silence(self) -> None:
        """Runs a request that may get no response."""
        await self._app(self.scope, self._receive, self._send)

    def leave(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})

    async def _receive(self) -> Message:
        self.received += 1
        return await self.incoming.get()

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    async def run(self) -> Raw:
        """Runs the request. Returns the response."""
        await self.run_in_silence()
        assert self.sent, "there was no response"
        body = b"".join(message.get("body", b"") for message in self.sent[1:])
        return Raw(self.sent[0]["status"], self.sent[0]["headers"], body)


JSON = {"Content-Type": "application/json"}
