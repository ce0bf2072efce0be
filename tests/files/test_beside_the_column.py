"""Values that would leave beside the tokenized column, in metadata or in columns made of it: each is removed or refused."""

import base64
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import quorumvault as qv
from quorumvault.analytics.metadata import without_values
from quorumvault.errors import ColumnError
from quorumvault.files import plain
from quorumvault.files.job import Job, Report
from quorumvault.files.plain import InPlain
from quorumvault.files.sources import expand
from tests.rigs.tables import Desk

pytestmark = pytest.mark.slow

VALUES = ("PLAIN-ADA", "PLAIN-BOB")


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def job(source: str, output: str, **options: Any) -> Job:
    given = {"columns": ("name",), **options}
    return Job(operation="tokenize", sources=tuple(expand([source])), output=Path(output), is_folder=source == "lake", **given)


def work(desk: Desk, source: str, output: str, **options: Any) -> Report:
    return desk.run(job(source, output, **options))


def nothing_is_left(output: Path) -> bool:
    return not output.exists() and not output.with_name(f".{output.name}.quorumvault").exists()


def test_metadata_with_values_is_left_out_and_the_rest_is_kept(desk: Desk) -> None:
    labels = json.dumps({"fields": [{"name": "ix", "metadata": {"ml_attr": {"vals": ["other", "PLAIN-BOB"]}}}]})
    attributes = json.dumps({"attrs": json.dumps({"who": "PLAIN-ADA"})})
    metadata = {"spark": labels, "attributes": attributes, "note": "as PLAIN-ADA said", "PLAIN-BOB": "x", "by": "the lab"}
    fields = [
        pa.field("name", pa.utf8(), metadata={"example": "PLAIN-BOB"}),
        pa.field("ix", pa.float64(), metadata={"label": "index", "first": "PLAIN-ADA"}),
    ]
    table = pa.table({"name": [*VALUES, None], "ix": [0.0, 1.0, 2.0]}, pa.schema(fields, metadata))
    pq.write_table(table, "in.parquet", write_page_index=True, use_dictionary=["name"])
    report = work(desk, "in.parquet", "out.parquet")
    left_out = ["PLAIN-BOB", "attributes", "ix: first", "name: example", "note", "spark"]
    assert report.left_out == [f"in.parquet: {name}" for name in left_out]
    schema = pq.read_schema("out.parquet")
    assert schema.metadata == {b"by": b"the lab"}
    assert [field.metadata for field in schema] == [None, {b"label": b"index"}]
    assert b"PLAIN" not in Path("out.parquet").read_bytes()


FOUND_IN_METADATA = {
    "a short text of JSON": ("Ada", '{"labels": ["Bo", "Ada"]}'),
    "a text of JSON": ("Ada", '"Ada"'),
    "a short text in a repr": ("Ada", "{'who': 'Ada', 'n': 1}"),
    "words in prose": ("Ada King Lovelace", "as Ada King Lovelace said."),
    "words that end a sentence": ("St. Ada K.", "It was St. Ada K."),
    "words with others between": ("Lovelace, Ada", '{"note": "of Lovelace, Ada: seen"}'),
    "six words": ("a b c d e longer", "x a b c d e longer y"),
    "a number with brackets": ("(555) 123-4567", "call (555) 123-4567 now"),
    "words in a repr": ("Ada Lovelace", "Person(name='Ada Lovelace', age=3)"),
    "other case": ("Plain-Ada", "PLAIN-ADA"),
    "other case beyond ASCII": ("Žofie Straková", "for žofie STRAKOVÁ only"),
    "a time with a T": ("1980-02-03 04:05:06", "from 1980-02-03T04:05:06 on"),
    "a time with a zone": ("1980-02-03 04:05:06.5", '["1980-02-03T04:05:06.500Z"]'),
    "a time of whole seconds": ("1980-02-03 04:05:10", "1980-02-03T04:05:10.000+00:00"),
    "base64": ("Ada Lovelace", base64.b64encode(b'{"who": "Ada Lovelace"}').decode()),
    "base64 for URLs, in JSON": ("Ada", json.dumps([base64.urlsafe_b64encode(b'["\xc3\xbf>?~", "Ada"]').decode().rstrip("=")])),
    "a surrogate beside it": ("Plain-Ada", r'["\ud800", "Plain-Ada"]'),
    "more than is read": ("Plain-Ada", "x" * (1 << 20) + "y"),
}


