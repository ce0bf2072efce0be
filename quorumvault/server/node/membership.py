"""A node's place among the three disks: what it makes of the views that it hears of, and how it comes to have a place at all.

    a peer is in a larger view that lists this disk     enter it (view rules 9 and 10)
    a peer is in one that has another disk here         this disk is replaced: the process ends (13)
    this disk is joining                                rejoin (healing/rejoin.py), with a new disk if this node has lost its own

Used on the event loop's thread; the replica, which changes the identity, is on the storage thread.

Rules kept here: views spread from any peer; a replaced disk stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from quorumvault.errors import DiskReplaced, QuorumVaultError
from quorumvault.protocol.join import Displaced, Progress
from quorumvault.protocol.messages import ProposeView, RoundId
from quorumvault.protocol.views import NO_VIEW, Mode, View, may_enter, votes
from quorumvault.server.healing.join import Rejoin
from quorumvault.server.healing.requests import Storage
from quorumvault.server.healing.throttle import pause
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.storage.disk_identity import DiskIdentity
from quorumvault.server.telemetry.event_log import Event

logger = logging.getLogger("quorumvault.node")

#: Of a disk's id, in words for people: enough to find it in what ``status`` shows.
_SHOWN_BYTES = 4
#: Seconds before a joining that failed by a slip of this program begins anew.
_AGAIN = 5.0
#: Nobody counts the answer to what a node tells its own replica.
_OWN_ROUND = RoundId(b"", b"", 0)


@dataclass(frozen=True, slots=True)
class MembershipCallbacks:
    """What a node lets its membership do.

    ``storage``: its storage thread, if there is a disk. ``learn``: a view that its coordinator names from then on. ``changed``:
    its identity has. ``end``: this process must not go on.
    """

    storage: Callable[[], Storage | None]
    learn: Callable[[View | None], None]
    changed: Callable[[], None]
    note: Callable[[Event], None]
    end: Callable[[QuorumVaultError], None]


@dataclass(slots=True)
class _Joining:
    rejoin: Rejoin
    task: asyncio.Task[None]


class Membership:
    """``make_rejoin`` makes what brings a joining disk in."""

    def __init__(self, identity: DiskIdentity, callbacks: MembershipCallbacks, make_rejoin: Callable[[], Rejoin]) -> None:
        #: As it is durable.
        self.identity = identity
        self._callbacks = callbacks
        self._make_rejoin = make_rejoin
        self._joining: _Joining | None = None

    @property
    def progress(self) -> Progress | None:
        """While this disk is joining."""
        return None if self._joining is None else self._joining.rejoin.progress

    def start(self) -> None:
        """To be called of a node that is to have a voice: one that waits for its operator stays as it is."""
        if self.identity.mode is Mode.JOINING:
            rejoin = self._make_rejoin()
            task = asyncio.get_running_loop().create_task(self._rejoin(rejoin), name="rejoin")
            self._joining = _Joining(rejoin, task)

    async def stop(self) -> None:
        if self._joining is not None:
            self._joining.task.cancel()
            with suppress(asyncio.CancelledError):
                await self._joining.task

    def became(self, identity: DiskIdentity) -> None:
        """The replica has made this durable."""
        before, self.identity = self.identity, identity
        if identity.view is not None:
            words = f"view {identity.view.number}: {_say(identity.view)}"
            logger.info("%s is %s in %s", identity.node, identity.mode.value, words)
            self._callbacks.learn(identity.view)
            if identity.view != before.view:
                self._callbacks.note(Event(event="view_entered", outcome="ok", detail=words))
        self._callbacks.changed()

    def heard(self, facts: NodeFacts) -> None:
        """A peer has told its facts."""
        mine, theirs = self.identity, facts.view
        if theirs is None:
            return
        self._callbacks.learn(theirs)
        if mine.view is None or theirs.id <= mine.view.id:
            return
        storage = self._callbacks.storage()
        if storage is not None and mine.mode is Mode.ACTIVE and may_enter(mine.disk, mine.view, theirs):
            storage.submit(ProposeView(_OWN_ROUND, NO_VIEW, theirs), lambda reply: None)
        elif not theirs.lists(mine.disk) and votes(facts.disk, facts.mode, theirs):
            self._replaced(theirs)

    def _replaced(self, view: View) -> None:
        mine = self.identity
        disk, other = mine.disk[:_SHOWN_BYTES].hex(), view.disks[mine.node][:_SHOWN_BYTES].hex()
        self._callbacks.end(
            DiskReplaced(
                f"{mine.node} has been given another disk, {other}, in view {view.number}: this one, {disk}, counts no more. "
                f"If the node with the new disk runs elsewhere, leave this one off; if not, set its data directory aside and "
                f"give it a new disk: quorumvault init DIR --replace {mine.node}"
            )
        )

    async def _rejoin(self, rejoin: Rejoin) -> None:
        self._callbacks.note(Event(event="join_started"))
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self.identity.mode is Mode.JOINING:
            try:
                await rejoin.run()
            except Displaced as displaced:
                self._replaced(displaced.view)
                return
            except QuorumVaultError as error:
                self._callbacks.end(error)
                return
            except Exception as error:  # nothing but its end may end it: its words could have a key in them
                logger.error(
                    "the disk of %s is joining, which failed and begins anew: %s", self.identity.node, type(error).__name__
                )
                await pause(_AGAIN)
            else:
                break
        self._joining = None
        milliseconds = round((loop.time() - began) * 1000, 3)
        self._callbacks.note(Event(event="join_done", items=rejoin.records, outcome="ok", duration_ms=milliseconds))


def _say(view: View) -> str:
    return ", ".join(f"{node} {disk[:_SHOWN_BYTES].hex()}" for node, disk in view.disks.items())
