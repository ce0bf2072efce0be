"""The states of a connection: every transition in the table is taken, and no other."""

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.server.peers import connection
from quorumvault.server.peers import facts as saying
from quorumvault.server.peers.claims import Claims
from quorumvault.server.peers.connection import Connection
from quorumvault.server.peers.connection_state import MAY_COME, TRANSITIONS, Event, State, after
from quorumvault.server.peers.facts import Greeting, NodeFacts
from quorumvault.server.peers.frames import Envelope, Kind, frame
from quorumvault.server.tls import TlsSession
from tests.rigs.certificates import credentials, node_pem
from tests.rigs.links import facts_of, local_node
from tests.unit.server.peers.test_claims import Claimant

#: The events that lead to an open connection.
_OPENING = (Event.CONNECTED, Event.SECURED, Event.GREETED, Event.WELCOMED)


def test_the_table_leads_through_every_state_and_refuses_every_other_event() -> None:
    assert list(itertools.accumulate(_OPENING, after, initial=State.CONNECTING)) == list(State)[:-1]
    assert {after(state, Event.END) for state in State} == {State.ENDED}
    for state, event in itertools.product(State, Event):
        if event not in TRANSITIONS[state]:
            with pytest.raises(RuntimeError, match=f"is {state.name} cannot be {event.name}"):
                after(state, event)


def test_only_an_open_connection_takes_requests() -> None:
    assert [state for state, kinds in MAY_COME.items() if Kind.REQUEST in kinds] == [State.OPEN]
    assert set().union(*MAY_COME.values()) == set(Kind)


class _Transport:
    """Takes everything, and keeps what the handshake writes for the other side of the test."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def get_extra_info(self, name: str) -> None:
        return None

    def abort(self) -> None: ...

    def close(self) -> None: ...


class _End(Connection):
    """n2's end of a connection that n1 has dialled."""

    def __init__(self, claims: Claims) -> None:
        local = local_node("n2", claims=claims)
        super().__init__(local, listening=True, expected=("n1",))

    def greeted(self, facts: NodeFacts) -> None: ...

    def received(self, envelope: Envelope) -> None: ...

    def ended(self, reason: str) -> None: ...


class _Play:
    """The other side, and the transport; each move may come at any time that a transport allows."""

    def __init__(self, claims: Claims) -> None:
        self.end, self.transport = _End(claims), _Transport()
        self.tls = TlsSession(credentials(node_pem("n1")).dialling, server_side=False)

    def connect(self) -> None:
        if self.end._transport is None:
            self.end.connection_made(self.transport)  # type: ignore[arg-type]

    def shake_hands(self) -> None:
        if self.end.state is State.HANDSHAKE:
            self.tls.start()
            self.end.data_received(self.tls.outgoing())
            self.tls.feed(self.transport.written)
            self.end.data_received(self.tls.outgoing())

    def say(self, kind: Kind, message: Any) -> None:
        if self.tls.established:
            self.end.data_received(self.tls.seal(frame([Envelope(kind, 0, saying.encode(message))])))


_MOVES = {
    "connect": _Play.connect,
    "shake hands": _Play.shake_hands,
    "garbage": lambda play: play.end._transport and play.end.data_received(bytes(100)),
    "fail": lambda play: play.end.fail("for the test"),
    "close": lambda play: play.end.close("for the test"),
    "end of file": lambda play: play.end._transport and play.end.eof_received(),
    "greeting": lambda play: play.say(Kind.GREETING, Greeting("n2", facts_of("n1"))),
    "greeting astray": lambda play: play.say(Kind.GREETING, Greeting("n3", facts_of("n1"))),
    "ping": lambda play: play.say(Kind.PING, facts_of("n1")),
    **{kind.name: lambda play, kind=kind: play.say(kind, facts_of("n1")) for kind in Kind},  # type: ignore[misc]
}


def _play(moves: list[str], *, contested: bool = False) -> set[tuple[State, Event]]:
    """Make the moves on a new connection. If ``contested``, another process has n1's name. Return the transitions taken."""
    taken, claims = set[tuple[State, Event]](), Claims("n2")
    if contested:
        claims.claim(Claimant(), facts_of("n1", boot=b"another"))

    def noting(state: State, event: Event) -> State:
        taken.add((state, event))
        return after(state, event)

    async def scenario() -> None:
        play = _Play(claims)
        for move in moves:
            _MOVES[move](play)  # type: ignore[no-untyped-call]
            assert (play.end.reason is None) == (play.end.state is not State.ENDED)
            assert play.end.facts is None or play.end.state in (State.OPEN, State.ENDED)
            await asyncio.sleep(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "after", noting)
        asyncio.run(scenario())
    return taken


_TO_OPEN = ["connect", "shake hands", "greeting"]


@given(st.lists(st.sampled_from(sorted(_MOVES)), max_size=8), st.integers(0, 3), st.booleans())
def test_whatever_comes_a_connection_takes_only_transitions_of_the_table(moves: list[str], opened: int, contested: bool) -> None:
    _play([*_TO_OPEN[:opened], *moves], contested=contested)


def test_a_connection_takes_every_transition_of_the_table() -> None:
    taken = _play([*_TO_OPEN, "fail"], contested=True)
    for length in range(4):
        taken |= _play([*_TO_OPEN[:length], "fail", "fail", "connect"])
    assert taken == {(state, event) for state, ways in TRANSITIONS.items() for event in ways}