@pytest.mark.parametrize(("value", "text"), FOUND_IN_METADATA.values(), ids=FOUND_IN_METADATA)
def test_how_values_may_stand_in_metadata(value: str, text: str) -> None:
    schema = pa.schema([pa.field("name", pa.utf8())], {"note": text, "by": "the lab"})
    kept, left_out = without_values(schema, lambda: [pa.array(["x", value])])
    assert (kept.metadata, left_out) == ({b"by": b"the lab"}, ["note"])


@pytest.mark.parametrize("text", ["a nulls n NA", '["NA", ""]', "0 the Ada", '{"start": 0}', "Ada King", "x 5000"])
def test_what_is_no_value_stays_in_metadata(text: str) -> None:
    values = ["0", "x 50", "n", "NA", "", "a", "Ada King Lovelace", "1980-02-03 04:05", "1980-02-03 04:05:06"]
    schema = pa.schema([pa.field("name", pa.utf8())], {"note": text})
    assert without_values(schema, lambda: [pa.array(values)]) == (schema, [])


def test_metadata_of_fields_in_others_is_looked_through(desk: Desk) -> None:
    def field(name: str, kind: Any = None, note: str = "Ada") -> Any:
        return pa.field(name, kind or pa.int64(), metadata={"label": "x", "note": note})

    kinds = {
        "s": pa.struct([field("a", pa.struct([field("b")])), field("c", note="none")]),
        "l": pa.list_(field("element")),
        "big": pa.large_list(field("element")),
        "three": pa.list_(field("element"), 3),
        "m": pa.map_(pa.field("key", pa.utf8(), nullable=False, metadata={"note": "Ada"}), field("value")),
    }
    row = {"name": "Ada", "s": {"a": {"b": 1}, "c": 2}, "l": [1], "big": [2], "three": [1, 2, 3], "m": [("k", 4)]}
    schema = pa.schema([("name", pa.utf8()), *kinds.items()])
    table = pa.Table.from_pylist([row], schema)
    pq.write_table(table, "in.parquet")
    report = work(desk, "in.parquet", "out.parquet")
    inner = ["big.element", "l.element", "m.key", "m.value", "s.a.b", "s.a", "three.element"]
    assert report.left_out == [f"in.parquet: {name}: note" for name in inner]
    made, framed = pq.read_table("out.parquet"), qv.tokenize(table, ["name"], client=desk.client)
    for found in (made, framed):
        assert found.drop_columns("name").to_pylist() == table.drop_columns("name").to_pylist()
        assert b"Ada" not in found.schema.serialize().to_pybytes()
        assert found.schema.field("s").type.field("c").metadata == {b"label": b"x", b"note": b"none"}
        assert found.column("s").type.field("a").metadata == {b"label": b"x"}
        assert found.column("s").chunk(0).type.field("a").metadata == {b"label": b"x"}


def test_metadata_is_compared_with_all_values_and_not_with_a_sample(desk: Desk) -> None:
    names = pa.array([f"name {row}" for row in range(5000)])
    pq.write_table(pa.table({"name": names}).replace_schema_metadata({"last": "name 4999", "none": "name 5000"}), "in.parquet")
    assert work(desk, "in.parquet", "out.parquet").left_out == ["in.parquet: last"]


def test_a_dictionary_s_unused_values_do_not_leave(desk: Desk) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 0]), pa.array(VALUES))
    pq.write_table(pa.table({"name": column}), "in.parquet")
    work(desk, "in.parquet", "out.parquet")
    assert b"PLAIN" not in Path("out.parquet").read_bytes()


def test_generated_columns_of_one_that_becomes_tokens(desk: Desk) -> None:
    with duckdb.connect("a.duckdb") as con:
        con.execute(
            """create table t (name varchar, "the Key" varchar generated always as (upper(Name)), nameless int,
            twice varchar generated always as ("the Key" || '!'), more int generated always as (nameless + 1))"""
        )
        con.execute("insert into t values ('plain-ada', 1)")
    desk.refused(ColumnError, "columns the Key, twice are made of", job("a.duckdb::t", "out.parquet"))
    desk.refused(ColumnError, "column twice is made of", job("a.duckdb::t", "out.parquet", columns=("name", "the Key")))
    assert nothing_is_left(Path("out.parquet"))
    work(desk, "a.duckdb::t", "out.parquet", columns=("name", "the Key", "twice"))
    content = Path("out.parquet").read_bytes().lower()
    assert b"plain-ada" not in content
    assert pq.read_table("out.parquet").column("more").to_pylist() == [2]


