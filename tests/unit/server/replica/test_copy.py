"""Copies of a store: all of it in pieces of any size, and how two stores with different content are merged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.crypto import canonical
from quorumvault.crypto.keys import Keyring
from quorumvault.errors import StoreCorrupt
from quorumvault.model import Owner, Version
from quorumvault.protocol import records
from quorumvault.server.replica.copy import Piece, UnreadPart, merge_piece, pieces_of, read_piece
from quorumvault.server.replica.owners import OwnerNames
from quorumvault.server.storage import layout
from quorumvault.server.storage.gaps import Gap, Gaps, bucket_gap
from quorumvault.server.storage.memory import MemoryStore
from tests.rigs.faulty_store import FaultyStore

OWNER = Owner("clinic")
NARROW = Keyring("s1", bytes(32), digest_bits=8)
KEYS = NARROW.epoch_keys(OWNER, 1)
ONE = canonical.from_str("one")
(DIGEST,) = KEYS.digests([ONE])
#: Another value with the same token.
OTHER = next(v for v in map(b"i%d".__mod__, range(10_000)) if KEYS.digests([v]) == [DIGEST])
(KEY,) = layout.record_keys(OWNER.id, [1], [DIGEST])
NAME = {layout.owner_key(OWNER.id): OWNER.name.encode()}


def holding(pairs: dict[bytes, bytes]) -> MemoryStore:
    store = MemoryStore()
    store.write(pairs)
    return store


def record(value: bytes, clock: int = 1) -> bytes:
    return records.header(Version(clock, 1)) + KEYS.sealer.seal([value], [DIGEST])[0]


ROTTEN = record(ONE)[:-1] + bytes([record(ONE)[-1] ^ 1])


others = st.dictionaries(
    st.builds(bytes.__add__, st.sampled_from([b"k", b"m", b"mowner/", b"r", b"h"]), st.binary(max_size=3)), st.binary(max_size=20)
)
registers = st.dictionaries(
    st.builds(layout.register_key, st.binary(max_size=3)), st.builds(layout.encode_register, st.integers(1, 9), st.just("s1"))
)


@given(pairs=st.builds(dict[bytes, bytes].__or__, others, registers), size=st.integers(1, 80))
def test_pieces_of_any_size_make_the_whole_of_what_disks_have_in_common(pairs: dict[bytes, bytes], size: int) -> None:
    store = holding(pairs)
    copied: list[tuple[bytes, bytes]] = []
    after, last = b"", False
    while not last:
        piece = read_piece(store, after, size)
        assert isinstance(piece, Piece)
        keys, values, last = piece
        assert keys or last
        copied += zip(keys, values, strict=True)
        after = keys[-1] if keys else after
    common = (layout.REGISTER, layout.REVOKED, layout.OWNER, layout.RECORD)
    assert copied == sorted(pair for pair in pairs.items() if pair[0].startswith(common))


def test_what_cannot_be_read_is_an_unread_part_and_the_rest_is_read_around_it() -> None:
    """An unread part ends where its section of the store ends: registers, revoked keys, names, each bucket."""
    names = [b"e1", b"e2", b"k1", b"mowner/1", b"r\0\0a", b"r\0\0b", b"r\0\xff1", b"r\0\xff2", b"r\xff\xfe1", b"r\xff\xff2"]
    store = FaultyStore(holding(dict.fromkeys(names, layout.encode_register(1, "s1"))))
    store.corrupt |= {b"e2", b"k1", b"r\0\0a", b"r\0\xff2", b"r\xff\xff2"}
    unread: list[UnreadPart] = []
    read = [key for keys, _ in pieces_of(store, unread) for key in keys]
    assert read == [b"e1", b"mowner/1", b"r\0\xff1", b"r\xff\xfe1"]
    assert [(part.after, part.end) for part in unread] == [
        (b"e1", b"f"),
        (b"k", b"l"),
        (b"r", b"r\0\1"),
        (b"r\0\xff1", b"r\1\0"),
        (b"r\xff\xfe1", b"r\xff\xff"),
        (b"r\xff\xff", b"s"),
    ]
    with pytest.raises(StoreCorrupt):
        list(pieces_of(store))


@pytest.mark.parametrize(
    ("mine", "theirs", "merged"),
    [
        (None, record(ONE), record(ONE)),
        (record(ONE, 2), record(ONE, 1), record(ONE, 1)),
        (record(ONE, 1), record(ONE, 2), None),
        (record(ONE), record(OTHER), records.CONFLICT_MARK),
        (records.CONFLICT_MARK, record(ONE), None),
        (record(ONE), records.CONFLICT_MARK, records.CONFLICT_MARK),
        (ROTTEN, record(ONE), record(ONE)),
        (record(ONE), ROTTEN, None),
        (None, ROTTEN, ROTTEN),
        (ROTTEN, ROTTEN[:-1] + b"?", None),
    ],
)
def test_what_becomes_of_a_record(mine: bytes | None, theirs: bytes, merged: bytes | None) -> None:
    store = holding(NAME | ({} if mine is None else {KEY: mine}))
    assert merge_piece(store, OwnerNames(store), NARROW, [KEY], [theirs]) == ({} if merged is None else {KEY: merged})


def test_without_the_owner_s_name_nobody_can_tell_which_one_is_rotten() -> None:
    store = holding({KEY: ROTTEN})
    assert merge_piece(store, OwnerNames(store), NARROW, [KEY], [record(ONE)]) == {KEY: records.CONFLICT_MARK}


def test_the_owner_s_name_may_come_with_the_same_piece_or_from_the_key_file() -> None:
    store = holding({KEY: ROTTEN})
    (name,) = NAME.values()
    (name_key,) = NAME
    merged = merge_piece(store, OwnerNames(store), NARROW, [name_key, KEY], [name, record(ONE)])
    assert merged == NAME | {KEY: record(ONE)}
    owners = OwnerNames(store)
    owners.introduce([OWNER])
    assert merge_piece(store, owners, NARROW, [KEY], [record(ONE)]) == {KEY: record(ONE)}


def test_a_register_becomes_the_larger_one() -> None:
    key, low, high = layout.register_key(OWNER.id), layout.encode_register(9, "s1"), layout.encode_register(10, "s1")
    for mine, theirs, merged in ((low, high, {key: high}), (high, low, {}), (low, low, {})):
        store = holding({key: mine})
        assert merge_piece(store, OwnerNames(store), NARROW, [key], [theirs]) == merged


def test_what_disks_have_not_in_common_is_not_taken_from_another_one() -> None:
    store = holding({})
    theirs = {layout.SEQUENCE_KEY: b"8" * 8, layout.hint_key(b"d" * 16, 1): b"", layout.revoked_key("abc"): b"?", b"x": b""}
    assert merge_piece(store, OwnerNames(store), NARROW, list(theirs), list(theirs.values())) == {}


def test_what_a_disk_sends_that_nothing_could_read_later_ends_nobody_else_s_process() -> None:
    """The sender's own process ends when it reads such a record; this one keeps what it has, and takes the rest of the piece."""
    register = layout.register_key(OWNER.id)
    mine = NAME | {KEY: ROTTEN, register: layout.encode_register(2, "s1")}
    store = holding(mine)
    rotten = {register: b"?", layout.register_key(b"o"): b"", layout.RECORD + b"short": record(ONE)}
    names = {name: value for name in (next(iter(NAME)), layout.owner_key(b"o" * 16)) for value in (b"\xff", b"UPPER", b"another")}
    for theirs in (rotten, *({name: value} for name, value in names.items())):
        keys, values = [*theirs, KEY], [*theirs.values(), record(ONE)]
        assert merge_piece(store, OwnerNames(store), NARROW, keys, values) == {KEY: record(ONE)}


