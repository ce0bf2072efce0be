"""Unite stores while no node runs: each store gets the entries that it lacks from the others; unreadable parts are skipped.

Stores that count are merged as a joining disk merges its copies: two values under one key become a conflict mark. Donors have no
voice (protocol/donors.py). If two stores that count were read in a part, they have everything that was acknowledged there; a
donor then only adds authentic records that both lack, and contradicts nothing. In a part that fewer than two of them could read,
a donor's records are worth as much as theirs.

Rules kept here: donors have no voice.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from quorumvault.crypto.keys import Keyring
from quorumvault.errors import StorageFailed, StoreCorrupt
from quorumvault.model import Owner
from quorumvault.server.replica.copy import UnreadPart, end_of_part, merge_piece, pieces_of
from quorumvault.server.replica.owners import OwnerNames, is_authentic
from quorumvault.server.storage import layout
from quorumvault.server.storage.store import Store

Tell = Callable[[str], None]


class Read(NamedTuple):
    """The result of reading a whole store: the number of its records, and the ends of the parts that cannot be read."""

    records: int
    gaps: frozenset[bytes]


class United(NamedTuple):
    """By sink, how much it lacked of the others; by donor, how much no other store had."""

    added: dict[str, int]
    given: dict[str, int]


def read_through(store: Store) -> Read:
    """Read everything in the store that can be read."""
    unread: list[UnreadPart] = []
    counted = sum(key.startswith(layout.RECORD) for keys, _ in pieces_of(store, unread) for key in keys)
    return Read(counted, frozenset(part.end for part in unread))


def readable_pieces(store: Store) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yield everything that can be read of a store, as keys and values, including the readable pairs of damaged parts."""
    unread: list[UnreadPart] = []
    yield from pieces_of(store, unread)
    for part in unread:
        pairs = list(_within(store, part))
        yield [key for key, _ in pairs], [value for _, value in pairs]


def _within(store: Store, part: UnreadPart) -> Iterator[tuple[bytes, bytes]]:
    """The readable pairs within a damaged part. An older entry may appear in place of a lost newer one. Data that disks have in
    common only grows, so the older entry is still true."""
    at = part.after + b"\0"
    while at < part.end:
        try:
            for pair in store.scan(part.after[:1], at):
                if pair[0] >= part.end:
                    return
                yield pair
                at = pair[0] + b"\0"
        except StoreCorrupt:
            at, pairs = store.step_over(at, part.end)
            yield from pairs
        else:
            return


def unite(
    sinks: Mapping[str, Store],
    counted: Mapping[str, Store],
    donors: Mapping[str, Store],
    unread: Collection[bytes],
    keyring: Keyring,
    tell: Tell,
) -> United:
    """Copy from all into the first sink, then from it into the others, and check that nothing is left to copy.

    ``unread``: where the parts end that fewer than two of those that count could read. Raises StorageFailed.
    """
    added, given = dict.fromkeys(sinks, 0), dict.fromkeys(donors, 0)
    first, *others = sinks
    base = sinks[first]
    for name, store in counted.items():
        if store is not base:
            tell(f"{first}: gets what {name} has and it has not")
            added[first] += _pour(store, base, keyring)
    for name, store in donors.items():
        tell(f"{first}: gets what {name} has and no other")
        given[name] = _give(store, base, keyring, unread)
    added[first] += sum(given.values())
    if end_of_part(layout.REGISTER) in unread:
        added[first] += _raise_registers(base, keyring)
    for name in others:
        tell(f"{name}: gets what {first} has and it has not")
        added[name] += _pour(base, sinks[name], keyring)
    for name in others:
        tell(f"{name}: compared with {first}")
        if _pour(base, sinks[name], keyring) or _pour(sinks[name], base, keyring):
            raise StorageFailed(f"the store of {name} does not keep what is written to it")
    return United(added, given)


def _pour(source: Store, sink: Store, keyring: Keyring) -> int:
    """Merge what can be read of the source into the sink. Returns the number of pairs that the sink lacked."""
    owners = OwnerNames(sink)
    return sum(_merge(sink, owners, keyring, keys, values) for keys, values in readable_pieces(source))


def _raise_registers(store: Store, keyring: Keyring) -> int:
    """Raise the epoch of each owner to that of its newest record, which was taken under it. Returns how many registers rose.

    Without its register, an owner would continue in an epoch that it has left.
    """
    newest: dict[bytes, int] = {}
    for keys, _ in pieces_of(store):
        for key in keys:
            if key.startswith(layout.RECORD):
                owner, epoch, _ = layout.parse_place(key.removeprefix(layout.RECORD))
                newest[owner] = max(epoch, newest.get(owner, 1))
    keys = [layout.register_key(owner) for owner in newest]
    known = [1 if value is None else layout.read_register(value)[0] for value in store.get(keys)]
    behind = {
        key: layout.encode_register(epoch, keyring.secret_id)
        for key, epoch, old in zip(keys, newest.values(), known, strict=True)
        if epoch > old
    }
    if behind:
        store.write(behind)
    return len(behind)


def _give(donor: Store, sink: Store, keyring: Keyring, unread: Collection[bytes]) -> int:
    """Like ``_pour``, from a donor."""
    owners, written = OwnerNames(sink), 0
    for keys, values in readable_pieces(donor):
        names = {key: Owner(name.decode()) for key, name in zip(keys, values, strict=True) if key.startswith(layout.OWNER)}
        for marks in (False, True):
            chosen = [
                (key, value)
                for key, value in zip(keys, values, strict=True)
                if (end_of_part(key) in unread) is marks and (marks or _is_fit(keyring, owners, names, key, value))
            ]
            written += _merge(sink, owners, keyring, [key for key, _ in chosen], [value for _, value in chosen], marks=marks)
    return written


def _is_fit(keyring: Keyring, owners: OwnerNames, names: Mapping[bytes, Owner], key: bytes, value: bytes) -> bool:
    """False for a record that is not authentic."""
    if not key.startswith(layout.RECORD):
        return True
    place = key.removeprefix(layout.RECORD)
    try:
        owner_id = layout.parse_place(place)[0]
    except ValueError:
        return False
    owner = names.get(layout.owner_key(owner_id)) or owners.get(owner_id)
    return owner is not None and is_authentic(keyring, owner, place, value)


def _merge(
    sink: Store, owners: OwnerNames, keyring: Keyring, keys: list[bytes], values: list[bytes], *, marks: bool = True
) -> int:
    staged = merge_piece(sink, owners, keyring, keys, values, marks=marks)
    if staged:
        sink.write(staged)
    return len(staged)
