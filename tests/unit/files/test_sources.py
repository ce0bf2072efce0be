"""Which input files a command reads, and where their outputs go."""

import os
from pathlib import Path
from typing import Any

import pytest

from quorumvault.files.sources import InputsError, Source, expand, is_single, printable, root_of, split_table

FILES = (
    *("tok/a=1/b=2/x.parquet", "tok/a=1/b=3/x.parquet", "tok/top.parquet", "tok/_spark_metadata/0.parquet"),
    *("tok/a=1/.hidden.parquet", "tok/a=1/_SUCCESS", "tok/a=1/notes.txt"),
    *("plain.csv", "more.ndjson", "data.duckdb", "odd[1].csv"),
)


@pytest.fixture(autouse=True)
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    for name in map(Path, FILES):
        name.parent.mkdir(parents=True, exist_ok=True)
        name.touch()


BELOW = ["a=1/b=2/x.parquet", "a=1/b=3/x.parquet", "top.parquet"]


@pytest.mark.parametrize(
    ("names", "options", "root", "expected"),
    [
        (["tok"], {}, "tok", BELOW),
        (["tok/**/*.parquet"], {}, "tok", BELOW),
        (["tok/a=1/*/x.parquet"], {}, "tok/a=1", ["b=2/x.parquet", "b=3/x.parquet"]),
        (["plain.csv", "./plain.csv", "more.ndjson"], {}, ".", ["plain.csv", "more.ndjson"]),
        (["odd[1].csv"], {}, ".", ["odd[1].csv"]),
        (["tok/a=1/notes.txt"], {"format": "csv"}, "tok/a=1", ["notes.txt"]),
    ],
)
def test_folders_globs_and_files(names: list[str], options: Any, root: str, expected: list[str]) -> None:
    found = expand(names, **options)
    assert [(source.path, source.relative) for source in found] == [(Path(root, name), Path(name)) for name in expected]
    assert root_of(found) == Path(root).absolute()


def test_tables() -> None:
    (source,) = expand(["data.duckdb::main.visits"])
    assert (source.path, source.table, str(source)) == (Path("data.duckdb"), "main.visits", "data.duckdb::main.visits")
    assert expand(["data.duckdb"], table="visits")[0].table == "visits"
    assert len(expand(["data.duckdb::a", "data.duckdb::b"])) == 2
    assert split_table("a::b.csv") == (Path("a::b.csv"), None)


def test_one_file_or_several() -> None:
    assert all(map(is_single, ("plain.csv", "odd[1].csv", "data.duckdb::t", "not there")))
    assert not any(map(is_single, ("tok", "*.csv")))


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["nowhere.csv"], {}, "nowhere.csv: there is no such file"),
        (["no*where"], {}, "no file matches"),
        (["tok/a=1/notes.txt"], {}, "say which format"),
        (["tok", "plain.csv"], {}, "do not go in one run"),
        (["tok/a=1/b=2/x.parquet", "tok/a=1/b=3/x.parquet"], {}, "would be one file"),
        (["data.duckdb"], {}, "say which table"),
        (["plain.csv"], {"table": "t"}, "only a DuckDB file has tables"),
        (["empty"], {}, "no file of a known format"),
    ],
)
def test_what_cannot_be_meant(names: list[str], options: Any, words: str) -> None:
    with pytest.raises(InputsError, match=words):
        expand(names, **options)


def test_a_name_that_is_no_utf8_can_be_told() -> None:
    name = os.fsdecode(b"\xff.csv")
    assert str(Source(Path(name), "csv", Path(name))) == "\\xff.csv"
    assert printable(Path("a"), "t") == "a::t"
