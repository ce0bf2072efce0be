"""Holds a client's hellos back until they are whole and short enough: OpenSSL allocates as much as a stranger announces.

    record    type, version, length: 5 bytes (RFC 8446, 5.1)
    hello     a handshake message in one record or several: type, and length in three bytes (RFC 8446, 4)

A client that guessed a group the server does not take sends a second hello (HelloRetryRequest, RFC 8446, 4.1.4), which has the
same limit. Nothing else is checked here: OpenSSL refuses what is not a hello.
"""

from typing import Final

#: The longest hello; real hellos have up to 2 KB. OpenSSL takes up to 128 KiB, and allocates the announced length at once.
HELLO_BYTES: Final = 16 * 1024
_RECORD_HEAD: Final = 5
_MESSAGE_HEAD: Final = 4
_HANDSHAKE: Final = 22
#: The most records of a hello, since all are scanned again at each byte that arrives.
_MOST_RECORDS: Final = 16
#: Record types that may come before a second hello: a change of cipher (for old middleboxes), an alert, early data.
_PASSED: Final = frozenset({20, 21, 23})
#: The longest record, with the most that ciphers add (RFC 5246, 6.2.3).
_MOST_RECORD: Final = (1 << 14) + 2048
#: The random of a ServerHello that asks for a second hello (RFC 8446, 4.1.3), and where it is in the first record of an answer.
_RETRY: Final = bytes.fromhex("CF21AD74E59A6111BE1D8C021E65B891C2A211167ABB8C5E079E09E2C8A8339C")
_RETRY_AT: Final = _RECORD_HEAD + _MESSAGE_HEAD + 2


class TooLong(Exception):
    """A hello is too long, hides its length, or has other data behind it in its record."""


class HelloGuard:
    """Stands between a client and OpenSSL, until ``off``: from then on it holds nothing back."""

    def __init__(self) -> None:
        self.off = False
        self._held = b""
        self._second = False

    def take(self, data: bytes | memoryview) -> bytes:
        """Returns the bytes that OpenSSL may have now, up to the end of a hello. Then call ``answered``. Raises TooLong."""
        self._held += data
        end = self._passable()
        given, self._held = self._held[:end], self._held[end:]
        return given

    def answered(self, answer: bytes) -> None:
        """Takes OpenSSL's ``answer`` to a hello, empty if there was none. The answer shows whether a second hello follows."""
        if answer:
            self.off = self._second or answer[_RETRY_AT : _RETRY_AT + len(_RETRY)] != _RETRY
            self._second = True

    def _passable(self) -> int:
        """Returns how many of the held bytes may pass."""
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
        """Returns the end of the hello whose first record is at ``at``; None until it has arrived. Raises TooLong."""
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
