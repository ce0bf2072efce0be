"""Keys and small values of a store: two things never share a key, and what is on disk stays readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.crypto.tokens import DIGEST_BYTES
from quorumvault.model import MAX_EPOCH
from quorumvault.server.storage import layout

OWNERS = st.binary(min_size=16, max_size=16)
EPOCHS = st.integers(1, MAX_EPOCH)
DIGESTS = st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES)
PLACES = st.tuples(OWNERS, EPOCHS, DIGESTS)
SECRET_IDS = st.from_regex(r"\A[a-z0-9-]{1,64}\Z")


def record_key(owner: bytes, epoch: int, digest: bytes) -> bytes:
    (key,) = layout.record_keys(owner, [epoch], [digest])
    return key


def test_the_bytes_of_keys_and_values_are_those_that_disks_have() -> None:
    owner, digest = bytes(range(16)), bytes(range(100, 120))
    assert record_key(owner, 0x01020304, digest).hex() == "72" + "6465" + owner.hex() + "01020304" + digest[2:].hex()
    assert layout.register_key(owner).hex() == "65" + owner.hex()
    assert layout.encode_register(7, "s1").hex() == "01" + "00000007" + b"s1".hex()
    assert layout.encode_sequence(258).hex() == "0000000000000102"
    assert (layout.FORMAT_KEY, layout.DISK_KEY, layout.SEQUENCE_KEY) == (b"mformat", b"mdisk", b"msequence")
    assert layout.secret_key("s1") == b"msecret/s1"


@given(PLACES, PLACES)
def test_a_key_begins_with_its_bucket_and_two_records_never_share_one(
    one: tuple[bytes, int, bytes], other: tuple[bytes, int, bytes]
) -> None:
    assert record_key(*one).startswith(layout.RECORD + one[2][: layout.BUCKET_BYTES])
    assert (record_key(*one) == record_key(*other)) == (one == other)


@given(PLACES, st.data())
def test_a_change_in_any_one_part_makes_another_key(place: tuple[bytes, int, bytes], data: st.DataObject) -> None:
    part = data.draw(st.sampled_from([0, 1, 2]))
    changed = list(place)
    changed[part] = data.draw((OWNERS, EPOCHS, DIGESTS)[part].filter(lambda value: value != place[part]))
    owner, epoch, digest = changed
    assert record_key(owner, epoch, digest) != record_key(*place)  # type: ignore[arg-type]


@given(OWNERS, st.lists(st.tuples(EPOCHS, DIGESTS), max_size=20))
def test_columns_give_the_keys_that_single_records_have(owner: bytes, rows: list[tuple[int, bytes]]) -> None:
    keys = layout.record_keys(owner, [epoch for epoch, _ in rows], [digest for _, digest in rows])
    assert keys == [record_key(owner, epoch, digest) for epoch, digest in rows]


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError):
        layout.record_keys(bytes(16), [1, 2], [bytes(DIGEST_BYTES)])


@given(PLACES, OWNERS, SECRET_IDS)
def test_records_registers_and_facts_never_meet(place: tuple[bytes, int, bytes], owner: bytes, secret: str) -> None:
    facts = {layout.FORMAT_KEY, layout.DISK_KEY, layout.SEQUENCE_KEY, layout.secret_key(secret)}
    assert len({record_key(*place), layout.register_key(owner), *facts}) == 6


@given(st.integers(0, MAX_EPOCH), SECRET_IDS, st.integers(0, 2**64 - 1))
def test_registers_and_sequence_numbers_come_back(epoch: int, secret: str, sequence: int) -> None:
    assert layout.decode_register(layout.encode_register(epoch, secret)) == (epoch, secret)
    assert layout.decode_sequence(layout.encode_sequence(sequence)) == sequence


@given(st.binary(max_size=12))
def test_bytes_that_are_no_register_are_refused(value: bytes) -> None:
    try:
        epoch, secret = layout.decode_register(value)
    except ValueError:
        return
    assert layout.encode_register(epoch, secret) == value
