"""Keeps a node's knowledge of revoked API keys fresh: asks two replicas over and over, as protocol/revocations.py says.

    asks    every ASK_EVERY seconds; every ASK_SOON while its knowledge does not count; at once when its replica has stored more,
            and when a request comes while its knowledge does not count
    writes  the ids that the key file calls revoked, and no disk does yet, to two disks

Questions overlap, so a question that a slow node delays holds up no other. An answer counts from the time of its question.

Rules kept here: a revoked key stays revoked; no key without knowledge.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from quorumvault.errors import NoQuorum, Refused
from quorumvault.protocol.revocations import ASK_EVERY, ASK_SOON, KNOWN_FOR, MOST_REVOKED, MOST_UNLISTED, Knowledge
from quorumvault.server.coordinator.coordinator import Coordinator

logger = logging.getLogger("quorumvault.revocations")

#: Most questions under way at once: only those whose answers would still count.
_MOST_QUESTIONS = 1 + int(KNOWN_FOR / ASK_EVERY)
#: The number of revoked keys from which on there is a warning.
_MANY = MOST_UNLISTED * 8 // 10


class KeysInForce(Protocol):
    """The API keys of this node's key file that are not revoked."""

    @property
    def listed(self) -> frozenset[str]:
        """The ids of all keys in the file, revoked or not."""

    @property
    def called_revoked(self) -> frozenset[str]:
        """The ids of the keys that the file itself marks as revoked."""

    def revoke(self, ids: frozenset[str]) -> None:
        """Take the ids of all keys that the cluster knows to be revoked, which have grown since the last call."""


def seconds_since_boot() -> float:
    """The clock by which knowledge ages. Unlike ``time.monotonic`` on Linux, it runs on while the machine sleeps.

    Source: clock_gettime(2), CLOCK_BOOTTIME. If a virtual machine is paused or restored, this clock stops too.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Revocations:
    """Used on the event loop's thread. ``clock`` is monotonic, in seconds.

    ``keys`` is told which keys are revoked.
    """

    def __init__(self, coordinator: Coordinator, clock: Callable[[], float], keys: KeysInForce) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._keys = keys
        self._knowledge = Knowledge()
        self._questions: set[asyncio.Task[None]] = set()
        #: The question that requests wait for, and when it began.
        self._demanded: tuple[asyncio.Task[None], float] | None = None
        self._learned = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        #: True once the log says that there are too many revoked keys.
        self._refused = False

    @property
    def ids(self) -> frozenset[str]:
        """The ids of the keys that are revoked, as far as this node knows."""
        return self._knowledge.ids

    @property
    def known(self) -> bool:
        """True if this node may accept a key now that is not among ``ids``."""
        return self._knowledge.counts(self._clock())

    @property
    def problem(self) -> str | None:
        """The problem in words, for /health, once many keys are revoked; None before."""
        if len(self.ids) < _MANY:
            return None
        return (
            f"{len(self.ids):,} API keys are revoked: from {MOST_UNLISTED:,} on none can be that is not in the key file of its "
            f"host, and from {MOST_REVOKED:,} on no other one"
        )

    def start(self) -> None:
        """Begin to ask, over and over."""
        self.ask()
        self._timer = asyncio.get_running_loop().call_later(ASK_EVERY if self.known else ASK_SOON, self.start)

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for question in self._questions:
            question.cancel()
        await asyncio.gather(*self._questions, return_exceptions=True)

    def ask(self) -> None:
        """Ask now, unless too many questions are under way."""
        if len(self._questions) < _MOST_QUESTIONS:
            self._begin()

    def _begin(self) -> asyncio.Task[None]:
        question = asyncio.get_running_loop().create_task(self.once(), name="revoked keys")
        self._questions.add(question)
        question.add_done_callback(self._questions.discard)
        return question

    async def learn(self) -> None:
        """Wait for the answer to a question that begins now, or to any earlier one. Does not raise.

        An answer that takes longer than KNOWN_FOR would not count, so this takes no longer. Requests that wait at the same time
        share one question, which is not one of those that may hang on a link that is gone.
        """
        question, began = self._demanded or (None, 0.0)
        if question is None or question.done() or self._clock() - began >= KNOWN_FOR:
            if question is not None:
                question.cancel()
            question = self._begin()
            self._demanded = question, self._clock()
        self._learned.clear()
        learned = asyncio.ensure_future(self._learned.wait())
        await asyncio.wait({question, learned}, timeout=KNOWN_FOR, return_when=asyncio.FIRST_COMPLETED)
        learned.cancel()

    async def revoke(self, key_id: str) -> None:
        """Revoke the key with this id. The revocation is on two disks when this returns. Raises NoQuorum, Refused."""
        began = self._clock()
        listed = key_id in self._keys.listed
        self._learn(await self._coordinator.revoke(frozenset({key_id}), self.ids, listed=listed), began)

    async def once(self) -> None:
        """Ask, and write ids that only the key file calls revoked to two disks. Does not raise."""
        try:
            began = self._clock()
            self._learn(await self._coordinator.read_revoked(self.ids), began)
            if missing := self._keys.called_revoked - self.ids:
                began = self._clock()
                self._learn(await self._coordinator.revoke(missing, self.ids, listed=True), began)
        except NoQuorum:
            pass  # while this lasts, no operation has a quorum
        except Refused as refused:
            if not self._refused:
                logger.error("the key file calls more keys revoked than the cluster takes: %s", refused)
            self._refused = True
        except Exception as error:  # nothing may end the loop; the exception's text could contain a key
            logger.error("asking for revoked keys failed, and goes on: %s", type(error).__name__)

    def _learn(self, ids: frozenset[str], began: float) -> None:
        if self._knowledge.learn(ids, began):
            self._keys.revoke(self.ids)
        if self.known:
            self._learned.set()
