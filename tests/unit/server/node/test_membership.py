"""How a node reacts to the views that its peers report: it enters one, stops because of one, or leaves it alone."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from quorumvault.errors import DiskReplaced, QuorumVaultError
from quorumvault.protocol.messages import AnyRequest, ProposeView
from quorumvault.protocol.peer import OnReply
from quorumvault.protocol.views import Mode, View, first_view, successor
from quorumvault.server.node.membership import Membership, MembershipCallbacks
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.replica.replica import OwnWork
from quorumvault.server.storage.disk_identity import DiskIdentity
from quorumvault.server.telemetry.event_log import Event
from tests.rigs.links import facts_of

DISKS = {node: node.encode() * 8 for node in ("n1", "n2", "n3")}
FIRST = first_view(DISKS)
MINE = DiskIdentity("c", "n2", DISKS["n2"], 1, Mode.ACTIVE, FIRST)
#: Views that change the slot of n3, of this node, and of both.
OTHER, ANOTHER = successor(FIRST, "n3", b"d" * 16), successor(FIRST, "n2", b"e" * 16)
FAR = successor(OTHER, "n1", b"f" * 16)


@dataclass
class Rig:
    """A membership, and a record of what it did."""

    identity: DiskIdentity = MINE
    proposed: list[View] = field(default_factory=list)
    learnt: list[View | None] = field(default_factory=list)
    changes: int = 0
    events: list[Event] = field(default_factory=list)
    ended: list[QuorumVaultError] = field(default_factory=list)

    def __post_init__(self) -> None:
        around = MembershipCallbacks(lambda: self, self.learnt.append, self._changed, self.events.append, self.ended.append)
        self.member = Membership(self.identity, around, self._no_rejoin)

    def submit(self, request: AnyRequest | OwnWork, on_reply: OnReply) -> None:
        assert isinstance(request, ProposeView)
        self.proposed.append(request.proposed)

    def _changed(self) -> None:
        self.changes += 1

    def _no_rejoin(self) -> Any:
        raise AssertionError("no disk is joining here")


def told(view: View | None, node: str = "n1", **changes: Any) -> NodeFacts:
    return facts_of(node, **{"disk": DISKS[node], "view": view, **changes})


def test_a_larger_view_is_entered_and_learnt_from_any_peer() -> None:
    """Proves: views spread from any peer."""
    rig = Rig()
    rig.member.heard(told(OTHER, "n3", mode=Mode.JOINING, disk=b"d" * 16))
    assert (rig.proposed, rig.learnt, rig.ended) == ([OTHER], [OTHER], [])


@pytest.mark.parametrize("view", [None, FIRST, FAR])
def test_others_are_not_entered(view: View | None) -> None:
    rig = Rig()
    rig.member.heard(told(view))
    assert (rig.proposed, rig.ended) == ([], [])


def test_a_disk_whose_slot_was_given_away_ends_when_one_that_is_listed_says_so() -> None:
    """Proves: a replaced disk stops."""
    rig = Rig()
    rig.member.heard(told(ANOTHER))
    (reason,) = rig.ended
    assert isinstance(reason, DiskReplaced)
    assert "n2 has been given another disk, 65656565, in view 2" in str(reason)
    assert "\n" not in str(reason)


@pytest.mark.parametrize("who", [{"mode": Mode.JOINING}, {"disk": b"?" * 16}])
def test_the_word_of_one_that_does_not_count_ends_nobody(who: dict[str, Any]) -> None:
    rig = Rig()
    rig.member.heard(told(ANOTHER, **who))
    assert rig.ended == []


def test_a_disk_that_has_entered_no_view_is_replaced_by_none() -> None:
    rig = Rig(identity=DiskIdentity("c", "n2", b"g" * 16, 1, Mode.JOINING, None))
    rig.member.heard(told(ANOTHER))
    assert (rig.ended, rig.proposed, rig.learnt) == ([], [], [ANOTHER])


def test_what_became_durable_is_said_and_told() -> None:
    rig = Rig()
    rig.member.became(DiskIdentity("c", "n2", DISKS["n2"], 1, Mode.ACTIVE, OTHER))
    assert ([event.event for event in rig.events], rig.learnt, rig.changes) == (["view_entered"], [OTHER], 1)
    rig.member.heard(told(OTHER))
    assert rig.proposed == []
