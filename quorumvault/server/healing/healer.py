"""Assembles the healing of one node: hinted handoff, anti-entropy and scrub."""

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from quorumvault.config.cluster import HealingSettings
from quorumvault.config.limits import Timeouts
from quorumvault.protocol.anti_entropy import Compared
from quorumvault.protocol.peer import Peer
from quorumvault.protocol.views import View
from quorumvault.server.healing.anti_entropy import AntiEntropy
from quorumvault.server.healing.fill_gaps import GapFilling
from quorumvault.server.healing.hinted_handoff import Handoff
from quorumvault.server.healing.requests import ReplicaClient, Storage
from quorumvault.server.healing.scrub import Neighbours, Scrub, ScrubCounts
from quorumvault.server.healing.send_records import RecordSender
from quorumvault.server.healing.throttle import Background, Throttle

#: Seconds between two checks for work: no one notices the delay, and a check costs next to nothing.
_SECONDS = 0.5


class Observer(Protocol):
    """Hears of each repair, for metrics and the event log. Must not raise."""

    def handed_off(self, node: str, records: int) -> None:
        """A peer has received all hints that were kept for it."""

    def compared(self, node: str, outcome: Compared | str) -> None: ...

    def scrubbed(self, counts: ScrubCounts) -> None:
        """The scrub has read every record once more."""


@dataclass(frozen=True, slots=True)
class HealerCallbacks:
    """The node that is healed. ``peers`` has all replicas, including its own; ``wall_ms`` returns milliseconds since 1970.

    ``announce`` tells the peers this node's facts. ``give_up(why)`` ends the process, because its disk cannot be trusted.
    ``room_beside`` returns whether another store of this size fits on the file system.
    """

    name: str
    disk: Callable[[], bytes]
    nonce: bytes
    peers: Mapping[str, Peer]
    view: Callable[[], View | None]
    neighbours: Callable[[], Neighbours]
    room_beside: Callable[[], bool]
    announce: Callable[[], None]
    give_up: Callable[[str], None]
    wall_ms: Callable[[], int]
    rng: random.Random


class Healer:
    """Hinted handoff, anti-entropy and scrub of a node that has a disk."""

    def __init__(
        self, node: HealerCallbacks, storage: Storage, settings: HealingSettings, timeouts: Timeouts, observer: Observer
    ) -> None:
        others: Collection[str] = [name for name in node.peers if name != node.name]
        replicas = ReplicaClient(node.name, node.disk, node.nonce, node.peers, node.view, timeout=timeouts.round)
        #: Also used by backups.
        self.replicas = replicas
        sender = RecordSender(replicas, storage, Throttle(settings.share))
        self.handoff = Handoff(others, replicas, storage, sender, settings.hints, node.wall_ms, observer.handed_off)
        self.anti_entropy = AntiEntropy(
            others,
            replicas,
            storage,
            sender,
            Throttle(settings.share),
            self.handoff,
            GapFilling(
                others,
                replicas,
                storage,
                Throttle(settings.share),
                seconds=settings.anti_entropy,
                rounds_end_after=timeouts.request,
            ),
            seconds=settings.anti_entropy,
            settled_after=timeouts.round,
            rng=node.rng,
            done=observer.compared,
        )
        self.scrub = Scrub(
            others,
            replicas,
            storage,
            Throttle(settings.share),
            node.neighbours,
            node.room_beside,
            seconds=settings.scrub,
            heard_after=2 * timeouts.silence,
            announce=node.announce,
            give_up=node.give_up,
            passed=observer.scrubbed,
        )
        self._background = Background()

    def start(self) -> None:
        self._background.start("handoff", self.handoff.once, lambda: _SECONDS)
        self._background.start("anti-entropy", self.anti_entropy.once, lambda: _SECONDS)
        self._background.start("scrub", self.scrub.once, lambda: self.scrub.until_due(_SECONDS))

    async def stop(self) -> None:
        await self._background.stop()
