"""quorumvault census: tokens counted by epoch, in files of every kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest

from quorumvault.crypto.tokens import format_token
from quorumvault.errors import ColumnError, InputError
from quorumvault.files.census import count
from quorumvault.files.sources import Source, expand


def token(epoch: int, number: int) -> str:
    return format_token(epoch, number.to_bytes(20))


ONE, ALSO_ONE, TWO = token(1, 1), token(1, 2), token(2, 1)
#: Like a token and none: mistyped, in upper case, with an epoch that cannot be.
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


def write(folder: Path, form: str, rows: Sequence[Sequence[Any]] = ROWS, names: Sequence[str] = NAMES) -> Source:
    path = folder / f"table.{form}"
    columns = [pa.array([row[place] for row in rows], pa.string()) for place in range(len(names))]
    match form:
        case "csv":
            cells = [["" if cell is None else f'"{cell}"' for cell in row] for row in rows]
            path.write_text("".join(",".join(line) + "\n" for line in (names, *cells)))
        case "jsonl":
            records = [dict(zip(names, row, strict=True)) for row in rows]
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
        case "parquet":
            pyarrow.parquet.write_table(pa.table(columns, names=list(names)), path, row_group_size=2)
        case _:
            with duckdb.connect(str(path)) as con:
                con.register("rows", pa.table(columns, names=list(names)))
                con.execute("create table visits as from rows")
    (source,) = expand([f"{path}::visits" if form == "duckdb" else str(path)])
    return source


def counted(source: Source, columns: Sequence[str] = ()) -> dict[str, tuple[dict[int, int], int]]:
    """By column: tokens by epoch, and other texts. Paths of top-level members without their ``$.``."""
    return {name.removeprefix("$."): (dict(each.tokens), each.no_token) for name, each in count(source, columns).items()}


@pytest.mark.parametrize("form", FORMATS)
def test_without_columns_those_that_have_tokens_are_found(tmp_path: Path, form: str) -> None:
    assert counted(write(tmp_path, form)) == {"ssn": ({1: 3, 2: 1}, 0), "mixed": ({1: 2, 2: 1}, 1)}


@pytest.mark.parametrize("form", FORMATS)
def test_of_columns_that_are_named_other_text_is_counted_too(tmp_path: Path, form: str) -> None:
    source = write(tmp_path, form)
    assert counted(source, ["note", "mixed"]) == {"note": ({}, 4), "mixed": ({1: 2, 2: 1}, 1)}
    assert counted(source, ["unlike"]) == {"unlike": ({}, 5)}
    assert counted(source, ["absent"]) == {}
    assert counted(source, ["absent", "ssn"]) == {"ssn": ({1: 3, 2: 1}, 0)}


@pytest.mark.parametrize("form", FORMATS)
def test_no_rows_have_no_tokens(tmp_path: Path, form: str) -> None:
    source = write(tmp_path, form, rows=[])
    assert counted(source) == {}
    assert counted(source, ["ssn"]) == {"ssn": ({}, 0)}


def test_more_rows_than_are_judged_together(tmp_path: Path) -> None:
    rows = [(token(1 + number % 3, number), "x") for number in range(10_000)]
    for form in FORMATS:
        source = write(tmp_path, form, rows, ["a", "b"])
        assert counted(source, ["a", "b"]) == {"a": ({1: 3334, 2: 3333, 3: 3333}, 0), "b": ({}, 10_000)}


def test_tokens_are_found_wherever_they_are_in_json(tmp_path: Path) -> None:
    records = [
        {"id": 10**30, "name": {"family": ONE, "given": "x"}, "contacts": [{"phone": ONE}, {"phone": TWO}, {}]},
        {"contacts": [{"phone": "555"}], "odd name": [[TWO]], "n": 1.5},
    ]
    path = tmp_path / "records.jsonl"
    path.write_text("\ufeff" + "".join(f"{json.dumps(record)}\n\n" for record in records))
    (source,) = expand([str(path)])
    found = count(source)
    assert {place: (dict(each.tokens), each.no_token) for place, each in found.items()} == {
        "$.name.family": ({1: 1}, 0),
        "$.contacts[*].phone": ({1: 1, 2: 1}, 1),
        "$['odd name'][*][*]": ({2: 1}, 0),
    }
    # What it finds can be named.
    assert count(source, list(found)) == found


def test_an_escaped_token_is_a_token(tmp_path: Path) -> None:
    path = tmp_path / "escaped.jsonl"
    path.write_text(f'{{"a":"\\u0071{ONE[1:]}"}}\n')
    assert counted(expand([str(path)])[0]) == {"a": ({1: 1}, 0)}


def test_records_whose_names_are_data_are_told_apart_only_so_far(tmp_path: Path) -> None:
    path = tmp_path / "keyed.jsonl"
    path.write_text("".join(json.dumps({f"k{number}": ONE}) + "\n" for number in range(1001)))
    with pytest.raises(InputError, match=r"line 1001: tokens are in more than 1,000 different places"):
        count(expand([str(path)])[0])


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
    assert counted(expand([str(path)])[0]) == {
        "coded": ({1: 2, 2: 1}, 0),
        "long": ({1: 1, 2: 1}, 1),
        "view": ({1: 1, 2: 1}, 1),
    }


def test_columns_of_parquet_are_named_whatever_their_case(tmp_path: Path) -> None:
    assert counted(write(tmp_path, "parquet"), ["SSN"]) == {"ssn": ({1: 3, 2: 1}, 0)}


def test_what_cannot_be_read_says_where(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(f'{{"a":"{ONE}"}}\n{{"a":\n')
    (tmp_path / "bad.csv").write_text(f'a,b\n{ONE},x\n"{TWO},y\n')
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    for name, words in (("bad.jsonl", "line 2: the record is not JSON"), ("bad.csv", "line 3")):
        with pytest.raises(InputError, match=words):
            count(expand([str(tmp_path / name)])[0])
    with pytest.raises(ColumnError, match="more than one column 'a'"):
        count(expand([str(tmp_path / "twice.csv")])[0])
