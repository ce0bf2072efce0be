"""docs/files.md in practice: its examples, typed in order, and a lake of Parquet files taken through two rotations."""

import csv
import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest
from deltalake import DeltaTable

import quorumvault as qv
from chaos.testbed.cluster import NODES, Cluster, environment, executable, wait_for
from quorumvault.config.api_keys import PERMISSIONS
from quorumvault.crypto.tokens import is_token
from tests import ROOT
from tests.rigs import tables

EXAMPLES, PAGE = (ROOT / "docs" / "files.md").read_text().split("\n## After a rotation\n")
#: Examples that need more than a vault and a folder. Other tests run them.
ELSEWHERE = {"Object stores"}
ROTATE, CENSUS, MIGRATE, PROVE = [line.split() for line in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)[0].splitlines()]
JOIN, COMPOSE = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
(LOOK_UP,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

CITIES = {f"123-45-{number:04}": f"City {number % 5}" for number in range(200)}
VISITS = [f"123-45-{number * 7919 % 200:04}" for number in range(1000)]
VARIABLES = dict[str, str]


@pytest.fixture
def variables(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VARIABLES:
    """The variables that identify the client. The process runs in a folder of its own, as the page's commands do."""
    monkeypatch.chdir(tmp_path)
    urls = ",".join(cluster.url(name) for name in NODES)
    return {"QUORUMVAULT_URL": urls, "QUORUMVAULT_API_KEY": cluster.make_key("clinic", *PERMISSIONS)}


@pytest.fixture
def vault(variables: VARIABLES) -> Iterator[qv.Client]:
    with qv.Client(variables["QUORUMVAULT_URL"], api_key=variables["QUORUMVAULT_API_KEY"]) as client:
        yield client


def run(variables: VARIABLES, command: list[str], expected: int = 0) -> str:
    """Runs a command as a shell would, but only strips the quotes around globs. Returns its standard error."""
    arguments = [executable(), *(argument.strip("'") for argument in command[1:])]
    done = subprocess.run(arguments, env=environment(**variables), capture_output=True, text=True, timeout=120)
    assert done.returncode == expected, done.stderr
    return done.stderr


def write(path: str, columns: dict[str, Any]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table(columns), path)


def rows(query: str) -> list[tuple[Any, ...]]:
    return tables.sql(query).order("all").fetchall()


def epochs(path: str) -> set[str]:
    return {epoch for (epoch,) in rows(f"select distinct split_part(patient, '_', 2) from '{path}'")}


def examples() -> Iterator[tuple[str, str, str]]:
    """The page's blocks up to the section on rotation: heading, language (empty for a shell), text."""
    for section in EXAMPLES.split("\n## "):
        heading = section.partition("\n")[0]
        if heading not in ELSEWHERE:
            yield from ((heading, *block) for block in re.findall(r"^```(\w*)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE))


def typed(variables: VARIABLES, language: str, block: str) -> str:
    """What a block prints. Raises if one of its lines fails."""
    command = ["bash", "-euo", "pipefail", "-c", block] if language == "" else [sys.executable, "-c", block]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(command, env=environment(PATH=path, **variables), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{block}\n{done.stderr}"
    return done.stdout


def test_the_examples(variables: VARIABLES) -> None:
    printed: dict[str, str] = {}
    for heading, language, block in examples():
        assert language in ("", "python")
        printed[heading] = printed.get(heading, "") + typed(variables, language, block)
    assert printed["# Files, tables, lakes and migration"].endswith(Path("patients.csv").read_text())
    tokens = csv.DictReader(Path("patients.tokens.csv").read_text().splitlines())
    assert [is_token(row["ssn"]) for row in tokens] == [True, True]
    found = tables.sql("select patient, patient_status, zip, cost from 'visits.parquet'").fetchall()
    assert [(patient, status, cost) for patient, status, _, cost in found] == [(f"P-{n % 7}", "ok", n) for n in range(100)]
    assert all(is_token(code) for _, _, code, _ in found)
    with duckdb.connect("tokens.duckdb", read_only=True) as con:
        rows = con.execute("select patient, zip from visits").fetchall()
    assert len(rows) == 200
    assert {is_token(patient) for patient, _ in rows} == {True}
    assert {code for _, code in rows} == {10115, 10116, 10117}
    assert printed["How text is written"] == gzip.decompress(Path("export.csv.gz").read_bytes()).decode()
    assert "NA;none" in printed["How text is written"]
    clear = DeltaTable("visits.clear").to_pyarrow_table()
    assert sorted(clear["zip"].to_pylist()) == sorted(10115 + number % 3 for number in [*range(100)] * 2)
    assert all(map(is_token, DeltaTable("visits.tokens").to_pyarrow_table()["zip"].to_pylist()))
    assert printed["All or nothing"].splitlines()[1:] == ["people.jsonl,2,ssn,not-tokenizable"]
    again, before = (pyarrow.parquet.read_table(f"{folder}/year=2023/visits.parquet") for folder in ("again", "tokenized"))
    assert again["patient"] == before["patient"]


def test_a_lake_through_two_rotations(variables: VARIABLES, vault: qv.Client) -> None:
    write("lake/patients.parquet", {"patient": vault.tokenize(list(CITIES)), "city": list(CITIES.values())})
    write("lake/year=2023/visits.parquet", {"patient": vault.tokenize(VISITS), "cost": list(range(len(VISITS)))})
    shutil.copytree("lake/year=2023", "extract")
    wanted = rows(JOIN.replace("left join '1-to-2.parquet' x on x.old_token = v.patient", "").replace("x.new_token, ", ""))
    assert sum(count for _, count in wanted) == len(VISITS)

    run(variables, ROTATE)
    assert "epoch 1: 1,200 tokens" in run(variables, CENSUS)
    assert "1,200 tokens of epochs before 2 are in the files given" in run(variables, PROVE, expected=4)
    run(variables, MIGRATE)
    assert "epoch 2: 1,200 tokens" in run(variables, PROVE)
    assert epochs("lake/**/*.parquet") == {"2"}
    assert rows("select old_token, new_token, old_epoch, new_epoch from '1-to-2.parquet'") == sorted(
        (*tokens, 1, 2) for tokens in vault.tokens_all_epochs(list(CITIES)) if tokens
    )
    assert rows(JOIN) == wanted

    # Between two rotations, a patient who was not seen before has visits.
    write("lake/year=2024/visits.parquet", {"patient": vault.tokenize(["new"]), "cost": [0]})
    run(variables, [part.replace("1", "2") for part in ROTATE])
    run(variables, [part.replace("1-to-2", "2-to-3") for part in MIGRATE])
    run(variables, [*PROVE[:-1], "3"])
    duckdb.sql(COMPOSE)
    derived = [tokens for tokens in vault.tokens_all_epochs([*CITIES, "new"]) if tokens]
    from_one = [(one, three, 1, 3) for one, _, three in derived[:-1]]
    assert rows("from '1-to-3.parquet'") == sorted([*from_one, *((two, three, 2, 3) for _, two, three in derived)])
    assert rows(JOIN.replace("1-to-2", "1-to-3")) == wanted

    looking = LOOK_UP.replace("123-45-6789", VISITS[0]) + "\nimport sys\nsys.exit(len(duckdb.fetchall()))\n"
    found = subprocess.run([sys.executable, "-c", looking], env=environment(**variables), timeout=60)
    assert found.returncode == VISITS.count(VISITS[0]) > 0
    back = qv.detokenize(duckdb.connect(), "from 'lake/year=2023/visits.parquet'", "patient", missing="error", client=vault)
    assert [patient for patient, *_ in back.fetchall()] == VISITS


def test_a_node_killed_in_the_middle_changes_nothing(
    own_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values, urls = [f"value {number}" for number in range(40_000)], ",".join(own_cluster.url(name) for name in NODES)
    with qv.Client(urls, api_key=own_cluster.api_key("clinic")) as vault:
        for part in range(4):
            write(f"lake/{part}.parquet", {"patient": vault.tokenize(values[part * 10_000 :][:10_000])})
        vault.rotate(1)
        variables = environment(QUORUMVAULT_URL=urls, QUORUMVAULT_API_KEY=own_cluster.api_key("clinic"))
        command = [executable(), "migrate", "lake", "--in-place", "--crosswalk", "x.parquet"]
        logs = [own_cluster.directory / name / "events.jsonl" for name in NODES]
        with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE) as migrating:
            try:
                assert wait_for(lambda: any(b'"retokenize"' in log.read_bytes() for log in logs), 60)
                own_cluster.kill("n2")
                _, told = migrating.communicate(timeout=120)
            finally:
                migrating.kill()
        assert migrating.returncode == 0, told
        wanted = vault.tokenize(values)
    moved = [row for part in range(4) for row in pyarrow.parquet.read_table(f"lake/{part}.parquet")["patient"].to_pylist()]
    assert moved == wanted
    assert rows("select new_token from 'x.parquet'") == sorted((token,) for token in wanted)


def test_crosswalks_of_runs_that_overlap_make_one_row_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run saw a and b. The second met a as of epoch 1, b as already moved to epoch 2, and c, first seen in epoch 2."""
    monkeypatch.chdir(tmp_path)
    names = ("old_token", "new_token", "old_epoch", "new_epoch")
    first = [("a1", "a2", 1, 2), ("b1", "b2", 1, 2), ("d1", "d2", 1, 2)]
    second = [("a1", "a3", 1, 3), ("b2", "b3", 2, 3), ("c2", "c3", 2, 3)]
    for path, crosswalk in (("1-to-2.parquet", first), ("2-to-3.parquet", second)):
        write(path, dict(zip(names, map(list, zip(*crosswalk, strict=True)), strict=True)))
    duckdb.sql(COMPOSE)
    assert tables.sql("from '1-to-3.parquet'").fetchall() == [
        ("a1", "a3", 1, 3),
        ("b1", "b3", 1, 3),
        ("b2", "b3", 2, 3),
        ("c2", "c3", 2, 3),
        ("d1", "d2", 1, 2),  # not in the second run
    ]
