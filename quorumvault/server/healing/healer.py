"""All that heals a node, put together: the composition root's part for what runs behind the requests."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from quorumvault.config.cluster import HealingSettings, Timeouts
from quorumvault.protocol.anti_entropy import Compared
from quorumvault.protocol.hinted_handoff import Owed
from quorumvault.protocol.messages import Put, RaiseEpoch
from quorumvault.protocol.peer import Peer
from quorumvault.protocol.views import View
from quorumvault.server.healing.anti_entropy import AntiEntropy
from quorumvault.server.healing.hinted_handoff import Handoff
from quorumvault.server.healing.requests import Asker, Storage
from quorumvault.server.healing.scrub import Neighbours, Scrub, ScrubCounts
from quorumvault.server.healing.send_records import Giver
from quorumvault.server.healing.throttle import Background, Pace

#: Between two looks at whether there is anything to do: short against what a person notices, and of no weight.
_SECONDS = 0.5


class Listener(Protocol):
    """Hears what was healed, for metrics and the event log. Must not raise."""

    def handed_off(self, node: str, records: int) -> None:
        """A peer has all that it was owed."""
        ...

    def compared(self, node: str, outcome: Compared | str) -> None: ...

    def scrubbed(self, counts: ScrubCounts) -> None:
        """Every record was read once more."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Of the node that is healed. ``peers`` has its own replica too; ``wall_ms`` is milliseconds since 1970.

    ``announce`` has the peers hear this node's facts, ``give_up(why)`` ends the process: its disk is not to be trusted.
    ``room_beside``: whether another store like this one fits on its disk.
    """

    node: str
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
    """Handoff, anti-entropy and scrub of a node that has a disk."""

    def __init__(
        self, around: Surroundings, storage: Storage, settings: HealingSettings, timeouts: Timeouts, listener: Listener
    ) -> None:
        others: Collection[str] = [node for node in around.peers if node != around.node]
        asker = Asker(around.node, around.disk, around.nonce, around.peers, around.view, timeout=timeouts.round)
        #: For who has something to ask of single replicas besides.
        self.asker = asker
        giver = Giver(asker, storage, Pace(settings.share))
        self.handoff = Handoff(others, asker, storage, giver, settings.hints, around.wall_ms, listener.handed_off)
        self.anti_entropy = AntiEntropy(
            others,
            asker,
            storage,
            giver,
            Pace(settings.share),
            self.handoff,
            seconds=settings.anti_entropy,
            settled_after=timeouts.round,
            rng=around.rng,
            done=listener.compared,
        )
        self.scrub = Scrub(
            others,
            asker,
            storage,
            Pace(settings.share),
            around.neighbours,
            around.room_beside,
            seconds=settings.scrub,
            heard_after=2 * timeouts.silence,
            announce=around.announce,
            give_up=around.give_up,
            passed=listener.scrubbed,
        )
        self._background = Background()

    def start(self) -> None:
        self._background.start("handoff", self.handoff.once, lambda: _SECONDS)
        self._background.start("anti-entropy", self.anti_entropy.once, lambda: _SECONDS)
        self._background.start("scrub", self.scrub.once, lambda: self.scrub.until_due(_SECONDS))

    async def stop(self) -> None:
        await self._background.stop()

    def missed(self, node: str, disk: bytes, request: Put | RaiseEpoch) -> None:
        self.handoff.missed(node, disk, request)

    def owed(self, node: str) -> Owed:
        return self.handoff.owed(node)
