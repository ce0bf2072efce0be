"""The handshake: two nodes prove to each other that they hold the cluster secret, and agree on the keys of one connection.

    dialler                                              listener
    HELLO    "QVPEER" | u16 version | nonce D (32) | tag (16)   -->   checks the tag, or closes without a word
             <--   WELCOME   nonce L (32) | tag (16)
    CONFIRM  tag (16)                                           -->   checks the tag, or closes
             ... frames (frames.py), encrypted, in both directions ...

    tag       BLAKE2b (RFC 7693), keyed, 16-byte digest, of all bytes before it in either direction since HELLO began
    its key   in HELLO: HKDF-SHA-256 (RFC 5869, no salt) of the cluster secret, info = "quorumvault/1 peer hello", 32 bytes
    the other keys   the same with info = "quorumvault/1 peer session" | 0x00 | D | L, 4 x 32 bytes, in this order:
              tag of WELCOME, tag of CONFIRM, frames from the dialler, frames from the listener
    integers big-endian

The dialler proves first: a port scanner gets not one byte, and at most 56 of its own are kept. A recorded HELLO, played again,
gets a fresh nonce and a tag over it, which tell nothing, and fails at CONFIRM, whose key depends on that nonce: mutual challenge
and response, as in ISO/IEC 9798-4. Each use has a key of its own, so nothing that one side sent can be played back to it.

All nodes hold the one secret. So this proves membership; which member speaks is said in the greeting that follows (facts.py).
There is no forward secrecy: who records the traffic and gets the secret later reads it. TLS underneath adds that.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

from quorumvault.crypto.keys import SECRET_BYTES, derive

MAGIC: Final = b"QVPEER"
#: The version of handshake and framing. Messages have a version of their own, in the facts.
WIRE_VERSION: Final = 1
NONCE_BYTES: Final = 32
TAG_BYTES: Final = 16
_KEY_BYTES = 32

_OPENING = MAGIC + struct.pack(">H", WIRE_VERSION)
_HELLO_BYTES = len(_OPENING) + NONCE_BYTES + TAG_BYTES
_WELCOME_BYTES = NONCE_BYTES + TAG_BYTES


class HandshakeError(Exception):
    """The other side did not prove itself. The connection is to be closed without an answer."""


@dataclass(frozen=True, slots=True, repr=False)
class Session:
    """Keys of one connection, as seen from one side; fresh for every connection."""

    sending: bytes
    receiving: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Step:
    """The result of received bytes: bytes to send; once the handshake is over, the session and the bytes that follow it."""

    send: bytes = b""
    session: Session | None = None
    rest: bytes = b""


@dataclass(frozen=True, slots=True, repr=False)
class _SessionKeys:
    welcome: bytes
    confirm: bytes
    from_dialler: bytes
    from_listener: bytes


class ClusterSecret:
    """The secret that makes a process a member of the cluster, and the keys derived from it."""

    __slots__ = ("_secret", "hello_key")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a cluster secret is {SECRET_BYTES} bytes")
        self._secret = secret
        self.hello_key = derive(secret, b"quorumvault/1 peer hello", _KEY_BYTES)

    def session_keys(self, dialler_nonce: bytes, listener_nonce: bytes) -> _SessionKeys:
        info = b"quorumvault/1 peer session\0" + dialler_nonce + listener_nonce
        keys = derive(self._secret, info, 4 * _KEY_BYTES)
        return _SessionKeys(*(keys[at : at + _KEY_BYTES] for at in range(0, len(keys), _KEY_BYTES)))


def _tag(key: bytes, transcript: bytes) -> bytes:
    return hashlib.blake2b(transcript, key=key, digest_size=TAG_BYTES).digest()


def _with_tag(key: bytes, transcript: bytes, part: bytes) -> bytes:
    return part + _tag(key, transcript + part)


def _check_tag(key: bytes, transcript: bytes, part: bytes) -> None:
    """Raises HandshakeError unless ``part`` ends with the tag over the transcript and the rest of ``part``."""
    said = part[:-TAG_BYTES]
    if not hmac.compare_digest(part[-TAG_BYTES:], _tag(key, transcript + said)):
        raise HandshakeError(
            "the other side did not prove that it holds the cluster secret: compare the secret's file on both nodes"
        )


def _check_nonce(nonce: bytes) -> None:
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce is {NONCE_BYTES} bytes")


class Dialling:
    """The side that dials: sends HELLO, awaits WELCOME, sends CONFIRM."""

    def __init__(self, secret: ClusterSecret, nonce: bytes) -> None:
        _check_nonce(nonce)
        self._secret = secret
        self._nonce = nonce
        self._hello = _with_tag(secret.hello_key, b"", _OPENING + nonce)
        self._received = b""

    def start(self) -> bytes:
        """Returns the bytes to send before anything was received."""
        return self._hello

    def receive(self, data: bytes) -> Step:
        """Takes bytes in any pieces. Raises HandshakeError; not to be called again after that, or after the session."""
        received = self._received + data
        if len(received) < _WELCOME_BYTES:
            self._received = received
            return Step()
        welcome, rest = received[:_WELCOME_BYTES], received[_WELCOME_BYTES:]
        keys = self._secret.session_keys(self._nonce, welcome[:NONCE_BYTES])
        _check_tag(keys.welcome, self._hello, welcome)
        confirm = _with_tag(keys.confirm, self._hello + welcome, b"")
        return Step(confirm, Session(sending=keys.from_dialler, receiving=keys.from_listener), rest)


class Listening:
    """The side that was dialled: sends nothing before it got an authentic HELLO, and no frame before it got CONFIRM."""

    def __init__(self, secret: ClusterSecret, nonce: bytes) -> None:
        _check_nonce(nonce)
        self._secret = secret
        self._nonce = nonce
        self._received = b""
        self._transcript = b""
        self._keys: _SessionKeys | None = None

    def start(self) -> bytes:
        return b""

    def receive(self, data: bytes) -> Step:
        received = self._received + data
        step = self._hello(received) if self._keys is None else self._confirm(received, self._keys)
        self._received = received if step is _NOTHING_YET else b""
        return step

    def _hello(self, received: bytes) -> Step:
        opening = received[: len(_OPENING)]
        if not _OPENING.startswith(opening):
            raise HandshakeError(_wrong_opening(opening))
        if len(received) > _HELLO_BYTES:
            raise HandshakeError("it sent more than a HELLO before it got an answer")
        if len(received) < _HELLO_BYTES:
            return _NOTHING_YET
        _check_tag(self._secret.hello_key, b"", received)
        self._keys = self._secret.session_keys(received[len(_OPENING) : -TAG_BYTES], self._nonce)
        welcome = _with_tag(self._keys.welcome, received, self._nonce)
        self._transcript = received + welcome
        return Step(welcome)

    def _confirm(self, received: bytes, keys: _SessionKeys) -> Step:
        if len(received) < TAG_BYTES:
            return _NOTHING_YET
        confirm, rest = received[:TAG_BYTES], received[TAG_BYTES:]
        _check_tag(keys.confirm, self._transcript, confirm)
        return Step(b"", Session(sending=keys.from_listener, receiving=keys.from_dialler), rest)


#: One side of the handshake. No IO and no clock; its randomness is a nonce that is used for nothing else.
Handshake: TypeAlias = Dialling | Listening
_NOTHING_YET = Step()


def _wrong_opening(opening: bytes) -> str:
    if not opening.startswith(MAGIC):
        return "what connected is no node of a vault"
    return f"it does not speak version {WIRE_VERSION} of the peer protocol, as this node does: upgrade the older node"
