"""GET /epoch and POST /rotate-epoch: an owner's active epoch, by quorum."""

from quorumvault.server.http.dependencies import AdmittedRequest
from quorumvault.server.http.schemas import ActiveEpoch, encode, parse_rotate


async def epoch(admitted: AdmittedRequest) -> bytes:
    admitted.counts.epoch = await admitted.vault().epoch(admitted.owner)
    return encode(ActiveEpoch(admitted.counts.epoch))


async def rotate(admitted: AdmittedRequest) -> bytes:
    from_epoch = await parse_rotate(admitted.body, admitted.turns)
    admitted.counts.epoch = await admitted.vault().rotate(admitted.owner, from_epoch)
    return encode(ActiveEpoch(admitted.counts.epoch))
