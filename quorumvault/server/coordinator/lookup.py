"""Both ends of a look-up: parses texts into keys, and opens records into values.

No batch is parsed or opened for longer than some milliseconds at a time; other requests have their turn in between.

Rules kept here: not found costs the same work.
"""

import asyncio
import zlib
from collections.abc import Sequence
from typing import cast

from quorumvault.crypto.keys import Keyring
from quorumvault.crypto.tokens import DIGEST_BYTES, parse_alike, parse_tokens
from quorumvault.model import Owner
from quorumvault.protocol import records
from quorumvault.protocol.read import Open
from quorumvault.server.coordinator.vault import Missing

#: Malformed tokens are looked up under epoch 0, which is never issued, so that timing does not reveal them (not found costs the
#: same work).
_NO_EPOCH = 0
#: Most tokens that are parsed at a time.
_PARSED = 4096
#: Most records, and most bytes of records, that are opened at a time: about a millisecond's work.
_OPENED = 512
_OPENED_BYTES = 512 << 10
_MISSING = {None: Missing.NOT_FOUND, Open.COLLISION: Missing.COLLISION}


async def keys_of(tokens: Sequence[str]) -> tuple[list[int], list[bytes]]:
    """Parallel columns of epochs and digests for texts that may or may not be tokens."""
    epochs: list[int] = []
    digests: list[bytes] = []
    for start in range(0, len(tokens), _PARSED):
        if start:
            await asyncio.sleep(0)  # other requests have their turn
        part = tokens[start : start + _PARSED]
        if (alike := parse_alike(part)) is not None:
            epochs += [alike[0]] * len(part)
            digests += alike[1]
            continue
        for token, key in zip(part, parse_tokens(part), strict=True):
            epoch, digest = key or (_NO_EPOCH, _dummy_digest(token))
            epochs.append(epoch)
            digests.append(digest)
    return epochs, digests


def _dummy_digest(token: str) -> bytes:
    """The digest to look up for a malformed token. It needs no crypto, because parsing a well-formed token needs none either."""
    return zlib.crc32(token.encode()).to_bytes(4, "big") * (DIGEST_BYTES // 4)


async def open_all(
    keyring: Keyring, owner: Owner, epochs: list[int], digests: list[bytes], found: Sequence[bytes | Open | None]
) -> list[bytes | Missing]:
    """The canonical forms of the records that were found; for every other key, why there is none."""
    values: list[bytes | Missing] = []
    while len(values) < len(found):
        if values:
            await asyncio.sleep(0)  # other requests have their turn
        part = slice(len(values), _end_of_opening(found, len(values)))
        values += _open(keyring, owner, epochs[part], digests[part], found[part])
    return values


def _open(
    keyring: Keyring, owner: Owner, epochs: list[int], digests: list[bytes], found: Sequence[bytes | Open | None]
) -> list[bytes | Missing]:
    if len(set(epochs)) == 1 and set(map(type, found)) == {bytes}:  # the common case, without a look at each
        sealed = [records.sealed_of(record) for record in cast("Sequence[bytes]", found)]
        opened = keyring.epoch_keys(owner, epochs[0]).sealer.open_all(sealed, digests)
        return [canonical or Missing.UNAVAILABLE for canonical in opened]
    by_epoch: dict[int, list[int]] = {}
    values: list[bytes | Missing] = [
        Missing.UNAVAILABLE if isinstance(record, bytes) else _MISSING.get(record, Missing.UNAVAILABLE) for record in found
    ]
    for index, record in enumerate(found):
        if isinstance(record, bytes):
            by_epoch.setdefault(epochs[index], []).append(index)
    for epoch, at in by_epoch.items():
        sealed = [records.sealed_of(cast("bytes", found[index])) for index in at]
        opened = keyring.epoch_keys(owner, epoch).sealer.open_all(sealed, [digests[index] for index in at])
        for index, canonical in zip(at, opened, strict=True):
            values[index] = canonical or Missing.UNAVAILABLE
    return values


def _end_of_opening(found: Sequence[bytes | Open | None], start: int) -> int:
    """The end of the slice from ``start`` that is opened at a time. The slice has at least one record."""
    end = min(start + _OPENED, len(found))
    room = _OPENED_BYTES
    for index in range(start, end):
        record = found[index]
        room -= len(record) if isinstance(record, bytes) else 0
        if room < 0:
            return max(index, start + 1)
    return end
