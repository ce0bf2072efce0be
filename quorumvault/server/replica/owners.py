"""The owners of a store's records, by id. Names are stored beside the records, because the keys that open a record are derived
from its owner's name, while the store's keys have only the owner's id."""

from collections.abc import Iterable

from quorumvault.crypto.keys import Keyring
from quorumvault.model import Owner
from quorumvault.protocol import records
from quorumvault.server.storage import layout
from quorumvault.server.storage.store import Store


class OwnerNames:
    """Finds owners by their id. Used on the store's thread only, except ``introduce``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[bytes, Owner] = {}
        self._introduced: dict[bytes, Owner] = {}

    def get(self, owner: bytes) -> Owner | None:
        """The owner with this id, or None if this node does not know its name."""
        return self.kept(owner) or self._introduced.get(owner)

    def kept(self, owner: bytes) -> Owner | None:
        """The owner with this id, or None if its name is not in the store."""
        known = self._kept.get(owner)
        if known is None:
            (name,) = self._store.get([layout.owner_key(owner)])
            known = owner_named(owner, name) if isinstance(name, bytes) else None
            if known is not None:
                self._kept[owner] = known
        return known

    def stage(self, owner: bytes, name: str, staged: dict[bytes, bytes]) -> None:
        """Stage the owner's name if the store does not have it."""
        if name and self.kept(owner) is None:
            staged[layout.owner_key(owner)] = name.encode()

    def introduce(self, owners: Iterable[Owner]) -> None:
        """Introduce owners whose names the store may lack, since an older version wrote records without names. Any thread."""
        self._introduced = {owner.id: owner for owner in owners}


def owner_named(owner: bytes, name: bytes) -> Owner | None:
    """The owner with this id if ``name`` is its name; None for any other bytes, whatever their source."""
    try:
        named = Owner(name.decode())
    except ValueError:
        return None
    return named if named.id == owner else None


def is_authentic(keyring: Keyring, owner: Owner, place: bytes, record: bytes) -> bool:
    """True if the record holds a value that was sealed for this place, which must be one of the owner's."""
    _, epoch, digest = layout.parse_place(place)
    return records.authentic(record, digest, keyring.epoch_keys(owner, epoch).sealer)
