"""Notices of committed write rounds, from which replicas learn which of their records are settled (replica/settled.py).

A lost notice costs quorum reads until the next comparison, but no safety. So no one waits for a notice, and none is repeated.

Rules kept here: settled records.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from msgspec import structs

from quorumvault.protocol.messages import AnyReply, Outgoing, RoundId, Settle
from quorumvault.protocol.peer import NoReply, Peer
from quorumvault.protocol.views import View

#: Seconds for which rounds are gathered: each replica gets a message ten times a second, whatever the load.
GATHERED: Final = 0.1
#: Most rounds in one notice; further rounds are in no notice. Ten times what a node commits in that time.
ROUNDS: Final = 4096


@dataclass(eq=False)
class SettleNotices:
    """Tells all replicas, including this node's own, which rounds of this node's coordinator were committed.

    ``later(seconds, call)`` calls back on the event loop's thread. ``view`` returns the newest view that this node knows.
    """

    peers: Mapping[str, Peer]
    view: Callable[[], View | None]
    later: Callable[[float, Callable[[], None]], object]
    _rounds: list[RoundId] = field(default_factory=list, init=False)

    def committed(self, round_id: RoundId) -> None:
        """Include this round in the next notice: all its records are committed."""
        if not self._rounds:
            self.later(GATHERED, self._tell)
        if len(self._rounds) < ROUNDS:
            self._rounds.append(round_id)

    def _tell(self) -> None:
        rounds, self._rounds = self._rounds, []
        view = self.view()
        if view is None:
            return
        counters = [round_id.counter for round_id in rounds]
        # Round counters begin with 1, so 0 is not the id of any round.
        notice = Outgoing(Settle(structs.replace(rounds[0], counter=0), view.id, counters))
        for peer in self.peers.values():
            peer.send(notice, _ignore)


def _ignore(reply: AnyReply | NoReply) -> None:
    """Ignore the reply: nothing depends on it."""
