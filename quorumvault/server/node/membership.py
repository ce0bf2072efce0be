"""Membership: how this node's disk gets into the view, follows the views that peers report, and learns that it was replaced.

    a peer is in a larger view that lists this disk     enter that view
    a peer is in a view with another disk in this slot  this disk was replaced: the process ends
    this disk is joining                                rejoin (healing/join.py), with a new disk if this node has lost its own

Used on the event loop's thread; the replica, which changes the identity, runs on the storage thread.

Rules kept here: views spread from any peer; a replaced disk stops.
"""

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

#: Bytes of a disk's id that messages show: enough to find the disk in the output of ``status``.
_SHOWN_BYTES = 4
#: Seconds before a joining that an unexpected exception ended begins anew.
_AGAIN = 5.0
#: The round of requests to this node's own replica, whose answers are not counted.
_OWN_ROUND = RoundId(b"", b"", 0)


@dataclass(frozen=True, slots=True)
class MembershipCallbacks:
    """``storage`` returns the node's storage thread, None without a disk. ``learn(view)`` gives its coordinator a view to name.

    ``changed()`` is called after the disk's identity changed. ``note`` takes events. ``end(error)`` stops the process for good.
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


@dataclass(eq=False)
class Membership:
    """``make_rejoin`` is called at the start of a disk that is joining."""

    #: The identity that is durable on disk.
    identity: DiskIdentity
    callbacks: MembershipCallbacks
    make_rejoin: Callable[[], Rejoin]

    def __post_init__(self) -> None:
        self._joining: _Joining | None = None

    @property
    def progress(self) -> Progress | None:
        """How far the joining of this disk is; None while it is not joining."""
        return None if self._joining is None else self._joining.rejoin.progress

    def start(self) -> None:
        """Begin to rejoin if this disk is joining. Not for a node that has to wait for its operator."""
        if self.identity.mode is Mode.JOINING:
            rejoin = self.make_rejoin()
            task = asyncio.get_running_loop().create_task(self._rejoin(rejoin), name="rejoin")
            self._joining = _Joining(rejoin, task)

    async def stop(self) -> None:
        if self._joining is not None:
            self._joining.task.cancel()
            with suppress(asyncio.CancelledError):
                await self._joining.task

    def became(self, identity: DiskIdentity) -> None:
        """The replica has made this identity durable."""
        before, self.identity = self.identity, identity
        if identity.view is not None:
            words = f"view {identity.view.number}: {_say(identity.view)}"
            logger.info("%s is %s in %s", identity.node, identity.mode.value, words)
            self.callbacks.learn(identity.view)
            if identity.view != before.view:
                self.callbacks.note(Event(event="view_entered", outcome="ok", detail=words))
        self.callbacks.changed()

    def heard(self, facts: NodeFacts) -> None:
        """A peer has told its facts: learn its view, enter it, or end."""
        mine, theirs = self.identity, facts.view
        if theirs is None:
            return
        self.callbacks.learn(theirs)
        if mine.view is None or theirs.id <= mine.view.id:
            return
        storage = self.callbacks.storage()
        if storage is not None and mine.mode is Mode.ACTIVE and may_enter(mine.disk, mine.view, theirs):
            storage.submit(ProposeView(_OWN_ROUND, NO_VIEW, theirs), lambda reply: None)
        elif not theirs.lists(mine.disk) and votes(facts.disk, facts.mode, theirs):
            self._replaced(theirs)

    def _replaced(self, view: View) -> None:
        mine = self.identity
        disk, other = mine.disk[:_SHOWN_BYTES].hex(), view.disks[mine.node][:_SHOWN_BYTES].hex()
        self.callbacks.end(
            DiskReplaced(
                f"{mine.node} has been given another disk, {other}, in view {view.number}: this one, {disk}, counts no more. "
                f"If the node with the new disk runs elsewhere, leave this one off; if not, set its data directory aside and "
                f"give it a new disk: quorumvault init DIR --replace {mine.node}"
            )
        )

    async def _rejoin(self, rejoin: Rejoin) -> None:
        self.callbacks.note(Event(event="join_started"))
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self.identity.mode is Mode.JOINING:
            try:
                await rejoin.run()
            except Displaced as displaced:
                self._replaced(displaced.view)
                return
            except QuorumVaultError as error:
                self.callbacks.end(error)
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
        self.callbacks.note(Event(event="join_done", items=rejoin.records, outcome="ok", duration_ms=milliseconds))


def _say(view: View) -> str:
    return ", ".join(f"{node} {disk[:_SHOWN_BYTES].hex()}" for node, disk in view.disks.items())
