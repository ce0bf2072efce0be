"""Files of every format for conversion runs, and a client of the API over a vault in memory."""

import contextlib
import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import quorumvault as qv
from quorumvault.files import run as runs
from quorumvault.files.columnar import duckdb as duckdb_engine
from quorumvault.files.columnar import parquet
from quorumvault.files.job import Job, Report
from quorumvault.files.sources import Format, expand
from quorumvault.files.text import engine as text_engine
from quorumvault.files.text import rows as text_rows
from quorumvault.testing.serving import served
from tests.rigs.vault import FaultyVault, Rig, key_text

FORMATS: tuple[Format, ...] = ("csv", "jsonl", "parquet", "duckdb")
TEXT: tuple[Format, ...] = ("csv", "jsonl")
#: Rows of a part, and rows of a batch or row group in a part.
PART_ROWS, GROUP_ROWS = 4, 2
#: A row: a name, and one more cell.
Row = tuple[str | None, str]


class Desk:
    """A client of the clinic that may do everything, the vault behind it, and a connection to DuckDB."""

    def __init__(self, rig: Rig, url: str) -> None:
        self.rig = rig
        self.url = url
        self.client = qv.Client(url, api_key=key_text("admin"), policy=qv.ClientPolicy(request=2.0))
        self.con = duckdb.connect()

    def asked(self) -> list[Any]:
        """Returns each item that the vault was asked about since the last call."""
        asked = [item for _, items in self.rig.vault.asked for item in items]
        self.rig.vault.asked.clear()
        return asked

    def rotate(self) -> None:
        self.client.rotate(self.client.epoch())

    def run(self, asked: Job, client: qv.Client | None = None, **changes: Any) -> Report:
        return runs.run(dataclasses.replace(asked, **changes), client or self.client)

    def refused(self, error: type[Exception], words: str, asked: Job, client: qv.Client | None = None, **changes: Any) -> None:
        with pytest.raises(error, match=words):
            self.run(asked, client, **changes)


def sql(query: str) -> duckdb.DuckDBPyRelation:
    """A query that has a result."""
    relation = duckdb.sql(query)
    assert relation is not None
    return relation


@contextlib.contextmanager
def desk(vault: FaultyVault | None = None) -> Iterator[Desk]:
    rig = Rig(fields=("$.name",), vault=vault or FaultyVault())
    with served(rig.app) as url:
        made = Desk(rig, url)
        with made.client, made.con:
            yield made


def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes parts so small that a few rows fill several."""
    for module in (text_engine, parquet, duckdb_engine):
        monkeypatch.setattr(module, "PART_ROWS", PART_ROWS)
    monkeypatch.setattr(text_rows, "BATCH_ROWS", GROUP_ROWS)


def write(path: Path, rows: Sequence[Sequence[str | None]], names: Sequence[str] = ("name", "place")) -> None:
    """Writes a table with these columns, in the format of the suffix; in DuckDB, as the table ``t``."""
    records = [dict(zip(names, row, strict=True)) for row in rows]
    columns = pa.Table.from_pylist(records, pa.schema([(name, pa.utf8()) for name in names]))
    match path.suffix:
        case ".csv":
            path.write_text("".join(",".join(map(_cell, line)) + "\n" for line in (names, *rows)))
        case ".jsonl":
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
        case ".parquet":
            pq.write_table(columns, path, row_group_size=GROUP_ROWS)
        case ".duckdb":
            with duckdb.connect(str(path)) as con:
                con.register("rows", columns)
                con.execute("create or replace table t as from rows")


def _cell(name: str | None) -> str:
    return "" if name is None else '"' + name.replace('"', '""') + '"'


def read(path: Path) -> list[Row]:
    match path.suffix:
        case ".csv":
            cells = list(csv.reader(io.StringIO(path.read_text())))[1:]
            return [(name or None, place) for name, place in cells]
        case ".jsonl":
            records = map(json.loads, path.read_text().splitlines())
            return [(record["name"], record["place"]) for record in records]
        case ".parquet":
            table = pq.read_table(path, partitioning=None)
            return list(zip(table.column("name").to_pylist(), table.column("place").to_pylist(), strict=True))
        case _:
            with duckdb.connect(str(path)) as con:
                return con.sql("from t").fetchall()


def names(path: Path) -> list[str | None]:
    return [name for name, _ in read(path)]


def job(source: Path | str, output: Path | None, operation: Any = "tokenize", **options: Any) -> Job:
    """A job over one file, or over the files of a folder or a glob."""
    given = str(source)
    table = "t" if given.endswith(".duckdb") or options.pop("of_tables", False) else None
    sources = tuple(expand([given], table=table))
    is_folder = output is not None and not output.suffix
    own_table = "t" if output is not None and output.suffix == ".duckdb" else None
    return Job(
        operation=operation, sources=sources, output=output, is_folder=is_folder, table=own_table, columns=("name",), **options
    )
