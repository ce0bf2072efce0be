"""GET /epoch and POST /rotate-epoch: an owner's active epoch, by quorum."""

from __future__ import annotations

from quorumvault.api.bodies import ActiveEpoch, encode, parse_rotate
from quorumvault.api.guard import Counts
from quorumvault.api.services import Services
from quorumvault.model import Owner


async def epoch(services: Services, owner: Owner, _body: bytes, counts: Counts) -> bytes:
    counts.epoch = await services.vault.epoch(owner)
    return encode(ActiveEpoch(counts.epoch))


async def rotate(services: Services, owner: Owner, body: bytes, counts: Counts) -> bytes:
    request = parse_rotate(body)
    counts.epoch = await services.vault.rotate(owner, request.from_epoch)
    return encode(ActiveEpoch(counts.epoch))
