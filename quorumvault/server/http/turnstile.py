"""What all connections together may do in one turn of the event loop: the rest waits its turn, in order.

Between two turns the loop looks after everything else, the peers' pings above all. Without this, a thousand connections that have
something to say at once are listened to one after the other, and for as long as that takes a node is silent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

#: Requests begun in a turn: each costs some 0.25 ms until its first wait, more than all parsing.
REQUESTS: Final = 16
#: Units of work in a turn, and how many of them a byte is: a body's bytes are only copied, while each few bytes of heads, chunk
#: headers and trailers may cost a call into Python. Either way a turn takes some 5 ms at worst.
WORK: Final = 1 << 20
BODY_BYTE: Final = 1
FRAMING_BYTE: Final = 32


class Waiter(Protocol):
    def on_turn(self) -> None:
        """Go on with what had to wait, as far as ``Turnstile.admit`` lets."""


class Turnstile:
    """Used on the event loop's thread. ``call_soon`` calls something in the next turn.

    ``work`` and ``requests`` are what was done in this turn: whoever was admitted adds to them. The last one may go
    beyond the bound by one piece.
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
        """Whether something more may be done in this turn: there is room, and nobody has waited for it."""
        return self.requests < REQUESTS and self.work < WORK and (self._calling or not self._waiting)

    def admit(self, waiter: Waiter) -> bool:
        """Whether the waiter may do something now. If not, its ``on_turn`` is called in a later turn."""
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
        """See that the next turn begins, once."""
        if not self._next_turn_is_due:
            self._next_turn_is_due = True
            self._call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._next_turn_is_due = False
        self.requests = self.work = 0
        self._calling = True
        try:
            # Not those that come to wait meanwhile: each goes once a turn.
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
