"""``quorumvault census`` and ``migrate`` on files, through the commands and over sockets, against the real API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from quorumvault.cli import main
from quorumvault.crypto.tokens import format_token
from quorumvault.files.part_files import PartFile, PartFiles
from tests.rigs import tables
from tests.rigs.vault import Rig

pytestmark = pytest.mark.slow

NEVER_ISSUED = format_token(1, bytes(20))
PEOPLE, VISITS = [f"person {number}" for number in range(7)], [f"person {number % 9}" for number in range(20)]


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def done(run: Run) -> Run:
    def done(*arguments: str, code: int = 0) -> Result:
        result = run(*arguments)
        assert result.exit_code == code, result.stderr
        return result

    return done


Run = Callable[..., Result]


def write(path: str, columns: dict[str, list[Any]]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table(columns), path)


def read(path: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = pyarrow.parquet.read_table(path, partitioning=None).to_pydict()
    return columns


def rotate(rig: Rig, from_epoch: int) -> None:
    assert rig.post("/rotate-epoch", {"from_epoch": from_epoch}, key="admin").status_code == 200


@pytest.fixture
def lake(rig: Rig, run: Run) -> None:
    """Tables with different columns, in folders, with tokens of epoch 1. The active epoch is 2."""
    people, visits = rig.tokens(PEOPLE), rig.tokens(VISITS)
    write("lake/people.parquet", {"ssn": people, "city": ["Here", None, *"ABCDE"]})
    write("lake/visits/year=2023/a.parquet", {"person": visits[:12], "cost": list(range(12))})
    write("lake/visits/year=2024/a.parquet", {"person": [*visits[12:], None, "no token"], "cost": list(range(10))})
    write("lake/codes.parquet", {"code": ["a", "b"]})
    rotate(rig, 1)


LAKE = "lake/**/*.parquet"


def test_a_census_is_a_row_for_each_file_column_and_epoch(done: Run, rig: Rig, lake: None) -> None:
    write("lake/new.parquet", {"person": [*rig.tokens(["x", "y"]), *read("lake/people.parquet")["ssn"][:1]]})
    result = done("census", LAKE, "--column", "person,ssn")
    assert [line.split("\t") for line in result.stdout.splitlines()] == [
        ["file", "column", "epoch", "cells"],
        ["lake/new.parquet", "person", "1", "1"],
        ["lake/new.parquet", "person", "2", "2"],
        ["lake/people.parquet", "ssn", "1", "7"],
        ["lake/visits/year=2023/a.parquet", "person", "1", "12"],
        ["lake/visits/year=2024/a.parquet", "person", "1", "8"],
        ["lake/visits/year=2024/a.parquet", "person", "no token", "1"],
    ]
    assert result.stderr == "Of the 5 files given: epoch 1: 28 tokens; epoch 2: 2 tokens.\n"


def test_a_census_for_machines(run: Run, lake: None) -> None:
    result = run("census", "lake/visits", "lake/codes.parquet", "--json")
    assert json.loads(result.stdout) == {
        "scope": "the files given",
        "epochs": {"1": 20},
        "files": [
            {"file": "lake/visits/year=2023/a.parquet", "columns": {"person": {"epochs": {"1": 12}, "no_token": 0}}},
            {"file": "lake/visits/year=2024/a.parquet", "columns": {"person": {"epochs": {"1": 8}, "no_token": 1}}},
            {"file": "lake/codes.parquet", "columns": {}},
        ],
    }
    assert result.stderr == ""


def test_a_census_may_require_an_epoch(done: Run, lake: None) -> None:
    done("census", LAKE, "--require-epoch", "1")
    result = done("census", LAKE, "--require-epoch", "2", code=4)
    assert result.stderr.splitlines()[-1] == (
        "quorumvault: 27 tokens of epochs before 2 are in the files given (lake/people.parquet, ssn: 7; "
        "lake/visits/year=2023/a.parquet, person: 12; lake/visits/year=2024/a.parquet, person: 8): quorumvault migrate moves them"
    )


def test_a_census_asks_no_node_and_needs_no_key(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"x\n{NEVER_ISSUED}\n")
    result = CliRunner().invoke(main, ["census", str(tmp_path / "a.csv")], env={"QUORUMVAULT_URL": "nonsense"})
    assert (result.exit_code, result.stderr) == (0, "Of the file given: epoch 1: 1 tokens.\n")


@pytest.mark.parametrize("command", [("census",), ("migrate", "--in-place")])
def test_a_column_that_no_file_has_is_a_mistake(done: Run, lake: None, command: tuple[str, ...]) -> None:
    result = done(*command, LAKE, "--column", "person,cost,passport", code=2)
    assert "no file given has a column of text cost, passport" in result.stderr
    result = done(*command, "nothing/*.parquet", code=2)
    assert "no file matches nothing/*.parquet" in result.stderr


def test_all_files_move_in_place_each_in_the_columns_that_have_tokens(done: Run, rig: Rig, lake: None) -> None:
    """The run sends each token once, and no values. The second run finds nothing to move."""
    untouched = Path("lake/codes.parquet").stat().st_mtime_ns
    people = read("lake/people.parquet")["ssn"]
    rig.vault.asked.clear()
    done("migrate", LAKE, "--in-place", "--crosswalk", "1-to-2.parquet")
    assert {operation for operation, _ in rig.vault.asked} == {"retokenize", "epoch"}
    asked = [token for operation, tokens in rig.vault.asked if operation == "retokenize" for token in tokens]
    assert len(asked) == len(set(asked)) == 9
    moved = {path: path.stat().st_ino for path in Path("lake").rglob("*.parquet")}
    again = done("migrate", LAKE, "--in-place", "--crosswalk", "again.parquet")
    assert "; 0 moved, 27 there; 3 of the files had nothing to move, and stay as they are; epoch 2; " in again.stderr
    assert read("again.parquet")["old_token"] == []
    assert moved == {path: path.stat().st_ino for path in Path("lake").rglob("*.parquet")}
    assert read("lake/people.parquet") == {"ssn": rig.tokens(PEOPLE), "city": ["Here", None, *"ABCDE"]}
    assert read("lake/visits/year=2023/a.parquet") == {"person": rig.tokens(VISITS[:12]), "cost": list(range(12))}
    last = {"person": [*rig.tokens(VISITS[12:]), None, "no token"], "cost": list(range(10))}
    assert read("lake/visits/year=2024/a.parquet") == last
    assert untouched == Path("lake/codes.parquet").stat().st_mtime_ns
    done("census", LAKE, "--require-epoch", "2")
    crosswalk = read("1-to-2.parquet")
    assert list(crosswalk) == ["old_token", "new_token", "old_epoch", "new_epoch"]
    assert (set(crosswalk["old_epoch"]), set(crosswalk["new_epoch"])) == ({1}, {2})
    assert crosswalk["old_token"] == sorted(crosswalk["old_token"])
    became = dict(zip(crosswalk["old_token"], crosswalk["new_token"], strict=True))
    assert len(became) == len(crosswalk["old_token"]) == 9
    assert [became[token] for token in people] == rig.tokens(PEOPLE)
    assert sorted(path.name for path in Path().iterdir()) == ["1-to-2.parquet", "again.parquet", "lake"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "duckdb"])
def test_a_file_that_has_nothing_to_move_is_left_alone(done: Run, rig: Rig, form: str) -> None:
    """Of two files, one has tokens from before a rotation. The other is not rewritten, not even by a migration of its own."""
    rows = tables.names
    Path("lake").mkdir()
    old, table = rig.tokens(["a", "b"]), "::t" if form == "duckdb" else ""
    tables.write(Path(f"lake/old.{form}"), [(token, "x") for token in old])
    rotate(rig, 1)
    new = rig.tokens(["c"])
    tables.write(Path(f"lake/new.{form}"), [(token, "x") for token in new * 50])
    before = Path(f"lake/new.{form}").stat()
    command = ("migrate", f"lake/old.{form}{table}", f"lake/new.{form}{table}", "--in-place", "--column", "name", "--json")
    told = json.loads(done(*command).stdout)
    assert (told["values"], told["there"], told["untouched"], told["epochs"]) == ({"name": 2}, 50, 1, [2])
    alone = done("migrate", f"lake/new.{form}{table}", "--in-place")
    assert "0 moved, 50 there" in alone.stderr
    after = Path(f"lake/new.{form}").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert rows(Path(f"lake/old.{form}")) == rig.tokens(["a", "b"])
    assert rows(Path(f"lake/new.{form}")) == new * 50


def test_a_file_that_a_rotation_overtakes_is_not_left_alone(done: Run, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = rig.tokens(["a"])
    write("lake/a.parquet", {"name": tokens})
    rotated: list[int] = []

    def rotating(folder: PartFiles) -> list[PartFile]:
        if not rotated:
            rotated.append(1)
            rotate(rig, 1)
        return finish(folder)

    finish = PartFiles.finish
    monkeypatch.setattr(PartFiles, "finish", rotating)
    told = json.loads(done("migrate", "lake/a.parquet", "--in-place", "--json").stdout)
    assert (told["values"], told["there"], told["epochs"]) == ({"name": 1}, 0, [2])
    assert read("lake/a.parquet")["name"] == rig.tokens(["a"]) != tokens


def test_files_move_to_another_folder(done: Run, rig: Rig, lake: None) -> None:
    before = read("lake/people.parquet")
    done("migrate", "lake", "-o", "moved", "--column", "person")
    assert sorted(str(path) for path in Path("moved").rglob("*.parquet")) == [
        "moved/visits/year=2023/a.parquet",
        "moved/visits/year=2024/a.parquet",
    ]
    assert read("moved/visits/year=2023/a.parquet")["person"] == rig.tokens(VISITS[:12])
    assert read("lake/people.parquet") == before


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_text_files_move_too(done: Run, rig: Rig, form: str) -> None:
    old = rig.tokens(["a", "b"])
    rotate(rig, 1)
    texts = {
        "csv": 'id,ssn\r\n1,"{}"\r\n2,{}\r\n',
        "jsonl": '{{"id": 1.10, "name": {{"ssn": "{}"}}}}\n{{"name":{{"ssn":"{}"}}}}\n',
    }
    Path(f"people.{form}").write_bytes(texts[form].format(*old).encode())
    done("migrate", f"people.{form}", "--in-place", "--crosswalk", "x.parquet")
    wanted = texts[form].format(*rig.tokens(["a", "b"]))
    assert Path(f"people.{form}").read_bytes().decode().replace(" ", "") == wanted.replace(" ", "")
    assert sorted(read("x.parquet")["old_token"]) == sorted(old)


def test_a_table_of_duckdb_moves_in_its_file(done: Run, rig: Rig) -> None:
    old = rig.tokens(["a", "b"])
    with duckdb.connect("lake.duckdb") as con:
        con.execute("create table people as select unnest(?) as ssn, unnest([2, 1]) as id", [old])
        con.execute("create table untouched as from people")
    rotate(rig, 1)
    done("migrate", "lake.duckdb::people", "--in-place")
    with duckdb.connect("lake.duckdb") as con:
        assert con.sql("from people").fetchall() == list(zip(rig.tokens(["a", "b"]), [2, 1], strict=True))
        assert con.sql("from untouched").fetchall() == list(zip(old, [2, 1], strict=True))
    done("census", "lake.duckdb::untouched", "--require-epoch", "2", code=4)


def test_a_token_that_is_not_found_stays_and_is_told(done: Run, rig: Rig, lake: None) -> None:
    write("lake/people.parquet", {"ssn": [*rig.tokens(PEOPLE[:1]), NEVER_ISSUED]})
    result = done("migrate", "lake/people.parquet", "--in-place", "--crosswalk", "x.parquet", "--json", code=4)
    assert json.loads(result.stdout)["not_found"] == 1
    assert read("lake/people.parquet")["ssn"] == [*rig.tokens(PEOPLE[:1]), NEVER_ISSUED]
    assert NEVER_ISSUED not in read("x.parquet")["old_token"]
    result = done("migrate", "lake/people.parquet", "--in-place", "--missing", "null", code=4)
    assert read("lake/people.parquet")["ssn"] == [*rig.tokens(PEOPLE[:1]), None]


def test_files_without_tokens_are_nothing_to_do(done: Run, rig: Rig, lake: None) -> None:
    rig.vault.asked.clear()
    result = done("migrate", "lake/codes.parquet", "--in-place", "--crosswalk", "x.parquet")
    assert (result.stderr, rig.vault.asked) == ("No file given has a token in a column of text: nothing to do.\n", [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say where the moved files go: --in-place, or -o DIR"),
        (("--in-place", "-o", "moved"), "say where the moved files go: --in-place, or -o DIR"),
        (("--in-place", "--crosswalk", "there.parquet"), "there.parquet exists"),
    ],
)
def test_what_cannot_be_begun_changes_nothing(run: Run, rig: Rig, lake: None, arguments: tuple[str, ...], words: str) -> None:
    Path("there.parquet").write_bytes(b"")
    before = {path: path.read_bytes() for path in Path("lake").rglob("*.parquet")}
    rig.vault.asked.clear()
    result = run("migrate", LAKE, *arguments)
    assert result.exit_code != 0
    assert words in result.stderr
    assert rig.vault.asked == []
    assert before == {path: path.read_bytes() for path in Path("lake").rglob("*.parquet")}


#: SIGKILLs this process after it has given so many names: first the crosswalk's, then those of the lake's files.
_KILLED = """
import os, signal, sys
left = int(sys.argv.pop(1))
def counted(give):
    def counted_give(source, target, **options):
        global left
        if "dst_dir_fd" in options:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        give(source, target, **options)
    return counted_give
