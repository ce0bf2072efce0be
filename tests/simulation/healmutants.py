"""Safeties of healing undone one at a time, for nodes that heal (healing.py)."""

from __future__ import annotations

from collections.abc import Sequence

from quorumvault.protocol import anti_entropy, records
from quorumvault.protocol.hinted_handoff import Hint
from quorumvault.server.healing import scrub
from quorumvault.server.healing.hinted_handoff import Handoff
from quorumvault.server.healing.scrub import Scrub
from quorumvault.server.replica import copy
from quorumvault.server.replica.inventory import Inventory
from quorumvault.server.replica.replica import Replica
from tests.simulation.patches import HEALING_NODES, Mutant, replaced


class _Choice:
    """In the place of the module ``records``: unequal bytes are merged by choosing one of them."""

    CONFLICT_MARK = records.CONFLICT_MARK
    holds_value = staticmethod(records.holds_value)
    sealed_of = staticmethod(records.sealed_of)
    authentic = staticmethod(records.authentic)
    merge = staticmethod(min)


async def _forget(self: Handoff, node: str, hints: Sequence[Hint], introduced: set[bytes]) -> int:
    """What is owed counts as handed off when it is about to be."""
    return sum(hint.records for hint in hints)


def _heals(name: str, undoes: str, owner: object, attribute: str, replacement: object) -> Mutant:
    return replaced(name, undoes, owner, attribute, replacement, HEALING_NODES)


HEALING = (
    _heals("hint-forgotten", "a hint is kept until it is acknowledged", Handoff, "_hand_off", _forget),
    _heals("takes-nothing", "anti-entropy takes what the other one has", Replica, "mend", lambda replica, keys, values: 0),
    _heals("equal-sums", "anti-entropy looks at what differs", anti_entropy, "differing", lambda one, other: []),
    _heals("merge-by-choice", "two values in one place are a conflict (10)", copy, "records", _Choice),
    _heals("rot-is-believed", "what healing takes is authentic (11, trap 7)",
           Inventory, "acceptable", lambda inventory, offered: dict(offered)),
    _heals("rot-stays", "the scrub mends what is not authentic (11)", scrub, "merge_records", lambda replica, theirs: 0),
    _heals("damage-overlooked", "a store with a bad block is not trusted (11)", Scrub, "_distrust", lambda scrub, damage: None),
)  # fmt: skip
