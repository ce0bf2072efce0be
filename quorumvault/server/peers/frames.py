"""Frames: how messages travel once two nodes have proved themselves to each other (handshake.py).

    frame     u32 n | n bytes: AES-256-GCM (NIST SP 800-38D) of the payload, ciphertext then tag (16); no associated data
    payload   one or more envelopes
    envelope  u8 kind | u64 correlation id | u32 length of the body | body: a message, in MessagePack
    nonce     0x00000000 | u64: how many frames were sent before in this direction, on this connection
    integers big-endian

The nonce is counted and not sent: a frame that is repeated, left out, moved, or sent back to where it came from (each direction
has its own key) does not open. As in the record layer of TLS 1.3 (RFC 8446, 5.2 and 5.3). A frame that does not open ends the
connection, with nothing in it processed. Why encryption where a MAC would do: AES-GCM takes a sixth of the time of keyed
BLAKE2b, and digests, which make whole tokens, are not for the network to see.

Messages that a node wants to send at one time share one frame: one system call, one tag.
"""

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_LENGTH = struct.Struct(">I")
_HEADER = struct.Struct(">BQI")
_NONCE = struct.Struct(">IQ")
_TAG_BYTES = 16

ENVELOPE_OVERHEAD: Final = _HEADER.size
#: What ``n`` counts besides the envelopes.
FRAME_OVERHEAD: Final = _TAG_BYTES


class Kind(IntEnum):
    """The kind of a message, which says what its body is."""

    #: Greeting (facts.py). The first message of either side; nothing else counts before it.
    GREETING = 1
    #: Text: why the other side is refused. The last message.
    REFUSAL = 2
    #: NodeFacts of the node that pings, and of the one that answers.
    PING = 3
    PONG = 4
    #: A request and its reply (protocol/messages.py).
    REQUEST = 5
    REPLY = 6
    #: Boolean: no reply will come, and whether the request may have been carried out nevertheless.
    NO_REPLY = 7
    #: Text: another process under the name of the other side lives, so that one has to stop. The last message.
    TAKEN = 8


def fits(body: bytes, frame_bytes: int) -> bool:
    """Whether a message with this body is small enough for a frame of at most ``frame_bytes``."""
    return len(body) + ENVELOPE_OVERHEAD + FRAME_OVERHEAD <= frame_bytes


class Envelope(NamedTuple):
    """A message on its way. A reply, or the word that there is none, has the correlation id of its request; others have 0.

    ``body`` is bytes to be sent, or a view of what was received.
    """

    kind: int
    correlation: int
    body: bytes | memoryview

    def __repr__(self) -> str:
        return f"<kind {self.kind}, {len(self.body)} bytes>"


class FrameError(Exception):
    """The stream was changed on its way, or the other side may not send this. The connection has to be closed."""


class FrameWriter:
    """One direction's sending end. Frames have to be sent in the order in which they were made."""

    __slots__ = ("_cipher", "_count")

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._count = 0

    def frame(self, envelopes: Iterable[Envelope]) -> tuple[bytes, bytes]:
        """The next frame, in two pieces that follow each other: joining them would copy it once more."""
        parts: list[bytes | memoryview] = []
        for kind, correlation, body in envelopes:
            parts += (_HEADER.pack(kind, correlation, len(body)), body)
        sealed = self._cipher.encrypt(_NONCE.pack(0, self._count), b"".join(parts), None)
        self._count += 1
        return _LENGTH.pack(len(sealed)), sealed


class FrameReader:
    """One direction's receiving end: bytes in any pieces in, envelopes out. ``limit`` bounds ``n``, before anything is kept."""

    __slots__ = ("_cipher", "_count", "_limit", "_partial")

    def __init__(self, key: bytes, limit: int) -> None:
        self._cipher = AESGCM(key)
        self._count = 0
        self._limit = limit
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[Envelope]:
        """The envelopes of all frames that ``data`` completes. Raises FrameError; not to be called again after that."""
        if not self._partial:
            # Whole frames, the usual case, are opened where they lie.
            taken, envelopes = self._take(data)
            self._partial += memoryview(data)[taken:]
            return envelopes
        self._partial += data
        taken, envelopes = self._take(self._partial)
        del self._partial[:taken]
        return envelopes

    def _take(self, stream: bytes | bytearray) -> tuple[int, list[Envelope]]:
        """(bytes used up, envelopes) of the whole frames at the start of ``stream``."""
        envelopes: list[Envelope] = []
        at = 0
        with memoryview(stream) as view:
            while len(view) - at >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(view, at)
                if length > self._limit:
                    raise FrameError(f"a frame of {length} bytes, more than limits.frame_bytes ({self._limit}) allows")
                begin, end = at + _LENGTH.size, at + _LENGTH.size + length
                if end > len(view):
                    break
                with view[begin:end] as sealed:
                    envelopes += _envelopes(self._open(sealed))
                at = end
        return at, envelopes

    def _open(self, sealed: memoryview) -> bytes:
        try:
            payload = self._cipher.decrypt(_NONCE.pack(0, self._count), sealed, None)
        except InvalidTag:
            raise FrameError("a frame that is not authentic: changed, repeated or out of order on its way") from None
        self._count += 1
        return payload


def _envelopes(payload: bytes) -> list[Envelope]:
    """The envelopes of one payload; bodies are views of it."""
    view = memoryview(payload)
    envelopes = []
    at, end = 0, len(view)
    while at < end:
        try:
            kind, correlation, length = _HEADER.unpack_from(view, at)
        except struct.error:
            raise FrameError("a frame that ends within an envelope") from None
        at += ENVELOPE_OVERHEAD + length
        if at > end:
            raise FrameError("a frame that ends within an envelope")
        envelopes.append(Envelope(kind, correlation, view[at - length : at]))
    return envelopes