os.replace, os.link = counted(os.replace), counted(os.link)
from quorumvault.cli import main
main(sys.argv[1:])
"""


def kill(environment: dict[str, str], named: int, *command: str) -> None:
    """Runs the command, and kills it once so many names have been given."""
    script = [sys.executable, "-c", _KILLED, str(named), *command]
    assert subprocess.run(script, env=os.environ | environment, timeout=60).returncode == -9


@pytest.mark.parametrize("named", range(4))
def test_a_kill_while_files_get_their_names_is_made_good(
    run: Run, done: Run, rig: Rig, lake: None, environment: dict[str, str], named: int
) -> None:
    command = ("migrate", LAKE, "--in-place", "--crosswalk", "x.parquet")
    kill(environment, named, *command)
    census = json.loads(run("census", LAKE, "--json").stdout)
    moved = [file for file in census["files"] if any(set(column["epochs"]) == {"2"} for column in file["columns"].values())]
    assert len(moved) == max(0, named - 1)
    assert Path("x.parquet").exists() == (named > 0)
    for again in (run(*command), run(*command, "--force")):
        assert again.exit_code != 0
        assert "--resume" in again.stderr
    rig.vault.asked.clear()
    done(*command, "--resume")
    assert rig.vault.asked == []
    done("census", LAKE, "--require-epoch", "2")
    assert read("lake/people.parquet")["ssn"] == rig.tokens(PEOPLE)
    assert len(read("x.parquet")["old_token"]) == 9
    assert sorted(path.name for path in Path().iterdir()) == ["lake", "x.parquet"]


@pytest.mark.parametrize("named", range(3))
def test_what_was_begun_is_finished_whatever_the_files_look_like_by_then(
    done: Run, rig: Rig, environment: dict[str, str], named: int
) -> None:
    """The first file has no tokens left once it has its new content, and a new file has appeared in the meantime."""
    write("lake/a.parquet", {"ssn": [NEVER_ISSUED]})
    write("lake/b.parquet", {"ssn": rig.tokens(["x"])})
    rotate(rig, 1)
    command = ("migrate", "lake", "--in-place", "--missing", "null", "--crosswalk", "x.parquet")
    kill(environment, named, *command)
    write("lake/0.parquet", {"other": [NEVER_ISSUED]})
    resumed = done(*command, "--resume", code=4)
    assert resumed.stderr.startswith("2 files, 2 rows")
    assert read("lake/0.parquet") == {"other": [NEVER_ISSUED]}
    assert read("lake/a.parquet") == {"ssn": [None]}
    assert read("lake/b.parquet") == {"ssn": rig.tokens(["x"])}
    assert len(read("x.parquet")["old_token"]) == 1
    assert sorted(path.name for path in Path().iterdir()) == ["lake", "x.parquet"]
