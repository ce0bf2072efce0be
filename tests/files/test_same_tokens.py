"""An id has one token wherever it is read, so that tables of all kinds join; what would not join is refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from click.testing import Result
from deltalake import write_deltalake

import quorumvault as qv
from tests.rigs.tables import sql
from tests.rigs.vault import Rig, key_text

Run = Callable[..., Result]
IDS = [1042, 7, -3, 2**62, 1042]
TEXTS = [str(number) for number in IDS]


@pytest.fixture
def rig() -> Rig:
    return Rig(fields=("$.id",))


@pytest.fixture
def vault(environment: dict[str, str], url: str) -> Iterator[qv.Client]:
    with qv.Client(url, api_key=key_text("admin")) as client:
        yield client


def test_the_same_ids_of_all_formats_join(run: Run, vault: qv.Client) -> None:
    numbers = pa.table({"id": pa.array(IDS, pa.int64())})
    Path("a.csv").write_text("id\n" + "".join(f"{number}\n" for number in IDS))
    Path("a.tsv").write_text("id\tn\n" + "".join(f"{number}\tx\n" for number in IDS))
    Path("a.jsonl").write_text("".join(f'{{"id": {number}}}\n' for number in IDS))
    with duckdb.connect("a.duckdb") as con:
        con.register("numbers", numbers)
        con.execute("create table t as from numbers; copy numbers to 'a.parquet'")
        functions = qv.tokenize(con, "from numbers", "id", cast="id", client=vault).fetchall()
    write_deltalake("a.delta", numbers)
    for name, output in (
        ("a.delta", "delta"),
        ("a.csv", "csv.csv"),
        ("a.tsv", "tsv.tsv"),
        ("a.jsonl", "jsonl.jsonl"),
        ("a.parquet", "parquet.parquet"),
        ("a.duckdb::t", "duckdb.parquet"),
    ):
        done = run("tokenize", name, "--column", "id", "--cast", "id", "-o", output)
        assert done.exit_code == 0, done.stderr
    tokens = vault.tokenize(TEXTS)
    assert [token for (token,) in functions] == tokens
    frames = (
        pd.DataFrame({"id": IDS}),
        pl.DataFrame({"id": IDS}),
        numbers,
        pd.DataFrame({"id": TEXTS}),
        pl.DataFrame({"id": TEXTS}),
    )
    for frame in frames:
        assert list(map(str, qv.tokenize(frame, columns="id", cast=True, client=vault)["id"])) == tokens
    assert [json.loads(line)["id"] for line in Path("jsonl.jsonl").read_text().splitlines()] == tokens
    joined = "'csv.csv' a join 'jsonl.jsonl' b using (id) join 'parquet.parquet' c using (id) join 'duckdb.parquet' d using (id)"
    joined += " join 'delta/*.parquet' e using (id)"
    assert sql(f"select count(distinct id), count(*) from {joined}").fetchall() == [(4, 3 + 2**5)]
    assert [line.split("\t")[0] for line in Path("tsv.tsv").read_text().splitlines()[1:]] == tokens
    assert sql("select id from 'csv.csv'").fetchall() == [(token,) for token in tokens]


@pytest.mark.parametrize("value", ["1042", "true"])
@pytest.mark.parametrize(
    "ways", [(), ("--cast", "id"), ("--cast", "$.id"), ("--column", "$['id']", "--cast", "id"), ("--typed",)]
)
def test_a_number_in_json_lines_is_text_or_typed_as_was_asked(
    value: str, ways: tuple[str, ...], run: Run, vault: qv.Client
) -> None:
    result = run("tokenize", "--format", "jsonl", *ways, stdin=f'{{"id": {value}, "n": 1.50}}'.encode())
    if not ways:
        assert (result.exit_code, result.stdout) == (1, "")
        assert "standard input: line 1: $.id: a number or a boolean" in result.stderr
        assert "--cast $.id takes its text, --typed" in result.stderr
        return
    given = json.loads(value) if "--typed" in ways else value
    assert result.stdout == f'{{"id": "{vault.tokenize([given])[0]}", "n": 1.50}}'


def test_minus_zero_is_0_or_refused(run: Run, vault: qv.Client) -> None:
    """Parquet and DuckDB write 0 for it, and the API treats it as 0."""
    row = b'{"id": -0}'
    typed = run("tokenize", "--format", "jsonl", "--typed", stdin=row)
    assert typed.stdout == f'{{"id": "{vault.tokenize([0])[0]}"}}'
    for ways in ((), ("--cast", "id"), ("--cast", "id", "--typed")):
        result = run("tokenize", "--format", "jsonl", *ways, stdin=row)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "an array or -0 is no value to tokenize: make it a string" in result.stderr


def test_the_row_of_a_number_is_listed_and_others_go_on(run: Run, vault: qv.Client) -> None:
    Path("a.jsonl").write_text('{"id":"x"}\n{"id":5}\n{"id":1.5}\n')
    assert run("tokenize", "a.jsonl", "-o", "b.jsonl", "--rejects", "r.csv").exit_code == 4
    assert Path("b.jsonl").read_text() == f'{{"id":"{vault.tokenize(["x"])[0]}"}}\n{{"id":null}}\n{{"id":null}}\n'
    assert Path("r.csv").read_text().splitlines()[1:] == ["a.jsonl,2,$.id,typed-value", "a.jsonl,3,$.id,not-tokenizable"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_cast_names_columns_that_are_to_be_tokenized(form: str, run: Run) -> None:
    content = {"csv": b"id,n\n1,2\n", "jsonl": b'{"id":"1","n":2}\n'}[form]
    result = run("tokenize", "--format", form, "--column", "id", "--cast", "n", stdin=content)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--cast names n" in result.stderr.replace("$.", "")
