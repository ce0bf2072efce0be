"""Safeties of healing, undone one at a time."""

from collections.abc import Sequence
from types import SimpleNamespace

from quorumvault.protocol import anti_entropy, records
from quorumvault.protocol.hinted_handoff import Hint
from quorumvault.server.coordinator.exchange import Exchange
from quorumvault.server.healing import scrub
from quorumvault.server.healing.anti_entropy import AntiEntropy
from quorumvault.server.healing.hinted_handoff import Handoff
from quorumvault.server.healing.scrub import Scrub
from quorumvault.server.replica import copy
from quorumvault.server.replica.inventory import Inventory
from quorumvault.server.replica.replica import Replica
from tests.rigs.undone.mutant import HEALING_NODES, Mutant

#: Replaces the module ``records``: unequal bytes are merged by choosing one of them.
_CHOICE = SimpleNamespace(**{**vars(records), "merge": min})


async def _forget(self: Handoff, node: str, hints: Sequence[Hint], introduced: set[bytes]) -> int:
    """Counts what is owed as handed off, without sending it."""
    return sum(hint.records for hint in hints)


_COMPARING = "tests/unit/server/healing/test_anti_entropy.py::"

MUTANTS = (
    Mutant("stays-behind", ("hinted handoff", "anti-entropy"), "missed writes wait for the next regular comparison",
           ((Handoff, "_hand_off", _forget), (AntiEntropy, "_compare_by", lambda *ignored: None)), faults=("partition",)),
    Mutant("left-over-untold", ("anti-entropy",), "a coordinator does not report what a round may have left on one disk",
           ((Exchange, "watch_left_over", lambda exchange, on_left_over: None),),
           tests=(_COMPARING + "test_what_the_fence_left_on_one_disk_reaches_all_soon_though_no_link_changed",)),
    Mutant("hint-forgotten", ("hinted handoff",), "a hint is deleted before it is acknowledged",
           ((Handoff, "_hand_off", _forget),), HEALING_NODES, seed=3),
    Mutant("takes-nothing", ("anti-entropy",), "a comparison takes nothing over",
           ((Replica, "merge", lambda replica, keys, values, **options: 0),), HEALING_NODES, seed=1),
    Mutant("equal-sums", ("anti-entropy",), "differing buckets are not looked at",
           ((anti_entropy, "differing", lambda one, other: []),), HEALING_NODES, seed=1),
    Mutant("merge-by-choice", ("a conflict never overwrites", "anti-entropy"), "one of two values is chosen",
           ((copy, "records", _CHOICE),), HEALING_NODES, seed=4),
    Mutant("rot-is-believed", ("anti-entropy",), "records are taken without authentication",
           ((Inventory, "acceptable", lambda inventory, offered: dict(offered)),),
           tests=(_COMPARING + "test_a_record_under_a_foreign_key_is_not_taken",)),
    Mutant("rot-stays", ("scrub",), "records that are not authentic stay",
           ((scrub, "merge_records", lambda replica, theirs: 0),), HEALING_NODES, seed=3),
    Mutant("damage-overlooked", ("a distrusted store stops", "scrub"), "a damaged store goes on",
           ((Scrub, "_distrust", lambda scrub, damage: None),), HEALING_NODES, seed=7),
)  # fmt: skip
