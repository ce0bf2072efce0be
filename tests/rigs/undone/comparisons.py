"""Safeties of handoff, comparison and scrub, undone one at a time."""

from typing import Any

from quorumvault.protocol import anti_entropy, hinted_handoff
from quorumvault.protocol.clock import HybridClock
from quorumvault.protocol.hinted_handoff import Ledger
from quorumvault.protocol.messages import UNSENT, Fetch
from quorumvault.server.healing.hinted_handoff import Handoff
from quorumvault.server.healing.scrub import Neighbours, Scrub
from quorumvault.server.healing.send_records import RecordSender
from quorumvault.server.replica.bucket_sums import BucketSums
from quorumvault.server.replica.inventory import Inventory
from quorumvault.server.replica.owners import OwnerNames
from quorumvault.server.replica.present_keys import PresentKeys
from quorumvault.server.replica.replica import Replica
from tests.rigs.undone.mutant import HEALING_NODES, Mutant

_real_listings = anti_entropy._compare_listings
_real_store_once = Replica._store_once
_real_inspect = Inventory.inspect
_real_wrote = BucketSums.wrote
_real_consider = Scrub._consider_giving_up
_real_end = Ledger.end_comparison
_real_restore = Ledger.restore


async def _no_register(self: RecordSender, node: str, owner: bytes) -> None:
    """Sends no register."""


def _fetch_once(places: list[bytes], compared: Any) -> Any:
    """Does not ask again for what did not fit into the answer."""
    for batch in anti_entropy.batches(places):
        fetched = yield anti_entropy.AskOne(True, Fetch(*UNSENT, batch))
        found = {place: record for place, record in zip(batch, fetched.records, strict=False) if record is not None}
        compared.taken += yield anti_entropy.MergeRecords(fetched.names, found)


def _no_registers(compared: Any) -> Any:
    yield from ()


def _settle_anyhow(self: Ledger, settles: int, *, whole: bool) -> None:
    _real_end(self, settles, whole=True)


def _number_anew(self: Ledger, number: int, hint: hinted_handoff.Hint) -> None:
    _real_restore(self, number, hint)
    self.next = 0


def _all_but_the_last(first: int, end: int, compared: Any, unknown: Any) -> Any:
    """Leaves out the last bucket of each range of differing buckets."""
    if end - first > 1:
        yield from _real_listings(first, end - 1, compared, unknown)


def _rot_in_odd_buckets(self: Inventory, first: int) -> Any:
    findings = _real_inspect(self, first)
    findings.rotten = [place for place in findings.rotten if place[1] % 2]
    return findings


def _adding_alone(self: BucketSums, written: Any, replaced: Any) -> None:
    _real_wrote(self, written, {})


def _though_others_are_damaged(self: Scrub) -> None:
    real = self.neighbours
    self.neighbours = lambda: Neighbours(real().all_active, frozenset())
    _real_consider(self)
    self.neighbours = real


def _keep_version(self: Replica, keys: list[bytes], incoming: list[bytes], staged: dict[bytes, bytes]) -> dict[int, bytes]:
    """Keeps the stored version, whoever wrote first."""
    before = {key: staged.get(key, stored) for key, stored in zip(keys, self._held(keys), strict=True)}
    refused = _real_store_once(self, keys, incoming, staged)
    for key, there in before.items():
        if isinstance(there, bytes) and staged.get(key, there) != there:
            staged[key] = there
            self._replaced.pop(key, None)
    return refused


_HINTS = "tests/unit/server/healing/test_hinted_handoff.py::"
_SCRUB = "tests/unit/server/healing/test_scrub.py::"
_PRESENT = "tests/unit/server/replica/test_present_keys.py::"

MUTANTS = (
    Mutant("handoff-without-register", ("hinted handoff",), "registers are not handed off",
           ((RecordSender, "send_register", _no_register),),
           tests=(_HINTS + "test_a_rotate_that_a_peer_missed_reaches_it",)),
    Mutant("misses-unnoted", ("hinted handoff",), "writes that a peer missed are not noted",
           ((Handoff, "missed", lambda self, *missed: None),), HEALING_NODES, seed=3),
    Mutant("hints-renumbered", ("hinted handoff",), "a new process numbers its hints from the first again",
           ((Ledger, "restore", _number_anew),),
           tests=(_HINTS + "test_hints_outlive_the_process_and_those_in_memory_do_not",)),
    Mutant("failed-comparison-settles", ("hinted handoff", "anti-entropy"), "a failed comparison settles what was owed",
           ((Ledger, "end_comparison", _settle_anyhow),),
           tests=(_HINTS + "test_a_comparison_settles_what_was_dropped_before_it_began_if_it_is_whole",)),
    Mutant("registers-not-compared", ("anti-entropy",), "registers are not compared",
           ((anti_entropy, "_compare_registers", _no_registers),), HEALING_NODES, seed=138),
    Mutant("fetched-short", ("anti-entropy",), "records that did not fit into an answer are not asked for again",
           ((anti_entropy, "_fetch", _fetch_once),), HEALING_NODES,
           covered="the remaining records still differ, and the next comparison fetches them"),
    Mutant("listing-short", ("anti-entropy",), "the last bucket of each differing range is not looked at",
           ((anti_entropy, "_compare_listings", _all_but_the_last),), HEALING_NODES, seed=1),
    Mutant("owner-unnamed", ("anti-entropy",), "owners' names are not kept",
           ((OwnerNames, "stage", lambda self, *of: None),), HEALING_NODES, seed=1),
    Mutant("sums-drift", ("anti-entropy",), "replaced records stay in the sums",
           ((BucketSums, "wrote", _adding_alone),),
           tests=("tests/unit/server/replica/test_bucket_sums.py::test_sums_that_are_kept_up_are_those_that_a_scan_comes_to",)),
    Mutant("scrubs-every-second", ("scrub",), "rot in one bucket of two is overlooked",
           ((Inventory, "inspect", _rot_in_odd_buckets),), HEALING_NODES, seed=3),
    # In the healing play no peer may be damaged, and no record is written where one has rotted.
    Mutant("given-up-together", ("a distrusted store stops",), "a store is given up while a peer's store is damaged too",
           ((Scrub, "_consider_giving_up", _though_others_are_damaged),),
           tests=(_SCRUB + "test_a_store_is_kept_while_another_is_damaged_too_or_there_is_no_room_for_a_new_one",)),
    Mutant("unreadable-is-empty", ("write-once",), "a bucket that cannot be read counts as empty",
           ((PresentKeys, "forget", lambda self, bucket: self.learn({bucket: ()})),),
           tests=(_PRESENT + "test_a_block_that_rots_before_the_count_leaves_its_bucket_to_the_store",)),
    Mutant("clock-stands", ("write-once",), "all versions have the same time",
           ((HybridClock, "tick", lambda clock, wall_ms: 1 << 16),), HEALING_NODES,
           covered="versions say who wrote first, and no decision looks at them: merges only need versions to be ordered"),
    Mutant("version-stays", ("write-once",), "the stored version stays, whoever wrote first",
           ((Replica, "_store_once", _keep_version),), HEALING_NODES,
           covered="a merge takes the earlier version, so that comparisons make it the same everywhere (anti-entropy)"),
)  # fmt: skip
