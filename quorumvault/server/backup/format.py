"""The bytes of a backup: the same in a file and in the stream from a node.

    "QVBACKUP" 0x01                       magic, and the version of the format
    length (u32 BE) | message | digest    repeated. The digest is BLAKE2b-128 (RFC 7693) of all earlier bytes except digests

    Header   Piece   Piece …   Trailer    messages, in MessagePack. BrokenOff takes the place of the trailer, or of a piece and
                                          everything after it, if the backup was not finished

Each digest covers the file so far, so a flipped byte is noticed in its own message, and so is a message that was moved, left out
or repeated. A backup without its trailer was cut short. Digests detect damage. Forgery is detected by the trailer's seal, whose
key is derived from the master secret (crypto/keys.py), because a backup may lie where others can write.

A backup has no secret and no API key, and its values are sealed. Owner names are in clear, because keys are derived from them.
"""

import hashlib
import hmac
import struct
from typing import NamedTuple, Protocol

import msgspec

from quorumvault.config.master import SecretId
from quorumvault.errors import BackupDamaged

FORMAT = 1
_MAGIC = b"QVBACKUP"
_LENGTH = struct.Struct(">I")
_DIGEST_BYTES = 16
_SEAL_BYTES = 32
#: The largest message, so that a flipped bit in a length does not take all memory. Pieces are 128 KiB, or one record.
_MOST_BYTES = 256 << 20


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Fields are only ever added at the end, with a default."""


class Header(Message, frozen=True, tag=1):
    """The origin of a backup: the cluster, and the number of the view that was read.

    ``secret``: the id of the master secret that a restore needs; ``fingerprint`` tells this secret from others. ``begun``: when
    the backup began, by the node's clock, in RFC 3339; everything committed before is in it. ``version`` wrote it.
    """

    cluster_id: str
    view: int
    secret: SecretId
    fingerprint: str
    begun: str
    version: str


class Piece(Message, frozen=True, tag=2):
    """Parallel columns of a store's keys and values, in the order of the keys, after those of the piece before."""

    keys: list[bytes]
    values: list[bytes]

    def __post_init__(self) -> None:
        if len(self.keys) != len(self.values):
            raise ValueError("parallel columns differ in length")

    def __repr__(self) -> str:
        return f"<Piece of {len(self.keys)}>"


class Counts(Message, frozen=True):
    """The number of entries in a backup. ``conflicts``: those of its records that mark a token in which two values met.

    ``unknown``: parts of the keys that fewer than two disks could read, so that the backup may lack records there.
    """

    records: int
    registers: int
    owners: int
    conflicts: int
    unknown: int = 0


class Trailer(Message, frozen=True, tag=3):
    """``sources``: the nodes whose disks were read. ``seal``: see ``seal``, of the digest before this message."""

    counts: Counts
    sources: list[str]
    seal: bytes


class BrokenOff(Message, frozen=True, tag=4):
    """The node could not go on: the code of the error, and the reason in words."""

    code: str
    why: str


AnyMessage = Header | Piece | Trailer | BrokenOff
_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


class Frame(NamedTuple):
    """A message after the header, with its bytes in the backup, the first of which is at ``offset``.

    ``before`` and ``digest``: the digests of the backup before this message, and including it.
    """

    offset: int
    raw: bytes
    message: Piece | Trailer
    before: bytes
    digest: bytes


class Writer:
    """Makes the bytes of one backup, message by message."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._begun = False

    @property
    def digest(self) -> bytes:
        """The digest of everything written so far."""
        return self._hash.digest()

    def write(self, message: AnyMessage) -> bytes:
        """The next bytes of the backup. Raises ValueError for a message that is too large."""
        payload = _encode(message)
        if len(payload) > _MOST_BYTES:
            raise ValueError(f"a message of {len(payload)} bytes")
        raw = _LENGTH.pack(len(payload)) + payload
        if not self._begun:
            self._begun, raw = True, _MAGIC + bytes([FORMAT]) + raw
        self._hash.update(raw)
        return raw + self._hash.digest()


class Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """Read ``size`` bytes, fewer only at the end."""


class Broken(BackupDamaged):
    """The node that took the backup could not go on. ``code``: the error's code, or a word; ``why``: the reason in words."""

    def __init__(self, where: object, broken: BrokenOff) -> None:
        super().__init__(f"{where}: this backup was broken off when it was taken, and is not whole: {broken.why}")
        self.code = broken.code
        self.why = broken.why


class Reader:
    """Reads one backup, and checks each message before returning it.

    All methods raise BackupDamaged, with ``where``, for anything but a whole backup; Broken for one that was broken off.
    """

    def __init__(self, source: Readable, where: object) -> None:
        self._source = source
        self._where = where
        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._offset = 0
        start = self._read_magic()
        raw, message = self._read_message(start)
        if not isinstance(message, Header):
            raise self._damaged("there is something that does not belong there")
        self.header = message
        #: The bytes of the backup up to its first piece.
        self.start = raw

    def next(self) -> Frame:
        """The next message: a piece, or the trailer, which is the last message."""
        offset, before = self._offset, self._hash.digest()
        raw, message = self._read_message()
        if isinstance(message, Header):
            raise self._damaged("there is something that does not belong there")
        if isinstance(message, Trailer) and self._source.read(1):
            raise self._damaged("something follows behind the end of the backup")
        return Frame(offset, raw, message, before, self._hash.digest())

    def _read_magic(self) -> bytes:
        start = self._source.read(len(_MAGIC) + 1)
        if start[: len(_MAGIC)] != _MAGIC or len(start) <= len(_MAGIC):
            raise BackupDamaged(f"{self._where}: this is no backup, or its beginning is damaged")
        if start[-1] != FORMAT:
            raise BackupDamaged(f"{self._where}: expected a backup of format {FORMAT}, found {start[-1]}")
        return start

    def _read_message(self, start: bytes = b"") -> tuple[bytes, Header | Piece | Trailer]:
        """The bytes it takes, after those of ``start``."""
        prefix = self._exactly(_LENGTH.size)
        (length,) = _LENGTH.unpack(prefix)
        if length > _MOST_BYTES:
            raise self._damaged("it is damaged: no message has that length")
        payload = self._exactly(length)
        raw = start + prefix + payload
        self._hash.update(raw)
        digest = self._exactly(_DIGEST_BYTES)
        if digest != self._hash.digest():
            raise self._damaged("it is damaged: a checksum does not fit")
        try:
            message = _decoder.decode(payload)
        except (ValueError, RecursionError):  # DecodeError, text that is no UTF-8; and what is nested too deep to be skipped
            raise self._damaged("there is something that no backup has") from None
        if isinstance(message, BrokenOff):
            raise Broken(self._where, message)
        self._offset += len(raw) + len(digest)
        return raw + digest, message

    def _exactly(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) < size:
            raise self._damaged("it was cut short: the end of the backup is missing")
        return data

    def _damaged(self, what: str) -> BackupDamaged:
        return BackupDamaged(f"{self._where}: at byte {self._offset:,}: {what}")


def seal(key: bytes, digest: bytes) -> bytes:
    """Return the seal of a backup's digest, which only the master secret can make: keyed BLAKE2b (RFC 7693)."""
    return hashlib.blake2b(digest, key=key, digest_size=_SEAL_BYTES).digest()


def is_sealed(key: bytes, sealed: bytes, digest: bytes) -> bool:
    return hmac.compare_digest(sealed, seal(key, digest))
