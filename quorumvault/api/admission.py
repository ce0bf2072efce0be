"""How many requests a node takes at once, and whether it takes any: what does not fit is refused before its body is read.

SERVING --announce_stop--> LEAVING --refuse_new--> DRAINING
/readyz 200                /readyz 503             /readyz 503
requests served            requests served         new ones: 503 draining; those under way end
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from quorumvault.config import Limits
from quorumvault.errors import Busy, Draining, Outcome


class Phase(Enum):
    SERVING = "serving"
    LEAVING = "leaving"
    DRAINING = "draining"


class Admission:
    """Counts the requests under way and the bytes of their bodies. Used on the event loop's thread only."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._idle = asyncio.Event()
        self._idle.set()
        self.phase = Phase.SERVING
        self.in_flight = 0
        self.in_flight_bytes = 0

    def announce_stop(self) -> None:
        """/readyz fails from now on, so that balancers turn elsewhere; requests are still served."""
        self.phase = Phase.LEAVING

    def refuse_new(self) -> None:
        """New requests are answered 503 draining from now on."""
        self.phase = Phase.DRAINING

    async def idle(self) -> None:
        """Returns once no request is under way."""
        await self._idle.wait()

    @contextmanager
    def enter(self, declared_bytes: int, outcome: Outcome | None) -> Iterator[Admitted]:
        """A place for one request with a body of this length, until the block ends. Raises Draining (with outcome), Busy."""
        if self.phase is Phase.DRAINING:
            raise Draining("this node is about to stop; send the request to another one", outcome=outcome)
        if self.in_flight >= self._limits.in_flight:
            raise Busy(f"{self._limits.in_flight} requests are under way here; wait, or send the request to another node")
        place = Admitted(self)
        place.hold(declared_bytes)
        self.in_flight += 1
        self._idle.clear()
        try:
            yield place
        finally:
            self.in_flight -= 1
            self.in_flight_bytes -= place.held_bytes
            if not self.in_flight:
                self._idle.set()


class Admitted:
    """The place of one request: the bytes that it holds of ``in_flight_bytes``."""

    __slots__ = ("_admission", "held_bytes")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.held_bytes = 0

    def hold(self, total: int) -> None:
        """Hold this many bytes if they are more than are held already: a chunked body grows. Raises Busy."""
        more = total - self.held_bytes
        if more <= 0:
            return
        admission = self._admission
        most = admission._limits.in_flight_bytes
        if admission.in_flight_bytes + more > most:
            raise Busy(f"the requests under way here fill their {most} bytes; wait, or send the request to another node")
        admission.in_flight_bytes += more
        self.held_bytes = total
