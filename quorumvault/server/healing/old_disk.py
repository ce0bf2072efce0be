"""The disk that a joining disk replaces, if it is on this host: locked, open, and read piece by piece on another thread.

Rules kept here: donors have no voice.
"""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass

from quorumvault.config.cluster import NodeConfig
from quorumvault.protocol.donors import Donor
from quorumvault.protocol.messages import Copied, Copy, NotCopied
from quorumvault.server.replica.copy import UnreadPart, read_piece
from quorumvault.server.storage.set_aside import open_donor
from quorumvault.server.storage.store import Store


@dataclass(frozen=True, slots=True)
class OldDisk:
    """``donor`` describes the disk to the protocol. ``copy_bytes`` bounds a piece. Only this process has it, until ``ending``."""

    donor: Donor
    store: Store
    copy_bytes: int
    ending: ExitStack

    async def copy(self, request: Copy) -> Copied | NotCopied:
        """The next piece of a copy of the old disk, as a replica would answer it."""
        piece = await asyncio.to_thread(read_piece, self.store, request.after, self.copy_bytes)
        head = (request.round, request.view, self.donor.disk)
        return NotCopied(*head, piece.after, piece.end) if isinstance(piece, UnreadPart) else Copied(*head, *piece)


def find_old_disk(config: NodeConfig) -> OldDisk | None:
    """Open this node's previous disk, if it was set aside here and can be opened. Takes as long as a start."""
    with ExitStack() as opening:
        found = open_donor(config, opening)
        if found is not None:
            return OldDisk(*found, config.cluster.limits.copy_bytes, opening.pop_all())
    return None
