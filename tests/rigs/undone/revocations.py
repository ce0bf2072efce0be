"""Safeties of API keys that are revoked or expire, undone one at a time."""

from typing import Any
from unittest import mock

from quorumvault.config.api_keys import KeyTable
from quorumvault.protocol import revocations
from quorumvault.protocol.quorum import Tally
from quorumvault.protocol.revocations import Knowledge, ReadRevokedRound, RevokedRead, RevokeRound
from quorumvault.protocol.steps import ATTEMPTS, QuorumLost, Steps
from quorumvault.server.coordinator.revocations import Revocations
from quorumvault.server.replica import copy, revoked_keys
from quorumvault.server.replica.revoked_keys import RevokedKeys
from quorumvault.server.storage import layout
from quorumvault.server.storage.store import Store
from tests.rigs.undone.mutant import REVOKED, Mutant

_real_authenticate = KeyTable.authenticate
_real_decision = ReadRevokedRound._decision
_real_learn = Knowledge.learn
_real_once = Revocations.once
_real_revoke = revocations.revoke
_real_store = RevokedKeys.store
_ROUNDS, _ASKING = "tests/unit/protocol/test_revocations.py::", "tests/unit/server/coordinator/test_revocations.py::"
_DISK = "tests/unit/server/replica/test_revoked_keys.py::"
_STAYS, _KNOWS = "a revoked key stays revoked", "no key without knowledge"


def _begin_with_nothing(self: RevokedKeys, store: Store) -> None:
    self._known = revoked_keys._Known(frozenset())


def _learn_in_place(self: RevokedKeys, written: Any) -> None:
    fresh = frozenset(key.removeprefix(layout.REVOKED).decode() for key in written if key.startswith(layout.REVOKED))
    if fresh:
        self._known = revoked_keys._Known(fresh)


def _of_one_disk(self: RevokeRound, *arguments: Any, **options: Any) -> None:
    super(RevokeRound, self).__init__(*arguments, **options)
    self._tally = Tally(self.view.disks.values(), 1)


def _believe_one(self: ReadRevokedRound) -> RevokedRead | None:
    decision = _real_decision(self)
    if decision is None:
        return None
    ids = self._replies[0].ids
    return RevokedRead(self._known if ids is None else frozenset(ids), frozenset())


def _settled_anyhow(self: ReadRevokedRound) -> RevokedRead | None:
    decision = _real_decision(self)
    return decision and RevokedRead(decision.ids, frozenset())


def _written_at_once(ids: frozenset[str]) -> Steps[bool]:
    yield from ()
    return True


def _learn_late(self: Knowledge, ids: frozenset[str], began: float) -> frozenset[str]:
    """An answer counts for three times as long."""
    return _real_learn(self, ids, began + 2 * revocations.KNOWN_FOR)


def _authenticate_for_ever(self: KeyTable, text: str, now: float) -> Any:
    return _real_authenticate(self, text, float("-inf"))


async def _once_from_the_answer(self: Revocations) -> None:
    """An answer counts from its arrival."""
    learn = self._learn
    with mock.patch.object(self, "_learn", lambda ids, began: learn(ids, self._clock())):
        await _real_once(self)


def _revoke_as_listed(ids: frozenset[str], known: frozenset[str], *, listed: bool) -> Steps[frozenset[str]]:
    return _real_revoke(ids, known, listed=True)


def _revoke_without_end(ids: frozenset[str], known: frozenset[str], *, listed: bool) -> Steps[frozenset[str]]:
    revoked = yield from revocations.read_revoked(known)
    for _ in range(ATTEMPTS):
        if (yield from revocations._write(ids)):
            return revoked | ids
    raise QuorumLost


def _store_without_end(self: RevokedKeys, *of: Any) -> Any:
    with mock.patch.object(revoked_keys, "MOST_HELD", 1 << 30):
        return _real_store(self, *of)


def _takes_as_many_as_one_disk(self: RevokedKeys, copied: Any) -> bool:
    return len(self.ids | revoked_keys._ids_in(copied)) <= revocations.MOST_HELD


MUTANTS = (
    Mutant("revoked-at-one", (_STAYS,), "a revocation is acknowledged once one disk has it",
           ((RevokeRound, "__init__", _of_one_disk),), scopes=("revoke-read-read",)),
    Mutant("revoked-unwritten", (_STAYS,), "a revocation is acknowledged before any disk has it",
           ((revocations, "_write", _written_at_once),), REVOKED, seed=1, scopes=("revoke-read-read",)),
    Mutant("revoked-not-written-back", (_STAYS,), "a revocation on one disk counts as settled",
           ((ReadRevokedRound, "_decision", _settled_anyhow),), scopes=("revoke-read-read",)),
    Mutant("revoked-read-of-one", (_STAYS,), "one disk's set is believed",
           ((ReadRevokedRound, "_decision", _believe_one),), REVOKED, seed=4, scopes=("revoke-read-read",)),
    Mutant("revoked-shrinks", (_STAYS,), "newly revoked keys replace a disk's set",
           ((RevokedKeys, "learn", _learn_in_place),), REVOKED, seed=1),
    Mutant("revoked-forgotten", (_STAYS,), "a disk starts without revoked keys",
           ((RevokedKeys, "__init__", _begin_with_nothing),), REVOKED, seed=2, scopes=("revoke-read-read",), faults=("kill",)),
    Mutant("revoked-not-copied", (_STAYS, "copy after the entry, from both"), "revoked keys are not copied to a new disk",
           ((copy, "_COPIED", (layout.REGISTER, layout.OWNER, layout.RECORD)),), scopes=("join-revoked-read",)),
    Mutant("keys-unknowing", (_KNOWS,), "a node takes keys without having asked",
           ((Knowledge, "counts", lambda self, now: True),), REVOKED, 1, faults=("kill", "pause", "partition")),
    Mutant("keys-known-for-ever", (_KNOWS,), "a node that has asked once never asks again",
           ((Knowledge, "counts", lambda self, now: self._until is not None),), REVOKED, 8, faults=("pause", "partition")),
    Mutant("keys-known-late", (_KNOWS,), "an answer counts for too long",
           ((Knowledge, "learn", _learn_late),), REVOKED, 8),
    Mutant("keys-known-from-the-answer", (_KNOWS,), "an answer counts from its arrival, not from its question",
           ((Revocations, "once", _once_from_the_answer),),
           tests=(_ASKING + "test_an_answer_counts_from_its_question_on",)),
    Mutant("unlisted-take-all", (_STAYS,), "made-up ids take the room of existing keys",
           ((revocations, "revoke", _revoke_as_listed),), REVOKED, seed=8),
    Mutant("revoked-without-end", (_STAYS,), "nodes revoke any number of keys",
           ((revocations, "revoke", _revoke_without_end),), REVOKED, seed=8),
    Mutant("held-without-end", (_STAYS,), "disks take any number of revoked keys",
           ((RevokedKeys, "store", _store_without_end),),
           tests=(_DISK + "test_a_disk_refuses_more_than_any_node_asks_for_and_repeats_what_it_has",)),
    Mutant("copied-as-one-disk", (_STAYS,), "a new disk takes no more keys than one other disk may have",
           ((RevokedKeys, "takes", _takes_as_many_as_one_disk),),
           tests=(_DISK + "test_a_copy_with_more_than_two_disks_can_have_is_not_taken",)),
    Mutant("keys-without-end", ("keys end",), "the expiry of a key is not checked",
           ((KeyTable, "authenticate", _authenticate_for_ever),), REVOKED, 1),
)  # fmt: skip
