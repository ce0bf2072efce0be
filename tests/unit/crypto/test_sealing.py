"""Sealed values are deterministic, are bound to owner, epoch and digest, and show lengths only in steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.crypto import canonical
from quorumvault.crypto.keys import EpochKeys, Keyring
from quorumvault.model import Owner

KEYRING = Keyring("m1", bytes(range(32)))
KEYS = KEYRING.epoch_keys(Owner("acme"), 1)
forms = st.text(st.characters(exclude_categories=["Cs"]), max_size=200).map(canonical.from_str)


def seal(keys: EpochKeys, form: bytes) -> tuple[bytes, bytes]:
    (digest,) = keys.digests([form])
    (sealed,) = keys.sealer.seal([form], [digest])
    return digest, sealed


@given(forms)
def test_opens_to_what_was_sealed(form: bytes) -> None:
    digest, sealed = seal(KEYS, form)
    assert KEYS.sealer.open(sealed, digest) == form
    assert seal(KEYS, form) == (digest, sealed)
    assert form[1:] not in sealed or len(form) < 4


@given(forms, st.data())
def test_any_flipped_bit_is_noticed(form: bytes, data: st.DataObject) -> None:
    digest, sealed = seal(KEYS, form)
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    flipped = bytearray(sealed)
    flipped[bit // 8] ^= 1 << bit % 8
    assert KEYS.sealer.open(bytes(flipped), digest) is None
    turned = bytes([digest[0] ^ 1]) + digest[1:]
    assert KEYS.sealer.open(sealed, turned) is None


@pytest.mark.parametrize(("owner", "epoch"), [("other", 1), ("acme", 2), ("acm", 1)])
def test_bound_to_owner_and_epoch(owner: str, epoch: int) -> None:
    form = canonical.from_str("999-17-5017")
    theirs = KEYRING.epoch_keys(Owner(owner), epoch)
    digest, sealed = seal(KEYS, form)
    assert theirs.sealer.open(sealed, digest) is None
    assert seal(theirs, form)[0] != digest
    assert seal(theirs, form)[1] != sealed


@given(st.integers(0, 100))
def test_length_shows_in_steps_of_sixteen(length: int) -> None:
    _, sealed = seal(KEYS, canonical.from_str("x" * length))
    assert len(sealed) == 16 + 16 * ((1 + length) // 16 + 1)


@pytest.mark.parametrize("sealed", [b"", b"short", bytes(16), bytes(31)])
def test_what_was_never_sealed(sealed: bytes) -> None:
    assert KEYS.sealer.open(sealed, bytes(20)) is None


def test_keys_say_nothing_in_a_repr() -> None:
    keyring = Keyring("m1", b"\x07" * 32)
    assert "0707" not in repr(keyring) + repr(keyring.epoch_keys(Owner("acme"), 1))
    assert "\\x07" not in repr(keyring) + repr(keyring.epoch_keys(Owner("acme"), 1))


def test_digests_of_eight_bits_collide_for_tests() -> None:
    keys = Keyring("m1", bytes(32), digest_bits=8).epoch_keys(Owner("acme"), 1)
    digests = keys.digests([canonical.from_str(str(n)) for n in range(300)])
    assert len(set(digests)) <= 256
    assert {len(digest) for digest in digests} == {20}
