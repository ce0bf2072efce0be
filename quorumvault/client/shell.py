"""The part that both clients share: the settings, and in each process its own plans and connections."""

import logging
from collections.abc import Callable
from random import Random, SystemRandom
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

from quorumvault.client import wire
from quorumvault.client.operations import Operations
from quorumvault.client.plan import Clock, FailedTry
from quorumvault.client.policy import ClientPolicy
from quorumvault.client.processes import EachProcess, refuse_copy, refuse_transport
from quorumvault.client.settings import Settings
from quorumvault.client.trouble import Trouble

HttpT = TypeVar("HttpT")

_log = logging.getLogger("quorumvault.client")


def _log_try(failed: FailedTry) -> None:
    """Logs at INFO, since retries make most failures good. To see these lines, enable the logger ``quorumvault.client``."""
    call, asked = failed.call, failed.asked
    words = "%s %s: try %d failed at %s: %s (request %s)"
    _log.info(words, call.method, call.path, failed.number, asked.node, asked.outcome, failed.request_id)


class Own(NamedTuple, Generic[HttpT]):
    """The state of a client in one process."""

    plans: Operations
    http: HttpT


class Shell(Generic[HttpT]):
    """The base of both clients. ``_connect`` makes the HTTP client of one process, with the arguments of httpx2's clients."""

    _connect: Callable[..., HttpT]

    def __init__(self, settings: Settings, policy: ClientPolicy, clock: Clock, rng: Random | None, transport: Any) -> None:
        self.urls = settings.urls
        self._policy = policy
        self._clock = clock
        connect = self._connect  # ``make`` has no reference to the client, so dropping the client frees its connections at once

        def make(rng: Random, transport: Any) -> Own[HttpT]:
            options = {"verify": settings.tls(), "trust_env": False, "limits": wire.limits(policy), "cookies": wire.no_cookies()}
            http = connect(transport=transport, **options)
            return Own(Operations.of(settings, policy, clock, rng, _log_try), http)

        first = make(rng or SystemRandom(), transport)
        self._own = EachProcess(first, refuse_transport if transport is not None else lambda: make(SystemRandom(), None))

    def trouble(self) -> Trouble:
        """Returns the nodes that last failed to answer, and how long calls under way still try. For progress bars."""
        return self._own.get().plans.trouble()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.urls)})"

    def __reduce__(self) -> NoReturn:
        refuse_copy(type(self))
