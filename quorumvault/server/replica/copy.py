"""Copying another disk's store, piece by piece: reads a piece there, and merges it into the store here.

A copy has the data that disks have in common: registers, revoked keys, owner names and records, in this order. The larger of two
registers stays; revoked keys of both disks are united; records are merged by records.merge. Bytes that no owner's key opens are
unknown, not a value, so an authentic record replaces them, and they never make a conflict with it. If there is no authentic
record, the bytes are kept: what was unreadable on the source disk stays unknown here, and is not absent.

A store with damaged blocks is read around them: the unreadable part of a bucket is an unread part, and the rest is copied.

Rules kept here: copy after the entry, from both.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, NamedTuple

from quorumvault.crypto.keys import Keyring
from quorumvault.errors import StoreCorrupt
from quorumvault.model import Owner
from quorumvault.protocol import records
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.server.replica.owners import OwnerNames, is_authentic, owner_named
from quorumvault.server.storage import layout
from quorumvault.server.storage.gaps import END_OF_PLACES, Gap, Gaps, records_around
from quorumvault.server.storage.store import BATCH_BYTES, CORRUPT, Store

_NO_GAPS = Gaps()
_COPIED = (layout.REGISTER, layout.REVOKED, layout.OWNER, layout.RECORD)
#: The number of parts of a store, each of which can be read or not: the buckets of records, and the parts before them.
PARTS: Final = BUCKETS + len(_COPIED) - 1
#: The cost of stepping over some blocks, in bytes that could have been read in that time.
_GAP_COSTS = 8 << 10


class Piece(NamedTuple):
    """Parallel columns of keys and values, in the order of the keys. ``last``: no more keys follow."""

    keys: list[bytes]
    values: list[bytes]
    last: bool


class UnreadPart(NamedTuple):
    """A store that cannot be read in full after the key ``after`` and before ``end``; ``why``. A copy can continue after ``end``.

    ``end`` is not a key itself: it is where the registers end, or the revoked keys, the names, or one bucket.
    """

    after: bytes
    end: bytes
    why: str


def read_piece(store: Store, after: bytes, size: int, prefixes: Sequence[bytes] = ()) -> Piece | UnreadPart:
    """The pairs after the key ``after`` (b"": from the first pair on), up to ``size`` bytes, and at least one pair.

    They are pairs that disks have in common, or only those with one of ``prefixes``. The piece ends before a block that cannot be
    read. Returns an UnreadPart if such a block comes next.
    """
    keys: list[bytes] = []
    values: list[bytes] = []
    for prefix in prefixes or _COPIED:
        if after[: len(prefix)] > prefix:
            continue
        try:
            for key, value in _known(store, prefix, after + b"\0" if after else b""):
                keys.append(key)
                values.append(value)
                size -= len(key) + len(value)
                if size <= 0:
                    return Piece(keys, values, last=False)
        except StoreCorrupt as error:
            return Piece(keys, values, last=False) if keys else UnreadPart(max(after, prefix), _end(prefix, after), str(error))
    return Piece(keys, values, last=True)


def end_of_part(key: bytes) -> bytes:
    """The end of the part of a store that has this key, which must be of a kind that disks have in common."""
    return _end(next(prefix for prefix in _COPIED if key.startswith(prefix)), key)


def facts_among(ends: Collection[bytes]) -> list[str]:
    """The parts at these ends that are not buckets of records, in words."""
    words = {layout.REGISTER: "epochs", layout.REVOKED: "revoked keys", layout.OWNER: "names of owners"}
    return [said for prefix, said in words.items() if _end(prefix, prefix) in ends]


def _end(prefix: bytes, after: bytes) -> bytes:
    """The end of the part in which the next key after ``after`` would be, among the keys with this prefix."""
    bucket = int.from_bytes(after[1:3].ljust(2, b"\0"), "big") + 1 if after.startswith(layout.RECORD) else 1
    if prefix == layout.RECORD and bucket < BUCKETS:
        return layout.bucket_prefix(bucket)
    return prefix[:-1] + bytes([prefix[-1] + 1])


class Around(NamedTuple):
    """A piece with the gaps in it; ``until``: the key after which the next piece begins."""

    piece: Piece
    gaps: list[Gap]
    until: bytes


def read_around(store: Store, known: Gaps, after: bytes, size: int) -> Around:
    """As read_piece, but for a store with the gaps ``known``, and continues behind records that cannot be read.

    Raises StoreCorrupt if anything else cannot be read.
    """
    if after < layout.RECORD:
        before = read_piece(store, after, size, _COPIED[:-1])
        if isinstance(before, UnreadPart):
            raise StoreCorrupt(before.why)
        until = before.keys[-1] if before.keys and not before.last else layout.RECORD
        return Around(before._replace(last=False), [], until)
    keys: list[bytes] = []
    values: list[bytes] = []
    gaps: list[Gap] = []
    until, last = after, True
    for found in records_around(store, after + b"\0" if after > layout.RECORD else after):
        if isinstance(found, Gap):
            gaps.append(found)
            until, cost = layout.RECORD + found.end[:-1], _GAP_COSTS
        else:
            until, cost = found[0], len(found[0]) + len(found[1])
            keys.append(found[0])
            values.append(found[1])
        size -= cost
        if size <= 0 and until[1:] < END_OF_PLACES[:-1]:
            last = False
            break
    gaps += known.between(Gap(after[1:], END_OF_PLACES if last else until[1:] + b"\0"))
    return Around(Piece(keys, values, last), gaps, until)


def _known(store: Store, prefix: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    """As the store's scan. Raises StoreCorrupt at a bucket with a gap (gaps.py), and at an invalid register: a copy without that
    register would have an epoch that is too small."""
    unknown = None
    if prefix == layout.RECORD:
        first = layout.bucket_of(start) if len(start) > layout.BUCKET_BYTES and start.startswith(prefix) else 0
        unknown = min((bucket for bucket in Gaps.of(store).buckets() if bucket >= first), default=None)
    for key, value in store.scan(prefix, start):
        if unknown is not None and layout.bucket_of(key) >= unknown:
            break
        if prefix == layout.REGISTER:
            layout.read_register(value)
        yield key, value
    if unknown is not None:
        raise StoreCorrupt("what was in a part of the store is not known: its blocks could not be read")


def pieces_of(store: Store, unread: list[UnreadPart] | None = None) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yield all pairs of a store that disks have in common, as keys and values, in the order of keys.

    Parts that cannot be read are skipped, and added to ``unread``. Raises StoreCorrupt for such a part if ``unread`` is None.
    """
    after, last = b"", False
    while not last:
        piece = read_piece(store, after, BATCH_BYTES)
        if isinstance(piece, UnreadPart):
            if unread is None:
                raise StoreCorrupt(piece.why)
            unread.append(piece)
            after = piece.end
            continue
        yield piece.keys, piece.values
        after, last = piece.keys[-1] if piece.keys else after, piece.last


