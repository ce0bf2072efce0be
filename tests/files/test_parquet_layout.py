"""What a Parquet file has beside its rows: it is kept, built anew for the output, or named in the report."""

from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quorumvault.files.columnar import parquet
from quorumvault.files.columnar.layout import Layout
from quorumvault.files.job import Job, Report
from quorumvault.files.sources import expand
from tests.rigs.tables import Desk, sql

NAMES = [f"plain name {row % 7}" for row in range(60)]
TABLE = pa.table(
    {
        "id": range(60),
        "name": NAMES,
        "s": [{"x": row, "y": str(row)} for row in range(60)],
        "zip": [2139 + row % 5 for row in range(60)],
        "flag": [row % 2 == 0 for row in range(60)],
    }
)


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def work(
    desk: Desk, operation: Any = "tokenize", source: str = "in.parquet", output: str = "out.parquet", **options: Any
) -> Report:
    given: dict[str, Any] = {"columns": ("name", "zip"), **options}
    return desk.run(Job(operation=operation, sources=tuple(expand([source])), output=Path(output), **given))


def chunks(name: str, what: str) -> list[tuple[Any, ...]]:
    return sql(f"select distinct path_in_schema, {what} from parquet_metadata('{name}') order by all").fetchall()


def may_have(name: str, column: str, text: str) -> bool:
    """Returns whether some bloom filter allows that a row group has this text."""
    found = duckdb.execute("select bool_or(not bloom_filter_excludes) from parquet_bloom_probe(?, ?, ?)", [name, column, text])
    return bool(found.fetchall()[0][0])


def test_filters_and_page_indexes_are_made_of_the_tokens(desk: Desk) -> None:
    filters = {path: {"ndv": 500, "fpp": 0.01} for path in ("name", "zip", "s.y")}
    pq.write_table(TABLE, "in.parquet", row_group_size=20, write_page_index=True, bloom_filter_options=filters)
    assert work(desk, cast=("zip",)).not_kept is msgspec.UNSET
    assert chunks("out.parquet", "bloom_filter_length is not null") == chunks("in.parquet", "bloom_filter_length is not null")
    assert chunks("out.parquet", "row_group_num_rows") == chunks("in.parquet", "row_group_num_rows")
    (token,) = desk.client.tokenize([NAMES[0]])
    assert [may_have(name, "name", NAMES[0]) for name in ("in.parquet", "out.parquet")] == [True, False]
    assert may_have("out.parquet", "name", str(token))
    indexed = pq.read_metadata("out.parquet").row_group(2).column(1)
    assert (indexed.has_column_index, indexed.has_offset_index) == (True, True)
    assert b"plain name" not in Path("out.parquet").read_bytes()
    assert work(desk, "detokenize", "out.parquet", "back.parquet").not_kept is msgspec.UNSET
    assert may_have("back.parquet", "name", NAMES[0])


def test_filters_are_about_as_large(desk: Desk) -> None:
    """Even where another program made the filters: DuckDB sizes them by the number of distinct values."""
    with duckdb.connect() as con:
        con.execute("create table t as select 'name ' || range % 300 as name, range % 4 as zip from range(9000)")
        con.execute("copy t to 'in.parquet' (format parquet)")
    work(desk, cast=("zip",))
    before, after = (dict(chunks(name, "bloom_filter_length")) for name in ("in.parquet", "out.parquet"))
    assert before["name"]
    assert {name: size and size // 16 for name, size in after.items()} == {
        name: size and size // 16 for name, size in before.items()
    }


def test_a_file_without_them_gets_none(desk: Desk) -> None:
    pq.write_table(TABLE, "in.parquet")
    assert work(desk, cast=("zip",)).not_kept is msgspec.UNSET
    assert {size for _, size in chunks("out.parquet", "bloom_filter_length")} == {None}
    column = pq.read_metadata("out.parquet").row_group(0).column(0)
    assert (column.has_column_index, column.has_offset_index) == (False, False)


def with_dictionary(name: str) -> dict[str, bool]:
    return {path.replace(", ", "."): coded for path, coded in chunks(name, "contains(encodings, 'DICTIONARY')")}


