"""Which of a request's headers holds its key, and what the key permits."""

import pytest

from quorumvault.config.api_keys import KeyTable
from quorumvault.errors import NotPermitted, Unauthenticated
from quorumvault.server.http.auth import authenticate, permit
from quorumvault.server.http.scope import Headers
from tests.rigs.vault import CLINIC, KEYS, api_key, key_text

CLINIC_KEY, LAB_KEY = key_text("clinic"), key_text("lab")


def headers(*pairs: tuple[str, str]) -> Headers:
    return Headers([(name.lower().encode(), value.encode("latin-1")) for name, value in pairs])


@pytest.mark.parametrize(
    "pairs",
    [
        [("Authorization", f"Bearer {CLINIC_KEY}")],
        [("Authorization", f"bearer  {CLINIC_KEY} ")],
        [("X-API-Key", CLINIC_KEY)],
        [("Authorization", f"Bearer {CLINIC_KEY}"), ("X-API-Key", CLINIC_KEY)],
        [("X-API-Key", CLINIC_KEY), ("X-API-Key", CLINIC_KEY)],
    ],
)
def test_one_key_however_often_it_is_said(pairs: list[tuple[str, str]]) -> None:
    assert authenticate(headers(*pairs), KEYS, 0.0).owner == CLINIC


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("Authorization", CLINIC_KEY)],
        [("Authorization", f"Basic {CLINIC_KEY}")],
        [("Authorization", f"Bearer {CLINIC_KEY} {CLINIC_KEY}")],
        [("Authorization", f"Bearer {CLINIC_KEY}"), ("X-API-Key", LAB_KEY)],
        [("Authorization", f"Bearer {CLINIC_KEY}"), ("Authorization", f"Bearer {LAB_KEY}")],
        [("X-API-Key", f"{CLINIC_KEY}, {LAB_KEY}")],
        # A header without a key is refused even beside one with a key, because its intent is unknown.
        [("Authorization", "Bearer"), ("X-API-Key", CLINIC_KEY)],
        [("Authorization", f"Basic {CLINIC_KEY}"), ("X-API-Key", CLINIC_KEY)],
        [("X-API-Key", ""), ("Authorization", f"Bearer {CLINIC_KEY}")],
        [("Cookie", CLINIC_KEY)],
    ],
)
def test_no_key_or_two_are_refused_in_the_same_words(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(Unauthenticated) as refused:
        authenticate(headers(*pairs), KEYS, 0.0)
    with pytest.raises(Unauthenticated) as unknown:
        authenticate(headers(("X-API-Key", key_text("nobody"))), KEYS, 0.0)
    assert str(refused.value) == str(unknown.value)


def test_the_table_in_force_decides() -> None:
    with pytest.raises(Unauthenticated):
        authenticate(headers(("X-API-Key", CLINIC_KEY)), KeyTable([CLINIC], []), 0.0)


def test_a_permission_has_to_be_granted() -> None:
    key = api_key("clinic", CLINIC)
    permit(key, "tokenize")
    permit(key, "detokenize")
    with pytest.raises(NotPermitted, match="key clinic may detokenize, tokenize, not rotate"):
        permit(key, "rotate")
