"""The states of a connection between two nodes, and every way from one to the next (in the manner of h11's ``_state.py``).

    CONNECTING --CONNECTED--> HANDSHAKE --SECURED--> GREETING --GREETED--> CLAIMING --WELCOMED--> OPEN
    any state  --END--> ENDED

    CONNECTING   there is no socket yet
    HANDSHAKE    both ends show their certificates (server/tls.py)
    GREETING     frames flow; the other node's certificate was accepted, but its facts have not arrived yet
    CLAIMING     its greeting is in order; claims.py decides, now or later, whether it holds the name that it claims
    OPEN         requests, replies, pings and pongs
    ENDED        nothing is sent or accepted any more; the socket may need a moment to close

A pair of state and event that is not in the table is a bug in this program. A message that does not fit the state is the other
node's error: it ends the connection with a FrameError.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from quorumvault.server.peers.frames import Kind


class State(Enum):
    CONNECTING = auto()
    HANDSHAKE = auto()
    GREETING = auto()
    CLAIMING = auto()
    OPEN = auto()
    ENDED = auto()


class Event(Enum):
    CONNECTED = auto()
    SECURED = auto()
    GREETED = auto()
    WELCOMED = auto()
    END = auto()


TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.CONNECTING: {Event.CONNECTED: State.HANDSHAKE, Event.END: State.ENDED},
    State.HANDSHAKE: {Event.SECURED: State.GREETING, Event.END: State.ENDED},
    State.GREETING: {Event.GREETED: State.CLAIMING, Event.END: State.ENDED},
    State.CLAIMING: {Event.WELCOMED: State.OPEN, Event.END: State.ENDED},
    State.OPEN: {Event.END: State.ENDED},
    # An abandoned attempt to connect may still get its socket, and a connection may be ended more than once.
    State.ENDED: {Event.CONNECTED: State.ENDED, Event.END: State.ENDED},
}

_LAST: Final = frozenset({Kind.REFUSAL, Kind.TAKEN})
#: The kinds of messages that the other node may send, by state.
MAY_COME: Final[Mapping[State, frozenset[int]]] = {
    State.GREETING: _LAST | {Kind.GREETING},
    State.CLAIMING: _LAST,
    State.OPEN: _LAST | {Kind.PING, Kind.PONG, Kind.REQUEST, Kind.REPLY, Kind.NO_REPLY},
}


def after(state: State, event: Event) -> State:
    """The state that follows. Raises RuntimeError for an event that cannot happen in this state."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise RuntimeError(f"a connection that is {state.name} cannot be {event.name}") from None
