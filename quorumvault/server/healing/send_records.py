"""Writes records of this node's own replica to a peer that lacks them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from quorumvault.protocol.anti_entropy import batches
from quorumvault.protocol.messages import Ack, EpochIs, RaiseEpoch, ReadEpoch, WriteBack
from quorumvault.server.healing.requests import Asked, NoAnswer, ReplicaClient, Storage, on_storage_thread
from quorumvault.server.healing.throttle import Throttle
from quorumvault.server.storage import layout

#: Batches that wait for their acknowledgement while the next one is read: those that arrive together share a sync there.
_UNDER_WAY = 4


class RecordSender:
    """In bounded batches, with rests between them. A write-back is exempt from the fence and raises no register."""

    def __init__(self, replicas: ReplicaClient, storage: Storage, throttle: Throttle) -> None:
        self._replicas = replicas
        self._storage = storage
        self._throttle = throttle

    async def send_records(self, node: str, places: Sequence[bytes]) -> int:
        """How many of those at these places the node took, or had. Those that are not here, or not authentic, are passed over."""
        given = 0
        under_way: deque[Asked] = deque()
        for batch in batches(places):
            while batch:
                began = self._throttle.begin()
                collected = await on_storage_thread(self._storage, lambda replica, batch=batch: replica.inventory.collect(batch))  # type: ignore[misc]
                batch = batch[collected.looked_at :]
                under_way.extend(self._write_back(node, owner.name, found) for owner, found in collected.records.items())
                while len(under_way) > _UNDER_WAY:
                    given += await _taken(under_way.popleft())
                await self._throttle.rest(began)
        while under_way:
            given += await _taken(under_way.popleft())
        return given

    async def send_register(self, node: str, owner: bytes) -> None:
        mine = await self._replicas.ask(self._replicas.node, lambda round_id, view: ReadEpoch(round_id, view, owner))
        if isinstance(mine, EpochIs):
            await self._replicas.ask(node, lambda round_id, view: RaiseEpoch(round_id, view, owner, mine.epoch, mine.secret))

    def _write_back(self, node: str, owner_name: str, found: dict[bytes, bytes]) -> Asked:
        keys = [layout.parse_place(place) for place in found]
        epochs, digests = [epoch for _, epoch, _ in keys], [digest for *_, digest in keys]
        records = list(found.values())
        return self._replicas.send(node, lambda round_id, view: WriteBack(round_id, view, owner_name, epochs, digests, records))


async def _taken(asked: Asked) -> int:
    reply = await asked.answer()
    if not isinstance(reply, Ack) or not isinstance(asked.request, WriteBack):
        raise NoAnswer(f"{asked.node} did not acknowledge")
    return len(asked.request.records) - len(reply.refused)
