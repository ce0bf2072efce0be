"""Revoked API keys: a set of key ids that only grows, written to two disks and read from two disks, like an epoch.

The answers of two disks together have every acknowledged revocation. An id that only one of them has is written to two disks
before it is used, so that no later reader knows less. So a node knows all revocations that were acknowledged before it *began* to
ask. It accepts keys only for a limited time after that, because later revocations are unknown to it. This lease, measured by the
node's own monotonic clock, which is passed in, bounds how long a revoked key is still accepted.

server/coordinator/revocations.py asks, over and over; server/replica/revoked_keys.py keeps one disk's share of the set.

Rules kept here: a revoked key stays revoked; no key without knowledge.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from quorumvault.errors import Refused
from quorumvault.protocol.messages import UNSENT, Ack, ReadRevoked, RevokedAre, RevokeKeys, RoundId
from quorumvault.protocol.quorum import Outcome
from quorumvault.protocol.rounds import Round, ViewRefused
from quorumvault.protocol.steps import ATTEMPTS, Ask, QuorumLost, Steps
from quorumvault.protocol.views import View

#: When this many ids are revoked, only ids that the asking node's key file lists can be revoked, so that made-up ids leave room.
MOST_UNLISTED: Final = 10_000
#: When this many ids are revoked, no node asks for more. That many take 1.7 MB in a message. Whenever an id is added, they take
#: some 100 ms of a node's event loop, out of the KNOWN_FOR that it has for an answer.
MOST_REVOKED: Final = 50_000
#: Most ids that a disk takes. Three hosts that ask at once may exceed MOST_REVOKED by the requests of two of them: at most 10,000
#: ids each, since a key file of 1 MiB has no more.
MOST_HELD: Final = 70_000
#: Seconds between two questions of a node: as a rule, and while the node has no answer that counts.
ASK_EVERY: Final = 0.5
ASK_SOON: Final = 0.1
#: Seconds for which an answer counts, from the beginning of its question. The last node has to refuse a revoked key within two
#: seconds, and the round trip takes a part of these. Two questions in a row may be lost.
KNOWN_FOR: Final = 1.5


@lru_cache(maxsize=8)  # a node asks with the same set twice a second
def fingerprint_of(ids: frozenset[str]) -> bytes:
    """128 bits over a set of key ids."""
    return hashlib.blake2b("\n".join(sorted(ids)).encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class RevokedRead:
    """The ids that either of two replicas has. One of the two lacks those in ``unsettled``: write these back before use."""

    ids: frozenset[str]
    unsettled: frozenset[str]


class ReadRevokedRound(Round[RevokedAre, RevokedRead]):
    """Decides a ReadRevoked. ``known`` are the ids whose fingerprint the request names."""

    _kind = RevokedAre

    def __init__(self, round_id: RoundId, view: View, known: frozenset[str]) -> None:
        super().__init__(round_id, view)
        self._known = known

    def _decision(self) -> RevokedRead | None:
        if self._tally.outcome is not Outcome.WON:
            return None
        told = [self._known if reply.ids is None else frozenset(reply.ids) for reply in self._replies]
        either = frozenset[str]().union(*told)
        return RevokedRead(either, either - told[0].intersection(*told))


@dataclass(frozen=True, slots=True)
class Revoked:
    """Two disks have the ids."""


class RevokeRound(Round[Ack, Revoked]):
    """Decides a RevokeKeys."""

    _kind = Ack

    def _decision(self) -> Revoked | None:
        return Revoked() if self._tally.outcome is Outcome.WON else None


def read_revoked(known: frozenset[str]) -> Steps[frozenset[str]]:
    """The ids of all keys whose revocation was acknowledged before this call began, and of no key that was never revoked.

    ``known`` are the ids that an earlier call returned. Raises QuorumLost.
    """
    for _ in range(ATTEMPTS):
        decision = yield Ask(
            ReadRevoked(*UNSENT, fingerprint_of(known)), lambda round_id, view: ReadRevokedRound(round_id, view, known)
        )
        if isinstance(decision, ViewRefused):
            continue
        if not isinstance(decision, RevokedRead):
            break
        # More ids than a disk takes cannot be written back. Acknowledged ids are on two disks and need no write-back.
        if not decision.unsettled or len(decision.ids) > MOST_HELD or (yield from _write(decision.unsettled)):
            return known | decision.ids
    raise QuorumLost


def revoke(ids: frozenset[str], known: frozenset[str], *, listed: bool) -> Steps[frozenset[str]]:
    """Revoke the keys with these ids, or as many of them as there is room for. Idempotent.

    ``listed``: the asking node's key file has them all. Returns the ids of all revoked keys, as ``read_revoked`` does.
    Raises Refused if there is room for none; QuorumLost, after which the keys may be revoked or not.
    """
    revoked = yield from read_revoked(known)
    fresh = sorted(ids - revoked)
    room = max(0, (MOST_REVOKED if listed else MOST_UNLISTED) - len(revoked))
    if fresh and not room:
        raise Refused(
            f"{len(revoked):,} API keys are revoked: from {MOST_UNLISTED:,} on only those can be that the asked node has read in "
            f"its key file, and {MOST_REVOKED:,} is the most; what is revoked stays so"
        )
    taken = frozenset(fresh[:room])
    for _ in range(ATTEMPTS):
        if not taken or (yield from _write(taken)):
            return revoked | taken
    raise QuorumLost


def _write(ids: frozenset[str]) -> Steps[bool]:
    """Write the ids to two disks. Returns False if a newer view came in between; raises QuorumLost."""
    decision = yield Ask(RevokeKeys(*UNSENT, sorted(ids)), RevokeRound)
    if isinstance(decision, Revoked):
        return True
    if isinstance(decision, ViewRefused):
        return False
    raise QuorumLost


class Knowledge:
    """The revoked keys that a process knows, and how long it may accept other keys on that basis. It begins with nothing."""

    def __init__(self) -> None:
        self.ids: frozenset[str] = frozenset()
        self._until: float | None = None

    def learn(self, ids: frozenset[str], began: float) -> frozenset[str]:
        """Add the answer to a question that began at ``began``. Returns the new ids. Answers may come in any order."""
        fresh = ids - self.ids
        self.ids |= ids
        self._until = max(self._until or began, began + KNOWN_FOR)
        return fresh

    def counts(self, now: float) -> bool:
        """True if a key that is not among ``ids`` may be accepted now."""
        return self._until is not None and now < self._until
