"""The typed canonical form: every tokenizable value has its own, and decoding it restores the value with its type."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.crypto import canonical

texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = texts | st.integers() | st.booleans()


@given(scalars)
def test_the_json_value_comes_back(value: str | int | bool) -> None:
    spelled = json.dumps(value, ensure_ascii=False).encode()
    form = canonical.from_json(spelled)
    assert form is not None
    back = msgspec.json.encode(canonical.to_json(form))
    assert json.loads(back) == value
    assert type(json.loads(back)) is type(value)


@given(scalars, scalars)
def test_two_values_share_no_form(one: str | int | bool, other: str | int | bool) -> None:
    same = type(one) is type(other) and one == other
    forms = [canonical.from_json(json.dumps(value).encode()) for value in (one, other)]
    assert (forms[0] == forms[1]) == same


@given(texts)
def test_spelling_of_strings_does_not_count(text: str) -> None:
    assert canonical.from_json(json.dumps(text, ensure_ascii=True).encode()) == canonical.from_str(text)


@pytest.mark.parametrize(
    ("spelled", "form"),
    [(b'"1"', b"s1"), (b"1", b"i1"), (b"-1", b"i-1"), (b"-0", b"i0"), (b"true", b"t"), (b"false", b"f"), (b'"true"', b"strue")],
)
def test_the_type_counts(spelled: bytes, form: bytes) -> None:
    assert canonical.from_json(spelled) == form


@pytest.mark.parametrize("spelled", [b"1.5", b"1.0", b"1e2", b"1E400", b"null", b"{}", b"[]", b"-0.0"])
def test_what_cannot_be_tokenized(spelled: bytes) -> None:
    assert canonical.from_json(spelled) is None


def test_an_integer_of_any_size_stays_text() -> None:
    digits = b"9" * 60_000
    form = canonical.from_json(digits)
    assert form == b"i" + digits
    assert msgspec.json.encode(canonical.to_json(form)) == digits


@pytest.mark.parametrize("form", [b"", b"x", b"i", b"i01", b"i1.5", b"tt", b"s\xff"])
def test_bytes_that_are_no_form(form: bytes) -> None:
    with pytest.raises(ValueError):
        canonical.to_json(form)
