"""A small dbt project whose models look tokens up, run by dbt itself."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import quorumvault as qv
from chaos.testbed.cluster import NODES, Cluster, environment
from tests import ROOT

VALUES = ["000-12-3456", "", "é\U0001f600", "000-12-3456"]
#: Keeps dbt from contacting anybody but the nodes. A project has no reason to contact more.
QUIET = {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DO_NOT_TRACK": "1"}


class Project:
    """A project folder with one model, and a profile with one output."""

    def __init__(self, directory: Path, cluster: Cluster) -> None:
        self.directory = directory
        self.urls = ",".join(cluster.url(name) for name in NODES)
        self.database = directory / "reporting.duckdb"
        (directory / "models").mkdir(parents=True)
        self._write("dbt_project.yml", {"name": "reporting", "version": "1.0", "profile": "reporting", "model-paths": ["models"]})

    def model(self, name: str, query: str) -> None:
        (self.directory / "models" / f"{name}.sql").write_text(query)

    def profile(self, **config: str) -> None:
        output = {
            "type": "duckdb",
            "path": str(self.database),
            "threads": 2,
            "settings": {"preserve_insertion_order": "true"},
            "plugins": [{"module": "quorumvault.analytics.dbt", "config": config}],
        }
        self._write("profiles.yml", {"reporting": {"target": "here", "outputs": {"here": output}}})

    def documented_profile(self, key_file: Path) -> None:
        """Writes the profile in docs/analytics.md, with this cluster's addresses and key."""
        (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "analytics.md").read_text(), re.DOTALL)
        for example, own in (
            ("http://n1:8700,http://n2:8700,http://n3:8700", self.urls),
            ("/run/secrets/quorumvault.key", str(key_file)),
        ):
            assert example in text
            text = text.replace(example, own)
        (self.directory / "profiles.yml").write_text(text)

    def run(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("dbt")), "run", "--project-dir", ".", "--profiles-dir", "."],
            cwd=self.directory,
            env=environment(**QUIET, **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with duckdb.connect(str(self.database), read_only=True) as con:
            return con.execute(query).fetchall()

    def written(self) -> Iterator[Path]:
        """Yields all files that dbt left behind: logs, manifests, compiled queries, the database."""
        yield from (path for path in self.directory.rglob("*") if path.is_file())

    def _write(self, name: str, content: object) -> None:
        (self.directory / name).write_text(json.dumps(content))  # JSON is YAML


@pytest.fixture
def project(tmp_path: Path, cluster: Cluster) -> Project:
    return Project(tmp_path / "project", cluster)


@pytest.fixture
def tokens(cluster: Cluster) -> list[str | None]:
    with qv.Client([cluster.url(name) for name in NODES], api_key=cluster.api_key("clinic")) as vault:
        return vault.tokenize(VALUES)


def _rows_of(tokens: list[str | None]) -> str:
    return ", ".join(f"({number}, '{token}')" for number, token in enumerate(tokens))


def test_models_look_tokens_up_and_make_them(
    project: Project, cluster: Cluster, key_file: Path, tokens: list[str | None]
) -> None:
    project.documented_profile(key_file)
    project.model("visits", f"{{{{ config(materialized='table') }}}} from (values {_rows_of(tokens)}) v(id, token)")
    project.model(
        "people",
        "{{ config(materialized='table') }} select id, detokenize(token) as person, tokenize(detokenize(token)) as again, "
        "detokenize('no token') as nobody from {{ ref('visits') }}",
    )
    done = project.run()
    assert done.returncode == 0, done.stdout
    expected = [(number, value, token, None) for number, (value, token) in enumerate(zip(VALUES, tokens, strict=True))]
    assert project.rows("select id, person, again, nobody from people order by id") == expected
    key = cluster.api_key("clinic").encode()
    assert [path for path in project.written() if key in path.read_bytes()] == []
    purposes = {json.loads(line)["purpose"] for name in NODES for line in _events(cluster, name) if '"detokenize"' in line}
    assert "reporting" in purposes


def test_the_environment_fills_in_what_the_profile_leaves_out(
    project: Project, cluster: Cluster, tokens: list[str | None]
) -> None:
    project.profile()
    project.model("people", f"select id, detokenize(token) as person from (values {_rows_of(tokens)}) v(id, token)")
    project.model("counted", "{{ config(materialized='table') }} select count(person) as found from {{ ref('people') }}")
    done = project.run(QUORUMVAULT_URL=project.urls, QUORUMVAULT_API_KEY=cluster.api_key("clinic"))
    assert done.returncode == 0, done.stdout
    assert project.rows("select found from counted") == [(len(VALUES),)]


def test_a_key_that_is_not_known_fails_the_run_and_leaves_no_table(project: Project, tokens: list[str | None]) -> None:
    project.profile(url=project.urls)
    project.model(
        "people",
        "{{ config(materialized='table') }} "
        f"select detokenize(token) as person from (values {_rows_of(tokens)}) v(id, token)",
    )
    done = project.run(QUORUMVAULT_API_KEY="qvk_nobody")
    assert done.returncode != 0
    assert "unauthenticated" in done.stdout
    assert project.rows("select count(*) from information_schema.tables where table_name = 'people'") == [(0,)]


def test_a_key_in_the_profile_is_refused_and_not_repeated(project: Project, cluster: Cluster) -> None:
    project.profile(url=project.urls, api_key=cluster.api_key("clinic"))
    project.model("one", "select 1 as one")
    done = project.run()
    assert done.returncode != 0
    assert "keys do not go into profiles: use key_file, or QUORUMVAULT_API_KEY" in done.stdout
    assert cluster.api_key("clinic") not in done.stdout


def _events(cluster: Cluster, name: str) -> list[str]:
    return (cluster.directory / name / "events.jsonl").read_text().splitlines()
