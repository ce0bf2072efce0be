"""One side of TLS, as bytes in and bytes out: OpenSSL through ``ssl.SSLObject``, with no socket, no clock and no waiting.

asyncio's own TLS reports a connection to its protocol only when the handshake is over. Strangers in the handshake would then not
be counted, and the reason why a certificate was refused would be lost (docs/decisions/0036-mutual-tls.md).

    feed(bytes of the socket) ──▶ handshake, until ``established``
                              ──▶ read_into(buffer), until it returns nothing    bytes of the other side
    take(bytes of the socket) ──▶ both, for callers that take everything at once
    seal(bytes for the other side) ──▶ bytes for the socket
    outgoing()                     ──▶ bytes that TLS itself wants to send on the socket: the handshake's, an alert
"""

import contextlib
import ssl
from collections.abc import Mapping
from typing import Any, Final, cast

from quorumvault.formats.tls_hello import HelloGuard, TooLong

#: What the other side may send before it has proved itself: a chain of certificates takes some 5 KB, a hello up to 2.
HANDSHAKE_BYTES: Final = 64 * 1024
#: Given to OpenSSL at a time until then: what follows the handshake in one read does not count as a part of it.
_PIECE_BYTES: Final = 4 * 1024
#: TLS cuts what is sent into records of up to 16 KiB, and gives back one at a time. OpenSSL gets no more at once, either way: its
#: buffers grow with what waits in them, and never shrink.
RECORD_BYTES: Final = 16 * 1024
#: Taken after the handshake without one byte of the stream. A record may be incomplete; new keys, one for 22 bytes, are asked for
#: once in millions of records, and each costs 15 microseconds and an answer.
_FRUITLESS_BYTES: Final = 2 * RECORD_BYTES


class TlsError(Exception):
    """The other side did not prove itself, or the stream was changed on its way. ``outgoing()`` has the alert for it.

    ``told``: it was the other side that ended it, by an alert.
    """

    def __init__(self, reason: str, *, told: bool = False) -> None:
        super().__init__(reason)
        self.told = told


