"""Holds a client's hellos back until they are whole and short enough: OpenSSL allocates as much as a stranger announces.

    record    type, version, length: 5 bytes (RFC 8446, 5.1)
    hello     a handshake message in one record or several: type, and length in three bytes (RFC 8446, 4)

A client that guessed a group the server does not take sends a second hello (HelloRetryRequest, RFC 8446, 4.1.4), which has the
same limit. Nothing else is checked here: OpenSSL refuses what is not a hello.
"""

from typing import Final

#: The longest hello, 2 KB in earnest. OpenSSL takes 128 KiB, and makes room at once for what is announced.
HELLO_BYTES: Final = 16 * 1024
_RECORD_HEAD: Final = 5
_MESSAGE_HEAD: Final = 4
_HANDSHAKE: Final = 22
#: All are looked through at each byte that comes.
_MOST_RECORDS: Final = 16
#: What may come before a second hello: a change of cipher for old boxes on the way, an alert, early data.
_PASSED: Final = frozenset({20, 21, 23})
#: The longest record, with all that ciphers add (RFC 5246, 6.2.3).
_MOST_RECORD: Final = (1 << 14) + 2048
#: The random of a ServerHello that asks for a second hello (RFC 8446, 4.1.3), and where it is in the first record of an answer.
_RETRY: Final = bytes.fromhex("CF21AD74E59A6111BE1D8C021E65B891C2A211167ABB8C5E079E09E2C8A8339C")
_RETRY_AT: Final = _RECORD_HEAD + _MESSAGE_HEAD + 2


class TooLong(Exception):
    """A hello that is too long, hides how long it is, or has something else behind it in its record."""


class HelloGuard:
    """Between a client and OpenSSL, until ``off``: then nothing is held back."""

    def __init__(self) -> None:
        self.off = False
        self._held = b""
        self._second = False

    def take(self, data: bytes | memoryview) -> bytes:
        """Returns what OpenSSL may have now, to the end of a hello at most: then ``answered`` is to be called. Raises TooLong."""
        self._held += data
        end = self._passable()
        given, self._held = self._held[:end], self._held[end:]
        return given

    def answered(self, answer: bytes) -> None:
        """``answer``: what OpenSSL has said to a hello; empty if there was none. It tells whether another one follows."""
        if answer:
            self.off = self._second or answer[_RETRY_AT : _RETRY_AT + len(_RETRY)] != _RETRY
            self._second = True

    def _passable(self) -> int:
        """How many of the bytes that are held."""
        if self.off:
            return len(self._held)
        at = 0
        while len(self._held) >= at + _RECORD_HEAD:
            kind, length = self._record(at)
            if kind == _HANDSHAKE and length <= _MOST_RECORD:
                return self._hello_end(at) or at
            if not self._second or kind not in _PASSED or length > _MOST_RECORD:
                return self._pass_all()
            if len(self._held) < at + _RECORD_HEAD + length:
                break
            at += _RECORD_HEAD + length
        return at

    def _record(self, at: int) -> tuple[int, int]:
        return self._held[at], int.from_bytes(self._held[at + 3 : at + _RECORD_HEAD])

    def _pass_all(self) -> int:
        self.off = True
        return len(self._held)

    def _hello_end(self, at: int) -> int | None:
        """Where the hello whose first record is at ``at`` ends; None while that is not here. Raises TooLong."""
        head = self._held[at + _RECORD_HEAD : at + _RECORD_HEAD + _MESSAGE_HEAD]
        if len(head) < _MESSAGE_HEAD:
            return None
        missing = _MESSAGE_HEAD + int.from_bytes(head[1:])
        if self._record(at)[1] < _MESSAGE_HEAD or missing > _MESSAGE_HEAD + HELLO_BYTES:
            raise TooLong(f"it announces a first message of more than {HELLO_BYTES} bytes, or hides how long it is")
        for _ in range(_MOST_RECORDS):
            if len(self._held) < at + _RECORD_HEAD:
                return None
            kind, length = self._record(at)
            if kind != _HANDSHAKE:
                return self._pass_all()
            missing -= length
            at += _RECORD_HEAD + length
            if missing < 0:
                raise TooLong("it says more behind its first message, before it has an answer")
            if missing == 0:
                return at if len(self._held) >= at else None
        raise TooLong(f"its first message comes in more than {_MOST_RECORDS} pieces")
