"""YAML in configuration files: what each scalar means, and that every refusal names the file and the line."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.errors import ConfigError
from quorumvault.formats import yaml as strict_yaml
from quorumvault.formats.yaml import MAX_BYTES, load_yaml


@pytest.fixture(params=["C", "Python"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of PyYAML's parsers: which one an installation has depends on how it was built."""
    monkeypatch.setattr(strict_yaml, "_PARSER", {"C": yaml.CSafeLoader, "Python": yaml.SafeLoader}[request.param])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.yaml"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", None),
        ("# nothing\n", None),
        ("{}", {}),
        ("- a\n- [b, {c: d}]\n-\n", ["a", ["b", {"c": "d"}], None]),
        ("a: true\nb: false\nc: null\nd: ~\ne:", {"a": True, "b": False, "c": None, "d": None, "e": None}),
        ("[0, -1, 42, 1.5, -0.25]", [0, -1, 42, 1.5, -0.25]),
        ("[no, Yes, on, True, NULL, nan, .inf]", ["no", "Yes", "on", "True", "NULL", "nan", ".inf"]),
        (
            "[0755, 0x1F, 1_000, 12:30, 2020-01-01, +1, .5, 1.]",
            ["0755", "0x1F", "1_000", "12:30", "2020-01-01", "+1", ".5", "1."],
        ),
        ("[9999999999999999999, '1', \"true\", '']", ["9999999999999999999", "1", "true", ""]),
        ("a: |\n  two\n  lines\nb: >-\n  one\n  line\n", {"a": "two\nlines\n", "b": "one line"}),
        ("- $.contacts[*].phone\n- \"$['a b']\"\n", ["$.contacts[*].phone", "$['a b']"]),
        ('"true": 1', {"true": 1}),
    ],
)
def test_what_a_file_means(file: Path, text: str, meaning: object) -> None:
    file.write_text(text)
    assert repr(load_yaml(file)) == repr(meaning)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3", "the key 'a' is there twice"),
        ('a: {b: 1, "b": 2}', "line 1", "the key 'b' is there twice"),
        ("a: 1\n2: b\n", "line 2", "a key has to be text"),
        ("true: 1", "line 1", "a key has to be text"),
        ("? [a]\n: 1\n", "line 1", "a key has to be text"),
        ("a: &x 1\n", "line 1", "anchors"),
        ("a: 1\nb: *x\n", "line 2", "anchors"),
        ("a: 1\nb: !!python/name:os.system\n", "line 2", "tags"),
        ("!!map {a: 1}", "line 1", "tags"),
        ("a: 1\n--- \nb: 2\n", "line 2", "one document"),
        ("a: 1\n b: 2\n", "line 2", "mapping values"),
        ("a: [1,\nb", "line", "flow sequence"),
        ("a: {b: 1,\nc", "line", "flow mapping"),
        ("\ta: 1", "line 1", "cannot start"),
        ("a: '\n", "line", "quoted scalar"),
        ('a: 1\nb: "\\ud800"\n', "line 2", ""),
        ("[" * 1500, "", "fewer levels"),
        ("- " * 1500, "", "fewer levels"),
        ("a: \x01", "", "control characters"),
    ],
)
def test_a_refusal_names_file_and_line(file: Path, text: str, place: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: {place}")
    assert words in message
    assert "\n" not in message


def test_what_cannot_be_read_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_yaml(file)
    with pytest.raises(ConfigError, match="Is a directory"):
        load_yaml(file.parent)
    file.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_yaml(file)


def test_a_file_beyond_the_limit_is_not_parsed(file: Path) -> None:
    file.write_bytes(b"#" * MAX_BYTES)
    assert load_yaml(file) is None
    file.write_bytes(b"#" * MAX_BYTES + b"\n")
    with pytest.raises(ConfigError, match=f"at most {MAX_BYTES} bytes"):
        load_yaml(file)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8) | st.text("0123456789-+.eExab:_~", max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(value=values)
def test_what_pyyaml_writes_comes_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    file = tmp_path_factory.getbasetemp() / "written.yaml"

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    file.write_text(yaml.dump(value, Dumper=Plain, allow_unicode=True), encoding="utf-8")
    assert load_yaml(file) == value
