"""The benchmark of files: its tables are what they are said to be, its meter measures, its figures follow from the samples."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pytest

from bench.files import alone
from bench.files.child import CommandFailed, Took, measure
from bench.files.dataset import Dataset, differences
from bench.files.paths import PathSample
from bench.files.plan import Case
from bench.files.report import FilesReport, summarise
from bench.files.run import CopySample
from quorumvault.client import Limits
from quorumvault.client.arrow import encode
from quorumvault.crypto.tokens import format_token


class Vault:
    """Tokens that are made of the value's number."""

    def limits(self) -> Limits:
        return Limits(items=50, body_bytes=1 << 20, value_bytes=100)

    def exchange_arrow(self, operation: Any, body: bytes) -> bytes:
        values = pa.ipc.open_stream(body).read_all().column(0).to_pylist()
        schema = pa.schema([("token", pa.utf8())], metadata={"quorumvault.epoch": "1"})
        batch = pa.record_batch([[format_token(1, int(value[-9:]).to_bytes(20)) for value in values]], schema=schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_batch(batch)
        assert encode("value", pa.array(values))[:4] == body[:4]
        return bytes(sink.getvalue())


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = Dataset(tmp_path / "dataset")
    made.tokenize(Vault(), 300)
    return made


def test_every_token_stands_in_the_table_and_the_table_is_the_same_each_time(dataset: Dataset) -> None:
    case = Case(rows=1000, distinct=130)
    table = dataset.table(case)
    first = table.read_bytes()
    with duckdb.connect() as con:
        rows = con.execute(f"select id, token from '{table}'").fetchall()
    assert [number for number, _ in rows] == list(range(1000))
    tokens = [token for _, token in rows]
    assert (set(tokens), len(tokens)) == (set(dataset.tokens(130)), 1000)
    assert sorted(tokens[:130]) != tokens[:130] != dataset.tokens(130)
    table.unlink()
    assert dataset.table(case).read_bytes() == first


def test_duckdb_alone_puts_values_in_the_place_of_tokens(dataset: Dataset, tmp_path: Path) -> None:
    table, output = dataset.table(Case(rows=500, distinct=100)), tmp_path / "restored.parquet"
    alone.copy(table, dataset.values, output)
    with duckdb.connect() as con:
        restored = con.execute(f"select id, token from '{output}'").fetchall()
        con.execute(f"attach '{dataset.values}' as vault (read_only)")
        known = dict(con.execute("select token, value from vault.known").fetchall())
        assert restored == [
            (number, known[token]) for number, token in con.execute(f"select id, token from '{table}'").fetchall()
        ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("from '{}'", 0),
        ("from '{}' limit 90", 10),
        ("select id, if(id in (3, 7), null, token) as token, amount from '{}'", 2),
        ("from '{}' order by id desc", 100),
    ],
)
def test_differences_are_counted_place_by_place(dataset: Dataset, tmp_path: Path, query: str, expected: int) -> None:
    table, other = dataset.table(Case(rows=100, distinct=100)), tmp_path / "other.parquet"
    with duckdb.connect() as con:
        con.execute(f"copy ({query.format(table)}) to '{other}' (format parquet)")
    assert (differences(table, other), differences(other, table)) == (expected, expected)


def test_memory_is_that_of_the_command_and_not_of_who_asks(tmp_path: Path) -> None:
    ballast = bytearray(os.urandom(1)) * (400 << 20)
    small, _ = measure([sys.executable, "-I", "-S", "-c", "print(1)"], tmp_path, {})
    large, said = measure([sys.executable, "-I", "-S", "-c", "kept = bytearray(b'x') * (150 << 20); print(2)"], tmp_path, {})
    assert (len(ballast), said) == (400 << 20, b"2\n")
    assert small.mib < 100 < 150 < large.mib < 250
    assert large.seconds >= 0 < large.cpu


def test_a_command_that_fails_says_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="ended with exit code 3: no quorum"):
        measure([sys.executable, "-c", "import sys; print('no quorum', file=sys.stderr); sys.exit(3)"], tmp_path, {})


def _copy(seconds: float = 6.0, mib: float = 500.0, look_ups: int = 100) -> CopySample:
    return CopySample(Case(1_000, 100), Took(seconds, 2.0, mib), Took(3.0, 1.0, 900.0), look_ups)


def _report(copies: list[CopySample] | None = None) -> FilesReport:
    paths = [
        PathSample("detokenize", way, 1_000, seconds, 0.001, 0.010) for way, seconds in (("Arrow", 0.01), ("JSON", 0.02)) * 3
    ]
    return summarise(copies or [_copy()], paths, "files", 3)


def test_a_row_has_medians_their_ratio_and_the_largest_memory() -> None:
    report = _report([_copy(6.0), _copy(30.0, mib=700.0), _copy(9.0)])
    (figures,) = report.copies
    assert (figures.command_seconds, figures.duckdb_seconds, figures.command_mib) == (9.0, 3.0, 700.0)
    assert (figures.lowest_ratio, figures.ratio, figures.highest_ratio) == (2.0, 3.0, 10.0)
    assert msgspec.json.decode(msgspec.json.encode(report), type=FilesReport) == report
    copies, paths = report.account().tables
    assert {len(row) for row in copies.rows} == {len(copies.columns)}
    assert [row[:5] for row in paths.rows] == [
        ("detokenize", "Arrow", "1,000", "100,000", "2.00"),
        ("detokenize", "JSON", "1,000", "50,000", "1.00"),
    ]


@pytest.mark.parametrize(
    ("sample", "missed"),
    [
        (_copy(), None),
        (_copy(seconds=9.3), ("3.10", "≤ 3")),
        (_copy(mib=1024.0), ("1,024 MiB", "< 1,024 MiB")),
        (_copy(look_ups=101), ("101", "100")),
    ],
)
def test_targets_are_met_or_missed(sample: CopySample, missed: tuple[str, str] | None) -> None:
    """With small files a process's start takes longer than the work: their ratio is not judged, and the others are asserted."""
    report = _report([sample])
    account, small = report.account(), msgspec.structs.replace(report, plan="files-smoke").account()
    assert [(check.figure, check.target) for check in account.checks if not check.held] == ([missed] if missed else [])
    assert not account.asserted
    assert small.asserted
    assert small.holds is (missed is None or missed[1] == "≤ 3")
