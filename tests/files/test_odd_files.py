"""Files as other programs write them, and damaged files: each comes back unchanged, or is refused with advice on what to do.

A vault knows nothing of formats, so the command takes each file there and back, one after the other.
"""

import gzip
import os
import struct
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from quorumvault.cli import main
from tests.rigs.tables import Desk
from tests.rigs.vault import key_text

pytestmark = pytest.mark.slow

NAMES = ["plain 1", None, "plain 2", "plain 1"]
#: The first and the last year that Spark writes, and one that fits into 64 bits of nanoseconds.
TIMES = pa.array([datetime(1, 1, 1), datetime(9999, 12, 31), datetime(2020, 2, 29, 1, 2, 3, 456789), None], pa.timestamp("us"))
ZSTD = pa.Codec("zstd")
SKIPPED = struct.pack("<II", 0x184D2A53, 5) + b"hello"
GIANT = b'name,n\na-1,"' + b'line\n""q"",' * 200_000 + b'"\nb-2,4\n'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def quorumvault(desk: Desk, *arguments: str) -> Result:
    environment = {"QUORUMVAULT_URL": desk.url, "QUORUMVAULT_API_KEY": key_text("admin")}
    return CliRunner().invoke(main, arguments, env=environment)


def there_and_back(desk: Desk, source: str, tokens: str, back: str, *options: str) -> None:
    for operation, given, made in (("tokenize", source, tokens), ("detokenize", tokens, back)):
        result = quorumvault(desk, operation, "--column", "name", *options, "-o", made, "--", given)
        assert result.exit_code == 0, (operation, result.stderr, result.exception)


