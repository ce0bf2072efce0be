"""The expressions that name fields: what each one means, and which are refused, with what advice."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.formats.json import MAX_DEPTH
from quorumvault.formats.jsonpath import Every, FieldPath, PathError, PathStep, column_name, concrete_path

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["'", '"', "\\", "a b", "\n", "\x7f", "0"]
)
steps = st.lists(names | st.integers(0, 10**15 - 1) | st.just(Every.ONE), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$.ssn", ("ssn",)),
        ("$.patient.name.family", ("patient", "name", "family")),
        ("$.contacts[*].phone", ("contacts", Every.ONE, "phone")),
        ("$.codes[0][12]", ("codes", 0, 12)),
        ("$['a b'][\"c d\"]", ("a b", "c d")),
        ("$['it\\'s'][\"it's\"]['say \"no\"']", ("it's", "it's", 'say "no"')),
        ("$['\\u00e9\\\\\\/\\n']", ("é\\/\n",)),
        ("$['\\ud83d\\ude00'].größe._x1", ("😀", "größe", "_x1")),
        ("$[''][*]", ("", Every.ONE)),
        ("$ .a [ 'b' ]\n[\t3 ]", ("a", "b", 3)),
        ("$['*']['0']", ("*", "0")),
    ],
)
def test_what_an_expression_means(text: str, expected: tuple[PathStep, ...]) -> None:
    path = FieldPath.parse(text)
    assert path.steps == expected
    assert path.text == text


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "starts with $"),
        ("ssn", "starts with $"),
        (" $.ssn", "starts with $"),
        ("$", "no field of it"),
        ("$.a ", "['first-name']"),
        ("$..ssn", "descendants"),
        ("$.a..b", "(at character 4)"),
        ("$.*", "write [*]"),
        ("$.a[-1]", "counts from the start"),
        ("$.a[?@.b]", "filters"),
        ("$.a[0:2]", "slices"),
        ("$.a[0,1]", "one path for each"),
        ("$['a','b']", "one path for each"),
        ("$[ssn]", "['name']"),
        ("$.first-name", "['first-name']"),
        ("$.1st", "['first-name']"),
        ("$.", "['first-name']"),
        ("$ssn", "['first-name']"),
        ("$.a[]", "expected"),
        ("$.a[01]", "expected"),
        ("$.a[9999999999999999]", "expected"),
        ("$['a", "expected"),
        ("$['a\"]", "expected"),
        ("$['\\x41']", "expected"),
        ("$['\\\"']", "expected"),
        ('$["\\\'"]', "expected"),
        ("$.a['\\u12g4']", "quoted like a string of JSON (at character 4)"),
        ("$['\\ud800']", "quoted like a string of JSON"),
        ("$['\ud800']", "quoted like a string of JSON"),
        ("$['\n']", "quoted like a string of JSON"),
        ("$.\ud800", "expected|['first-name']"),
        ("$" + ".a" * MAX_DEPTH, f"fewer than {MAX_DEPTH} steps"),
    ],
)
def test_a_refusal_says_what_to_do(text: str, advice: str) -> None:
    with pytest.raises(PathError) as caught:
        FieldPath.parse(text)
    assert any(words in str(caught.value) for words in advice.split("|"))


@given(steps)
def test_a_concrete_path_is_read_as_the_steps_that_it_was_made_of(made_of: list[PathStep]) -> None:
    text = concrete_path(made_of)
    path = FieldPath.parse(text)
    assert path.steps == tuple(made_of)
    assert str(path) == text
    assert text.isprintable() or not "".join(map(str, made_of)).isprintable()


def test_a_concrete_path_quotes_only_what_needs_it() -> None:
    assert concrete_path(["contacts", 1, "phone"]) == "$.contacts[1].phone"
    assert concrete_path(["a b", "it's", "1", "é", "a\\b\n\x01"]) == "$['a b']['it\\'s']['1'].é['a\\\\b\\n\\u0001']"


@given(names)
def test_both_quotes_hold_any_name(name: str) -> None:
    double = json.dumps(name)
    single = double[1:-1].replace('\\"', '"').replace("'", "\\'")
    assert FieldPath.parse(f"$[{double}]").steps == FieldPath.parse(f"$['{single}']").steps == (name,)


@given(st.text("$.[]*'\"\\ab01 -,:?u", max_size=12))
def test_any_other_text_is_refused_in_words(text: str) -> None:
    try:
        path = FieldPath.parse("$" + text)
    except PathError:
        return
    assert FieldPath.parse(str(path)).steps == path.steps


@pytest.mark.parametrize(
    ("steps", "name"),
    [(("ssn",), "ssn"), (("a b",), "a b"), (("$ref",), "$['$ref']"), (("name", "given"), "$.name.given"), ((0,), "$[0]")],
)
def test_a_column_has_a_name_that_leads_to_it_again(steps: tuple[PathStep, ...], name: str) -> None:
    assert column_name(steps) == name
    assert not name.startswith("$") or FieldPath.parse(name).steps == steps