def test_a_column_has_a_dictionary_as_in_the_source(desk: Desk) -> None:
    table = TABLE.set_column(1, "name", [[f"name {row}" for row in range(60)]]).append_column("l", [[[row] for row in range(60)]])
    pq.write_table(table, "in.parquet", row_group_size=20, use_dictionary=["s.y", "l.list.element"])
    before = with_dictionary("in.parquet")
    assert before == {"id": False, "name": False, "s.x": False, "s.y": True, "l.list.element": True, "zip": False, "flag": False}
    work(desk, columns=("name",), status=True)
    # A struct counts as one column. Statuses get a dictionary: few distinct texts repeat many times.
    assert with_dictionary("out.parquet") == before | {"s.x": True, "name_status": True}
    work(desk, "detokenize", "out.parquet", "back.parquet", columns=("name",))
    assert with_dictionary("back.parquet") == before | {"s.x": True, "name_status": True}
    back = pq.read_table("back.parquet")
    assert back.drop("name_status").equals(table)


def test_texts_that_are_there_many_times_have_a_dictionary_whatever_the_source_has(desk: Desk) -> None:
    """The file then holds a value of any length once, and not once for each row."""
    pq.write_table(TABLE, "in.parquet", use_dictionary=False)
    work(desk, columns=("name",))
    assert [name for name, coded in with_dictionary("out.parquet").items() if coded] == ["name"]


def test_sorting_columns_up_to_one_that_is_replaced(desk: Desk) -> None:
    def sorting(name: str) -> list[Any]:
        file = pq.read_metadata(name)
        return [
            (file.schema.column(each.column_index).path, each.descending, each.nulls_first)
            for each in file.row_group(1).sorting_columns
        ]

    order = [pq.SortingColumn(4, True, True), pq.SortingColumn(3), pq.SortingColumn(1), pq.SortingColumn(0)]
    pq.write_table(TABLE, "in.parquet", row_group_size=40, sorting_columns=order)
    assert [path for path, _, _ in sorting("in.parquet")] == ["zip", "s.y", "name", "id"]
    report = work(desk, "detokenize", columns=("name",), status=True)
    assert report.not_kept == ["in.parquet: sorting columns from name on"]
    assert sorting("out.parquet") == sorting("in.parquet")[:2]
    assert work(desk, columns=("zip",), cast=("zip",), output="none.parquet").not_kept == [
        "in.parquet: sorting columns from zip on"
    ]
    assert sorting("none.parquet") == []


def test_what_differs_by_row_group_is_named() -> None:
    footers = []
    for name, codec, order in (("a.parquet", "zstd", []), ("b.parquet", "gzip", [pq.SortingColumn(0)])):
        pq.write_table(TABLE, name, compression=codec, sorting_columns=order)
        footers.append(pq.read_metadata(name))
    footers[0].append_row_groups(footers[1])
    footers[0].write_metadata_file("both.parquet")
    with duckdb.connect() as con:
        (source,) = expand(["both.parquet"])
        layout = Layout(source, source.path, footers[0], TABLE.schema, con)
    paths = ("id", "name", "s.x", "s.y", "zip", "flag")
    codecs = [f"codecs of {path}, which differ by row group: ZSTD in all" for path in paths]
    assert layout.not_kept(["name"]) == [*codecs, "sorting columns, which differ by row group"]
    options = layout.writer_options(TABLE.schema, ["name"])
    assert (options["compression"], "sorting_columns" in options) == (dict.fromkeys(paths, "ZSTD"), False)


def test_row_groups_that_were_cut_are_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "CHUNK_ROWS", 25)
    pq.write_table(TABLE, "in.parquet")
    assert work(desk, columns=("name",)).not_kept == [
        "in.parquet: row groups: 1 became 3, since some were larger than a run holds in memory"
    ]


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
def test_each_codec_stays(codec: str, desk: Desk) -> None:
    pq.write_table(TABLE, "in.parquet", compression=dict.fromkeys(("id", "name"), codec) | {"zip": "none"})
    assert work(desk, columns=("name",)).not_kept is msgspec.UNSET
    assert chunks("out.parquet", "compression") == chunks("in.parquet", "compression")
