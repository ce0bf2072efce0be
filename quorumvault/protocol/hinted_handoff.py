"""Hinted handoff: what a peer missed reaches it when it is back (Dynamo, SOSP '07, 4.6).

A coordinator whose round was decided without a peer's acknowledgement owes that peer the records that it wrote. It keeps *hints*:
the keys, not the records, which its own replica has. A ledger counts what one disk is owed: the hints that are stored, in the
order of their numbers, and those that are not yet. Losing hints is harmless, since anti-entropy finds what they were about, and
so is handing a record off twice. When a disk is owed more than the limit, all its hints are dropped, since comparing everything
is cheaper then. This half counts; server/healing/hinted_handoff.py stores and sends.

Rules kept here: hinted handoff.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

#: Keys in one stored hint: what is decoded at a time, some 100 KB.
HINT_KEYS: Final = 4096


class Hint(msgspec.Struct, frozen=True, array_like=True):
    """Keys of one owner and epoch that a disk did not acknowledge since ``since``, in milliseconds since 1970.

    Without digests it stands for the owner's register.
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
    """Raises ValueError for bytes that are no hint."""
    return _decoder.decode(data)


class Owed(NamedTuple):
    """The number of records that a peer is known to lack, and the seconds since it missed the oldest of them."""

    records: int
    seconds: float


class Ledger:
    """The records that one disk is owed. ``limit`` bounds those that have hints.

    Invariants: ``_unstored`` counts the digests in ``_fresh``, at most ``limit`` of them; an overflowed ledger has none of them;
    a hint's number is smaller than ``next``; no count is negative.
    """

    def __init__(self, disk: bytes, limit: int) -> None:
        self.disk = disk
        #: Hints were dropped: only a comparison of everything can settle the debt.
        self.overflowed = False
        #: The number that the next hint is stored under.
        self.next = 0
        self._limit = limit
        self._stored = 0
        self._unstored = 0
        self._dropped = 0
        self._since: int | None = None
        #: Hints not stored yet, by (owner, its name, epoch): since when, and the digests, each once.
        self._fresh: dict[tuple[bytes, str, int], tuple[int, dict[bytes, None]]] = {}

    @property
    def records(self) -> int:
        """The number of records owed. A record that was missed twice may count twice."""
        return self._stored + self._unstored + self._dropped

    @property
    def since(self) -> int | None:
        """The time at which the oldest of them was missed, in milliseconds since 1970; None if nothing is owed."""
        return self._since

    def miss(self, owner: bytes, owner_name: str, epoch: int, digests: Iterable[bytes], now: int) -> None:
        """The disk did not acknowledge these records, or, if there are no digests, the owner's register."""
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
        """The store has no hint for this disk. If it should have one, hints were lost, which is an overflow."""
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
        """The disk has acknowledged a stored hint. ``following`` is now the oldest one, None if there is none."""
        if self.overflowed:
            return
        self._stored = max(0, self._stored - hint.records)
        if following is not None:
            self._since = following.since
        elif not self._fresh:
            self._since = None

    def begin_comparison(self) -> int:
        """A comparison of everything begins. Returns how many records it settles; hints are kept again from now."""
        self.overflowed = False
        return self._dropped

    def end_comparison(self, settles: int, *, whole: bool) -> None:
        """The comparison ended. If it was not ``whole``, nothing is settled, and hints that came meanwhile are dropped too."""
        if not whole:
            self.overflow()
            return
        self._dropped -= settles
        assert self._dropped >= 0
        if not self.records:
            self._since = None
