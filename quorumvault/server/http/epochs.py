"""GET /epoch and POST /rotate-epoch: an owner's active epoch, by quorum."""

from __future__ import annotations

from quorumvault.server.http.dependencies import Job
from quorumvault.server.http.schemas import ActiveEpoch, encode, parse_rotate


async def epoch(job: Job) -> bytes:
    job.counts.epoch = await job.services.vault.epoch(job.owner)
    return encode(ActiveEpoch(job.counts.epoch))


async def rotate(job: Job) -> bytes:
    job.counts.epoch = await job.services.vault.rotate(job.owner, await parse_rotate(job.body, job.turns))
    return encode(ActiveEpoch(job.counts.epoch))
