"""Which files are meant, and where their outputs go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quorumvault.files.sources import InputsError, Source, expand, is_single, printable, root_of, split_table


@pytest.fixture(autouse=True)
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "tok/a=1/b=2/x.parquet",
        "tok/a=1/b=3/x.parquet",
        "tok/top.parquet",
        "tok/_delta_log/0.parquet",
        "tok/a=1/.hidden.parquet",
        "tok/a=1/_SUCCESS",
        "tok/a=1/notes.txt",
        "plain.csv",
        "more.ndjson",
        "data.duckdb",
        "odd[1].csv",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)


def found(*names: str, **options: str) -> list[tuple[str, str]]:
    return [(str(source.path), str(source.relative)) for source in expand(names, **options)]  # type: ignore[arg-type]


def test_folders_globs_and_files() -> None:
    below = ["a=1/b=2/x.parquet", "a=1/b=3/x.parquet", "top.parquet"]
    assert found("tok") == [(f"tok/{name}", name) for name in below]
    assert found("tok/**/*.parquet") == [(f"tok/{name}", name) for name in below]
    assert found("tok/a=1/*/x.parquet") == [
        ("tok/a=1/b=2/x.parquet", "b=2/x.parquet"),
        ("tok/a=1/b=3/x.parquet", "b=3/x.parquet"),
    ]
    assert found("plain.csv", "./plain.csv", "more.ndjson") == [("plain.csv", "plain.csv"), ("more.ndjson", "more.ndjson")]
    assert found("odd[1].csv") == [("odd[1].csv", "odd[1].csv")]
    assert found("tok/a=1/notes.txt", format="csv") == [("tok/a=1/notes.txt", "notes.txt")]
    assert root_of(expand(["tok/**/*.parquet"])) == Path.cwd() / "tok"


def test_tables() -> None:
    (source,) = expand(["data.duckdb::main.visits"])
    assert (source.path, source.table, str(source)) == (Path("data.duckdb"), "main.visits", "data.duckdb::main.visits")
    assert expand(["data.duckdb"], table="visits")[0].table == "visits"
    assert len(expand(["data.duckdb::a", "data.duckdb::b"])) == 2
    assert split_table("a::b.csv") == (Path("a::b.csv"), None)


def test_one_file_or_several() -> None:
    assert [is_single(name) for name in ("plain.csv", "odd[1].csv", "data.duckdb::t", "not there", "tok", "*.csv")] == [
        True
    ] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["nowhere.csv"], "nowhere.csv: there is no such file"),
        (["no*where"], "no file matches"),
        (["tok/a=1/notes.txt"], "say which format"),
        (["tok", "plain.csv"], "do not go in one run"),
        (["tok/a=1/b=2/x.parquet", "tok/a=1/b=3/x.parquet"], "would be one file"),
        (["data.duckdb"], "say which table"),
    ],
)
def test_what_cannot_be_meant(names: list[str], words: str) -> None:
    with pytest.raises(InputsError, match=words):
        expand(names)
    with pytest.raises(InputsError, match="only a DuckDB file has tables"):
        expand(["plain.csv"], table="t")


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputsError, match="no file of a known format"):
        expand(["empty"])


def test_a_name_that_is_no_utf8_can_be_told() -> None:
    name = os.fsdecode(b"\xff.csv")
    assert str(Source(Path(name), "csv", Path(name))) == "\\xff.csv"
    assert printable(Path("a"), "t") == "a::t"