TEXTS: dict[str, tuple[str, bytes]] = {
    "ends of lines of two kinds": ("a.csv", b"name,n\r\na-1,2\nb-2,3\r\nc-3,4"),
    "a giant cell": ("a.csv", GIANT),
    "the longest value": ("a.csv", b'name,n\n"' + b"x\n" * 32_767 + b'",1\n'),
    "line ends of Unicode": ("a.csv", "name,n\na\x0b1,\x0c\nb\u0085 2,\u2028\n".encode()),
    "bytes of line ends in UTF-16": ("a.csv", b"\xff\xfe" + "name,n\n\u0a0d\u0d0a\u2c22,2\n".encode("utf-16-le")),
    "columns named like a file of DuckDB": ("a.csv", b"patient,DUCKLING,name\nx,y,a-1\n"),
    "blank lines": ("a.csv", b"name,n\n\na-1,2\n\n\nb-2,4\n\n"),
    "equal names beside": ("a.csv", b"name,n,n\na-1,2,b-2\n"),
    "no rows": ("a.csv", b"name,n"),
    "thousands of columns": ("a.csv", b"name" + b",c" * 9_999 + b"\na-1" + b",1" * 9_999 + b"\n"),
    "several gzip members": ("a.csv.gz", gzip.compress(b"name,n\na-1") + gzip.compress(b",2\nb-2,4\n") + gzip.compress(b"")),
    "gzip with padding": ("a.csv.gz", gzip.compress(b"name,n\na-1,2\n") + bytes(512)),
    "Zstandard with skipped frames": (
        "a.csv.zst",
        SKIPPED + ZSTD.compress(b"name,n\na-1", asbytes=True) + SKIPPED + ZSTD.compress(b",2\n", asbytes=True) + SKIPPED,
    ),
    "huge numbers beside": ("a.jsonl", b'{"name":"a-1","n":123456789012345678901234567890,"f":1e400,"g":-0.0,"h":1.10}\n'),
    "blanks and blank lines": ("a.jsonl", b'\n { "name" : "a-1" , "n" : [ 1 ] } \r\n\t\n{"name":\t"b-2"}'),
    "UTF-16": ("a.jsonl", '{"name":"a-1"}\n'.encode("utf-16")),
    "a name in escapes": ("a.jsonl", b'{"\\u006eame":"a-1","n":"\\u00e9\\/"}\n'),
    "an odd name": ("a\n [1]*%20::t.csv", b"name,n\na-1,2\n"),
    "a name like an option": ("-a.csv", b"name,n\na-1,2\n"),
    "a name like a URL": ("s3:a.csv", b"name,n\na-1,2\n"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_comes_back_byte_for_byte(kind: str, desk: Desk) -> None:
    name, content = TEXTS[kind]
    suffix = "".join(Path(name).suffixes[-2:] if name.endswith(("gz", "zst")) else Path(name).suffixes[-1:])
    Path(name).write_bytes(content)
    there_and_back(desk, name, f"tokens{suffix}", f"back{suffix}")
    back = Path(f"back{suffix}").read_bytes()
    assert unpacked(back, suffix) == unpacked(content, suffix)
    assert b"a-1" not in unpacked(Path(f"tokens{suffix}").read_bytes(), suffix)


def unpacked(content: bytes, suffix: str) -> bytes:
    if suffix.endswith("gz"):
        return gzip.decompress(content)
    return pa.CompressedInputStream(pa.BufferReader(content), "zstd").read() if suffix.endswith("zst") else content


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "more cells than names": ("a.csv", b"name,n\n1,2,3\n", "line 2: has 3 cells, and the header has 2"),
    "fewer": ("a.csv", b"name,n\n1\n", "line 2: has 1 cells"),
    "line ends of old Macs": ("a.csv", b"name,n\r1,2\r", "a carriage return without a line feed"),
    "a mark that is not at the start": ("a.csv", b"name\n\xef\xbb\xbf\n\xff", "line 3: is not UTF-8"),
    "a NUL": ("a.csv", b"name,n\n1\0,2\n", "line 2: has a NUL byte"),
    "a disk's padding": ("a.csv", b"name,n\n1,2\n" + bytes(4096), "line 3: has a NUL byte"),
    "its name twice": ("a.csv", b"name,n,name\n1,2,3\n", "more than one column 'name'"),
    "a quote that does not end": ("a.csv", b'name,n\n1,"open\n2,3\n', "line 2: a quoted cell begins in this row"),
    "a value that is too long": ("a.csv", b'name\n"' + b"x" * 65_537 + b'"\n', "line 2: name: the value is larger than"),
    "gzip without its name": ("a.csv", gzip.compress(b"name\n1\n"), "a.csv is compressed with gzip: unpack it first, or"),
    "gzip in gzip": ("a.csv.gz", gzip.compress(gzip.compress(b"name\n1\n")), "is compressed with gzip: unpack it first"),
    "Zstandard": ("a.jsonl", ZSTD.compress(b"{}", asbytes=True), "is compressed with Zstandard: unpack it first, or"),
    "bzip2": ("a.csv", b"BZh91AY&SY" + bytes(9), "is compressed with bzip2: unpack it first"),
    "a workbook": ("a.csv", b"PK\x03\x04" + bytes(40), "is a ZIP archive, or a workbook: unpack it, or save its sheet as CSV"),
    "Parquet": ("a.csv", b"PAR1\x15\x04", "is Parquet: say --format parquet"),
    "a database": ("a.csv", b"12345678DUCK" + bytes(90), "is a DuckDB file: say which table"),
    "a database of a later version": ("a.csv", b"12345678DUCK" + (300).to_bytes(8, "little") + bytes(9), "is a DuckDB file"),
    "another database": ("a.csv", b"SQLite format 3\0", "is a SQLite file"),
    "a workbook's name": ("a.xlsx", b"PK\x03\x04", "a.xlsx: save its sheet as CSV first"),
    "bzip2's name": ("a.csv.bz2", b"BZh", "a.csv.bz2: unpack it first"),
    "JSON": ("a.json", b"[]", "a.json: of JSON, lines with a record each are read: --format jsonl"),
    "an array": ("a.jsonl", b'[{"name":"1"}]\n', "line 1: a record has to be a JSON object. Each line has to be"),
    "records on several lines": ("a.jsonl", b'{\n  "name": "1"\n}\n', "the record is not JSON: Input data was truncated. Each"),
    "two records on a line": ("a.jsonl", b'{"name":"1"} {"name":"2"}\n', "line 1: the record is not JSON: trailing characters"),
    "half a character": ("a.jsonl", b'{"name":"1","n":"\\ud800"}\n', "line 1: the record is not JSON: an escaped surrogate"),
    "deep nesting": ("a.jsonl", b'{"name":"1","n":' + b"[" * 99_999 + b"]" * 99_999 + b"}\n", "nested deeper than 64"),
    "no number": ("a.jsonl", b'{"name":"1","n":NaN}\n', "line 1: the record is not JSON: invalid character"),
    "an object at the column": ("a.jsonl", b'{"name":{"x":1}}\n', "line 1: name: a number with a fraction, an object"),
    "no Parquet": ("a.parquet", b"name\n1\n", "a.parquet cannot be read as Parquet"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_named_and_leaves_nothing(kind: str, desk: Desk) -> None:
    name, content, words = REFUSED[kind]
    Path(name).write_bytes(content)
    result = quorumvault(desk, "tokenize", name, "--column", "name", "-o", "out" + Path(name).suffix)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
    assert words in result.stderr
    assert os.listdir() == [name]


PARQUET: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nested columns": (
        {
            "list": [[1, 2], None, [], [3]],
            "struct": [{"name": "x", "b": [{"c": "y"}]}, None, {"name": None, "b": []}, {"name": "z", "b": None}],
            "map": pa.array([[("k", 1)], None, [], [("z", None)]], pa.map_(pa.string(), pa.int32())),
        },
        {},
    ),
    "types of Arrow's": (
        {
            "decimal": pa.array([Decimal("1.10"), None, Decimal("-2.00"), None], pa.decimal128(38, 2)),
            "wide": pa.array([Decimal("1" * 50), None, None, None], pa.decimal256(60, 0)),
            "large": pa.array(["a", None, "", "b"], pa.large_string()),
            "view": pa.array(["a", None, "", "b"], pa.string_view()),
            "half": pa.array([1.5, None, 2.5, 0], pa.float16()),
            "zone": pa.array([1, 2, None, 4], pa.timestamp("ns", "Europe/Berlin")),
            "uuid": pa.array([bytes(16), None, b"x" * 16, None], pa.uuid()),
            "fixed": pa.array([b"ab", None, b"\0\xff", b"ef"], pa.binary(2)),
            "nothing": pa.nulls(4),
        },
        {},
    ),
    "INT96": ({"at": TIMES, "within": [[time] for time in TIMES]}, {"use_deprecated_int96_timestamps": True}),
    "prefixes": ({}, {"use_dictionary": False, "column_encoding": {"name": "DELTA_BYTE_ARRAY"}, "data_page_version": "2.0"}),
    "differences": (
        {"n": range(4), "f": [1.5] * 4, "text": ["ab", "ac", None, "b"]},
        {
            "use_dictionary": False,
            "column_encoding": {"n": "DELTA_BINARY_PACKED", "f": "BYTE_STREAM_SPLIT", "text": "DELTA_LENGTH_BYTE_ARRAY"},
        },
    ),
    "names of columns": ({"": range(4), "a\nb": range(4), '"q"': range(4), "a.name": range(4)}, {}),
}


@pytest.mark.parametrize("kind", PARQUET)
def test_parquet_comes_back_with_its_types(kind: str, desk: Desk) -> None:
    columns, options = PARQUET[kind]
    pq.write_table(pa.table({"name": NAMES, **columns}), "a.parquet", row_group_size=3, **options)
    there_and_back(desk, "a.parquet", "tokens.parquet", "back.parquet")
    before, after = (pq.read_table(name, coerce_int96_timestamp_unit="us") for name in ("a.parquet", "back.parquet"))
    assert after.schema.equals(before.schema)
    assert after.to_pylist() == before.to_pylist()
    assert kinds("back.parquet") == kinds("a.parquet")


def kinds(name: str) -> list[str]:
    """The physical types of a file's columns, which Arrow's types may hide."""
    schema = pq.ParquetFile(name).schema
    return [str(schema.column(place).physical_type) for place in range(len(schema.names))]


@pytest.mark.parametrize("at", [pa.array([1001], pa.timestamp("ns")), pa.array([[1001]], pa.list_(pa.timestamp("ns")))], ids=str)
def test_parts_of_a_microsecond_are_not_lost_in_silence(at: Any, desk: Desk) -> None:
    pq.write_table(pa.table({"name": ["plain 1"], "at": at}), "a.parquet", use_deprecated_int96_timestamps=True)
    result = quorumvault(desk, "tokenize", "a.parquet", "--column", "name", "-o", "out.parquet")
    assert result.exit_code == 2
    assert "column at is INT96 with parts of a microsecond, which would not be kept" in result.stderr
    assert os.listdir() == ["a.parquet"]


def test_row_groups_without_rows(desk: Desk) -> None:
    table = pa.table({"name": NAMES, "n": range(4)})
    with pq.ParquetWriter("a.parquet", table.schema) as writer:
        for rows in (table.slice(0, 0), table, table.slice(0, 0), table):
            writer.write_table(rows)
    there_and_back(desk, "a.parquet", "tokens.parquet", "back.parquet")
    assert pq.read_table("back.parquet").equals(pq.read_table("a.parquet"))
    pq.write_table(table.slice(0, 0), "none.parquet")
    there_and_back(desk, "none.parquet", "tokens.none.parquet", "back.none.parquet")
    assert pq.read_table("back.none.parquet").equals(table.slice(0, 0))


#: For each case, a table and the statements that create it.
DUCKDB: dict[str, tuple[str, ...]] = {
    "types of its own": (
        "t",
        "create type mood as enum ('ok', 'bad')",
        "create table t as select 'plain 1' as name, 'ok'::mood as mood, uuid() as id, 1::hugeint as h, '101'::bit as bits",
        "alter table t add column s struct(a int, b int[])",
        "alter table t add column m map(int, varchar) default map([1], ['x'])",
        "create or replace table t as select *, array_value(1, 2) as pair, union_value(k := 1) as u, interval 1 day as i from t",
        "create or replace table t as select *, '{}'::json as j, timestamp 'infinity' as at, '10:00:00+02'::timetz as z from t",
    ),
    "sequences and foreign keys": (
        "t",
        "create sequence ids",
        "create table p(id int primary key)",
        "insert into p values (1)",
        "create table t(id int default nextval('ids'), name varchar unique, p int references p(id), check (length(name) > 0))",
        "insert into t(name, p) values ('plain 1', 1), (null, 1)",
    ),
    "a schema, quoted": ('"s.x"."t"', 'create schema "s.x"', "create table \"s.x\".t as select 'plain 1' as name, 1 as n"),
    "a view over a macro": (
        "t",
        "create table u as select 'plain' as name",
        "create macro f(x) as x || ' 1'",
        "create view t as select f(name) as name from u",
    ),
    "a table without rows": ("t", "create table t(name varchar, n int)"),
    "deleted and changed rows": (
        "t",
        "create table t as select 'plain ' || range as name, range as n from range(40)",
        "delete from t where n % 2 = 0",
        "update t set n = n + 1",
    ),
}


@pytest.mark.parametrize("kind", DUCKDB)
def test_a_table_of_duckdb_comes_back_with_its_types(kind: str, desk: Desk) -> None:
    table, *statements = DUCKDB[kind]
    types = "select column_name, column_type from (describe {})"
    with duckdb.connect("a.duckdb") as con:
        for statement in statements:
            con.execute(statement)
        before = con.sql(f"from {table}").fetchall(), con.sql(types.format(table)).fetchall()
    there_and_back(desk, f"a.duckdb::{table}", "tokens.duckdb::t", "back.duckdb::t")
    with duckdb.connect("back.duckdb") as con:
        after = con.sql("from t").fetchall(), con.sql(types.format("t")).fetchall()
    assert after == before


def test_links_are_followed_and_one_that_leads_nowhere_is_named(desk: Desk) -> None:
    Path("real").mkdir()
    Path("real/a.csv").write_bytes(b"name\na-1\n")
    Path("a.csv").symlink_to("real/a.csv")
    Path("folder").symlink_to("real")
    there_and_back(desk, "folder/a.csv", "tokens.csv", "back.csv")
    there_and_back(desk, "a.csv", "tokens2.csv", "real/back.csv")
    assert Path("tokens.csv").read_bytes() == Path("tokens2.csv").read_bytes()
    assert Path("back.csv").read_bytes() == Path("real/back.csv").read_bytes() == b"name\na-1\n"
    Path("dangling.csv").symlink_to("nowhere.csv")
    assert "dangling.csv" in quorumvault(desk, "tokenize", "dangling.csv", "--column", "name", "-o", "x.csv").stderr
    assert not Path("x.csv").exists()