@pytest.mark.parametrize("name", ['a"b', "a b", "a.b", '"'])
def test_generated_columns_of_one_of_any_name(name: str, desk: Desk) -> None:
    with duckdb.connect("a.duckdb") as con:
        quoted = '"' + name.replace('"', '""') + '"'
        con.execute(f"create table t ({quoted} varchar, k varchar generated always as (replace({quoted.lower()}, '-', '')))")
    desk.refused(ColumnError, "column k is made of", job("a.duckdb::t", "out.parquet", columns=(name,)))
    work(desk, "a.duckdb::t", "out.parquet", columns=(name,), keep=("K",))


VIEWS = {
    "from t": "k",
    "select ssn, k from t": "k",
    "select ssn, left(ssn, 3) as a, id from t": "a",
    "select ssn, ssn as Again, id from t": "Again",
    "select id as ssn, ssn as other from (select ssn as id, ssn from t)": "other",
    "select ssn, a from (select left(ssn, 3) as b, upper(b) as a, ssn from t)": "a",
    "select ssn, md5(ssn) as hash from t": "hash",
    "select ssn, short(ssn) as a, id from t": "a",
    "select ssn, the_first() as a, id from t": "a",
    "from over": "k",
    "select ssn, cut, id from over_cut": "cut",
    "select ssn, left(ssn, 3), id from t": '"left"(ssn, 3), id',
    "select ssn, to_json(t) as a from t": "a",
    "select ssn, s.a from (select ssn, {'a': ssn} as s from t)": "a",
    "select * exclude k replace (ssn as id) from t": "id",
    "select * exclude id rename (ssn as id2, k as ssn) from t": "id2",
    "select ssn, #1 as a from t": "a",
    "select id::varchar as ssn, ssn as a from t union all select ssn, id from t": "a",
    "with c(ssn, a) as (select ssn, upper(ssn) from t) from c": "a",
    "select ssn, u.a from t, (select unnest([ssn])) u(a)": "a",
    "select ssn, max(columns('ssn')) over () as a from t": "a",
    "select ssn, (select max(x) from (select ssn as x from t)) as a from t": "a",
}


@pytest.mark.parametrize(("view", "others"), VIEWS.items())
def test_what_a_view_makes_of_a_column(view: str, others: str, desk: Desk) -> None:
    with duckdb.connect("a.duckdb") as con:
        con.execute("create table t (ssn varchar, k varchar generated always as (replace(ssn, '-', '')), id int)")
        con.execute("create macro short(x) as left(x, 3); create macro the_first() as (select min(ssn) from t)")
        con.execute("create view over as from t; create view over_cut as select ssn, left(ssn, 3) as cut, id from t")
        con.execute(f"insert into t values ('123-45-6789', 1); create view v as {view}")
    named = re.escape(others)
    desk.refused(ColumnError, f"columns? {named} (is|are|may be) made of", job("a.duckdb::v", "out.parquet", columns=("ssn",)))
    assert nothing_is_left(Path("out.parquet"))


@pytest.mark.parametrize("view", ["from t", "select ssn, left(ssn, 3) as k from t", "from over"])
def test_what_is_made_of_a_column_stays_if_it_is_to_be_kept(view: str, desk: Desk) -> None:
    with duckdb.connect("a.duckdb") as con:
        con.execute("create table t (ssn varchar, k varchar generated always as (replace(ssn, '-', '')), id int)")
        con.execute(f"insert into t values ('123-45-6789', 1); create view over as from t; create view v as {view}")
    desk.refused(ColumnError, "with --keep k$", job("a.duckdb::v", "out.parquet", columns=("ssn",)))
    work(desk, "a.duckdb::v", "out.parquet", columns=("ssn",), keep=("k",))
    assert pq.read_table("out.parquet").column("k")[0].as_py().startswith("123")


PLAIN_VIEWS = [
    "from t",
    "select ssn, id from t where ssn > '1' order by ssn",
    "select id, t.ssn from t join u using (id)",
    "select ssn, count(*) as n from t group by ssn",
    "select ssn, id from t union all select ssn, id from t",
    "from t union by name from t",
    "from over",
    "select ssn, n + 1 as next from (select ssn, id as n from t)",
    "with c as (select ssn, id from t) select c.* from c",
]


@pytest.mark.parametrize("view", PLAIN_VIEWS)
def test_a_view_that_makes_nothing_of_the_column(view: str, desk: Desk) -> None:
    with duckdb.connect("a.duckdb") as con:
        con.execute("create table t as select '123-45-6789' as ssn, 1 as id; create table u as select 1 as id")
        con.execute(f'create view over as from t; create view "v AS (x" as {view}')
    assert work(desk, 'a.duckdb::"v AS (x"', "out.parquet", columns=("ssn",)).values == {
        "ssn": pq.read_table("out.parquet").num_rows
    }


