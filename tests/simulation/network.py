"""The network: one-way links between nodes that delay, lose, duplicate, reorder and hold back messages.

Each message has its own delay, so the network keeps no order. A cut affects one direction. A cut drops messages, or holds them
until it is mended, as a connection does that retransmits its packets.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from random import Random
from typing import Any

from tests.simulation.timeline import Timeline

#: The least seconds that a message takes, and how much longer most messages take.
_LEAST, _SPREAD = 0.0003, 0.002
#: The most seconds that a late message takes.
_LATE = 0.4
#: Seconds without a sign of life after which a peer counts as down, as with the timeouts of a real link.
SILENCE = 2.0

Wire = tuple[str, str]


class Cut(Enum):
    DROPS = "drops"
    HOLDS = "holds"


class Network:
    """``lose``, ``repeat`` and ``late`` are probabilities per message."""

    def __init__(self, timeline: Timeline, rng: Random) -> None:
        self.behave()
        self.timeline = timeline
        self.rng = rng
        self._cuts: dict[Wire, tuple[Cut, float]] = {}
        self._held: list[tuple[Wire, Callable[..., object], tuple[Any, ...]]] = []

    def behave(self) -> None:
        """Behaves as a network does on good days."""
        self.lose, self.repeat, self.late = 0.0, 0.05, 0.01

    def misbehave(self) -> None:
        """Loses, repeats and delays messages, and so reorders them."""
        self.lose, self.repeat, self.late = 0.25, 0.5, 0.3

    def cut(self, wires: Sequence[Wire], how: Cut) -> Callable[[], object]:
        """Cuts these directions. Returns a function that mends them."""
        self._cuts |= dict.fromkeys(wires, (how, self.timeline.now))
        return lambda: [self._mend(wire) for wire in wires]

    def _mend(self, wire: Wire) -> None:
        self._cuts.pop(wire, None)
        mended = [message for message in self._held if message[0] == wire]
        self._held = [message for message in self._held if message[0] != wire]
        for _, deliver, args in mended:
            self._deliver(deliver, args)

    def mend_all(self) -> None:
        self.behave()
        for wire in list(self._cuts):
            self._mend(wire)

    def silent(self, wire: Wire) -> bool:
        """Whether one end has not heard from the other, in either direction, for so long that the link is down."""
        if not self._cuts:
            return False
        cuts = (self._cuts.get(wire), self._cuts.get((wire[1], wire[0])))
        return any(cut is not None and self.timeline.now - cut[1] > SILENCE for cut in cuts)

    def carry(self, wire: Wire, deliver: Callable[..., object], *args: Any) -> bool:
        """Takes a message. Returns False if it is lost for good."""
        if wire in self._cuts:
            if self._cuts[wire][0] is Cut.DROPS:
                return False
            self._held.append((wire, deliver, args))
            return True
        if self.lose and self.rng.random() < self.lose:
            return False
        if self.repeat and self.rng.random() < self.repeat:
            self._deliver(deliver, args)
        self._deliver(deliver, args)
        return True

    def _deliver(self, deliver: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.timeline.at(self.timeline.now + self.delay(), None, deliver, *args)

    def delay(self) -> float:
        chance = self.rng.random
        if chance() < self.late:
            return _LEAST + chance() * _LATE
        return _LEAST + chance() * _SPREAD
