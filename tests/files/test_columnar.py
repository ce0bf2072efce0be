"""Runs over Parquet files and DuckDB tables: what stays unchanged, what is sent to the vault, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import quorumvault as qv
from quorumvault.crypto.tokens import format_token, is_token
from quorumvault.errors import QuorumVaultError
from quorumvault.files.columnar import answers, parquet, part_rows
from quorumvault.files.columnar.engine import read_texts, text_columns
from quorumvault.files.job import Job, Report, RunError
from quorumvault.files.lakes import LakeError
from quorumvault.files.sources import expand
from quorumvault.formats.dialect import Dialect
from tests.rigs import tables
from tests.rigs.tables import Desk
from tests.rigs.vault import CLINIC, FaultyVault

pytestmark = pytest.mark.slow

NEVER_ISSUED = format_token(1, bytes(20))
both = pytest.mark.parametrize("form", ["{}.parquet", "{}.duckdb::t"])
#: One column of each type that both formats preserve.
WIDE = """
    select range::integer as id, 'name ' || range % 3 as name, if(range % 4 = 1, null, 'note ' || range) as note,
        2139 + range % 2 as zip, date '1980-01-01' + range::integer as born, 1.10::decimal(9, 2) as cost,
        5::utinyint as small, timestamptz '2020-01-01 10:00+02' as at, uuid '00000000-0000-0000-0000-00000000000a' as uuid,
        [range, null] as list, {'a': range, 'b': 'x'} as struct, map {'k': range} as map, 'blob'::blob as blob, true as flag
    from range(10)"""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def work(desk: Desk, source: str, output: str | None, *arguments: Any, **options: Any) -> Report:
    return desk.run(job(source, output, *arguments, **options))


def refused(desk: Desk, error: type[Exception], words: str, source: str, output: str | None, *more: Any, **options: Any) -> None:
    desk.refused(error, words, job(source, output, *more, **options))


def job(source: str, output: str | None, operation: Any = "tokenize", **options: Any) -> Job:
    path, _, table = (output or "").partition("::")
    given = {"columns": ("name",), "table": table or None, **options}
    return Job(operation=operation, sources=tuple(expand([source])), output=Path(path) if path else None, **given)


def make(name: str, query: str) -> None:
    if name.endswith(".parquet"):
        tables.sql(query).write_parquet(name, row_group_size=2)
    else:
        path, _, table = name.partition("::")
        with duckdb.connect(path) as con:
            con.execute(f"create or replace table {table} as {query}")


def rows(name: str, columns: str = "*") -> list[tuple[Any, ...]]:
    path, _, table = name.partition("::")
    with duckdb.connect(path if table else ":memory:") as con:
        return con.sql(f"select {columns} from {table or repr(name)}").fetchall()


def types(name: str) -> list[tuple[Any, ...]]:
    path, _, table = name.partition("::")
    with duckdb.connect(path if table else ":memory:") as con:
        return [row[:2] for row in con.sql(f"describe from {table or repr(name)}").fetchall()]


@both
def test_everything_else_stays_as_it_is(form: str, desk: Desk) -> None:
    source, tokens, back = (form.format(name) for name in ("in", "tok", "back"))
    make(source, WIDE)
    done = work(desk, source, tokens, columns=("note", "name"))
    assert (done.values, done.rows, done.look_ups, done.epochs) == ({"note": 7, "name": 10}, 10, 10, [1])
    assert types(tokens) == types(source)
    others = '* exclude (name, note) replace (cast("at" as varchar) as "at")'  # without the cast Python would need pytz
    assert rows(tokens, others) == rows(source, others)
    assert all(note is None or is_token(note) for (note,) in rows(tokens, "note"))
    assert work(desk, tokens, back, "detokenize", columns=("note", "name")).look_ups == 10
    every = '* replace (cast("at" as varchar) as "at")'
    assert (rows(back, every), types(back)) == (rows(source, every), types(source))


def test_a_table_can_become_parquet_and_stay_in_its_file(desk: Desk) -> None:
    make("lake.duckdb::t", "select 'name ' || range as name, range as id from range(9)")
    with duckdb.connect("lake.duckdb") as con:
        con.execute("delete from t where id in (2, 3, 4, 5, 6)")
    work(desk, "lake.duckdb::t", "lake.duckdb::work.tokens")
    work(desk, "lake.duckdb::work.tokens", "back.parquet", "detokenize", status=True)
    assert rows("back.parquet", "name, name_status, id") == [(f"name {number}", "ok", number) for number in (0, 1, 7, 8)]
    assert rows("lake.duckdb::t", "name, id") == [(f"name {number}", number) for number in (0, 1, 7, 8)]
    make("empty.duckdb::t", "select 'a' as name where false")
    work(desk, "empty.duckdb::t", "none.parquet")
    assert rows("none.parquet") == []


def test_each_text_is_asked_about_once_over_all_files(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_ASK_ROWS", 3)
    for place in ("lake/year=1", "lake/year=2"):
        Path(place).mkdir(parents=True)
        make(f"{place}/x.parquet", "select 'once ' || range % 7 as name, 'once ' || range % 9 as other from range(30)")
    done = work(desk, "lake", "out", is_folder=True, columns=("name", "other"))
    assert (done.look_ups, done.files, done.values) == (9, 2, {"name": 60, "other": 60})
    assert sorted(desk.asked()) == sorted(f"sonce {number}".encode() for number in range(9))
    for year in (1, 2):
        assert pq.read_schema(f"out/year={year}/x.parquet").names == ["name", "other"]


def test_texts_that_no_row_has_are_not_asked_about(desk: Desk) -> None:
    names = pa.DictionaryArray.from_arrays(pa.array([1, None, 1]), pa.array(["secret", "used"]))
    pq.write_table(pa.table({"name": names}), "in.parquet")
    work(desk, "in.parquet", "out.parquet")
    assert desk.asked() == [b"sused"]
    assert [row[0] is None for row in rows("out.parquet")] == [False, True, False]


@pytest.fixture
def untold(desk: Desk) -> Iterator[tuple[str, str]]:
    """One token whose value is unavailable, and one in which two values collide."""
    lost, met = map(str, desk.client.tokenize(["lost", "met"]))
    desk.rig.vault.unavailable, desk.rig.vault.collided = {lost}, {met}
    yield lost, met
    desk.rig.vault.unavailable, desk.rig.vault.collided = set(), set()


def mixed(desk: Desk, form: str, *more: str) -> str:
    """Names: two known tokens, an unknown one, plain text, an empty text, a null, and more."""
    tokens = desk.client.tokenize(["Ann", 42])
    desk.asked()
    listed = ", ".join("null" if name is None else f"'{name}'" for name in (*tokens, NEVER_ISSUED, "plain", "", None, *more))
    make(form.format("in"), f"select unnest([{listed}]) as name, 'x' as place")
    return form.format("in")


@both
@pytest.mark.parametrize(("missing", "third"), [("keep", NEVER_ISSUED), ("null", None)])
def test_what_has_no_value(form: str, missing: str, third: str | None, desk: Desk, untold: tuple[str, str]) -> None:
    source, output = mixed(desk, form, *untold), form.format("out")
    done = work(desk, source, output, "detokenize", missing=missing, status=True)
    names = ("Ann", "42", third, "plain", "", None, *untold)
    statuses = ("ok", "ok", "not_found", "not_token", "not_token", "null", "unavailable", "collision")
    assert rows(output) == [(name, status, "x") for name, status in zip(names, statuses, strict=True)]
    assert (done.values, done.not_found, done.no_token, done.partial) == ({"name": 2}, 1, 2, True)
    assert (done.unavailable, done.collision) == (1, 1)
    assert {item for item in desk.asked() if not is_token(item)} == set()


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.parquet", "in.duckdb"])
def test_a_value_whose_token_another_one_has_is_a_reject_or_ends_the_run(name: str, tmp_path: Path) -> None:
    source, output, vault = tmp_path / name, tmp_path / f"out{Path(name).suffix}", FaultyVault(digest_bits=8)
    one, other = vault.colliding_values(CLINIC)
    with tables.desk(vault) as narrow:
        narrow.client.tokenize([one])
        tables.write(source, [(other, "x"), (one, "y")])
        narrow.refused(QuorumVaultError, "name: token-collision: another value has the token", tables.job(source, output))
        assert not output.exists()
        done = narrow.run(tables.job(source, output, rejects=tmp_path / "rejects.csv"))
        assert tables.read(output) == [(None, "x"), (narrow.client.tokenize([one])[0], "y")]
    assert (done.values, done.collision, done.rejected, done.partial) == ({"name": 1}, 1, 1, True)
    listed = (tmp_path / "rejects.csv").read_text().splitlines()
    assert [line.split(",")[1:] for line in listed] == [["row", "column", "code"], ["1", "name", "token-collision"]]


@both
def test_rows_that_end_a_run_are_named(form: str, desk: Desk) -> None:
    source, output = mixed(desk, form), form.format("out")
    with pytest.raises(RunError, match=r"in\.\w+(::t)?: row 3: name: no value of yours has this token") as caught:
        work(desk, source, output, "detokenize", missing="error")
    assert NEVER_ISSUED not in str(caught.value)
    refused(desk, RunError, r"rows 1, 2, 3: name: there is a token already; --if-token keep", source, output)
    assert not Path(output.partition("::")[0]).exists()
    make(source, f"select unnest(['x', repeat('y', {desk.client.limits().value_bytes + 1})]) as name")
    refused(desk, RunError, "row 2: name: the value is larger than a node takes", source, output)


@both
def test_rejects_are_listed_by_row_and_the_run_goes_on(form: str, desk: Desk) -> None:
    source, output = mixed(desk, form), form.format("out")
    done = work(desk, source, output, rejects=Path("rejects.csv"))
    file = str(expand([source])[0])
    assert Path("rejects.csv").read_text().splitlines() == ["file,row,column,code"] + [
        f"{file},{row},name,already-tokenized" for row in (1, 2, 3)
    ]
    assert [name is None for (name,) in rows(output, "name")] == [True, True, True, False, False, True]
    assert (done.rejected, done.values, done.partial) == (3, {"name": 2}, True)
    work(desk, source, form.format("kept"), rejects=Path("none.csv"), if_token="keep")
    assert Path("none.csv").read_text() == "file,row,column,code\n"
    work(desk, source, form.format("back"), "detokenize", rejects=Path("rejects.jsonl"))
    assert Path("rejects.jsonl").read_text() == f'{{"file":"{file}","row":3,"column":"name","code":"not-found"}}\n'


@both
def test_other_types_than_text_have_to_be_cast(form: str, desk: Desk) -> None:
    source, output = form.format("in"), form.format("out")
    make(source, WIDE)
    done = work(desk, source, output, columns=("zip", "born", "name"), cast=("zip", "born"))
    assert done.values == {"zip": 10, "born": 10, "name": 10}
    assert rows(output, "zip, born, name")[1] == tuple(desk.client.tokenize(["2140", "1980-01-02", "name 1"]))
    assert dict(types(output))["zip"] == "VARCHAR"
    make(form.format("inexact"), "select 1.5::double as name")
    for name, options, words in (
        ("in", {"columns": ("zip",)}, rf"{source}: column zip is BIGINT, and only text .*--cast zip"),
        ("in", {"columns": ("nowhere",)}, "has no column 'nowhere'; its columns: 'id', 'name'"),
        ("in", {"columns": ("list",)}, "column list is"),
        ("in", {"columns": ("name",), "cast": ("zip",)}, "--cast names zip"),
        ("inexact", {"cast": ("name",)}, "whose text is not exact"),
    ):
        refused(desk, qv.ColumnError, words, form.format(name), form.format("other"), **options)


def test_configured_fields_and_a_status_that_is_there(desk: Desk) -> None:
    make("in.parquet", WIDE)
    assert work(desk, "in.parquet", "out.parquet", columns=()).values == {"name": 10}
    for form in ("{}.parquet", "{}.duckdb::t"):
        make(form.format("in"), "select 'a' as name, 'b' as NAME_Status")
        refused(desk, qv.ColumnError, "has a column name_status", form.format("in"), form.format("o"), "detokenize", status=True)
    make("in.parquet", "select 'a' as other")
    refused(desk, qv.ColumnError, "none of the configured fields", "in.parquet", "o.parquet", columns=())


def test_a_type_that_would_not_be_kept_is_refused(desk: Desk) -> None:
    make("in.parquet", "select 'a' as name, interval 1 day as span")
    refused(desk, qv.ColumnError, "column span is INTERVAL, which would not be kept", "in.parquet", "out.parquet")
    assert desk.asked() == []


def test_the_file_keeps_its_metadata_compression_and_groups(desk: Desk) -> None:
    schema = pa.schema([pa.field("name", pa.utf8(), nullable=False), pa.field("n", pa.int8())], {"made by": "a test"})
    table = pa.table({"name": list("abcde"), "n": range(5)}, schema)
    pq.write_table(table, "in.parquet", compression={"name": "zstd", "n": "gzip"}, row_group_size=3)
    work(desk, "in.parquet", "out.parquet")
    assert pq.read_schema("out.parquet").equals(pq.read_schema("in.parquet"), check_metadata=True)
    shape = "select row_group_num_rows, path_in_schema, compression from parquet_metadata('{}.parquet')"
    assert tables.sql(shape.format("out")).fetchall() == tables.sql(shape.format("in")).fetchall()
    refused(desk, RunError, "rows 1, 2, 3, 4, 5: name", "out.parquet", "again.parquet")


def test_one_giant_row_group_is_worked_on_in_pieces(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "CHUNK_ROWS", 7)
    names = [None if number % 5 == 0 else f"giant {number % 11}" for number in range(50)]
    pq.write_table(pa.table({"name": names, "n": range(50)}), "in.parquet")
    assert work(desk, "in.parquet", "out.parquet").look_ups == 11
    work(desk, "out.parquet", "back.parquet", "detokenize")
    assert rows("back.parquet") == list(zip(names, range(50), strict=True))


@pytest.mark.parametrize("content", [b"", b"PAR1 this is not PAR1", b"name\nAnn\n", None])
def test_what_is_no_parquet_or_damaged_inside(content: bytes | None, desk: Desk) -> None:
    make("in.parquet", "select 'name ' || range as name from range(2000)")
    whole = Path("in.parquet").read_bytes()
    Path("in.parquet").write_bytes(whole[:4] + bytes(1996) + whole[2000:] if content is None else content)
    refused(desk, RunError, r"in\.parquet cannot be read as Parquet", "in.parquet", "out.parquet")
    assert [path.name for path in Path().iterdir()] == ["in.parquet"]


def test_text_that_is_no_utf8_is_refused(desk: Desk) -> None:
    broken = pa.array([b"\xff"], pa.binary()).view(pa.utf8())
    pq.write_table(pa.table({"name": broken}), "in.parquet")
    refused(desk, RunError, "name: a text that is not UTF-8", "in.parquet", "out.parquet")


def test_tables_that_cannot_be_worked_on(desk: Desk) -> None:
    make("in.duckdb::t", "select 'a' as name")
    refused(desk, RunError, r"in\.duckdb::nowhere: there is no such table", "in.duckdb::nowhere", "out.parquet")
    Path("no.duckdb").write_bytes(b"no such file")
    refused(desk, RunError, r"no\.duckdb cannot be opened as a DuckDB file", "no.duckdb::t", "out.parquet")


@both
def test_columns_of_any_name(form: str, desk: Desk) -> None:
    names = ("name", "code", "row", "text", "result", "id", 'a " b', "i")
    quoted = [name.replace('"', '""') for name in names]
    make(form.format("in"), "select " + ", ".join(f"'{name[0]}' || range as \"{name}\"" for name in quoted) + " from range(5)")
    columns = ("name", "code", 'a " b')
    work(desk, form.format("in"), form.format("tok"), columns=columns, rejects=Path("r.csv"))
    work(desk, form.format("tok"), form.format("back"), "detokenize", columns=columns)
    assert rows(form.format("back")) == rows(form.format("in"))


def test_a_column_that_hides_row_ids_is_refused(desk: Desk) -> None:
    make("in.duckdb::t", "select 'a' as name, 1 as rowid")
    refused(desk, qv.ColumnError, "has a column rowid", "in.duckdb::t", "out.duckdb::t")


def test_a_table_in_place_keeps_its_neighbours(desk: Desk) -> None:
    make("in.duckdb::t", "select 'a' as name")
    make("in.duckdb::other", "select 1 as one")
    work(desk, "in.duckdb::t", None)
    assert is_token(rows("in.duckdb::t")[0][0])
    assert rows("in.duckdb::other") == [(1,)]


BESIDE_ROWS = {
    "create table t(name varchar not null)": "constraints",
    "create table t(name varchar); create index i on t (name)": "indexes",
    "create table t(name varchar default 'x')": "defaults",
    "create table t(name varchar, id int, more int generated always as (id + 1))": "generated columns",
    "create table t(name varchar); comment on table t is 'x'": "a comment",
    "create table t(name varchar); comment on column t.name is 'x'": "comments",
    "create table t(name varchar unique); create table u(r varchar references t(name))": "constraints, a table that refers to it",
}


@pytest.mark.parametrize(("made", "lost"), BESIDE_ROWS.items())
def test_a_table_that_would_lose_more_than_rows_is_not_replaced(made: str, lost: str, desk: Desk) -> None:
    with duckdb.connect("in.duckdb") as con:
        con.execute(made)
    refused(desk, RunError, f"in.duckdb::T has {lost}, which would be lost in place", "in.duckdb::T", None)
    make("other.duckdb::t", "select 'a' as name")
    words = f"in.duckdb: table T has {lost}, which would be lost: name another"
    refused(desk, RunError, words, "other.duckdb::t", "in.duckdb::T", force=True)
    assert not list(Path().glob(".*.quorumvault"))


def test_a_table_in_place_keeps_its_spelling_and_the_notes_of_types(desk: Desk) -> None:
    with duckdb.connect("in.duckdb") as con:
        con.execute("create table Visits as select 'a' as name, 7 as zip")
    work(desk, "in.duckdb::visits", None, columns=("zip",), cast=("zip",))
    work(desk, "in.duckdb::MAIN.visits", None)
    with duckdb.connect("in.duckdb") as con:
        found = con.sql("select table_name, column_name, comment from duckdb_columns() where not internal").fetchall()
    assert found == [("Visits", "name", None), ("Visits", "zip", "quorumvault.type=INTEGER")]
    work(desk, "in.duckdb::VISITS", "back.duckdb::t", "detokenize", columns=("zip",), restore_types=True)
    assert rows("back.duckdb::t", "zip") == [(7,)]


def test_texts_can_be_read_without_a_vault() -> None:
    make("in.parquet", WIDE)
    make("in.duckdb::t", WIDE)
    for name in ("in.parquet", "in.duckdb::t"):
        (source,) = expand([name])
        assert text_columns(source) == ["name", "note"]
        chunks = list(read_texts(source, ["note", "name"]))
        assert [text for chunk in chunks for text in chunk["note"].to_pylist()] == [note for (note,) in rows(name, "note")]


@pytest.mark.parametrize("name", ["x", "note"])
def test_two_columns_of_one_name_are_refused(name: str, desk: Desk) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 3, ["name", name, name]), "in.parquet")
    refused(desk, QuorumVaultError, f"two columns '{name}'", "in.parquet", "out.parquet", cast=("name",))
    assert desk.asked() == []
    assert not Path(".out.parquet.quorumvault").exists()


@pytest.mark.parametrize("operation", ["tokenize", "detokenize", "retokenize"])
def test_a_column_without_any_value_stays_null(operation: str, desk: Desk) -> None:
    """As pandas writes such a column."""
    pq.write_table(pa.table({"name": pa.nulls(5), "id": range(5)}), "in.parquet", row_group_size=2)
    report = work(desk, "in.parquet", "out.parquet", operation, status=operation != "tokenize")
    assert report.values == {"name": 0}
    made = pq.read_table("out.parquet")
    assert (made.schema.field("name").type, made.column("name").null_count) == (pa.null(), 5)
    if operation != "tokenize":
        assert made.column("name_status").to_pylist() == ["null"] * 5


def test_views_and_names_that_are_quoted(desk: Desk) -> None:
    with duckdb.connect("in.duckdb") as con:
        con.execute("create table t as select 'name ' || range % 3 as name, range as id from range(10)")
        con.execute('create table "a.b/c" as from t; create schema s; create view s.V as from t where id > 3 order by id desc')
        con.execute("create table lost as from t; create view v2 as from lost; drop table lost")
    assert work(desk, 'in.duckdb::"a.b/c"', 'out.duckdb::"a.b/c"').rows == 10
    assert rows('out.duckdb::"a.b/c"', "id") == [(row,) for row in range(10)]
    desk.asked()
    assert work(desk, "in.duckdb::S.v", "out.duckdb::v").rows == 6
    assert len(desk.asked()) == 3
    assert rows("out.duckdb::v", "id") == [(row,) for row in range(9, 3, -1)]
    assert all(is_token(name) for (name,) in rows("out.duckdb::v", "name"))
    assert work(desk, "out.duckdb::v", "back.parquet", "detokenize").rows == 6
    refused(desk, RunError, "the view cannot be read", "in.duckdb::v2", "no.parquet")
    refused(desk, RunError, "has a view called V2", "in.duckdb::t", "in.duckdb::V2", force=True)
    refused(desk, RunError, "is a view", "in.duckdb::s.V", None, "retokenize")


def test_names_that_differ_in_case_alone_are_refused(desk: Desk) -> None:
    """DuckDB names the second ``name_1``, so a configured field of this name would match a column that the file does not have."""
    texts = pa.array(["a", "b"])
    pq.write_table(pa.table({"NAME": texts, "name": texts, "other": texts}), "in.parquet")
    for columns in ((), ("name",), ("NAME", "other"), ("name_1",)):
        refused(
            desk,
            qv.ColumnError,
            "columns 'NAME' and 'name', which are one name but for case",
            "in.parquet",
            "out.parquet",
            columns=columns,
        )
    assert desk.asked() == []
    assert [path.name for path in Path().iterdir()] == ["in.parquet"]


@pytest.mark.parametrize("kind", [pa.uint8(), pa.uint32(), pa.uint64(), pa.int8()])
def test_dictionaries_with_any_kind_of_index(kind: Any, desk: Desk) -> None:
    names = pa.DictionaryArray.from_arrays(pa.array([1, None, 0, 1], kind), pa.array(["one", "two"]))
    pq.write_table(pa.table({"name": names}), "in.parquet")
    report = work(desk, "in.parquet", "out.parquet")
    assert report.not_kept == ["in.parquet: Arrow's dictionary type of name: that of its texts"]
    work(desk, "out.parquet", "back.parquet", "detokenize")
    assert rows("back.parquet") == [("two",), (None,), ("one",), ("two",)]


@pytest.mark.parametrize("ahead", [0, 1 << 20])
def test_a_row_group_of_many_long_values_is_written_in_pieces(ahead: int, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """34,000 rows of one 64 KiB value are more than one column of Arrow's utf8 type can hold."""
    monkeypatch.setattr(part_rows, "_TEXT_BYTES", 1000)
    monkeypatch.setattr(parquet, "_AHEAD_BYTES", ahead)
    values = [None if number % 7 == 0 else "long" * 75 if number % 3 else "short" for number in range(40)]
    tokens = desk.client.tokenize(values)
    empty = [None] * 40
    pq.write_table(pa.table({"name": tokens, "more": tokens, "none": pa.array(empty, pa.utf8()), "n": range(40)}), "in.parquet")
    work(desk, "in.parquet", "out.parquet", "detokenize", columns=("name", "more", "none"))
    assert rows("out.parquet") == list(zip(values, values, empty, range(40), strict=True))
    file = pq.ParquetFile("out.parquet")
    sizes = [
        sum(len(text or "") for name in ("name", "more") for text in file.read_row_group(group).column(name).to_pylist())
        for group in range(file.num_row_groups)
    ]
    assert max(sizes) <= 1600
    assert len(sizes) < sum(sizes) / 700


