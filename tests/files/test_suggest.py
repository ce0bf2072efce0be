"""Columns that look like identifiers are suggested with a reason, without a value. The suggested command runs as printed."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from quorumvault.crypto.tokens import format_token
from tests.rigs import tables
from tests.rigs.vault import Rig

Run = Callable[..., Result]
NAMES = ("patient_id", "email", "contact", "visit", "cost", "seen", "status", "code", "BIRTHDATE", "n")
ROWS = [
    (
        *(str(10_000 + at), f"a{at}@example.org", f"+1 617 555-01{at:02}", f"00000000-0000-4000-8000-0000000000{at:02}"),
        *(f"{at}.5", f"2024-01-{at % 28 + 1:02}", "open", f"E{at % 3}", "1970-01-01", str(at)),
    )
    for at in range(40)
]
FOUND = {
    "patient_id": ["its name says patient", "100% of its values differ"],
    "email": ["its name says email", "its values look like e-mail addresses", "100% of its values differ"],
    "contact": ["its values look like phone numbers", "100% of its values differ"],
    "visit": ["its values look like UUIDs", "100% of its values differ"],
    "BIRTHDATE": ["its name says birthdate"],
}


@pytest.fixture
def rig() -> Rig:
    return Rig(fields=("$.name",))


@pytest.mark.parametrize("form", tables.FORMATS)
def test_the_command_that_is_printed_tokenizes_what_was_found(form: str, run: Run, rig: Rig) -> None:
    tables.write(Path(f"in.{form}"), ROWS, NAMES)
    source = f"in.{form}" + ("::t" if form == "duckdb" else "")
    found = run("suggest", source, "--json")
    assert found.exit_code == 0, found.stderr
    told = json.loads(found.stdout)
    assert told["columns"] == FOUND
    assert told["keep"] == [name for name in NAMES if name not in FOUND]
    shown = run("suggest", source)
    assert not any(value in shown.stdout + shown.stderr for value in ("10001", "a1@", "555"))
    assert rig.vault.asked == []
    done = run(*shlex.split(told["command"])[1:])
    assert done.exit_code == 0, done.stderr
    assert done.stderr.startswith(
        "40 rows; values that became tokens: patient_id 40, email 40, contact 40, visit 40, BIRTHDATE 40"
    )
    assert "left as they are" not in done.stderr


def test_numbers_are_cast_and_names_are_quoted(run: Run) -> None:
    lines = [f'{{"member id": {at}, "p": {{"a, b": "x{at}", "of": [{{"url": "u"}}]}}, "n": {at}.5}}\n' for at in range(30)]
    Path("in.jsonl").write_text("".join(lines))
    told = json.loads(run("suggest", "in.jsonl", "--json").stdout)
    assert list(told["columns"]) == ["member id", "$.p['a, b']", "$.p.of[*].url"]
    assert "--cast 'member id'" in told["command"]
    assert run(*shlex.split(told["command"])[1:]).exit_code == 0
    assert Path("in.tokens.jsonl").read_text().count("qv_1_") == 90


def test_a_file_without_identifiers(run: Run) -> None:
    Path("in.csv").write_text("a;b\n1;2\n")
    result = run("suggest", "in.csv", "--delimiter", ";")
    assert (result.exit_code, "not suggested: a, b" in result.stderr) == (0, True)
    assert "No column looks like an identifier" in result.stderr


def test_a_file_without_a_header_is_not_shown(run: Run) -> None:
    Path("n.csv").write_text("1,123-45-6789\n2,987-65-4321\n")
    Path("t.csv").write_text(f"1,{format_token(1, bytes(20))}\n" * 2)
    for command in (
        ("suggest", "n.csv"),
        ("suggest", "n.csv", "--json"),
        ("tokenize", "n.csv", "--column", "ssn"),
        ("census", "t.csv"),
    ):
        result = run(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "its first line looks like data: has it a header?" in result.stderr
        assert not any(value in result.stderr for value in ("6789", "qv_1"))
