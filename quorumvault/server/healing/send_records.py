"""Writes records of this node's own replica to a peer that lacks them."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from quorumvault.protocol.anti_entropy import batches
from quorumvault.protocol.messages import Ack, EpochIs, RaiseEpoch, ReadEpoch, WriteBack
from quorumvault.server.healing.requests import Asked, NoAnswer, ReplicaClient, Storage, on_storage_thread
from quorumvault.server.healing.throttle import Throttle
from quorumvault.server.storage import layout

#: Most batches that wait for their acknowledgement while the next is read. Batches that arrive together share a sync.
_UNDER_WAY = 4


@dataclass(eq=False)
class RecordSender:
    """Sends in bounded batches, with rests in between. The fence does not apply to a write-back, which raises no register."""

    replicas: ReplicaClient
    storage: Storage
    throttle: Throttle

    async def send_records(self, node: str, places: Sequence[bytes]) -> int:
        """Send this replica's authentic records at these places. Returns how many of them the node took, or already had."""
        given = 0
        under_way: deque[Asked] = deque()
        for batch in batches(places):
            while batch:
                began = self.throttle.begin()
                collected = await on_storage_thread(self.storage, lambda replica, batch=batch: replica.inventory.collect(batch))  # type: ignore[misc]
                batch = batch[collected.looked_at :]
                under_way.extend(self._write_back(node, owner.name, found) for owner, found in collected.records.items())
                while len(under_way) > _UNDER_WAY:
                    given += await _taken(under_way.popleft())
                await self.throttle.rest(began)
        while under_way:
            given += await _taken(under_way.popleft())
        return given

    async def send_register(self, node: str, owner: bytes) -> None:
        mine = await self.replicas.ask(self.replicas.node, lambda round_id, view: ReadEpoch(round_id, view, owner))
        if isinstance(mine, EpochIs):
            await self.replicas.ask(node, lambda round_id, view: RaiseEpoch(round_id, view, owner, mine.epoch, mine.secret))

    def _write_back(self, node: str, owner_name: str, found: dict[bytes, bytes]) -> Asked:
        keys = [layout.parse_place(place) for place in found]
        epochs, digests = [epoch for _, epoch, _ in keys], [digest for *_, digest in keys]
        records = list(found.values())
        return self.replicas.send(node, lambda round_id, view: WriteBack(round_id, view, owner_name, epochs, digests, records))


async def _taken(asked: Asked) -> int:
    reply = await asked.answer()
    if not isinstance(reply, Ack) or not isinstance(asked.request, WriteBack):
        raise NoAnswer(f"{asked.node} did not acknowledge")
    return len(asked.request.records) - len(reply.refused)
