"""The examples in every command's --help, run verbatim by a shell in a directory that has the files they name."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from chaos.testbed.cluster import NODES, Cluster, environment, executable, free_base_port
from quorumvault.cli import main

SECONDS = 60
#: The key id in the example of `keys revoke`. Key ids are random, so a test types the id of a key that it has made.
SOME_KEY = "3fq7tzd2"
#: Commands that work on a cluster whose nodes are stopped: some need an empty directory, the others a new cluster.
IN_AN_EMPTY_DIRECTORY = {"init", "dev"}
WITH_A_NEW_CLUSTER = {"serve", "pack", "recover", "certs"}


class Example(NamedTuple):
    """``command``: without the program's name. ``line``: the line as printed in the help."""

    command: tuple[str, ...]
    line: str

    @property
    def goes_on(self) -> bool:
        """Whether the command runs until it is interrupted."""
        return self.command[0] in ("serve", "dev") or "--follow" in self.line or "--watch" in self.line


def _examples(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[Example]:
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            help_text = CliRunner().invoke(main, [*path, name, "--help"]).output
            lines = map(str.strip, help_text.partition("Example")[2].splitlines())
            yield from (Example((*path, name), line) for line in lines if line.startswith("quorumvault "))
            if isinstance(command, click.Group):
                yield from _examples(command, (*path, name))


#: A group's help may repeat an example of one of its commands.
EXAMPLES = list({example.line: example for example in _examples(main)}.values())


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose only owner is the one in the examples. Its event log has an event of each kind that they ask for."""
    with Cluster.create(tmp_path_factory.mktemp("examples") / "vault", ("clinic-a",)) as cluster:
        cluster.bring_up()
        clinic = cluster.api("n1", "clinic-a")
        clinic.detokenize(clinic.tokenize(["an event to show"]).body["tokens"])
        yield cluster


def _variables(**more: str) -> dict[str, str]:
    return environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **more)


def _quorumvault(*arguments: str, cwd: Path, variables: dict[str, str]) -> bytes:
    command = [executable(), *arguments]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, timeout=SECONDS, check=True).stdout


@pytest.fixture
def variables(vault: Cluster) -> dict[str, str]:
    """The environment of a user who has set up a client."""
    urls = ",".join(vault.url(node) for node in NODES)
    return _variables(QUORUMVAULT_URL=urls, QUORUMVAULT_API_KEY=vault.api_key("clinic-a"))


def _furnish(place: Path, example: Example, vault: Cluster, variables: dict[str, str]) -> None:
    """Prepares the files and the state that the example takes for granted."""
    replaces = "--replace" in example.line
    if example.command[0] in IN_AN_EMPTY_DIRECTORY and not replaces:
        return
    if example.command[0] in WITH_A_NEW_CLUSTER or replaces:
        _quorumvault("init", "vault", "--base-port", str(free_base_port()), cwd=place, variables=variables)
        return
    (place / "vault").symlink_to(vault.directory)
    (place / "patients.csv").write_text("Id,SSN,PASSPORT\n1,999-17-5017,X1\n2,999-17-5018,\n")
    if example.command == ("restore",):
        _quorumvault("backup", "vault", "--node", "n1", "-o", "2025-03-01.qvb", cwd=place, variables=variables)
        for kept in ("secrets/master-s1.key", "fields.yaml", "api_keys.yaml"):
            shutil.copy(place / "vault" / kept, place)
    if "--require-epoch 2" in example.line:
        _quorumvault("rotate", "--from", "1", cwd=place, variables=variables)
    _make_tables(place, example, vault)
    output = re.search(r"-o (\S+)", example.line)
    if "patients.tokens.csv" in example.line.replace(output[0] if output else "-o", ""):
        arguments = ("tokenize", "patients.csv", "--column", "SSN,PASSPORT", "-o", "patients.tokens.csv")
        _quorumvault(*arguments, cwd=place, variables=variables)
    if output and "::" not in output[1]:
        (place / output[1]).unlink(missing_ok=True)


def _make_tables(place: Path, example: Example, vault: Cluster) -> None:
    """Makes Parquet files and a DuckDB table: with values for an example that tokenizes, otherwise with tokens."""
    values: list[str] = [f"999-17-{number}" for number in range(5017, 5020)]
    tokens = vault.api("n1", "clinic-a").tokenize(values).body["tokens"]
    columns = {"patient": values if example.command[0] == "tokenize" else tokens, "zip": [2139, 2140, 2141], "ssn": tokens}
    for path, table in {
        "raw/2024/x.parquet": columns,
        "lake/year=2024/x.parquet": columns,
        "claims.parquet": {"patient_ssn": tokens, "cost": [1, 2, 3]},
    }.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), place / path)
    with duckdb.connect(str(place / "lake.duckdb")) as con:
        con.register("visits_now", pa.table(columns))
        con.execute("create table visits as from visits_now")


def _adapted(example: Example, vault: Cluster, place: Path, variables: dict[str, str]) -> str:
    """The line, with addresses that exist on this machine."""
    line = re.sub(r"https://10\.0\.0\.([123]):8700", lambda match: vault.url(f"n{match[1]}"), example.line)
    line = re.sub(r"ssh 10\.0\.0\.[123]", "sh -c", line)
    if SOME_KEY in line:
        arguments = ("keys", "create", "--config", "vault/cluster.yaml", "--owner", "clinic-a", "--json")
        made = json.loads(_quorumvault(*arguments, cwd=place, variables=variables))
        line = line.replace(SOME_KEY, made["id"])
    return f"{line} --base-port {free_base_port()}" if example.command == ("dev",) else line


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.line.removeprefix("quorumvault "))
def test_an_example_works(example: Example, vault: Cluster, tmp_path: Path, variables: dict[str, str]) -> None:
    _furnish(tmp_path, example, vault, variables)
    line = _adapted(example, vault, tmp_path, variables)
    if example.goes_on:
        _run_until_stopped(line, tmp_path, variables)
    else:
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=variables, capture_output=True, timeout=SECONDS, check=False
        )
        assert (done.returncode, done.stderr.count(b"Traceback")) == (0, 0), done.stderr.decode()
    if example.command == ("admin", "stop"):
        assert vault.nodes["n1"].require_process().wait(SECONDS) == 0
        vault.bring_up("n1")


def _run_until_stopped(line: str, place: Path, variables: dict[str, str]) -> None:
    """Presses Ctrl-C as soon as the command prints something; it has to exit well then."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        ["bash", "-c", f"exec {line}"], cwd=place, env=variables, stdout=pipe, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            os.killpg(process.pid, signal.SIGINT)
            rest, _ = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, (said + rest).decode()
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_every_command_has_an_example() -> None:
    with click.Context(main) as context:
        assert {example.command[0] for example in EXAMPLES} == set(main.list_commands(context))
