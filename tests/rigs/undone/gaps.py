"""Safeties of disks that have lost something, undone one at a time."""

from typing import Any

from msgspec import structs

from quorumvault.protocol import fill_gaps
from quorumvault.protocol.views import NO_VIEW
from quorumvault.server.healing.fill_gaps import GapFilling
from quorumvault.server.node import operator
from quorumvault.server.replica import copy
from quorumvault.server.replica import replica as replicas
from quorumvault.server.storage import salvage
from quorumvault.server.storage.gaps import Gaps
from tests.rigs.undone.mutant import Mutant

_real_list = fill_gaps._list


def _list_as(change: Any) -> Any:
    def list_as(of: int, first: int, end: int) -> Any:
        listing = yield from _real_list(of, first, end)
        return structs.replace(listing, **change) if of == fill_gaps.PEERS[1] else listing

    return list_as


def _list_in_any_view(of: int, first: int, end: int) -> Any:
    listing = yield from _real_list(of, first, end)
    return structs.replace(listing, view=NO_VIEW)


def _merge_anywhere(*of: Any, spared: Gaps, **options: Any) -> dict[bytes, bytes]:
    return copy.merge_piece(*of, **options)


async def _not_filled(self: GapFilling) -> None:
    return None


_GAPS = "tests/unit/server/healing/test_gaps.py::"
_OPERATOR = "tests/unit/server/node/test_operator.py::"
_SALVAGE = "tests/unit/server/storage/test_salvage.py::"
_RULE = "what is not known is not absent"

MUTANTS = (
    Mutant("gap-is-absent", (_RULE,), "a record in a gap is absent",
           ((Gaps, "covers", lambda self, place: False),), scopes=("damaged-put-get",)),
    Mutant("gap-takes-puts", (_RULE, "write-once"), "a put or a write-back is taken into a gap",
           ((replicas, "as_unreadable", lambda keys, found, gaps: found),), scopes=("damaged-two-values",)),
    Mutant("gap-takes-from-one", (_RULE, "write-once"), "a comparison with one other disk brings records into a gap",
           ((replicas, "merge_piece", _merge_anywhere),), scopes=("damaged-two-values",)),
    Mutant("gap-takes-either", (_RULE, "write-once"), "one of two values that meet in a gap is taken",
           ((fill_gaps, "_merge", lambda one, other: min(filter(None, (one, other)))),), scopes=("damaged-two-values",)),
    Mutant("gap-closed-by-one", (_RULE,), "a gap is closed once one other disk was read there",
           ((fill_gaps, "_list", _list_as({"places": [], "hashes": [], "unreadable": []})),), scopes=("damaged-put-get",)),
    Mutant("gap-closed-unread", (_RULE,), "a gap is closed although another disk does not know either",
           ((fill_gaps, "_list", _list_as({"unreadable": []})),), scopes=("damaged-twice-put-get",)),
    Mutant("gap-closed-across-views", (_RULE,), "a gap is closed by reads in two views",
           ((fill_gaps, "_list", _list_in_any_view),), tests=(_GAPS + "test_a_gap_is_closed_in_one_view",)),
    Mutant("gap-closed-early", (_RULE, "committed"), "a gap is filled while old acknowledgements may still count",
           ((GapFilling, "_rounds_ended", lambda self: 0.0),),
           tests=(_GAPS + "test_a_gap_is_filled_when_nobody_counts_any_more_what_was_acknowledged_before",)),
    Mutant("given-up-untold", (_RULE,), "an operator gives up records that an uncompared disk could tell",
           ((operator, "could_tell", lambda outcomes, links: None),),
           tests=(_OPERATOR + "test_nothing_is_given_up_that_a_node_could_tell_which_was_not_compared",)),
    Mutant("given-up-unread", (_RULE,), "an operator gives up records that both other disks have",
           ((GapFilling, "_fill", _not_filled),),
           tests=(_OPERATOR + "test_what_both_others_have_is_read_before_anything_is_given_up",)),
    Mutant("gaps-forgotten", (_RULE,), "a store's gaps are forgotten when its process starts again",
           ((Gaps, "of", classmethod(lambda cls, store: cls())),), scopes=("damaged-put-get",)),
    Mutant("gaps-not-salvaged", (_RULE,), "a second salvage forgets the gaps of the first",
           ((salvage, "_STRICT", salvage._STRICT[:-1]),),
           tests=(_SALVAGE + "test_a_salvaged_store_can_all_be_read_and_says_what_it_does_not_know",)),
)  # fmt: skip
