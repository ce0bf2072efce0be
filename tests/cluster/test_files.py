"""Runs over files against three real nodes: a node or the client is killed in the middle, and the output is the same."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import quorumvault as qv
from chaos.testbed.cluster import NODES, Cluster, environment, executable
from quorumvault.files.job import Done, Job
from quorumvault.files.run import run
from quorumvault.files.sources import expand
from tests.rigs import tables

FILES, ROWS, PATIENTS = 4, 5000, 3000
#: A client that kills itself after so many rows, without any cleanup.
KILLED = f"""
import os, signal, sys
import quorumvault as qv
from quorumvault.files.job import Job
from quorumvault.files.run import run
from quorumvault.files.sources import expand
from pathlib import Path

def progress(done):
    if done.rows > {2 * ROWS}:
        os.kill(os.getpid(), signal.SIGKILL)

operation, source, output = sys.argv[1:]
job = Job(operation=operation, sources=tuple(expand([source])), output=Path(output), is_folder=True, columns=("patient",))
with qv.Client() as vault:
    run(job, vault, progress)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def furnish(form: str) -> None:
    """Writes visits, Hive-partitioned: each file has patients that are in every file, and some of its own."""
    for number in range(FILES):
        folder = Path(f"visits/year={number}")
        folder.mkdir(parents=True)
        patient = f"if(range % 11 = 0, null, 'patient ' || (range * 7919 % {PATIENTS}) + {number * 500})"
        visits = tables.sql(f"select range as id, {patient} as patient, range / 4 as cost from range({ROWS})")
        visits.write_csv(str(folder / "x.csv")) if form == "csv" else visits.write_parquet(str(folder / "x.parquet"))


def content(folder: str) -> dict[str, Any]:
    files = {str(path.relative_to(folder)): path for path in Path(folder).rglob("x.*")}
    assert len(files) == FILES
    return {name: path.read_bytes() for name, path in files.items()}


def rows(folder: str, form: str) -> list[Any]:
    return tables.sql(f"select year, id, patient, cost from '{folder}/*/x.{form}' order by year, id").fetchall()


def distinct(form: str) -> int:
    return int(tables.sql(f"select count(distinct patient) from 'visits/*/x.{form}'").fetchall()[0][0])


def variables(cluster: Cluster) -> dict[str, str]:
    urls = ",".join(cluster.url(name) for name in NODES)
    return environment(QUORUMVAULT_URL=urls, QUORUMVAULT_API_KEY=cluster.api_key("clinic"))


def quorumvault(cluster: Cluster, *arguments: str) -> dict[str, Any]:
    command = [executable(), *arguments, "--json"]
    done = subprocess.run(command, env=variables(cluster), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_client_that_is_killed_is_gone_on_for(form: str, cluster: Cluster, place: Path) -> None:
    furnish(form)
    report = quorumvault(cluster, "tokenize", "visits", "--column", "patient", "-o", "tokens")
    assert (report["look_ups"], report["files"], report["rows"]) == (distinct(form), FILES, FILES * ROWS)
    for operation, source, output in (("tokenize", "visits", "again"), ("detokenize", "tokens", "values")):
        killed = subprocess.run([sys.executable, "-c", KILLED, operation, source, output], env=variables(cluster), timeout=120)
        assert killed.returncode == -9
        assert not Path(output).exists()
        report = quorumvault(cluster, operation, source, "--column", "patient", "-o", output, "--resume")
        assert (report["parts_kept"], report["parts_done"]) == (2, FILES - 2)
    assert content("again") == content("tokens")
    assert rows("values", form) == rows("visits", form)
    assert [path.name for path in place.glob(".*")] == []


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_node_that_is_killed_changes_nothing(form: str, own_cluster: Cluster, place: Path) -> None:
    furnish(form)
    quorumvault(own_cluster, "tokenize", "visits", "--column", "patient", "-o", "tokens")
    quorumvault(own_cluster, "detokenize", "tokens", "--column", "patient", "-o", "expected")
    killed: list[str] = []

    def kill(done: Done) -> None:
        if done.rows >= ROWS and not killed:
            killed.append("n2")
            own_cluster.kill("n2")

    job = Job(
        operation="detokenize", sources=tuple(expand(["tokens"])), output=Path("values"), is_folder=True, columns=("patient",)
    )
    with qv.Client([own_cluster.url(name) for name in NODES], api_key=own_cluster.api_key("clinic")) as vault:
        report = run(job, vault, kill)
    assert killed == ["n2"]
    assert (report.look_ups, report.not_found) == (distinct(form), 0)
    assert content("values") == content("expected")
    assert rows("values", form) == rows("visits", form)