class TlsSession:
    """Not to be used again after a TlsError, but for ``outgoing``."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._handshake_bytes = 0
        self._fruitless_bytes = 0
        #: Holds a client's hellos back; None once they are over, and for the side that dials.
        self._hellos = HelloGuard() if server_side else None
        #: What was said to them, and not fetched yet.
        self._answers = b""
        #: The handshake is over: the other side has shown what the context asks of it, and bytes can be sealed.
        self.established = False
        #: The other side has said that nothing more comes from it.
        self.ended = False

    def start(self) -> None:
        """Begin the handshake. A side that listens has nothing to send yet."""
        self._shake_hands()

    def feed(self, data: bytes | memoryview) -> None:
        """Take bytes of the socket, in pieces of up to RECORD_BYTES; what is in each is read before the next. Raises TlsError."""
        if not self.established:
            data = self._feed_handshake(memoryview(data))
        if data:
            if self._fruitless_bytes >= _FRUITLESS_BYTES:
                raise TlsError(f"it sent {self._fruitless_bytes} bytes of TLS with nothing in them, as new keys again and again")
            self._fruitless_bytes += len(data)
            self._incoming.write(data)

    def take(self, data: bytes | memoryview) -> bytes:
        """Take bytes of the socket, and return all bytes of the other side that are whole. Raises TlsError."""
        view, opened = memoryview(data), []
        for at in range(0, len(view), RECORD_BYTES):
            self.feed(view[at : at + RECORD_BYTES])
            opened.append(self.read_all())
        return opened[0] if len(opened) == 1 else b"".join(opened)

    def _feed_handshake(self, data: memoryview) -> memoryview:
        """Returns what follows the handshake."""
        at = 0
        while not self.established and at < len(data):
            piece = data[at : at + _PIECE_BYTES]
            at += len(piece)
            self._handshake_bytes += len(piece)
            if self._handshake_bytes > HANDSHAKE_BYTES:
                raise TlsError(f"it sent more than {HANDSHAKE_BYTES} bytes before it had proved itself")
            if self._hellos is not None:
                self._hear(self._hellos, piece)
            else:
                self._incoming.write(piece)
                self._shake_hands()
        return data[at:]

    def _hear(self, hellos: HelloGuard, piece: memoryview) -> None:
        try:
            passed = hellos.take(piece)
            while passed:
                self._incoming.write(passed)
                self._shake_hands()
                answer = self._outgoing.read()
                self._answers += answer
                hellos.answered(answer)
                passed = hellos.take(b"")
        except TooLong as error:
            raise TlsError(str(error)) from None
        if hellos.off:
            self._hellos = None

    def read_into(self, buffer: memoryview) -> int:
        """Put bytes of the other side into ``buffer``. Returns how many; 0 if none are whole. Raises TlsError."""
        if not self.established or not buffer or not (self._incoming.pending or self._tls.pending()):
            return 0
        try:
            count = cast("int", self._tls.read(len(buffer), buffer))
        except ssl.SSLWantReadError:
            return 0
        except ssl.SSLError as error:
            raise self._explained(error) from None
        if not count:
            raise self._end_of_stream()
        self._fruitless_bytes = 0
        return count

    def read_all(self) -> bytes:
        """Return all bytes of the other side that are whole. Raises TlsError."""
        pieces: list[bytes] = []
        try:
            # A read gives a whole record, so there is nothing more once all that came is used up.
            while self._incoming.pending and self.established:
                piece = self._tls.read(RECORD_BYTES)
                if not piece:
                    raise self._end_of_stream()
                pieces.append(piece)
                self._fruitless_bytes = 0
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise self._explained(error) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _end_of_stream(self) -> TlsError:
        self.ended = True
        return TlsError("closed by the other side", told=True)

    def seal(self, data: bytes) -> bytes:
        """Return what the socket has to send for the other side to read ``data``. Raises TlsError."""
        view, sent, sealed = memoryview(data), 0, []
        try:
            while sent < len(view):
                sent += self._tls.write(view[sent : sent + RECORD_BYTES])
                sealed.append(self._outgoing.read())
        except ssl.SSLError as error:
            raise self._explained(error) from None
        return sealed[0] if len(sealed) == 1 else b"".join(sealed)

    def end(self) -> bytes:
        """Return what tells the other side that nothing more comes."""
        if self.established:
            with contextlib.suppress(ssl.SSLError):  # it waits for the other side to say the same
                self._tls.unwrap()
        return self.outgoing()

    def outgoing(self) -> bytes:
        said, self._answers = self._answers, b""
        return said + self._outgoing.read() if self._outgoing.pending else said

    @property
    def certificate(self) -> Mapping[str, Any]:
        """The certificate that the other side has shown and that was verified; empty if none was asked for."""
        return self._tls.getpeercert() or {}

    def _explained(self, error: ssl.SSLError) -> TlsError:
        told = _words(error)
        if self.established and not told.told and not isinstance(error, ssl.SSLCertVerificationError):
            return TlsError(f"bytes that are not authentic: changed, repeated or out of order on their way ({_reason(error)})")
        return told

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            raise self._explained(error) from None
        self.established = True


# What went wrong, and what to do, for who reads the log. Numbers are OpenSSL's (x509_vfy.h).

_ITS_CLOCK = "renew it, or set the clocks right"
_REFUSED: Final = {
    3: "there is no list of revoked certificates of its CA here: peers.revoked has to have one of each CA in peers.ca",
    9: "its certificate is not valid yet: do the clocks of both hosts agree?",
    10: f"its certificate has expired: {_ITS_CLOCK}",
    12: "the list of revoked certificates here has ended: make a new one (peers.revoked)",
    23: "its certificate is revoked: if it is to come back, issue another for it",
    26: "its certificate is not for this use: one of a node is for both ends of TLS (extendedKeyUsage serverAuth, clientAuth)",
}
_FOREIGN = (
    "its certificate is of a CA that is not among those trusted here: is it of this cluster, and are the CA files the same?"
)
#: It cannot be followed to a CA that is trusted: a certificate that signed itself, or an issuer that is not there.
_FOREIGN_CODES: Final = frozenset({2, 18, 19, 20, 21})

#: Alerts by which the other side says why it ends the connection.
_ALERTS: Final = {
    "TLSV1_ALERT_UNKNOWN_CA": "it is of a CA that is not trusted there",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": f"it has expired: {_ITS_CLOCK}",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it is revoked",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it is not valid there; the clocks of both hosts may differ",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it is not for this use",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it cannot be taken there",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "none was shown",
}


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "unknown").lower()


def _words(error: ssl.SSLError) -> TlsError:
    reason = error.reason or "UNKNOWN"
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _FOREIGN_CODES:
            return TlsError(_FOREIGN)
        return TlsError(_REFUSED.get(error.verify_code, f"its certificate was refused: {error.verify_message}"))
    if reason in _ALERTS:
        return TlsError(f"the other side refuses the certificate of this node: {_ALERTS[reason]}; its log says more", told=True)
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return TlsError("it showed no certificate: what connected is no node of a vault")
    if reason in ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"):
        return TlsError("the two sides have no version of TLS in common", told="ALERT" in reason)
    if "ALERT" in reason:
        return TlsError(f"the other side ended TLS: {_reason(error)}", told=True)
    return TlsError(f"what it sends is not TLS as it is spoken here ({_reason(error)}): is it a node of this version?")
