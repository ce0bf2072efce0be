"""Hints in the replica's store, beside the records, under the disk that they are for. Used on the store's thread only.

Each disk has its own hints: hints are not counted, compared or copied. If a block of the store cannot be read, its hints count as
lost, and anti-entropy finds the records that they named; the process goes on.
"""

from collections.abc import Iterable
from typing import NamedTuple

from quorumvault.errors import StoreCorrupt
from quorumvault.protocol import hinted_handoff
from quorumvault.protocol.hinted_handoff import Hint
from quorumvault.server.storage import layout
from quorumvault.server.storage.store import Store

#: Most hints that one write deletes.
_DELETED_AT_ONCE = 1024


class Stored(NamedTuple):
    """A stored hint; ``hint`` is None if its bytes cannot be decoded."""

    disk: bytes
    number: int
    hint: Hint | None


class HintStore:
    def __init__(self, store: Store) -> None:
        self._store = store

    def keep(self, disk: bytes, hints: Iterable[tuple[int, Hint]]) -> None:
        self._store.write({layout.hint_key(disk, number): hinted_handoff.encode(hint) for number, hint in hints})

    def forget(self, disk: bytes, numbers: Iterable[int]) -> None:
        self._store.write({}, [layout.hint_key(disk, number) for number in numbers])

    def forget_all(self, disk: bytes) -> None:
        try:
            keys = [key for key, _ in self._store.scan(layout.HINT + disk)]
        except StoreCorrupt:
            return
        for at in range(0, len(keys), _DELETED_AT_ONCE):
            self._store.write({}, keys[at : at + _DELETED_AT_ONCE])

    def oldest(self, disk: bytes, count: int) -> list[Stored]:
        """The first ``count`` hints for this disk."""
        found: list[Stored] = []
        following = self._first(layout.HINT + disk, b"")
        while following is not None and len(found) < count:
            found.append(following)
            following = self._first(layout.HINT + disk, layout.hint_key(disk, following.number) + b"\0")
        return found

    def after(self, disk: bytes, number: int) -> Stored | None:
        """The next hint after this disk and number, in the order of disks and numbers; (b"", 0) is before all hints."""
        return self._first(layout.HINT, layout.hint_key(disk, number) + b"\0")

    def _first(self, prefix: bytes, start: bytes) -> Stored | None:
        try:
            found = next(iter(self._store.scan(prefix, start)), None)
        except StoreCorrupt:
            return None
        if found is None:
            return None
        disk, number = layout.parse_hint_key(found[0])
        try:
            return Stored(disk, number, hinted_handoff.decode(found[1]))
        except ValueError:
            return Stored(disk, number, None)
