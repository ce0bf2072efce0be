"""Delta tables: read at a version, written as one commit. No value gets into the new table's log. No commit is overwritten."""

import json
import os
import stat
import struct
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from deltalake import DeltaTable, write_deltalake

from quorumvault.cli import main
from quorumvault.crypto.tokens import is_token
from quorumvault.files.columnar import delta
from quorumvault.files.job import RunError
from tests.rigs.tables import Desk
from tests.rigs.vault import key_text

pytestmark = pytest.mark.slow

FIRST = Path("lake/_delta_log/00000000000000000000.json")


def rows(count: int, start: int = 0) -> Any:
    numbers = range(start, start + count)
    return pa.table(
        {
            "id": pa.array(numbers, pa.int32()),
            "name": [f"plain name {number % 3}" for number in numbers],
            "zip": [2139 + number % 2 for number in numbers],
            "day": [date(2020, 1, 1 + number % 2) for number in numbers],
        }
    )


@pytest.fixture
def run(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    write_deltalake("lake", rows(6), partition_by=["day"], name="visits", description="of plain name 1")
    write_deltalake("lake", rows(4, 6), mode="append")
    environment = {"QUORUMVAULT_URL": desk.url, "QUORUMVAULT_API_KEY": key_text("admin")}

    def invoke(*arguments: str, failing: bool = False) -> Result:
        done = CliRunner().invoke(main, arguments, env=environment)
        assert failing or done.exit_code == 0, done.output
        return done

    return invoke


def content(table: str, version: int | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DeltaTable(table, version=version).to_pyarrow_table().to_pylist()
    return sorted(found, key=lambda row: row["id"])


def first_commit(*features: str) -> list[dict[str, Any]]:
    """The lines of the first commit of ``lake``. If there are ``features``, its readers need them."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in FIRST.read_text().splitlines()]
    for line in lines:
        if features and "protocol" in line:
            line["protocol"] = {"minReaderVersion": 3, "minWriterVersion": 7}
            line["protocol"] |= {key: [*features] for key in ("readerFeatures", "writerFeatures")}
    return lines


def in_log(table: str) -> str:
    return "".join(path.read_text() for path in Path(table, "_delta_log").glob("*.json"))


def test_there_and_back_with_types_and_versions(run: Callable[..., Result]) -> None:
    done = run("tokenize", "lake", "--column", "name,zip", "--cast", "zip", "-o", "tok")
    assert "note: lake has the values still, in version 1 and perhaps in others" in done.stderr
    assert "not kept: lake: name, lake: description" in done.stderr
    assert "left as they are: id, day" in done.stderr
    table = DeltaTable("tok")
    assert (table.version(), table.metadata().partition_columns) == (0, ["day"])
    assert table.metadata().description is None
    assert all(is_token(row["name"]) and is_token(row["zip"]) for row in content("tok"))
    assert [(row["id"], row["day"]) for row in content("tok")] == [(row["id"], row["day"]) for row in content("lake")]
    assert "plain" not in in_log("tok")
    assert DeltaTable("lake").version() == 1
    run("detokenize", "tok", "--column", "name,zip", "--restore-types", "-o", "back")
    assert content("back") == content("lake")
    assert pa.schema(DeltaTable("back").schema()) == pa.schema(DeltaTable("lake").schema())
    run("tokenize", "lake", "--column", "name", "--at-version", "0", "-o", "first")
    assert [row["id"] for row in content("first")] == list(range(6))


def test_statistics_of_other_columns_stay_and_those_of_replaced_ones_do_not(run: Callable[..., Result]) -> None:
    run("tokenize", "lake", "--column", "name", "-o", "tok")
    found = [json.loads(json.loads(line)["add"]["stats"]) for line in in_log("tok").splitlines() if '"add"' in line]
    assert sum(stats["numRecords"] for stats in found) == 10
    assert {key for stats in found for key in stats["minValues"]} == {"id", "zip"}
    assert pa.table(DeltaTable("tok").to_pyarrow_dataset().to_table(filter=pa.compute.field("id") > 8)).num_rows == 1


def test_a_commit_over_an_earlier_one(run: Callable[..., Result], desk: Desk) -> None:
    run("tokenize", "lake", "--column", "name", "-o", "tok")
    first = content("tok")
    refused = run("tokenize", "lake", "--column", "name", "-o", "tok", failing=True)
    assert (refused.exit_code, "tok is a Delta table" in refused.stderr) == (2, True)
    write_deltalake("lake", rows(2, 10), mode="append")
    desk.rotate()
    done = run("tokenize", "lake", "--column", "name,zip", "--cast", "zip", "-o", "tok", "--force")
    assert "tok has what it had, in its versions before 1, until VACUUM removes it" in done.stderr
    assert (len(content("tok")), content("tok", 0)) == (12, first)
    assert all(is_token(row["zip"]) for row in content("tok"))


def test_nothing_is_committed_over_the_table_that_is_read(run: Callable[..., Result], tmp_path: Path) -> None:
    Path("link").symlink_to("lake")
    for output in ("lake", "link", str(tmp_path / "lake"), "lake/inner"):
        done = run("tokenize", "lake", "--column", "name", "-o", output, "--force", failing=True)
        assert done.exit_code == 2
        assert "earlier versions" in done.stderr or "belongs to nothing" in done.stderr
    done = run("migrate", "lake", "--in-place", "--column", "name", failing=True)
    assert "lake is a table of Delta" in done.output
    assert DeltaTable("lake").version() == 1


_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def deletion_vector(row: int) -> dict[str, Any]:
    """As Spark writes it to the log: a roaring bitmap of one row, in Z85 (Delta's PROTOCOL.md, Deletion Vector Format)."""
    bitmap = struct.pack("<iqi", 1681511377, 1, 0) + struct.pack("<IIHHIH", 12346, 1, 0, 0, 16, row)
    text = ""
    for place in range(0, len(bitmap), 4):
        number = int.from_bytes(bitmap[place : place + 4].ljust(4, b"\0"))
        text += "".join(_Z85[number // 85**power % 85] for power in reversed(range(5)))
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(bitmap), "cardinality": 1}


def test_deleted_rows_and_younger_columns(run: Callable[..., Result]) -> None:
    lines = first_commit("deletionVectors")
    for line in lines:
        if json.loads(line.get("add", {}).get("stats", "{}")).get("minValues", {}).get("id") == 0:  # the rows 0, 2, 4
            line["add"]["deletionVector"] = deletion_vector(1)
    FIRST.write_text("".join(json.dumps(line) + "\n" for line in lines))
    metadata = next(line["metaData"] for line in lines if "metaData" in line)
    schema = json.loads(metadata["schemaString"])
    schema["fields"].append({"name": "note", "type": "string", "nullable": True, "metadata": {}})
    metadata["schemaString"] = json.dumps(schema)
    Path("lake/_delta_log/00000000000000000002.json").write_text(json.dumps({"metaData": metadata}) + "\n")
    run("tokenize", "lake", "--column", "name,note", "-o", "tok")
    found = content("tok")
    assert [row["id"] for row in found] == [number for number in range(10) if number != 2]
    assert {row["note"] for row in found} == {None}
    assert all(is_token(row["name"]) for row in found)
    assert sum(pa.table(DeltaTable("tok").get_add_actions())["num_records"].to_pylist()) == 9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--column", "day"], "lake is partitioned by day, whose values are in its log"),
        (["--column", "name", "--at-version", "7"], "lake, version 7, cannot be read as a Delta table"),
        (["--column", "name", "--only-listed"], "day"),
        ([], "--column: say which columns"),
        (["--column", "nowhere"], "has no column 'nowhere'"),
    ],
)
def test_what_is_refused(arguments: list[str], words: str, run: Callable[..., Result]) -> None:
    done = run("tokenize", "lake", *arguments, "-o", "tok", failing=True)
    assert done.exit_code != 0
    assert words in done.stderr
    assert not Path("tok").exists()


def test_values_in_partitions_are_found(run: Callable[..., Result]) -> None:
    write_deltalake("named", rows(6).append_column("who", rows(6)["name"]), partition_by=["who"])
    done = run("tokenize", "named", "--column", "name", "-o", "tok", failing=True)
    assert "values of name would leave in plain" in done.stderr
    assert not Path("tok").exists()


def test_columns_that_another_is_made_of(run: Callable[..., Result]) -> None:
    lines = first_commit()
    (metadata,) = [line["metaData"] for line in lines if "metaData" in line]
    schema = json.loads(metadata["schemaString"])
    schema["fields"][2]["metadata"] = {"delta.generationExpression": "upper(name)"}
    metadata["schemaString"] = json.dumps(schema)
    FIRST.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "column zip is generated" in run("tokenize", "lake", "--column", "name", "-o", "tok", failing=True).stderr


@pytest.mark.parametrize("features", [["columnMapping"], ["typeWidening"]])
def test_tables_that_say_more_than_is_read(features: list[str], run: Callable[..., Result]) -> None:
    lines = first_commit(*features)
    for line in lines:
        if "metaData" in line and features == ["columnMapping"]:
            line["metaData"]["configuration"] = {"delta.columnMapping.mode": "name"}
    FIRST.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run("tokenize", "lake", "--column", "name", "-o", "tok", failing=True)
    assert done.exit_code != 0
    assert "Spark" in done.stderr or "cannot be read" in done.stderr


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_run_that_is_killed_beside_its_commit(at: str, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    committed = delta._commit

    def cut(*arguments: Any) -> int:
        if at == "after":
            committed(*arguments)
        raise RunError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(delta, "_commit", cut)
        assert "killed" in run("tokenize", "lake", "--column", "name", "-o", "tok", failing=True).stderr
    assert DeltaTable.is_deltatable("tok") is (at == "after")
    again = run("tokenize", "lake", "--column", "name", "-o", "tok", failing=True)
    assert again.exit_code == 1
    assert ".tok.quorumvault is an unfinished run to tok: --resume goes on" in again.stderr
    run("tokenize", "lake", "--column", "name", "-o", "tok", "--resume")
    assert (DeltaTable("tok").version(), len(content("tok"))) == (0, 10)
    assert not Path(".tok.quorumvault").exists()


@pytest.mark.parametrize(("given", "files", "folder"), [(0o600, 0o600, 0o700), (0o640, 0o640, 0o750), (0o644, 0o644, 0o755)])
def test_the_log_is_for_those_who_may_read_the_files(given: int, files: int, folder: int, run: Callable[..., Result]) -> None:
    for path in Path("lake").rglob("*.parquet"):
        path.chmod(given)
    before = os.umask(0o022)
    try:
        run("tokenize", "lake", "--column", "name", "-o", "tok")
        run("detokenize", "tok", "--column", "name", "-o", "back")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in Path("tok").rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_file()} == {files}
    assert modes[Path("tok/_delta_log")] == folder
    assert {stat.S_IMODE(path.stat().st_mode) for path in Path("back").rglob("*") if path.is_file()} == {0o600}
