"""Derives tokens from their specification alone (docs/token-format.md), with the master secret.

So clients can ask for a token before any answer has shown it: while its value is being written, after a write without an answer,
or for a value that nobody ever stored. A node that derives tokens otherwise would also be noticed.
"""

import hashlib
import zlib
from functools import lru_cache

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY_BYTES, _DIGEST_BYTES = 32, 20


class Speller:
    """Derives the tokens of every value, owner and epoch under one master secret."""

    def __init__(self, master_secret: bytes) -> None:
        self._master_secret = master_secret
        self._key = lru_cache(maxsize=256)(self._token_key)

    def token(self, owner: str, epoch: int, value: str | int | bool) -> str:
        """Returns a token, by sections 3 and 4."""
        digest = hashlib.blake2b(_canonical(value), key=self._key(owner, epoch), digest_size=_DIGEST_BYTES).digest()
        prefix = f"qv_{epoch}_"
        check = zlib.crc32(prefix.encode() + digest)
        return f"{prefix}{digest.hex()}{check:08x}"

    def _token_key(self, owner: str, epoch: int) -> bytes:
        """Returns the token key, by section 2."""
        name = owner.encode()
        scope = len(name).to_bytes(2, "big") + name + epoch.to_bytes(4, "big")
        return HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"quorumvault/1 token\x00" + scope).derive(self._master_secret)


def _canonical(value: str | int | bool) -> bytes:
    """Returns the canonical form of a value, by section 1."""
    if isinstance(value, bool):
        return b"t" if value else b"f"
    return b"i%d" % value if isinstance(value, int) else b"s" + value.encode()