def test_a_register_that_is_none_is_not_copied() -> None:
    assert isinstance(read_piece(holding({layout.register_key(OWNER.id): b"?"}), b"", 1000), UnreadPart)


def test_a_copy_ends_before_what_its_source_does_not_know() -> None:
    """Proves: what is not known is not absent."""
    gap = Gap(KEY[1:3] + b"\0", KEY[1:3] + b"\1")
    store = holding({KEY: record(ONE)} | Gaps([gap]).pairs())
    piece = read_piece(store, b"", 1000)
    assert isinstance(piece, UnreadPart)
    assert "is not known" in piece.why
    assert read_piece(store, layout.RECORD + bucket_gap(layout.bucket_of(KEY)).end, 1000) == ([], [], True)


def test_a_copy_that_cannot_be_read_again_is_none() -> None:
    store = FaultyStore(MemoryStore())
    store.write({KEY: record(ONE)})
    store.corrupt.add(KEY)
    with pytest.raises(StoreCorrupt):
        merge_piece(store, OwnerNames(store), NARROW, [KEY], [record(ONE)])
    odd = holding({layout.register_key(b"o"): b"?"})
    with pytest.raises(StoreCorrupt):
        merge_piece(odd, OwnerNames(odd), NARROW, [layout.register_key(b"o")], [layout.encode_register(2, "s1")])
