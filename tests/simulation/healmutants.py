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
    _heals("hint-forgotten", "hinted handoff: it is deleted before it is acknowledged", Handoff, "_hand_off", _forget),
    _heals("takes-nothing", "anti-entropy: nothing is taken", Replica, "mend", lambda replica, keys, values: 0),
    _heals("equal-sums", "anti-entropy: what differs is not looked at", anti_entropy, "differing", lambda one, other: []),
    _heals("merge-by-choice", "a conflict keeps both out, anti-entropy: one is chosen", copy, "records", _Choice),
    _heals("rot-is-believed", "anti-entropy: what it takes is not authenticated",
           Inventory, "acceptable", lambda inventory, offered: dict(offered)),
    _heals("rot-stays", "scrub: what is not authentic stays", scrub, "merge_records", lambda replica, theirs: 0),
    _heals("damage-overlooked", "a distrusted store stops, scrub: it goes on", Scrub, "_distrust", lambda scrub, damage: None),
)  # fmt: skip
