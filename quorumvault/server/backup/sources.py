"""The disks that a backup is read from: this node's and a peer's, and the third if either of them cannot read all its records.

Rules kept here: what is not known is not absent.
"""

import asyncio
from collections.abc import Mapping, Sequence

from quorumvault.errors import NoQuorum
from quorumvault.protocol.messages import Copied, Copy, Fetch, Fetched, NotCopied
from quorumvault.protocol.views import View
from quorumvault.server.healing.requests import NoAnswer, ReplicaClient
from quorumvault.server.storage.gaps import Gap, Gaps, in_two


class Sources:
    """The sources by their numbers in a union: 0, 1, and the number given to ``add_third``. All must be active in one view."""

    def __init__(self, replicas: ReplicaClient, peers: list[str], view: View) -> None:
        #: The nodes whose disks were read.
        self.read: set[str] = set()
        self._replicas = replicas
        self._all = [replicas.node, *peers]
        self._view = view
        #: By source, the nodes that may give its next piece; the first node that can gives all further pieces.
        self._nodes = {0: [replicas.node, *peers[1:]], 1: list(peers)}
        self._gaps: dict[int, list[Gap]] = {0: [], 1: []}
        self._rotten: list[Gap] = []

    @property
    def third_is_needed(self) -> bool:
        """True once one of the two disks could not read a part."""
        return len(self._nodes) == 2 and any(self._gaps.values())

    def add_third(self, source: int) -> None:
        """Read the third disk too. From now on each source is one disk, because two disks must be able to read each part."""
        used = {nodes[0] for nodes in self._nodes.values()}
        self._nodes = {each: nodes[:1] for each, nodes in self._nodes.items()}
        self._nodes[source] = [node for node in self._all if node not in used]
        self._gaps[source] = []

    def cannot_read(self, place: bytes) -> None:
        """Note that the record at this place is not authentic on any disk."""
        self._rotten.append(Gap(place, place + b"\0"))

    def unread(self) -> list[Gap]:
        """The parts of the records, as far as pieces were read, that fewer than two disks could read."""
        return [*in_two([Gaps(gaps) for gaps in self._gaps.values()]), *self._rotten]

    async def pieces(self, wanted: Mapping[int, bytes]) -> dict[int, Copied]:
        """The next piece of each of these sources, after its key. Raises NoQuorum."""
        answers = await asyncio.gather(*(self._piece(source, after) for source, after in wanted.items()))
        pieces = {source: answer for source, answer in zip(wanted, answers, strict=True) if isinstance(answer, Copied)}
        reasons = [why for answer in answers if not isinstance(answer, Copied) for why in answer]
        if not reasons and len({nodes[0] for nodes in self._nodes.values()}) < len(self._nodes):
            reasons = [f"{self._nodes[1][0]} is the only one that can be read"]
        if reasons:
            whom = "this node and one other, both" if len(self._nodes) == 2 else "all three, where one cannot read its store, all"
            raise NoQuorum(f"a backup is read from {whom} active in one view: {'; '.join(reasons)}")
        for source, piece in pieces.items():
            self._gaps[source] += [Gap(*gap) for gap in piece.gaps]
        return pieces

    async def fetch(self, places: Sequence[bytes]) -> dict[bytes, bytes]:
        """The records at these places on disks that are not sources, as far as they answer."""
        found: dict[bytes, bytes] = {}
        used = {nodes[0] for nodes in self._nodes.values()}
        for node in (node for node in self._all if node not in used):
            left = list(places)
            while left:
                try:
                    answer = await self._replicas.ask(node, lambda round_id, view: Fetch(round_id, view, left))  # noqa: B023
                except NoAnswer:
                    break
                if not isinstance(answer, Fetched) or not answer.records:
                    break
                told = zip(left, answer.records, strict=False)
                found |= {place: record for place, record in told if record is not None}
                left = left[len(answer.records) :]
        return found

    async def _piece(self, source: int, after: bytes) -> Copied | list[str]:
        """The next piece, from the first of the source's nodes that gives it; or why none does."""
        nodes = self._nodes[source]
        reasons: list[str] = []
        for node in list(nodes):
            try:
                piece = await self._piece_of(node, after)
            except NoAnswer as error:
                reasons.append(str(error))
                continue
            nodes.sort(key=lambda each: each != node)
            self.read.add(node)
            return piece
        return reasons

    async def _piece_of(self, node: str, after: bytes) -> Copied:
        piece = await self._replicas.ask(node, lambda round_id, view: Copy(round_id, view, after, around=True))
        if piece.view != self._view.id:
            raise NoAnswer(f"view {self._view.number} has ended, in which the backup began")
        if isinstance(piece, NotCopied):
            raise NoAnswer(f"{node} cannot read all of its store")
        if not isinstance(piece, Copied):
            raise NoAnswer(f"{node} answered something else")
        return piece