@pytest.mark.parametrize("output", ["out.parquet", "out.duckdb"])
def test_what_a_table_has_beside_its_rows_stays_behind(output: str, desk: Desk) -> None:
    with duckdb.connect("a.duckdb") as con:
        con.execute("create table t (name varchar default 'PLAIN-ADA' check (name <> 'PLAIN-EVE'), id integer)")
        con.execute("insert into t values ('PLAIN-ADA', 1), ('PLAIN-BOB', 2)")
        con.execute("create index by_name on t (name); create view v as from t where name = 'PLAIN-BOB'")
        con.execute("comment on table t is 'of PLAIN-ADA'; comment on column t.name is 'PLAIN-BOB'")
    work(desk, "a.duckdb::t", output, table="t" if output.endswith("duckdb") else None)
    assert b"PLAIN" not in Path(output).read_bytes()


def test_folders_that_are_named_after_values(desk: Desk) -> None:
    place = Path("lake/Name=PLAIN-ADA")
    place.mkdir(parents=True)
    (place / "a.csv").write_text("name,id\nPLAIN-ADA,1\n")
    desk.refused(InPlain, "folders are named after values of name", job("lake", "out"))
    place.rename("lake/who=PLAIN%2DADA")
    desk.refused(InPlain, "values of name would leave in plain, in the path", job("lake", "out"))
    assert not Path("out").exists()
    work(desk, "lake", "out", allow_plain=True, force=True)
    assert Path("out/who=PLAIN%2DADA/a.csv").exists()


@pytest.mark.parametrize("form", ["csv", "csv.gz", "jsonl", "parquet"])
def test_a_column_that_was_forgotten(form: str, desk: Desk) -> None:
    source = f"in.{form}"
    match form:
        case "csv":
            Path(source).write_text("name,note\nPLAIN-ADA,x\nPLAIN-BOB,saw PLAIN-ADA\n")
        case "csv.gz":
            Path(source).write_bytes(gzip.compress("name,note\nPLAIN-ADA,x\nPLAIN-BOB,saw PLAIN-ADA\n".encode("utf-16")))
        case "jsonl":
            Path(source).write_text('{"name": "PLAIN-ADA", "note": "PLAIN-ADA"}\n')
        case _:
            pq.write_table(pa.table({"name": VALUES, "note": ["x", "PLAIN-ADA"]}), source)
    desk.refused(InPlain, "values of name would leave in plain", job(source, f"out.{form}"))
    assert not Path(f"out.{form}").exists()
    work(desk, source, f"out.{form}", allow_plain=True, force=True)
    assert Path(f"out.{form}").exists()


def test_rows_in_the_order_of_the_values_are_told(desk: Desk) -> None:
    names = [f"name {row:03}" for row in range(30)]
    pq.write_table(pa.table({"name": names, "id": list(range(30))}), "in.parquet")
    assert work(desk, "in.parquet", "out.parquet").in_order == ["in.parquet: name"]
    pq.write_table(pa.table({"name": [*names[1:], names[0]]}), "mixed.parquet")
    assert work(desk, "mixed.parquet", "mixed.out.parquet").in_order is msgspec.UNSET


@pytest.mark.parametrize(
    ("values", "content", "is_found"),
    [
        (["PLAIN-ADA"], b"x,PLAIN-ADA\n", True),
        (["Plain-Ada Ä"], "plain-ada Ä,PLAIN-BOB\n".encode(), True),
        (["PLAIN-ADA"], b"APLAIN-ADA PLAIN-ADAM", False),
        (["123-45-6789"], b"123-45-6789", True),
        (["1980-01-01", "12345678", "short"], b"1980-01-01 12345678 short", False),
        (["PLAIN-ADA"], b"." * 9_995 + b"PLAIN-ADA" + b"." * 20_000, True),
        (["PLAIN-ADA"], b"." * 90_000 + b"PLAIN-ADA" + b"." * 100, True),
    ],
)
def test_what_is_looked_for(values: list[str], content: bytes, is_found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "_CHUNK_BYTES", 10_000)
    monkeypatch.setattr(plain, "_HEAD_BYTES", 20_000)
    monkeypatch.setattr(plain, "_TAIL_BYTES", 10_000)
    try:
        plain.require_absent({"name": values}, lambda: io.BytesIO(content), Path("file"), "in")
        assert not is_found
    except InPlain:
        assert is_found
