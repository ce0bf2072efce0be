"""Hinted handoff: a peer gets the writes that it missed as soon as it is back (Dynamo, SOSP '07, 4.6).

If a coordinator's round is decided without a peer's acknowledgement, the coordinator owes that peer the records of the round. It
keeps *hints*: the keys only, since its own replica has the records. A ledger counts what one disk is owed: the stored hints, in
the order of their numbers, and the hints not stored yet. Losing a hint is harmless, because anti-entropy finds the missing
records; handing off a record twice is harmless too. When a disk is owed more than the limit, all its hints are dropped, because
comparing everything is cheaper then. This module only counts; server/healing/hinted_handoff.py stores and sends hints.

Rules kept here: hinted handoff.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

#: Most keys in one stored hint. A hint is decoded as a whole: some 100 KB.
HINT_KEYS: Final = 4096


class Hint(msgspec.Struct, frozen=True, array_like=True):
    """Keys of one owner and epoch that a disk has not acknowledged since ``since``, in milliseconds since 1970.

    A hint without digests stands for the owner's register.
    """

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
    """Raises ValueError if the bytes are not a hint."""
    return _decoder.decode(data)


class Owed(NamedTuple):
    """The number of records that a peer is known to lack, and the seconds since the peer missed the oldest of them."""

    records: int
    seconds: float


class Ledger:
    """The records that one disk is owed. ``limit`` bounds the number of records with hints.

    Invariants: ``_unstored`` counts the digests in ``_fresh``, at most ``limit``; ``_fresh`` is empty in an overflowed ledger;
    a hint's number is smaller than ``next``; no count is negative.
    """

    def __init__(self, disk: bytes, limit: int) -> None:
        self.disk = disk
        #: Hints were dropped: only a comparison of everything can settle the debt.
        self.overflowed = False
        #: The number under which the next hint is stored.
        self.next = 0
        self._limit = limit
        self._stored = 0
        self._unstored = 0
        self._dropped = 0
        self._since: int | None = None
        #: Hints not stored yet, by (owner, owner's name, epoch): when the first was missed, and the digests, each once.
        self._fresh: dict[tuple[bytes, str, int], tuple[int, dict[bytes, None]]] = {}

    @property
    def records(self) -> int:
        """The number of records owed. A record that was missed twice may count twice."""
        return self._stored + self._unstored + self._dropped

    @property
    def since(self) -> int | None:
        """The time at which the disk missed the oldest owed record, in milliseconds since 1970; None if nothing is owed."""
        return self._since

    def miss(self, owner: bytes, owner_name: str, epoch: int, digests: Iterable[bytes], now: int) -> None:
        """Note that the disk did not acknowledge these records or, if there are no digests, the owner's register."""
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
        assert self._unstored <= self._limit
        assert not (self.overflowed and self._fresh)

    def overflow(self) -> None:
        """Drop all hints. The caller has to delete the stored ones."""
        self._dropped += self._stored + self._unstored
        self._stored = self._unstored = 0
        self._fresh.clear()
        self.overflowed = True

    def none_stored(self) -> None:
        """Note that the store has no hint for this disk. If it should have hints, they were lost, which is an overflow."""
        if self._stored:
            self.overflow()

    def restore(self, number: int, hint: Hint) -> None:
        """Count a hint that an earlier process stored."""
        self.next = max(self.next, number + 1)
        self._stored += hint.records
        self._since = hint.since if self._since is None else min(self._since, hint.since)

    def take_unstored(self) -> list[tuple[int, Hint]]:
        """The hints to store now, with their numbers. They count as stored from here on."""
        taken: list[tuple[int, Hint]] = []
        for (owner, name, epoch), (since, fresh) in self._fresh.items():
            keys = list(fresh)
            for at in range(0, max(len(keys), 1), HINT_KEYS):
                taken.append((self.next, Hint(owner, name, epoch, since, keys[at : at + HINT_KEYS])))
                self.next += 1
        assert sum(hint.records for _, hint in taken) == self._unstored
        self._fresh.clear()
        self._stored += self._unstored
        self._unstored = 0
        return taken

    def handed_off(self, hint: Hint, following: Hint | None) -> None:
        """Note that the disk acknowledged a stored hint. ``following`` is now the oldest stored hint, None if there is none."""
        if self.overflowed:
            return
        self._stored = max(0, self._stored - hint.records)
        if following is not None:
            self._since = following.since
        elif not self._fresh:
            self._since = None

    def begin_comparison(self) -> int:
        """Begin a comparison of everything. Returns how many records it settles. Hints are kept again from now on."""
        self.overflowed = False
        return self._dropped

    def end_comparison(self, settles: int, *, whole: bool) -> None:
        """End the comparison. If it was not ``whole``, nothing is settled, and hints that came meanwhile are dropped too."""
        if not whole:
            self.overflow()
            return
        self._dropped -= settles
        assert self._dropped >= 0
        if not self.records:
            self._since = None
