"""Safeties of healing, undone one at a time."""

from collections.abc import Sequence
from types import SimpleNamespace

from quorumvault.protocol import anti_entropy, records
from quorumvault.protocol.hinted_handoff import Hint
from quorumvault.server.healing import scrub
from quorumvault.server.healing.anti_entropy import AntiEntropy
from quorumvault.server.healing.hinted_handoff import Handoff
from quorumvault.server.healing.scrub import Scrub
from quorumvault.server.replica import copy
from quorumvault.server.replica.inventory import Inventory
from quorumvault.server.replica.replica import Replica
from tests.rigs.undone.mutant import HEALING_NODES, Mutant

#: In the place of the module ``records``: unequal bytes are merged by choosing one of them.
_CHOICE = SimpleNamespace(**{**vars(records), "merge": min})


async def _forget(self: Handoff, node: str, hints: Sequence[Hint], introduced: set[bytes]) -> int:
    """What is owed counts as handed off when it is about to be."""
    return sum(hint.records for hint in hints)


_COMPARING = "tests/unit/server/healing/test_anti_entropy.py::"

MUTANTS = (
    Mutant("stays-behind", ("hinted handoff", "anti-entropy"), "what a node missed waits for the comparison without a cause",
           ((Handoff, "_hand_off", _forget), (AntiEntropy, "_compare_by", lambda *ignored: None)), faults=("partition",)),
    Mutant("hint-forgotten", ("hinted handoff",), "a hint is deleted before it is acknowledged",
           ((Handoff, "_hand_off", _forget),), HEALING_NODES, seed=3),
    Mutant("takes-nothing", ("anti-entropy",), "nothing is taken",
           ((Replica, "merge", lambda replica, keys, values, **options: 0),), HEALING_NODES, seed=1),
    Mutant("equal-sums", ("anti-entropy",), "what differs is not looked at",
           ((anti_entropy, "differing", lambda one, other: []),), HEALING_NODES, seed=1),
    Mutant("merge-by-choice", ("a conflict never overwrites", "anti-entropy"), "one value is chosen",
           ((copy, "records", _CHOICE),), HEALING_NODES, seed=4),
    Mutant("rot-is-believed", ("anti-entropy",), "what it takes is not authenticated",
           ((Inventory, "acceptable", lambda inventory, offered: dict(offered)),),
           tests=(_COMPARING + "test_a_record_under_a_foreign_key_is_not_taken",)),
    Mutant("rot-stays", ("scrub",), "what is not authentic stays",
           ((scrub, "merge_records", lambda replica, theirs: 0),), HEALING_NODES, seed=3),
    Mutant("damage-overlooked", ("a distrusted store stops", "scrub"), "the store goes on",
           ((Scrub, "_distrust", lambda scrub, damage: None),), HEALING_NODES, seed=7),
)  # fmt: skip
