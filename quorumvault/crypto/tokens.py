"""The token: what a digest looks like on the outside.

    qv_<epoch>_<40 hex digits of digest><8 hex digits of check>

The digest is 160 bits of keyed hash (keys.py). The check is CRC-32 (ISO-HDLC, as in zlib), big-endian, over the ASCII bytes of
``qv_<epoch>_`` followed by the 20 digest bytes. One mistyped character is an error burst of at most 8 bits, two swapped
neighbours one of at most 16, and a CRC-32 finds every burst up to 32 bits; where a swap crosses from digest to check
the unit test tries all cases. At most 3 + 10 + 1 + 48 = 62 characters.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from quorumvault.model import MAX_EPOCH

DIGEST_BYTES = 20
_PREFIX = "qv_"
_BODY_CHARS = 2 * (DIGEST_BYTES + 4)
_MAX_CHARS = len(_PREFIX) + len(str(MAX_EPOCH)) + 1 + _BODY_CHARS


def format_tokens(epoch: int, digests: Iterable[bytes]) -> list[str]:
    """The tokens of one epoch for 20-byte digests, in order."""
    prefix = f"{_PREFIX}{epoch}_"
    crc32, seed = zlib.crc32, zlib.crc32(prefix.encode())
    return [prefix + (digest + crc32(digest, seed).to_bytes(4, "big")).hex() for digest in digests]


def format_token(epoch: int, digest: bytes) -> str:
    return format_tokens(epoch, (digest,))[0]


def parse_token(token: str) -> tuple[int, bytes] | None:
    """(epoch, digest) of a well-formed token, else None. What parses, formats back to the very same text."""
    if not token.startswith(_PREFIX) or len(token) > _MAX_CHARS:
        return None
    digits, separator, body = token[len(_PREFIX) :].partition("_")
    if not (separator and digits.isascii() and digits.isdigit() and len(body) == _BODY_CHARS):
        return None
    epoch = int(digits)
    if not 1 <= epoch <= MAX_EPOCH:
        return None
    try:
        digest = bytes.fromhex(body)[:DIGEST_BYTES]
    except ValueError:
        return None
    return (epoch, digest) if format_token(epoch, digest) == token else None


def is_token(text: str) -> bool:
    """Whether a text has the form and the check part of a token: nothing is said about whose it is, or if it was issued."""
    return parse_token(text) is not None