def test_bytes_of_columns_are_those_of_their_own() -> None:
    """A column's name may contain a dot, which in a path separates a struct from its members."""
    texts = pa.array(["x" * 1000, "y" * 1000])
    table = {
        "a": pa.array([{"b": "s", "c": [1]}] * 2),
        "a.b": texts,
        "m": pa.array([[("k", 1)]] * 2, pa.map_(pa.utf8(), pa.int8())),
    }
    pq.write_table(pa.table(table | {"last": pa.array([1, 2], pa.int8())}), "in.parquet", compression="none")
    (source,) = expand(["in.parquet"])
    with duckdb.connect() as con:
        sizes = parquet.ParquetReader(source, con).sizes(slice(0, 1))
    assert sizes["a.b"] > 2000
    assert max(sizes[name] for name in ("a", "m", "last")) < 1000
    assert sum(sizes.values()) == pq.ParquetFile("in.parquet").metadata.row_group(0).total_byte_size


@pytest.mark.parametrize("what", ["output", "rejects", "crosswalk"])
def test_nothing_is_written_into_a_table_of_a_lake(what: str, desk: Desk) -> None:
    make("in.parquet", f"select '{desk.client.tokenize(['a'])[0]}' as name")
    Path("lake/_delta_log").mkdir(parents=True)
    Path("lake/new").mkdir()
    places: dict[str, Any] = {"output": "out.parquet", what: Path("lake/new/x.parquet")}
    output = str(places.pop("output"))
    refused(desk, LakeError, "lake is a table of Delta, and a file put into it", "in.parquet", output, "retokenize", **places)
    assert not Path("out.parquet").exists()


@both
@pytest.mark.parametrize("nulls", [(), ("NaN", "")])
def test_texts_that_others_write_for_null(nulls: tuple[str, ...], form: str, desk: Desk) -> None:
    make(form.format("in"), "select unnest(['a', 'NaN', null, '', 'NaN', 'None', 'nano', 'NaN']) as name")
    report = work(desk, form.format("in"), form.format("out"), dialect=Dialect(nulls=nulls))
    counted = {"": 1, "NaN": 3, "None": 1}
    assert report.like_nulls == {"name": {text: cells for text, cells in counted.items() if text not in nulls}}
    assert [text for (text,) in rows(form.format("out")) if not is_token(text or "qv")] == (
        ["NaN", None, "", "NaN", "NaN"] if nulls else [None]
    )
    assert report.values == {"name": 3 if nulls else 7}
    back = work(desk, form.format("out"), form.format("back"), "detokenize")
    assert (rows(form.format("back")), back.like_nulls) == (rows(form.format("in")), {})
