"""The token's form and its check part."""

import string

from hypothesis import given
from hypothesis import strategies as st

from quorumvault.crypto.tokens import DIGEST_BYTES, format_token, is_token, parse_token
from quorumvault.model import MAX_EPOCH

digests = st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES)
epochs = st.integers(1, MAX_EPOCH) | st.integers(1, 200)
ALPHABET = string.printable


@given(epochs, digests)
def test_round_trip_within_the_contract(epoch: int, digest: bytes) -> None:
    token = format_token(epoch, digest)
    assert parse_token(token) == (epoch, digest)
    assert token.startswith(f"qv_{epoch}_")
    assert len(token) <= 64
    assert token.isascii()
    assert token == token.lower()
    assert token.replace("_", "").isalnum()


@given(epochs, digests, st.data())
def test_any_mistyped_character_is_caught(epoch: int, digest: bytes, data: st.DataObject) -> None:
    token = format_token(epoch, digest)
    at = data.draw(st.integers(0, len(token) - 1))
    for typed in ALPHABET:
        if typed != token[at]:
            assert not is_token(token[:at] + typed + token[at + 1 :])


@given(epochs, digests)
def test_any_two_swapped_neighbours_are_caught(epoch: int, digest: bytes) -> None:
    token = format_token(epoch, digest)
    for at in range(len(token) - 1):
        swapped = token[:at] + token[at + 1] + token[at] + token[at + 2 :]
        assert swapped == token or not is_token(swapped)


def test_the_swap_between_digest_and_check_is_caught_for_every_last_byte() -> None:
    """CRC-32 detects one burst; this swap is one in the digest and one in the check. CRC is linear: other bytes do not matter."""
    border = len("qv_1_") + 2 * DIGEST_BYTES
    for last in range(256):
        for previous in range(0, 256, 15):
            token = format_token(1, bytes([0] * (DIGEST_BYTES - 2) + [previous, last]))
            swapped = token[: border - 1] + token[border] + token[border - 1] + token[border + 1 :]
            assert swapped == token or not is_token(swapped)


@given(st.text(max_size=80))
def test_other_text_is_no_token(text: str) -> None:
    assert parse_token(text) is None


def test_near_misses() -> None:
    token = format_token(1, bytes(DIGEST_BYTES))
    assert is_token(token)
    for wrong in (
        token.upper(),
        token.replace("qv_1_", "qv_01_"),
        token.replace("qv_1_", "qv_0_"),
        token.replace("qv_1_", "qv_4294967296_"),
        token.replace("qv_1_", "qv__"),
        token + "0",
        token[:-1],
        f" {token}",
        f"{token}\n",
        token[:-2] + " " + token[-1],
        token.replace("1", "\N{ARABIC-INDIC DIGIT ONE}", 1),
    ):
        assert not is_token(wrong)
