"""One connection between two nodes, as either end sees it: bytes in, messages out. link.py and server.py add what differs.

connection_state.py has its states and the transitions between them. A connection ends once, immediately and for one reason, which
is passed to ``ended``. Until the other side's greeting has arrived, the handshake's deadline applies; after that, the other side
must not be silent for too long. A claim may have to wait until an older connection has been silent for too long, so the dialler's
deadline allows for that.

Rules kept here: a node is whom its certificate names.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar, cast

import msgspec

from quorumvault.config.certificates import PeerCredentials
from quorumvault.config.limits import Limits, Timeouts
from quorumvault.crypto.x509 import Unnamed, node_named, uris
from quorumvault.server.peers import facts as saying
from quorumvault.server.peers.claims import Claims
from quorumvault.server.peers.connection_state import MAY_COME, Event, State, after
from quorumvault.server.peers.deadline import Deadline
from quorumvault.server.peers.facts import Greeting, NodeFacts
from quorumvault.server.peers.frames import Envelope, FrameError, FrameReader, Kind
from quorumvault.server.peers.outbox import Outbox
from quorumvault.server.tls import TlsError, TlsSession

DecodedT = TypeVar("DecodedT")

_decode_text: Final = msgspec.msgpack.Decoder(str).decode
#: The reason for which a stopping node ends its connections.
STOPPING: Final = "this node stops"
#: The reason for which an ``outdated`` connection ends.
UNTRUSTED: Final = "a CA that was trusted when this connection was made is trusted no more"
#: The longest reason, in characters, that is taken over from another node: a sentence or two in a log.
_REASON_CHARS = 400


@dataclass(frozen=True, slots=True)
class LocalNode:
    """This node, as all its connections need it. ``credentials`` returns the credentials for a new connection.

    ``on_taken(reason)`` is called when another node says that a live process already holds this node's name; ``on_facts(facts)``
    whenever another node has told its facts; ``on_refused(node, why)`` when a connection failed, with the node that was dialled,
    or None.
    """

    credentials: Callable[[], PeerCredentials] = field(repr=False)
    facts: Callable[[], NodeFacts] = field(repr=False)
    claims: Claims = field(repr=False)
    on_taken: Callable[[str], None] = field(repr=False)
    limits: Limits
    timeouts: Timeouts
    on_facts: Callable[[NodeFacts], None] = field(default=lambda facts: None, repr=False)
    on_refused: Callable[[str | None, str], None] = field(default=lambda node, why: None, repr=False)


def decoded(decode: Callable[[bytes | memoryview], DecodedT], body: bytes | memoryview) -> DecodedT:
    """Returns ``decode(body)``. Raises FrameError for a body that cannot be decoded, which ends the connection.

    For such a body msgspec raises ValueError, or RecursionError if unknown members are nested deeper than its stack.
    """
    try:
        return decode(body)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a message that cannot be read ({error}): do both nodes run the same release?") from None


class Connection(asyncio.Protocol, ABC):
    """One end. Subclasses define which further messages they accept, and what follows from the transitions.

    Invariants: ``reason`` is None exactly until the state is ENDED; ``facts`` is None exactly until the connection was OPEN.
    """

    def __init__(self, local: LocalNode, *, listening: bool, expected: Collection[str]) -> None:
        """``expected``: the names that the node at the other end may have."""
        self._loop = asyncio.get_running_loop()
        self._local = local
        #: The credentials that secured this connection; a reload may have replaced them since.
        self._credentials = mine = local.credentials()
        self._tls = TlsSession(mine.listening if listening else mine.dialling, server_side=listening)
        self._expected = expected
        #: The node that the other side's certificate names, and the serial number, once the other side has shown it.
        self._certified = ""
        self._serial = 0
        self._deadline = Deadline()
        self._deadline.set(local.timeouts.handshake, self._not_open_in_time)
        self._outbox = Outbox(local.limits.coalesce_bytes, self.regulate)
        self._transport: asyncio.Transport | None = None
        self._reader: FrameReader | None = None
        self._pings = 0
        self.state = State.CONNECTING
        #: The host at the other end.
        self.remote = "an unknown address"
        #: The number of pings that were answered.
        self.pongs = 0
        #: True once the other side has sent a message of any kind.
        self.answered = False
        #: True if one side refuses the other because of its certificate, its facts, or bytes that are not TLS.
        self.refused = False
        #: The facts that the other side told last; None until the connection is open.
        self.facts: NodeFacts | None = None
        #: Why the connection ended; None until it has.
        self.reason: str | None = None
        #: Set when the socket is closed, or will not be opened.
        self.closed = asyncio.Event()

    # The two ends implement these differently.

    def secured(self) -> None:
        """Both sides have shown valid certificates; frames can be sent."""

    @abstractmethod
    def greeted(self, facts: NodeFacts) -> None:
        """The other side may use this connection, which is open from now on."""

    @abstractmethod
    def received(self, envelope: Envelope) -> None:
        """Handle a REQUEST, REPLY or NO_REPLY on an open connection. Raises FrameError for a kind that this end refuses."""

    def regulate(self) -> None:
        """Messages were sent, or could not be sent. An end that applies backpressure to the other does so here."""

    @abstractmethod
    def ended(self, reason: str) -> None:
        """The connection is over; called once. Messages still in the outbox never left."""

    # Sending.

    def send(self, kind: Kind, correlation: int, body: bytes) -> None:
        """Queue a message. It leaves with the others of this turn of the loop. Does nothing once the connection has ended."""
        if self.state is not State.ENDED:
            self._outbox.put(Envelope(kind, correlation, body))

    @property
    def under_way(self) -> bool:
        """True if there is a socket, and the connection has not ended."""
        return self.state not in (State.CONNECTING, State.ENDED)

    def ping(self) -> int:
        """Tell this node's facts and ask for the other side's. Returns the ping's number: see ``pongs``."""
        self._pings += 1
        self.send(Kind.PING, 0, saying.encode(self._local.facts()))
        return self._pings

    def send_greeting(self, to: str) -> None:
        self.send(Kind.GREETING, 0, saying.encode(Greeting(to, self._local.facts())))

    # Ending.

    def fail(self, reason: str) -> None:
        """End the connection at once. Unsent messages are dropped."""
        self._end(reason)
        if self._transport is None:
            self.closed.set()
        else:
            self._transport.abort()

    def close(self, reason: str) -> None:
        """End the connection. Messages queued before still go out, if the other side accepts them before the deadline."""
        if self.state is State.ENDED:
            return
        self._outbox.resume()  # the transport now has everything that waited
        self._end(reason)
        if self._transport is None:
            self.closed.set()
        else:
            self._transport.close()
            self._deadline.set(self._local.timeouts.handshake, self._transport.abort)

    def _end(self, reason: str) -> None:
        self._deadline.cancel()
        self._outbox.close()
        before, self.state = self.state, after(self.state, Event.END)
        if before is not State.ENDED:
            self.reason = reason
            self.ended(reason)
            self._local.claims.release(self)

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.state = after(self.state, Event.CONNECTED)
        if peername := transport.get_extra_info("peername"):
            self.remote = peername[0]
        if self.state is State.ENDED:
            self._transport.abort()
        else:
            self._tls.start()
            self._write_tls()

    def data_received(self, data: bytes) -> None:
        if self.state is State.ENDED:
            return
        self._deadline.heard()
        try:
            received = self._tls.take(data)
            self._write_tls()
            if self._reader is None and self._tls.established:
                self._secure()
            if received and self._reader is not None:
                self._take(self._reader.feed(received))
        except TlsError as error:
            # If the other side refused this node's certificate, that counts as its answer.
            self.answered |= error.told
            self.refused = self._reader is None or error.told
            self._outbox.close()  # waiting messages can no longer be sealed
            self._write_tls()
            self.close(str(error))
        except FrameError as error:
            self.fail(str(error))

    def pause_writing(self) -> None:
        self._outbox.pause()

    def resume_writing(self) -> None:
        self._outbox.resume()

    def eof_received(self) -> None:
        # At once: otherwise the transport would first send everything it holds, to a node that is gone.
        self.fail(self._why_lost(None))

    def connection_lost(self, error: Exception | None) -> None:
        self._end(self._why_lost(error))
        self.closed.set()

    def _why_lost(self, error: Exception | None) -> str:
        if self._reader is None:
            return "closed by the other side before it proved itself: is it a node of this version, and is it its peer port?"
        if error is None:
            return "closed by the other side"
        # Errors that are not the network's are bugs in this process; their texts could contain a value or a key.
        return f"the connection broke: {error if isinstance(error, OSError) else type(error).__name__}"

    # Receiving.

    def _write_tls(self) -> None:
        """Send the bytes that TLS itself wants to send."""
        assert self._transport is not None
        if outgoing := self._tls.outgoing():
            self._transport.write(outgoing)

    def _secure(self) -> None:
        """The other side's certificate is valid: check which node it names."""
        assert self._transport is not None
        self._outbox.open(self._tls, self._transport)
        self._reader = FrameReader(self._local.limits.frame_bytes)
        self.state = after(self.state, Event.SECURED)
        if self._credentials is not self._local.credentials():
            # OpenSSL has used the old list of revoked certificates, and the old CAs.
            self.fail("the certificates of this node were read again during the handshake: it has to be done anew")
            return
        shown, mine = self._tls.certificate, self._local.facts()
        try:
            self._certified = node_named(uris(shown), mine.cluster_id)
            self._serial = int(shown["serialNumber"], 16)
        except Unnamed as error:
            self._refuse(Kind.REFUSAL, str(error))
            return
        if self._certified not in self._expected:
            words = f"its certificate is that of {self._certified[:64]!r}, and {mine.node} speaks here with "
            self._refuse(Kind.REFUSAL, f"{words}{' or '.join(sorted(self._expected))}: check the peer addresses in cluster.yaml")
            return
        self.secured()

    @property
    def outdated(self) -> bool:
        """True if a CA on which the connection may rely is no longer in the credentials."""
        return not self._credentials.authorities <= self._local.credentials().authorities

    def forget_revoked(self) -> None:
        """The credentials have changed: end the connection if the other side's certificate is revoked."""
        if self._serial in self._local.credentials().revoked:
            self.fail(f"the certificate of {self._certified} is revoked")

    def _take(self, envelopes: list[Envelope]) -> None:
        for envelope in envelopes:
            if self.state is State.ENDED:
                return
            self.answered = True
            if envelope.kind not in MAY_COME[self.state]:
                raise _out_of_turn(envelope)
            self._take_one(envelope)

    def _take_one(self, envelope: Envelope) -> None:
        match envelope.kind:
            case Kind.REFUSAL:
                reason = decoded(_decode_text, envelope.body)
                self.refused = True
                self.fail(f"refused by the other side: {reason[:_REASON_CHARS]!r}")
            case Kind.TAKEN:
                reason = decoded(_decode_text, envelope.body)[:_REASON_CHARS]
                self._local.on_taken(reason)
                self.fail(reason)
            case Kind.GREETING:
                self._greet(decoded(saying.decode_greeting, envelope.body))
            case Kind.PING:
                self._hear(envelope)
                self.send(Kind.PONG, 0, saying.encode(self._local.facts()))
            case Kind.PONG:
                if self.pongs == self._pings:
                    raise _out_of_turn(envelope)
                self._hear(envelope)
                self.pongs += 1
                self._local.claims.answered(self)
            case _:
                self.received(envelope)

    def _greet(self, greeting: Greeting) -> None:
        refusal = saying.refusal(self._local.facts(), greeting, self._expected, self._certified)
        if refusal is not None:
            self._refuse(Kind.REFUSAL, refusal)
            return
        self.state = after(self.state, Event.GREETED)
        self._deadline.set_for_silence(self._local.timeouts.silence, self._silent)
        self._local.claims.claim(self, greeting.facts)

    def _hear(self, envelope: Envelope) -> None:
        known, told = self.facts, decoded(saying.decode_facts, envelope.body)
        if known is None or (told.node, told.disk, told.boot) != (known.node, known.disk, known.boot):
            raise FrameError("a node that turned into another one: it has to greet anew")
        self._local.on_facts(told)
        self.facts = told

    def _refuse(self, kind: Kind, reason: str) -> None:
        self.refused = True
        self.send(kind, 0, msgspec.msgpack.encode(reason))
        self.close(f"refused: {reason}")

    # Called by the claims (claims.py).

    def welcome(self, facts: NodeFacts) -> None:
        # Before the connection is used: the rollback marks in the facts may forbid this disk to vote (healing/rollback_marks.py).
        self._local.on_facts(facts)
        self.state, self.facts = after(self.state, Event.WELCOMED), facts
        self.greeted(facts)

    def turn_away(self, reason: str) -> None:
        self._refuse(Kind.TAKEN, reason)

    # Deadlines.

    def await_greeting(self) -> None:
        """The handshake ended in time. From here on the other side may have to wait for its older connections (claims.py)."""
        seconds = self._local.timeouts.handshake + self._local.timeouts.silence
        self._deadline.set(seconds, partial(self.fail, f"no greeting came within {seconds:g} s: does the other process hang?"))

    def _not_open_in_time(self) -> None:
        self.fail(f"the handshake took more than {self._local.timeouts.handshake:g} s: does the other process hang?")

    def _silent(self) -> None:
        silence = self._local.timeouts.silence
        self.fail(f"nothing was heard for {silence:g} s: the other process hangs, or the network between is cut")


def _out_of_turn(envelope: Envelope) -> FrameError:
    return FrameError(f"a message of kind {envelope.kind} out of turn: do both nodes run the same release?")
