"""A column that nobody named is reported as left in clear; with --only-listed it ends the run."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.rigs import tables
from tests.rigs.vault import Rig

Run = Callable[..., Result]
RECORDS = """{"name": "a", "place": {"street": "b", "zip": "1"}, "codes": [1, 2]}
{"name": null, "place": "no object", "codes": {"x": 1}, "email": null}
{"place": {"zip": null, "po box": "9"}, "codes": [{}], "name": "a"}
"""


@pytest.fixture
def rig() -> Rig:
    return Rig(fields=("$.name",))


@pytest.mark.parametrize("form", tables.FORMATS)
def test_what_is_left_is_listed_and_refused_if_only_what_is_listed_may_stay(form: str, run: Run, rig: Rig) -> None:
    tables.write(Path(f"in.{form}"), [("a", "b", "c")], ("name", "place", "Mail"))
    source, output = f"in.{form}" + ("::t" if form == "duckdb" else ""), f"out.{'parquet' if form == 'duckdb' else form}"
    refused = run("tokenize", source, "--column", "name", "-o", output, "--keep", "place", "--only-listed")
    assert (refused.exit_code, refused.stdout, rig.vault.asked) == (2, "", [])
    assert "--only-listed does not let stay: 'Mail'; name them with --column or --keep" in refused.stderr
    assert not Path(output).exists()
    done = run("tokenize", source, "--column", "name", "-o", output)
    assert done.stderr.endswith("; 1 look-ups\nleft as they are: place, Mail\n"), done.stderr
    done = run("tokenize", source, "--column", "name", "-o", output, "--force", "--keep", "place,Mail", "--only-listed")
    assert (done.exit_code, "left" in done.stderr) == (0, False)
    back = run("detokenize", output, "--column", "name", "-o", f"back.{output}")
    assert (back.exit_code, "left" in back.stderr) == (0, False)


@pytest.mark.parametrize(
    ("columns", "left"),
    [
        ("name", "place, codes, email"),
        ("name,$.place.zip,$.codes[0]", "$.place.street, $.codes[*], place, $.codes.x, email, $.place['po box']"),
        ("$.place[*],$.codes[*]", "name, place, email"),
    ],
)
def test_of_records_each_member_that_no_path_leads_to_is_left(columns: str, left: str, run: Run) -> None:
    wanted = set(left.split(", "))
    done = run("tokenize", "--format", "jsonl", "--column", columns, "--typed", "--rejects", "r.csv", stdin=RECORDS.encode())
    told = [line for line in done.stderr.splitlines() if line.startswith("left as they are: ")]
    assert [set(line.removeprefix("left as they are: ").split(", ")) for line in told] == [wanted], done.stderr


def test_what_is_kept_may_be_a_part_of_a_record(run: Run) -> None:
    given = ("tokenize", "--format", "jsonl", "--column", "name,$.place.zip", "--only-listed", "--keep")
    kept = run(*given, "$.place.street,codes,email,$['place']['po box'],place", stdin=RECORDS.encode())
    assert kept.exit_code == 0, kept.stderr
    refused = run(*given, "$.place.street,codes", stdin=RECORDS.encode())
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "line 2 has columns that --only-listed does not let stay: 'email', 'place'" in refused.stderr
