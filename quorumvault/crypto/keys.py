"""Keys: from one master secret, each owner and epoch gets a key for the token's hash and a key for sealing.

HKDF-SHA-256 (RFC 5869) without salt; ``info`` names the use, then the owner's name with its length, then the epoch:

    info = "quorumvault/1 " + use + 0x00 + u16(len(owner)) + owner + u32(epoch)        integers big-endian
    use "token": 32 bytes, key of BLAKE2b (RFC 7693, keyed, 20-byte digest)
    use "seal":  64 bytes, key of AES-256-SIV (RFC 5297)

Keys depend on neither cluster nor node: a vault restored elsewhere from its backup and its secret makes the same tokens.
"""

import hashlib
import struct
from collections.abc import Iterable
from functools import lru_cache

from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from quorumvault.crypto.sealing import Sealer
from quorumvault.crypto.tokens import DIGEST_BYTES
from quorumvault.model import Owner

SECRET_BYTES = 32
#: A master secret. A node keeps its own in locked memory (config/secrets.py), of which this is a view.
Secret = bytes | memoryview
#: Most derived keys kept in memory: an entry takes about a kilobyte, deriving it again some 20 microseconds.
_CACHED_EPOCHS = 1024


def derive(secret: Secret, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret)


def fingerprint(secret: Secret) -> str:
    """64 bits that two nodes compare to check that they hold the same secret. They reveal nothing about it."""
    return derive(secret, b"quorumvault/1 fingerprint", 8).hex()


def backup_key(secret: Secret) -> bytes:
    """The key that seals a backup as a whole (server/backup/format.py): making or changing a backup needs the master secret."""
    return derive(secret, b"quorumvault/1 backup", 32)


class EpochKeys:
    """The keys of one owner's epoch, ready to use. ``digest_bits`` below 160 is for tests that want collisions."""

    __slots__ = ("_hash", "_kept_bytes", "sealer")

    def __init__(self, token_key: bytes, seal_key: bytes, context: bytes, digest_bits: int) -> None:
        self._hash = hashlib.blake2b(key=token_key, digest_size=DIGEST_BYTES)
        self._kept_bytes = digest_bits // 8
        self.sealer = Sealer(AESSIV(seal_key), context)

    def digests(self, canonicals: Iterable[bytes]) -> list[bytes]:
        """The 20-byte keyed hashes of canonical forms, in order."""
        copy, result = self._hash.copy, []
        for canonical in canonicals:
            state = copy()
            state.update(canonical)
            result.append(state.digest())
        if self._kept_bytes < DIGEST_BYTES:
            return [digest[: self._kept_bytes].ljust(DIGEST_BYTES, b"\0") for digest in result]
        return result


class Keyring:
    """Derives the keys of any owner and epoch from the master secret ``secret_id``, and keeps the recent ones."""

    def __init__(self, secret_id: str, secret: Secret, *, digest_bits: int = 8 * DIGEST_BYTES) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a master secret is {SECRET_BYTES} bytes")
        self.secret_id = secret_id

        @lru_cache(maxsize=_CACHED_EPOCHS)
        def epoch_keys(owner: Owner, epoch: int) -> EpochKeys:
            name = owner.name.encode()
            scope = struct.pack(">H", len(name)) + name + struct.pack(">I", epoch)
            return EpochKeys(
                derive(secret, b"quorumvault/1 token\0" + scope, 32),
                derive(secret, b"quorumvault/1 seal\0" + scope, 64),
                owner.id + struct.pack(">I", epoch),
                digest_bits,
            )

        self.epoch_keys = epoch_keys
