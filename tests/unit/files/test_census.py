"""quorumvault census: tokens counted by epoch, in files of every kind."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from quorumvault.crypto.tokens import format_token
from quorumvault.errors import ColumnError, InputError
from quorumvault.files.census import count
from quorumvault.files.sources import Source, expand
from tests.rigs.tables import write


def token(epoch: int, number: int) -> str:
    return format_token(epoch, number.to_bytes(20))


ONE, ALSO_ONE, TWO = token(1, 1), token(1, 2), token(2, 1)
#: These look like tokens but are none: for example mistyped, in upper case, or with an impossible epoch.
UNLIKE = (ONE[:-1] + ("0" if ONE[-1] != "0" else "1"), ONE.upper(), token(1, 3).replace("qv_1_", "qv_01_"), f" {ONE}", "qv_")
ROWS: list[tuple[str | None, ...]] = [
    (ONE, "plain", ONE, UNLIKE[0]),
    (ONE, None, TWO, UNLIKE[1]),
    (TWO, "", "text", UNLIKE[2]),
    (None, "plain", None, UNLIKE[3]),
    (ALSO_ONE, "plain", ALSO_ONE, UNLIKE[4]),
]
NAMES = ("ssn", "note", "mixed", "unlike")
FORMATS = ("csv", "jsonl", "parquet", "duckdb")


def made(folder: Path, form: str, rows: Sequence[Sequence[str | None]] = ROWS, names: Sequence[str] = NAMES) -> Source:
    path = folder / f"table.{form}"
    write(path, rows, names)
    (source,) = expand([str(path)], table="t" if form == "duckdb" else None)
    return source


def counted(source: Source, columns: Sequence[str] = ()) -> dict[str, tuple[dict[int, int], int]]:
    """Count by column the tokens of each epoch, and other texts. Paths of top-level members lose their ``$.``."""
    return {name.removeprefix("$."): (dict(each.tokens), each.no_token) for name, each in count(source, columns).items()}


@pytest.mark.parametrize("form", FORMATS)
def test_tokens_are_counted_by_column_and_epoch(tmp_path: Path, form: str) -> None:
    source = made(tmp_path, form)
    ssn, mixed = ({1: 3, 2: 1}, 0), ({1: 2, 2: 1}, 1)
    cases: list[tuple[list[str], object]] = [
        ([], {"ssn": ssn, "mixed": mixed}),  # without names: the columns that have tokens
        (["note", "mixed"], {"note": ({}, 4), "mixed": mixed}),
        (["unlike"], {"unlike": ({}, 5)}),
        (["absent"], {}),
        (["absent", "ssn"], {"ssn": ssn}),
    ]
    assert [counted(source, columns) for columns, _ in cases] == [expected for _, expected in cases]
    empty = made(tmp_path, form, rows=[])
    assert (counted(empty), counted(empty, ["ssn"])) == ({}, {"ssn": ({}, 0)})


@pytest.mark.slow
def test_more_rows_than_are_judged_together(tmp_path: Path) -> None:
    rows = [(token(1 + number % 3, number), "x") for number in range(10_000)]
    for form in FORMATS:
        source = made(tmp_path, form, rows, ["a", "b"])
        assert counted(source, ["a", "b"]) == {"a": ({1: 3334, 2: 3333, 3: 3333}, 0), "b": ({}, 10_000)}


def test_tokens_are_found_wherever_they_are_in_json(tmp_path: Path) -> None:
    records = [
        {"id": 10**30, "name": {"family": ONE, "given": "x"}, "contacts": [{"phone": ONE}, {"phone": TWO}, {}]},
        {"contacts": [{"phone": "555"}], "odd name": [[TWO]], "n": 1.5},
    ]
    path = tmp_path / "records.jsonl"
    escaped = f'{{"escaped":"\\u0071{ONE[1:]}"}}\n'
    path.write_text("\ufeff" + "".join(f"{json.dumps(record)}\n\n" for record in records) + escaped)
    (source,) = expand([str(path)])
    found = count(source)
    assert {place: (dict(each.tokens), each.no_token) for place, each in found.items()} == {
        "$.name.family": ({1: 1}, 0),
        "$.contacts[*].phone": ({1: 1, 2: 1}, 1),
        "$['odd name'][*][*]": ({2: 1}, 0),
        "$.escaped": ({1: 1}, 0),
    }
    # The columns that it finds can be named.
    assert count(source, list(found)) == found


def test_text_in_parquet_may_be_a_dictionary_or_long(tmp_path: Path) -> None:
    path = tmp_path / "types.parquet"
    columns = {
        "coded": pa.array([ONE, ONE, None, TWO]).dictionary_encode(),
        "long": pa.array([ONE, None, "x", TWO], pa.large_string()),
        "view": pa.array([ONE, None, "x", TWO], pa.string_view()),
        "number": pa.array([1, 2, 3, 4]),
        "list": pa.array([[ONE], [], None, [TWO]]),
    }
    pyarrow.parquet.write_table(pa.table(columns), path)
    assert counted(expand([str(path)])[0]) == {"coded": ({1: 2, 2: 1}, 0), "long": ({1: 1, 2: 1}, 1), "view": ({1: 1, 2: 1}, 1)}


def test_columns_of_parquet_are_named_whatever_their_case(tmp_path: Path) -> None:
    assert counted(made(tmp_path, "parquet"), ["SSN"]) == {"ssn": ({1: 3, 2: 1}, 0)}


KEYED = "".join(json.dumps({f"k{number}": ONE}) + "\n" for number in range(1001))


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("bad.jsonl", f'{{"a":"{ONE}"}}\n{{"a":\n', InputError, "line 2: the record is not JSON"),
        ("bad.csv", f'a,b\n{ONE},x\n"{TWO},y\n', InputError, "line 3"),
        ("twice.csv", "a,a\n1,2\n", ColumnError, "more than one column 'a'"),
        # Member names that are data count as different places only up to a limit.
        ("keyed.jsonl", KEYED, InputError, r"line 1001: tokens are in more than 1,000 different places"),
    ],
)
def test_what_cannot_be_counted_says_where(tmp_path: Path, name: str, content: str, error: type[Exception], words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(error, match=words):
        count(expand([str(tmp_path / name)])[0])