def stored_pairs(store: Store) -> Iterator[tuple[bytes, bytes]]:
    """All pairs of a store that disks have in common, and its gaps, in the order of keys. Raises StoreCorrupt."""
    for prefix in (*_COPIED, layout.GAP):
        yield from store.scan(prefix)


def merge_piece(
    store: Store,
    owners: OwnerNames,
    keyring: Keyring,
    keys: Sequence[bytes],
    values: Sequence[bytes],
    *,
    marks: bool = True,
    spared: Gaps = _NO_GAPS,
) -> dict[bytes, bytes]:
    """The pairs to write so that the store has at least what the piece has. ``owners`` are those of the store.

    Two values under one key become a conflict mark; without ``marks``, the store keeps its own value. Keys that the store lacks
    are not added inside a gap in ``spared``. Pairs that disks do not have in common are skipped, whoever sent them, and so are
    pairs that could not be read later, such as an invalid name or register. Raises StoreCorrupt if the store cannot be read.
    """
    staged: dict[bytes, bytes] = {}

    def owner_of(owner_id: bytes) -> Owner | None:
        name = staged.get(layout.owner_key(owner_id))  # a name comes before its records, perhaps in this very piece
        return owners.get(owner_id) if name is None else owner_named(owner_id, name)

    for key, theirs, mine in zip(keys, values, store.get(keys), strict=True):
        if not _is_common(key, theirs) or (mine is None and key.startswith(layout.RECORD) and spared.covers(key[1:])):
            continue
        if mine is CORRUPT:
            raise StoreCorrupt("what was copied from another disk cannot be read again")
        merged = theirs if mine is None else mine if mine == theirs else merge_values(keyring, owner_of, key, mine, theirs)
        if merged != mine and (marks or mine is None or merged != records.CONFLICT_MARK):
            staged[key] = merged
    return staged


def _is_common(key: bytes, value: bytes) -> bool:
    """True if disks have such a pair in common and it can be read later. A disk that sends anything else has rotten bytes."""
    if key.startswith(layout.OWNER):
        return owner_named(key.removeprefix(layout.OWNER), value) is not None
    try:
        if key.startswith(layout.REGISTER):
            layout.decode_register(value)
        elif key.startswith(layout.REVOKED):
            layout.parse_revoked_key(key)
            return value == layout.REVOKED_VALUE
        elif key.startswith(layout.RECORD):
            layout.parse_place(key.removeprefix(layout.RECORD))
        else:
            return False
    except ValueError:
        return False
    return True


def merge_values(keyring: Keyring, owner_of: Callable[[bytes], Owner | None], key: bytes, mine: bytes, theirs: bytes) -> bytes:
    """The value that two unequal values under one key become. ``owner_of`` finds owners by their id.

    Raises StoreCorrupt for a register that cannot be read.
    """
    if key.startswith(layout.REGISTER):
        return max(mine, theirs, key=layout.read_register)
    if not key.startswith(layout.RECORD):
        return mine
    merged = records.merge(mine, theirs)
    if merged != records.CONFLICT_MARK or records.CONFLICT_MARK in (mine, theirs):
        return merged
    place = key.removeprefix(layout.RECORD)
    owner = owner_of(layout.parse_place(place)[0])
    if owner is None:
        return merged
    authentic = [record for record in (mine, theirs) if is_authentic(keyring, owner, place, record)]
    if len(authentic) == 1:
        return authentic[0]
    return merged if authentic else mine
