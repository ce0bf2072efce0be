"""Checks that each record of a backup was sealed for its place, both when the backup is taken and when it is restored.

So a backup that could not be restored is refused while its source disks can still be repaired.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from quorumvault.crypto.keys import Keyring
from quorumvault.model import Owner
from quorumvault.protocol import records
from quorumvault.server.backup.format import Counts
from quorumvault.server.replica.owners import is_authentic
from quorumvault.server.storage import layout


class Unfit(Exception):
    """A backup may not contain this. The message is for an operator, and shows no key and no value."""


class Audit:
    """Checks and counts all pairs in the order of keys, in which the names of owners come before their records."""

    def __init__(self, keyring: Keyring) -> None:
        #: By id.
        self.owners: dict[bytes, Owner] = {}
        self._keyring = keyring
        self._last = b""
        self._records = 0
        self._registers = 0
        self._conflicts = 0
        self._unknown = 0

    @property
    def counts(self) -> Counts:
        return Counts(self._records, self._registers, len(self.owners), self._conflicts, self._unknown)

    def rotten(self, key: bytes, value: bytes) -> bool:
        """True for a record that was not sealed for its place, as far as its owner is known."""
        if not key.startswith(layout.RECORD) or value == records.CONFLICT_MARK or len(key) != 1 + layout.PLACE_BYTES:
            return False
        owner = self.owners.get(layout.parse_place(key[1:])[0])
        return owner is not None and not is_authentic(self._keyring, owner, key[1:], value)

    def copy(self) -> Audit:
        """A copy of the current state, from which the audit can continue again."""
        copied = copy(self)
        copied.owners = dict(self.owners)
        return copied

    def look(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Check the next pairs. Raises Unfit."""
        for key, value in zip(keys, values, strict=True):
            if key <= self._last:
                raise Unfit("a key that is out of order")
            self._last = key
            if key.startswith(layout.RECORD):
                self._look_at_record(key[1:], value)
            elif key.startswith(layout.OWNER):
                self._look_at_name(key.removeprefix(layout.OWNER), value)
            elif key.startswith(layout.REGISTER):
                self._look_at_register(value)
            elif key.startswith(layout.GAP):
                self._unknown += 1
            elif not (key.startswith(layout.REVOKED) and value == layout.REVOKED_VALUE):
                raise Unfit("a key that is not one of a record, a register, a revoked API key or an owner")

    def _look_at_record(self, place: bytes, record: bytes) -> None:
        self._records += 1
        if record == records.CONFLICT_MARK:
            self._conflicts += 1
            return
        try:
            owner = self.owners.get(layout.parse_place(place)[0])
        except ValueError as error:
            raise Unfit(f"a record whose key cannot be read: {error}") from None
        if owner is None:
            raise Unfit("a record of an owner whose name is not known, so that there is no key to open it with")
        if not is_authentic(self._keyring, owner, place, record):
            raise Unfit(f"a record of owner {owner.name} that is not what was sealed for its place")

    def _look_at_name(self, owner_id: bytes, name: bytes) -> None:
        try:
            owner = Owner(name.decode())
        except ValueError:
            raise Unfit("a name that is no owner's") from None
        if owner.id != owner_id:
            raise Unfit("a name that is another owner's")
        self.owners[owner.id] = owner

    def _look_at_register(self, value: bytes) -> None:
        self._registers += 1
        try:
            layout.decode_register(value)
        except ValueError as error:
            raise Unfit(f"an epoch register that cannot be read: {error}") from None
