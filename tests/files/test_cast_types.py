"""Types are restored: the output notes each type that --cast turned into text, and --restore-types turns it back."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quorumvault.crypto.tokens import is_token
from quorumvault.errors import ColumnError
from quorumvault.files.job import Job, Report, RunError
from quorumvault.files.sources import expand
from tests.rigs.tables import Desk, sql

pytestmark = pytest.mark.slow

KINDS = {
    "tinyint": "(range + 5)::tinyint",
    "ubigint": "18446744073709551615::ubigint - range::ubigint",
    "boolean": "range % 2 = 0",
    "decimal": "(range + 0.10)::decimal(9, 2)",
    "wide": "(range + 0.1)::decimal(38, 10)",
    "date": "date '1980-02-29' + range::integer",
    "time": "time '10:00:00.000001'",
    "stamp": "timestamp '2020-01-01 10:00:00.5'",
    "seconds": "'2020-01-01 10:00:01'::timestamp_s",
    "nanos": "'2020-01-01 10:00:00.123456789'::timestamp_ns",
    "uuid": "('00000000-0000-0000-0000-00000000000' || range)::uuid",
}
ROWS = f"select range as id, {', '.join(f'if(range = 2, null, {made}) as {name}' for name, made in KINDS.items())} from range(5)"


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def work(desk: Desk, operation: Any, source: str, output: str, columns: tuple[str, ...] = tuple(KINDS), **options: Any) -> Report:
    path, _, table = output.partition("::")
    job = Job(
        operation=operation, sources=tuple(expand([source])), output=Path(path), table=table or None, columns=columns, **options
    )
    return desk.run(job)


def content(name: str) -> tuple[list[Any], list[Any]]:
    path, _, table = name.partition("::")
    with duckdb.connect(path if table else ":memory:") as con:
        types = [row[:2] for row in con.sql(f"describe from {table or repr(name)}").fetchall()]
        return types, con.sql(f"select columns(*)::varchar from {table or repr(name)}").fetchall()


@pytest.mark.parametrize(
    ("source", "between", "output"),
    [
        ("in.parquet", "tok.parquet", "back.parquet"),
        ("in.duckdb::t", "tok.duckdb::t", "back.duckdb::t"),
        ("in.duckdb::t", "tok.parquet", "back.parquet"),
        ("in.duckdb::t", "tok.duckdb::t", "back.parquet"),
    ],
)
def test_each_type_comes_back(source: str, between: str, output: str, desk: Desk) -> None:
    make(source)
    work(desk, "tokenize", source, between, cast=tuple(KINDS))
    moved = between.replace("tok.", "moved.")
    work(desk, "retokenize", between, moved)
    work(desk, "detokenize", moved, output, restore_types=True)
    types, cells = content(source)
    if output.endswith("parquet"):  # Parquet has no timestamps of seconds, and DuckDB turns them into others
        types = [(name, "TIMESTAMP" if kind == "TIMESTAMP_S" else kind) for name, kind in types]
    assert content(output) == (types, cells)
    assert notes(output) == {}
    if source.endswith("parquet"):
        assert pq.read_schema(output).equals(pq.read_schema(source), check_metadata=True)


def make(name: str) -> None:
    path, _, table = name.partition("::")
    if not table:
        sql(ROWS).write_parquet(name)
        return
    with duckdb.connect(path) as con:
        con.execute(f"create table {table} as {ROWS}")


def notes(name: str) -> dict[str, Any]:
    path, _, table = name.partition("::")
    if not table:
        found: dict[str, Any] = json.loads((pq.read_schema(name).metadata or {}).get(b"quorumvault.types", b"{}"))
        return found
    with duckdb.connect(path) as con:
        return dict(con.execute("select column_name, comment from duckdb_columns() where comment is not null").fetchall())


def test_arrow_s_types_come_back_too(desk: Desk) -> None:
    columns = {
        "millis": pa.array([1, None, 3], pa.timestamp("ms")),
        "seconds": pa.array([1, None, 3], pa.time32("s")),
        "days": pa.array([86_400_000, None, 0], pa.date64()),
        "small": pa.array([1, None, 3], pa.uint8()),
    }
    pq.write_table(pa.table(columns), "in.parquet")
    work(desk, "tokenize", "in.parquet", "tok.parquet", tuple(columns), cast=tuple(columns))
    assert {name: note["arrow"] for name, note in notes("tok.parquet").items()} == {
        field.name: str(field.type) for field in pq.read_schema("in.parquet")
    }
    work(desk, "detokenize", "tok.parquet", "back.parquet", tuple(columns), restore_types=True)
    assert pq.read_table("back.parquet").equals(pq.read_table("in.parquet"))
    work(desk, "detokenize", "tok.parquet", "some.parquet", ("small", "days"), restore_types=True)
    assert sorted(notes("some.parquet")) == ["millis", "seconds"]
    work(desk, "detokenize", "tok.parquet", "text.parquet", ("small",))
    assert pq.read_table("text.parquet").column("small").to_pylist() == ["1", None, "3"]


def test_a_table_in_a_file_that_is_there_keeps_its_notes(desk: Desk) -> None:
    make("lake.duckdb::t")
    told = [work(desk, "tokenize", "lake.duckdb::t", "lake.duckdb::tok", cast=tuple(KINDS), force=True).still_there for _ in "ab"]
    assert [str(each) for each in told] == [str(told[0])] * 2
    assert "lake.duckdb: its free pages may have rows of a table that was replaced" in str(told)
    work(desk, "detokenize", "lake.duckdb::tok", "lake.duckdb::back", restore_types=True)
    assert content("lake.duckdb::back") == content("lake.duckdb::t")


@pytest.mark.parametrize("form", ["{}.parquet", "{}.duckdb::t"])
@pytest.mark.parametrize("text", ["plain", "1980-2-29", "1980-02-29 23:59:59"])
def test_what_does_not_fit_its_type_ends_the_run(form: str, text: str, desk: Desk) -> None:
    """Text that DuckDB would read as a value of the type, but write differently, does not fit either."""
    make(form.format("in"))
    work(desk, "tokenize", form.format("in"), form.format("tok"), ("date",), cast=("date",))
    (token, *_) = desk.client.tokenize([text])
    lost = form.format("lost")
    path, _, table = form.format("tok").partition("::")
    with duckdb.connect(path if table else ":memory:") as con:
        if table:
            con.execute(f"update t set date = '{token}' where id = 1; checkpoint")
            Path(path).rename("lost.duckdb")
        else:
            changed = con.sql(f"select * replace (if(id = 1, '{token}', date) as date) from '{path}'").to_arrow_table()
            pq.write_table(changed.replace_schema_metadata(pq.read_schema(path).metadata), lost)
    with pytest.raises(
        RunError, match=r"lost\.\w+(::t)?: date: 1 cells have a text that DuckDB writes for no DATE.*--missing null"
    ) as caught:
        work(desk, "detokenize", lost, form.format("back"), ("date",), restore_types=True)
    assert text not in str(caught.value)
    assert not Path(form.format("back").partition("::")[0]).exists()


@pytest.mark.parametrize("form", ["{}.parquet", "{}.duckdb::t"])
def test_without_a_note_nothing_can_be_restored(form: str, desk: Desk) -> None:
    make(form.format("in"))
    work(desk, "tokenize", form.format("in"), form.format("tok"), ("date",), cast=("date",))
    path, _, table = form.format("tok").partition("::")
    if table:
        with duckdb.connect(path) as con:
            con.execute("comment on column t.date is 'quorumvault.type=DATE); drop table t; --'")
    else:
        evil = {"date": {"duckdb": "DATE) as cell; drop table t; --"}}
        pq.write_table(pq.read_table(path).replace_schema_metadata({"quorumvault.types": json.dumps(evil)}), path)
    with pytest.raises(ColumnError, match=r"does not say of date which types they had before --cast"):
        work(desk, "detokenize", form.format("tok"), form.format("back"), ("date",), restore_types=True)


def test_integers_that_parquet_has_no_type_for(desk: Desk) -> None:
    with duckdb.connect("in.duckdb") as con:
        con.execute("create table t as select 170141183460469231731687303715884105727::hugeint as n")
    work(desk, "tokenize", "in.duckdb::t", "tok.duckdb::t", ("n",), cast=("n",))
    with pytest.raises(ColumnError, match="column n is HUGEINT, which Parquet has not"):
        work(desk, "detokenize", "tok.duckdb::t", "back.parquet", ("n",), restore_types=True)
    work(desk, "tokenize", "in.duckdb::t", "tok.parquet", ("n",), cast=("n",))
    with pytest.raises(ColumnError, match="column n is HUGEINT, which Parquet has not"):
        work(desk, "detokenize", "tok.parquet", "back.parquet", ("n",), restore_types=True)
    work(desk, "detokenize", "tok.duckdb::t", "back.duckdb::t", ("n",), restore_types=True)
    with duckdb.connect("back.duckdb") as con:
        assert con.sql("from t").fetchall() == [(2**127 - 1,)]


DTYPES = {
    "Int64": [1, None],
    "UInt8": [1, 2],
    "boolean": [True, None],
    "int64[pyarrow]": [1, 2],
    "int64": [1, 2],
    "datetime64[us]": ["2020-01-01", "2021-02-03"],
    "period[M]": ["2020-01", "2020-02"],
}


@pytest.mark.parametrize("kind", DTYPES)
def test_pandas_reads_what_was_cast_and_what_came_back(kind: str, desk: Desk) -> None:
    frame = pd.DataFrame({"name": pd.array(DTYPES[kind], dtype=kind), "other": pd.array([1, 2], dtype="Int8")})
    frame.to_parquet("in.parquet")
    work(desk, "tokenize", "in.parquet", "out.parquet", ("name",), cast=("name",))
    found = pd.read_parquet("out.parquet")
    assert [is_token(text) for text in found["name"].dropna()] == [True] * frame["name"].count()
    assert found["other"].dtype == frame["other"].dtype
    if kind == "period[M]":  # a type that Arrow knows only where pandas is imported
        return
    work(desk, "detokenize", "out.parquet", "back.parquet", ("name",), restore_types=True)
    pd.testing.assert_frame_equal(pd.read_parquet("back.parquet"), frame)
