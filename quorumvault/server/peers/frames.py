"""Frames: how messages travel inside the TLS of two nodes (server/tls.py), which keeps them secret, intact and in order.

    frame     u32 n | n bytes: one or more envelopes
    envelope  u8 kind | u64 correlation id | u32 length of the body | body: a message, in MessagePack
    integers big-endian

A frame begins with its length, so that a node can refuse the frame before it keeps any of it. Messages that a node wants to send
at one time share one frame, and so one system call.
"""

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

_LENGTH = struct.Struct(">I")
_HEADER = struct.Struct(">BQI")

ENVELOPE_OVERHEAD: Final = _HEADER.size


class Kind(IntEnum):
    """The kind of a message, which says what its body is."""

    #: Greeting (facts.py). The first message of either side; nothing else counts before it.
    GREETING = 1
    #: Text: why the other side is refused. The last message.
    REFUSAL = 2
    #: The NodeFacts of the node that pings, and of the node that answers.
    PING = 3
    PONG = 4
    #: A request and its reply (protocol/messages.py).
    REQUEST = 5
    REPLY = 6
    #: Boolean: no reply will come; True if the request may have been carried out nevertheless.
    NO_REPLY = 7
    #: Text: another live process has the name of the other side, which must therefore stop. The last message.
    TAKEN = 8


def fits(body: bytes, frame_bytes: int) -> bool:
    """True if a message with this body fits into a frame of at most ``frame_bytes``."""
    return len(body) + ENVELOPE_OVERHEAD <= frame_bytes


class Envelope(NamedTuple):
    """A message in transit. A REPLY or NO_REPLY has the correlation id of its request; messages of other kinds have 0.

    ``body`` is bytes to send, or a view of received bytes.
    """

    kind: int
    correlation: int
    body: bytes | memoryview

    def __repr__(self) -> str:
        return f"<kind {self.kind}, {len(self.body)} bytes>"


class FrameError(Exception):
    """The other side sent bytes that it may not send. The connection must be closed."""


def frame(envelopes: Iterable[Envelope]) -> bytes:
    """A frame of these envelopes."""
    parts: list[bytes | memoryview] = [b""]
    length = 0
    for kind, correlation, body in envelopes:
        parts += (_HEADER.pack(kind, correlation, len(body)), body)
        length += ENVELOPE_OVERHEAD + len(body)
    parts[0] = _LENGTH.pack(length)
    return b"".join(parts)


class FrameReader:
    """One direction's receiving end: takes bytes in any pieces, returns envelopes. ``limit`` bounds ``n``, before any is kept."""

    __slots__ = ("_limit", "_partial")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[Envelope]:
        """The envelopes of all frames that ``data`` completes. Raises FrameError; not to be called again after that."""
        if not self._partial:
            # Whole frames, the usual case, are read where they lie.
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
                # A copy, so that bodies outlive the stream, in which later bytes overwrite the frame.
                envelopes += _envelopes(bytes(view[begin:end]))
                at = end
        return at, envelopes


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
