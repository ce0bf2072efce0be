"""``FakeVault``: a client and the API of a node over a vault in memory, on a loopback port of this process."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from types import TracebackType
from typing import Final

from quorumvault import __version__
from quorumvault.client import Client, ClientPolicy
from quorumvault.config.api_keys import DEFAULT_ALLOW, NO_LIMIT, PERMISSIONS, ApiKey, KeyTable, Permission
from quorumvault.config.fields import load_fields
from quorumvault.config.key_changes import new_key
from quorumvault.config.limits import Limits, Timeouts
from quorumvault.crypto.keys import Keyring
from quorumvault.errors import RequestError, Unreachable
from quorumvault.formats.fields import FieldSet
from quorumvault.model import Owner
from quorumvault.server.http.admission import Admission
from quorumvault.server.http.dependencies import Services
from quorumvault.server.http.health import Health, PeerHealth, QuorumHealth
from quorumvault.server.http.request_ids import fresh_ids
from quorumvault.server.http.routes import create_app
from quorumvault.server.telemetry.event_log import Event
from quorumvault.testing.memory import MemoryVault
from quorumvault.testing.serving import served

OWNER: Final = "test"
#: The same master secret in every run, so that a test may compare a token with a recorded one. It protects nothing.
_MASTER = bytes(32)
#: The report of a node in a healthy cluster.
HEALTHY: Final = Health(
    status="ok",
    node="n1",
    state="active",
    quorum=QuorumHealth(reachable=3),
    peers={"n2": PeerHealth("up", "active"), "n3": PeerHealth("up", "active")},
    warnings=[],
    version=__version__,
)


def sample_fields() -> FieldSet:
    """Returns the fields that a new cluster is configured with."""
    with resources.as_file(resources.files("quorumvault").joinpath("samples", "fields.yaml")) as file:
        return load_fields(file)


class FakeNode:
    """One node: the API, with only a vault in memory behind it. A context manager; ``url`` is set inside the block."""

    def __init__(self, fields: Sequence[str] | None = None, limits: Limits | None = None) -> None:
        """``fields``: JSONPath expressions; by default those of a new cluster."""
        self.url = ""
        self.vault = MemoryVault(Keyring("test", _MASTER))
        self.keys = KeyTable([], [])
        self._fields = sample_fields() if fields is None else FieldSet.compile(fields, "fields")
        self._limits = limits or Limits()
        self._stack = contextlib.ExitStack()

    def begin_again(self) -> None:
        """Forgets every value, epoch, key and failure."""
        self.vault.forget()
        self.vault.failure = None
        self.keys = KeyTable([], [])

    def admit(self, owner: Owner, allow: Iterable[Permission]) -> str:
        """Returns the text of a new key."""
        made = new_key(self.keys.by_id(), secrets.token_bytes)
        key = ApiKey(made.id, owner, frozenset(allow), NO_LIMIT, hashlib.sha256(made.text.encode()).digest())
        self.keys = KeyTable({*self.keys.owners, owner}, [*self.keys.by_id().values(), key])
        return made.text

    def __enter__(self) -> FakeNode:
        self.url = self._stack.enter_context(served(create_app(self._services()), self._is_away))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def _is_away(self) -> bool:
        return isinstance(self.vault.failure, Unreachable)

    def _services(self) -> Services:
        return Services(
            vault=self.vault,
            keys=lambda: self.keys,
            knows_revoked=lambda: True,
            learn_revoked=_nothing_to_learn,
            fields=self._fields,
            events=_NoEvents(),
            limits=self._limits,
            timeouts=Timeouts(),
            health=lambda: HEALTHY,
            metrics=lambda: b"",
            admission=Admission(self._limits),
            clock=time.monotonic,
            wall=time.time,
            request_ids=fresh_ids(),
        )


class _NoEvents:
    """Implements EventSink, and drops all events."""

    refuses = None

    async def write(self, event: Event) -> bool:
        return True


async def _nothing_to_learn() -> None:
    """The fake vault knows all revoked keys: there are none."""


class _OwnTime:
    """A clock that advances only by its own pauses, so that a client gives up after the usual tries, but at once."""

    def __init__(self) -> None:
        self._now = 0.0

    def clock(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


class FakeVault(Client):
    """A client and the API of a node over a vault in memory. The client's key may do everything. Use it as a context manager.

        with FakeVault() as vault:
            tokens = vault.tokenize(["Ada Lovelace"])

    Requests, errors, tokens and answers are those of a real vault, since the code is the same; only replicas, disk and event log
    are missing. Tokens are the same in every run. Pauses between retries take no time. Code that makes its own client, in this
    process or another, finds the vault by the variables in ``environment``.
    """

    def __init__(
        self, node: FakeNode | None = None, *, fields: Sequence[str] | None = None, policy: ClientPolicy | None = None
    ) -> None:
        """``fields``: JSONPath expressions; by default those of a new cluster. ``node``: a running node, which is reset."""
        self._stack = contextlib.ExitStack()
        self._node = self._stack.enter_context(FakeNode(fields)) if node is None else node
        self._node.begin_again()
        #: The key's text, for another client: ``AsyncClient(vault.urls, api_key=vault.api_key)``.
        self.api_key = self._node.admit(Owner(OWNER), PERMISSIONS)
        own = _OwnTime()
        super().__init__(self._node.url, api_key=self.api_key, policy=policy, clock=own.clock, sleep=own.sleep)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables by which another client, or the command ``quorumvault``, finds this vault."""
        return {"QUORUMVAULT_URL": self._node.url, "QUORUMVAULT_API_KEY": self.api_key}

    def another(self, owner: str = OWNER, allow: Iterable[Permission] = DEFAULT_ALLOW) -> Client:
        """Returns a client with a new key, of another owner or with fewer permissions. It is closed with this client."""
        own, key = _OwnTime(), self._node.admit(Owner(owner), allow)
        return self._stack.enter_context(Client(self._node.url, api_key=key, clock=own.clock, sleep=own.sleep))

    @contextlib.contextmanager
    def failing(self, error: RequestError) -> Iterator[None]:
        """For the block, every operation fails with this error, as in ``failing(NoQuorum("two nodes are gone"))``.

        With ``failing(Unreachable())`` the node does not answer at all.
        """
        self._node.vault.failure = error
        try:
            yield
        finally:
            self._node.vault.failure = None

    def close(self) -> None:
        super().close()
        self._stack.close()
