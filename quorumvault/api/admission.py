"""How many requests a node takes at once, and whether it takes any: what does not fit is refused before its body is read.

One API key may hold a part of the places, and of the bytes, so that the others find some left (limits.key_share). Otherwise a key
whose bodies come slowly could shut all others out for as long as a body may take.

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


class _Held:
    """What the requests of one key hold."""

    __slots__ = ("bytes", "places")

    def __init__(self) -> None:
        self.places = 0
        self.bytes = 0


class Admission:
    """Counts the requests under way and the bytes of their bodies. Used on the event loop's thread only."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places_of_a_key = max(1, limits.in_flight * limits.key_share // 100)
        self._bytes_of_a_key = max(limits.body_bytes, limits.in_flight_bytes * limits.key_share // 100)
        self._by_key: dict[str, _Held] = {}
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
    def enter(self, key_id: str, declared_bytes: int, outcome: Outcome | None) -> Iterator[Admitted]:
        """A place for one request with a body of this length, until the block ends. Raises Draining (with outcome), Busy."""
        if self.phase is Phase.DRAINING:
            raise Draining("this node is about to stop; send the request to another one", outcome=outcome)
        if self.in_flight >= self._limits.in_flight:
            raise Busy(f"{self._limits.in_flight} requests are under way here; wait, or send the request to another node")
        held = self._by_key.get(key_id) or _Held()
        if held.places >= self._places_of_a_key:
            raise Busy(f"key {key_id} has {held.places} requests under way here, as many as a key may have; wait for one of them")
        place = Admitted(self, key_id, held)
        place.hold(declared_bytes)
        self._by_key[key_id] = held
        held.places += 1
        self.in_flight += 1
        self._idle.clear()
        try:
            yield place
        finally:
            held.places -= 1
            held.bytes -= place.held_bytes
            if not held.places:
                del self._by_key[key_id]
            self.in_flight -= 1
            self.in_flight_bytes -= place.held_bytes
            if not self.in_flight:
                self._idle.set()


class Admitted:
    """The place of one request: the bytes that it holds of ``in_flight_bytes``, and of what its key may hold."""

    __slots__ = ("_admission", "_key_id", "_of_key", "held_bytes")

    def __init__(self, admission: Admission, key_id: str, of_key: _Held) -> None:
        self._admission = admission
        self._key_id = key_id
        self._of_key = of_key
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
        if self._of_key.bytes + more > admission._bytes_of_a_key:
            of_a_key = admission._bytes_of_a_key
            raise Busy(
                f"the requests of key {self._key_id} fill the {of_a_key} bytes that a key may have here; wait for one of them"
            )
        admission.in_flight_bytes += more
        self._of_key.bytes += more
        self.held_bytes = total
