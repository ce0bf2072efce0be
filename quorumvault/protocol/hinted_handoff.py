"""Handoff: what a peer missed reaches it when it is back (hinted handoff: Dynamo, SOSP '07, 4.6).

A coordinator whose round was decided without a peer's acknowledgement owes that peer what was written. It keeps *hints*: which
keys, not their records, which its own replica has. A ledger counts what one disk is owed: the hints that are stored, in the
order of their numbers, and those that are not yet. Losing hints is harmless, and so is handing something off twice; both are
what anti-entropy is for. When a disk is owed more than the limit, its hints are dropped as a whole, since comparing everything is
cheaper then.

Rules kept here: hinted handoff.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

#: Keys in one stored hint: what is decoded at a time, some 100 KB.
HINT_KEYS: Final = 4096


class Hint(msgspec.Struct, frozen=True, array_like=True):
    """Records of one owner and epoch that a disk did not acknowledge, since a time in milliseconds; without digests, the owner's
    register."""

    owner: bytes
    owner_name: str
    epoch: int
    since: int
    digests: list[bytes]

    def __repr__(self) -> str:
        return f"<Hint of {len(self.digests)} records>"

    @property
    def records(self) -> int:
        return len(self.digests)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Hint)


def encode(hint: Hint) -> bytes:
    return _encoder.encode(hint)


def decode(data: bytes) -> Hint:
    """Raises ValueError for anything that is no hint."""
    return _decoder.decode(data)


class Owed(NamedTuple):
    """How many records a peer is known to lack, and for how many seconds it has lacked the oldest of them."""

    records: int
    seconds: float


class Ledger:
    """What one disk is owed. ``limit`` bounds the records in its hints."""

    def __init__(self, disk: bytes, limit: int) -> None:
        self.disk = disk
        #: Hints were dropped: only a comparison of everything can settle what this disk is owed.
        self.overflowed = False
        #: The number that the next hint is stored under.
        self.next = 0
        self._limit = limit
        self._stored = 0
        self._unstored = 0
        self._dropped = 0
        self._since: int | None = None
        #: Not stored yet, by owner, its name and epoch: since when, and the digests, each once.
        self._fresh: dict[tuple[bytes, str, int], tuple[int, dict[bytes, None]]] = {}

    @property
    def records(self) -> int:
        """How many are owed; a record that was missed twice may count twice."""
        return self._stored + self._unstored + self._dropped

    @property
    def since(self) -> int | None:
        """When the oldest of it was missed, in milliseconds; None if nothing is owed."""
        return self._since

    def miss(self, owner: bytes, owner_name: str, epoch: int, digests: Iterable[bytes], now: int) -> None:
        """The disk did not acknowledge these; no digests: the owner's register."""
        if self._since is None:
            self._since = now
        keys = list(digests)
        if self.overflowed:
            self._dropped += len(keys)
            return
        _, fresh = self._fresh.setdefault((owner, owner_name, epoch if keys else 0), (now, {}))
        before = len(fresh)
        fresh.update(dict.fromkeys(keys))
        self._unstored += len(fresh) - before
        if self._stored + self._unstored > self._limit:
            self.overflow()

    def overflow(self) -> None:
        """Drop all hints. Those that are stored have to be deleted by who stored them."""
        self._dropped += self._stored + self._unstored
        self._stored = self._unstored = 0
        self._fresh.clear()
        self.overflowed = True

    def none_stored(self) -> None:
        """The store has no hint for this disk any more. If it should have one it was lost."""
        if self._stored:
            self.overflow()

    def restore(self, number: int, hint: Hint) -> None:
        """A hint that an earlier process stored."""
        self.next = max(self.next, number + 1)
        self._stored += hint.records
        self._since = hint.since if self._since is None else min(self._since, hint.since)

    def take_unstored(self) -> list[tuple[int, Hint]]:
        """The hints to store now, with their numbers."""
        taken: list[tuple[int, Hint]] = []
        for (owner, name, epoch), (since, fresh) in self._fresh.items():
            keys = list(fresh)
            for at in range(0, max(len(keys), 1), HINT_KEYS):
                taken.append((self.next, Hint(owner, name, epoch, since, keys[at : at + HINT_KEYS])))
                self.next += 1
        self._fresh.clear()
        self._stored += self._unstored
        self._unstored = 0
        return taken

    def handed_off(self, hint: Hint, following: Hint | None) -> None:
        """The disk has acknowledged a stored hint; ``following`` is now the oldest one."""
        if self.overflowed:
            return
        self._stored = max(0, self._stored - hint.records)
        if following is not None:
            self._since = following.since
        elif not self._fresh:
            self._since = None

    def begin_comparison(self) -> int:
        """All that this disk lacks is about to be brought to it: answers how much that settles. Hints are kept again from now."""
        self.overflowed = False
        return self._dropped

    def end_comparison(self, settles: int, *, whole: bool) -> None:
        """It was, or was not: then hints that came meanwhile are of no use either."""
        if not whole:
            self.overflow()
            return
        self._dropped -= settles
        if not self.records:
            self._since = None
