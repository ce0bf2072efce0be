"""Bounds the work of all connections together in one turn of the event loop. The rest waits for the next turn, in order.

Between two turns the loop serves everything else, above all the peers' pings. Without the bound, the loop would read a thousand
connections with simultaneous requests one after the other, and the node would be silent to its peers meanwhile.
"""

from collections.abc import Callable
from typing import Final, Protocol

#: Most requests begun in a turn. Each takes some 0.25 ms until its first wait, more than all parsing.
REQUESTS: Final = 16
#: Most units of work in a turn, and the units of a byte: a body's bytes are only copied, while a few bytes of heads, chunk
#: headers or trailers may each take a call into Python. A part costs PART beside its bytes: it takes some 10 µs however short it
#: is, and a client of TLS may send each byte in a record, and so in a part, of its own. A turn takes some 5 ms at worst.
WORK: Final = 1 << 20
PART: Final = 4096
BODY_BYTE: Final = 1
FRAMING_BYTE: Final = 32


class Waiter(Protocol):
    def on_turn(self) -> None:
        """Go on with the work that had to wait, as far as ``Turnstile.admit`` allows."""


class Turnstile:
    """Used on the event loop's thread. ``call_soon`` calls a function in the next turn.

    ``work`` and ``requests`` count this turn's work. An admitted waiter adds to them; the last one may exceed the bound by one
    piece.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self.work = 0
        self.requests = 0
        self._call_soon = call_soon
        #: In the order in which they came. A dictionary, so that each waits once and may leave.
        self._waiting: dict[Waiter, None] = {}
        self._next_turn_is_due = False
        self._calling = False

    @property
    def is_open(self) -> bool:
        """True if more may be done in this turn: the bound is not reached, and no waiter comes first."""
        return self.requests < REQUESTS and self.work < WORK and (self._calling or not self._waiting)

    def admit(self, waiter: Waiter) -> bool:
        """Return whether the waiter may work now. If not, its ``on_turn`` is called in a later turn."""
        self._have_next_turn()
        if self.is_open:
            return True
        self._waiting[waiter] = None
        return False

    def wait(self, waiter: Waiter) -> None:
        """Have the waiter's ``on_turn`` called in a later turn, once."""
        self._waiting[waiter] = None
        self._have_next_turn()

    def leave(self, waiter: Waiter) -> None:
        self._waiting.pop(waiter, None)

    def _have_next_turn(self) -> None:
        """Make sure that the next turn is scheduled, once."""
        if not self._next_turn_is_due:
            self._next_turn_is_due = True
            self._call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._next_turn_is_due = False
        self.requests = self.work = 0
        self._calling = True
        try:
            # A copy, because each waiter goes once a turn: those that begin to wait meanwhile go in the next.
            for waiter in list(self._waiting):
                if not self.is_open:
                    break
                if waiter in self._waiting:
                    del self._waiting[waiter]
                    waiter.on_turn()
        finally:
            self._calling = False
        if self._waiting:
            self._have_next_turn()
