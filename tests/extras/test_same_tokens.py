"""An id has one token wherever it is read: files of every format, DuckDB, the SDK, frames, dbt and Spark, and all join."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyspark.sql import SparkSession

import quorumvault as qv
from chaos.testbed.cluster import NODES, Cluster
from quorumvault.cli import main
from tests.extras.test_dbt import Project, project
from tests.extras.test_spark import event_log, spark, vault

__all__ = ["event_log", "project", "spark", "vault"]
IDS = [1042, 7, -3, 2**62]


@pytest.fixture
def of_files(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """Writes the ids in each format and tokenizes them with the command. Returns the output of each as a table."""
    monkeypatch.chdir(tmp_path)
    environment = {"QUORUMVAULT_URL": ",".join(map(cluster.url, NODES)), "QUORUMVAULT_API_KEY": cluster.api_key("clinic")}

    def tokenized() -> dict[str, Any]:
        Path("a.csv").write_text("".join(f"{cell}\n" for cell in ("id", *IDS)))
        Path("a.tsv").write_text("".join(f"{cell}\tx\n" for cell in ("id", *IDS)))
        Path("a.jsonl").write_text("".join(json.dumps({"id": number}) + "\n" for number in IDS))
        with duckdb.connect("a.duckdb") as con:
            con.execute(f"create table t as select unnest({IDS}::bigint[]) as id; copy t to 'a.parquet'")
        for source, output in (
            *((f"a.{form}", f"tokens.{form}") for form in ("csv", "tsv", "jsonl", "parquet")),
            ("a.duckdb::t", "tokens.duckdb::t"),
        ):
            arguments = ("tokenize", source, "--column", "id", "--cast", "id", "-o", output)
            done = CliRunner().invoke(main, arguments, env=environment)
            assert done.exit_code == 0, done.stderr
        with duckdb.connect("tokens.duckdb") as con:
            found = {form: con.sql(f"from 'tokens.{form}'").to_arrow_table() for form in ("csv", "tsv", "jsonl", "parquet")}
            return found | {"duckdb": con.sql("from t").to_arrow_table()}

    return tokenized


def of_dbt(project: Project, cluster: Cluster) -> Any:
    project.profile(url=project.urls)
    project.model(
        "ids",
        "{{ config(materialized='table') }} "
        f"select tokenize(cast(id as varchar)) as id from (select unnest({IDS}::bigint[]) as id)",
    )
    done = project.run(QUORUMVAULT_API_KEY=cluster.api_key("clinic"))
    assert done.returncode == 0, done.stdout
    return pa.table({"id": [token for (token,) in project.rows("select id from ids")]})


def test_the_same_ids_join_wherever_they_were_tokenized(
    cluster: Cluster, project: Project, spark: SparkSession, vault: qv.Client, of_files: Callable[[], dict[str, Any]]
) -> None:
    tables = of_files()
    numbers = pa.table({"id": pa.array(IDS, pa.int64())})
    with duckdb.connect() as con:
        tables["query"] = qv.tokenize(con, "from numbers", "id", cast="id", client=vault).to_arrow_table()
    for name, frame in (("pandas", pd.DataFrame({"id": IDS})), ("polars", pl.DataFrame({"id": IDS})), ("pyarrow", numbers)):
        tables[name] = pa.table({"id": list(qv.tokenize(frame, columns="id", cast="id", client=vault)["id"])})
    tables["sdk"] = pa.table({"id": vault.tokenize([str(number) for number in IDS])})
    tables["dbt"] = of_dbt(project, cluster)
    of_spark = qv.spark.tokenize(spark.createDataFrame([(str(number),) for number in IDS], "id string"), "id")
    tables["spark"] = pa.table({"id": [row["id"] for row in of_spark.collect()]})
    assert len(tables) == 12
    with duckdb.connect() as con:
        for name, table in tables.items():
            con.register(f"of_{name}", table.select(["id"]))
        joined = " join ".join(f"of_{name}" + (" using (id)" if name != "csv" else "") for name in tables)
        assert con.sql(f"select count(*), count(distinct id) from {joined}").fetchall() == [(len(IDS), len(IDS))]
