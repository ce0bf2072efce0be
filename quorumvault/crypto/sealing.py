"""Sealed values: AES-SIV (RFC 5297), deterministic, bound to owner, epoch and token.

    plaintext        canonical form, 0x80, zeros up to a multiple of 16 bytes (ISO/IEC 7816-4): lengths show only in steps
    associated data  one string of 40 bytes: owner id (16), epoch (u32), digest (20)
    sealed           SIV tag (16), ciphertext

Sealing is deterministic on purpose: two coordinators that race write the same bytes, and equal bytes mean equal values.
"""

from collections.abc import Iterable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

_BLOCK = 16
_PADDING = tuple(b"\x80" + bytes(_BLOCK - 1 - (length % _BLOCK)) for length in range(_BLOCK))


class Sealer:
    """Seals and opens the values of one owner's epoch."""

    __slots__ = ("_context", "_siv")

    def __init__(self, siv: AESSIV, context: bytes) -> None:
        self._siv = siv
        self._context = context

    def seal(self, canonicals: Iterable[bytes], digests: Iterable[bytes]) -> list[bytes]:
        """The sealed forms of canonical values, each bound to the digest beside it."""
        encrypt, context, padding = self._siv.encrypt, self._context, _PADDING
        return [
            encrypt(canonical + padding[len(canonical) % _BLOCK], [context + digest])
            for canonical, digest in zip(canonicals, digests, strict=True)
        ]

    def open(self, sealed: bytes, digest: bytes) -> bytes | None:
        """The canonical form, or None if these bytes are not authentic for this owner, epoch and digest."""
        try:
            padded = self._siv.decrypt(sealed, [self._context + digest])
        except (InvalidTag, ValueError):
            return None
        # Authentic bytes were padded by ``seal``: the padding begins at the last 0x80.
        return padded[: padded.rindex(b"\x80")]

    def open_all(self, sealed: Sequence[bytes], digests: Sequence[bytes]) -> list[bytes | None]:
        """``open`` of each pair, in order."""
        decrypt, context = self._siv.decrypt, self._context
        try:
            padded = [decrypt(one, [context + digest]) for one, digest in zip(sealed, digests, strict=True)]
        except (InvalidTag, ValueError):
            return [self.open(one, digest) for one, digest in zip(sealed, digests, strict=True)]
        return [one[: one.rindex(b"\x80")] for one in padded]
