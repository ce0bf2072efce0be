"""Spark in local mode: a driver's JVM, Python workers, and three real nodes."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark import SparkContext, cloudpickle
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

import quorumvault as qv
from chaos.testbed.cluster import NODES, Cluster
from quorumvault.analytics.spark import _asker, _Connection
from quorumvault.crypto.tokens import format_token

SCHEMA = "id long, patient string, `seen.by` string, cost long"
ROWS = [
    (number, None if number % 7 == 6 else f"patient-{number % 40:02}", f"doctor-{number % 3}", number * 10)
    for number in range(300)
]


@pytest.fixture(scope="module")
def event_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("event-log")


@pytest.fixture(scope="module")
def spark(cluster: Cluster, event_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Its workers inherit the environment in which its JVM starts: the nodes, and the clinic's key."""
    scratch = tmp_path_factory.mktemp("spark")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYSPARK_PYTHON", sys.executable)
        environment.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        environment.setenv("QUORUMVAULT_URL", ",".join(cluster.url(name) for name in NODES))
        environment.setenv("QUORUMVAULT_API_KEY", cluster.api_key("clinic"))
        builder = SparkSession.builder.master("local[2]").appName("tests").config("spark.ui.enabled", "false")
        settings = {
            "spark.driver.host": "127.0.0.1",
            "spark.eventLog.enabled": "true",
            "spark.eventLog.compress": "false",
            "spark.eventLog.dir": event_log.as_uri(),
            "spark.local.dir": str(scratch),
            "spark.log.level": "OFF",
            "spark.sql.shuffle.partitions": "4",
            "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        }
        session = builder.config(map=settings).getOrCreate()
    yield session
    session.stop()
    # The next module has other nodes, but a JVM keeps its environment. So it is ended here: it exits once its input closes.
    gateway, SparkContext._gateway, SparkContext._jvm = SparkContext._gateway, None, None
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(60)


@pytest.fixture
def vault(cluster: Cluster) -> Iterator[qv.Client]:
    with qv.Client([cluster.url(name) for name in NODES], api_key=cluster.api_key("clinic")) as client:
        yield client


@pytest.fixture
def visits(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(ROWS, SCHEMA)


def rows(df: DataFrame) -> list[tuple[Any, ...]]:
    """Sorted, because Spark promises no order."""
    return sorted(map(tuple, df.collect()))


def test_there_and_back(visits: DataFrame, vault: qv.Client) -> None:
    tokenized = qv.spark.tokenize(visits, ["patient", "seen.by"])
    assert tokenized.columns == visits.columns
    patients, doctors = (vault.tokenize([row[column] for row in ROWS]) for column in (1, 2))
    expected = [(row[0], patient, doctor, row[3]) for row, patient, doctor in zip(ROWS, patients, doctors, strict=True)]
    assert rows(tokenized) == expected
    back = qv.spark.detokenize(tokenized, ["patient", "seen.by"])
    assert back.columns == ["id", "patient", "patient_status", "seen.by", "seen.by_status", "cost"]
    assert rows(back.drop("patient_status", "seen.by_status")) == ROWS
    told = {(row.patient is None, row.patient_status, row["seen.by_status"]) for row in back.collect()}
    assert told == {(True, "null", "ok"), (False, "ok", "ok")}


def test_each_distinct_token_is_looked_up_once_whatever_is_asked_of_the_result(
    spark: SparkSession, cluster: Cluster, vault: qv.Client
) -> None:
    tokens = vault.tokenize([f"often-{number}" for number in range(50)])
    df = spark.createDataFrame([(tokens[number % 50], tokens[number * 7 % 50]) for number in range(1000)], "a string, b string")
    found = qv.spark.detokenize(df, ["a", "b"], purpose="counted")
    assert (found.count(), found.where("a_status = 'ok' and b_status = 'ok'").count()) == (1000, 1000)
    events = [json.loads(line) for name in NODES for line in (cluster.directory / name / "events.jsonl").read_text().splitlines()]
    assert sum(event["items"] for event in events if event.get("purpose") == "counted") == 50


def test_statuses_say_why_there_is_no_value(spark: SparkSession, cluster: Cluster, vault: qv.Client) -> None:
    with qv.Client([cluster.url(name) for name in NODES], api_key=cluster.api_key("registry")) as other:
        (foreign,) = other.tokenize(["a value of somebody else"])
    known, number = vault.tokenize(["a value", 42])
    texts = [known, foreign, format_token(1, bytes(20)), number, "flu", "", None, (known or "").upper()]
    df = spark.createDataFrame([(place, text) for place, text in enumerate(texts)], "place int, token string")
    told = [(status, value) for _, value, status in rows(qv.spark.detokenize(df, "token"))]
    assert told == [
        *[("ok", "a value"), ("not_found", None), ("not_found", None), ("not_text", None)],
        *[("not_token", None), ("not_token", None), ("null", None), ("not_token", None)],
    ]


def test_texts_are_compared_byte_by_byte_whatever_their_collation(spark: SparkSession, vault: qv.Client) -> None:
    df = spark.createDataFrame([("Ann",), ("ANN",), ("ann ",)], "name string collate UTF8_LCASE_RTRIM")
    assert rows(qv.spark.tokenize(df, "name")) == sorted((token,) for token in vault.tokenize(["Ann", "ANN", "ann "]))


def test_columns_that_will_not_do(visits: DataFrame) -> None:
    with pytest.raises(qv.ColumnError, match=r"has no column ssn; it has id, patient, seen\.by, cost"):
        qv.spark.detokenize(visits, "ssn")
    with pytest.raises(qv.ColumnError, match=r"column cost is bigint, and only strings are looked up: cast it first"):
        qv.spark.tokenize(visits, ["patient", "cost"])
    with pytest.raises(qv.ColumnError, match="name one column or more"):
        qv.spark.tokenize(visits, [])
    with pytest.raises(qv.ColumnError, match="has a column patient_status"):
        qv.spark.detokenize(visits.withColumnRenamed("cost", "PATIENT_STATUS"), "patient")
    with pytest.raises(qv.ColumnError, match="two columns of the DataFrame have one name"):
        qv.spark.detokenize(visits.join(visits, "id"), "patient")


def test_what_is_in_the_way_raises_with_its_own_class(
    spark: SparkSession, visits: DataFrame, own_cluster: Cluster, vault: qv.Client, tmp_path: Path
) -> None:
    wrong, good = tmp_path / "wrong.key", tmp_path / "good.key"
    wrong.write_text("qvk_nobody")
    good.write_text(own_cluster.api_key("clinic"))
    urls = [own_cluster.url(name) for name in NODES]
    with pytest.raises(qv.Unauthenticated):
        qv.spark.tokenize(visits, "patient", urls=urls, key_file=str(wrong))
    with pytest.raises(qv.QuorumVaultError, match=r"none\.key: the API key cannot be read"):
        qv.spark.tokenize(visits, "patient", urls=urls, key_file=str(tmp_path / "none.key"))
    with pytest.raises(qv.AlreadyTokenized, match=r"^it already is a token"):
        qv.spark.tokenize(spark.createDataFrame([(vault.tokenize(["x"])[0],)], "token string"), "token")
    own_cluster.kill("n2")
    tokenized = qv.spark.tokenize(visits, "patient", urls=urls, key_file=str(good))
    assert rows(tokenized.select("patient").where("patient is null")) == [(None,)] * sum(row[1] is None for row in ROWS)
    own_cluster.kill("n3")
    with pytest.raises(qv.NoQuorum):
        qv.spark.detokenize(tokenized, "patient", urls=urls, key_file=str(good), policy=qv.ClientPolicy(request=2.0))


def test_rows_that_are_others_the_second_time_raise_and_are_never_null(spark: SparkSession) -> None:
    def anew(batches: Any) -> Any:
        import os

        for batch in batches:
            yield pa.record_batch({"token": pa.array([format_token(1, os.urandom(20)) for _ in range(batch.num_rows)])})

    df = spark.range(10).mapInArrow(anew, "token string")
    found = qv.spark.detokenize(df, "token")
    for column in ("token", "token_status"):
        with pytest.raises(PySparkException, match="a text was not looked up"):
            found.select(column).collect()
    assert rows(qv.spark.detokenize(df.localCheckpoint(), "token").select("token_status")) == [("not_found",)] * 10


def test_a_sample_is_the_same_both_times(visits: DataFrame) -> None:
    sampled = qv.spark.tokenize(visits, "patient").repartition(3, "id").sample(0.5)
    found = qv.spark.detokenize(sampled, "patient")
    assert 0 < found.count() < len(ROWS)
    assert set(rows(found.drop("patient_status"))) <= set(ROWS)


def test_spark_is_never_told_the_key(
    spark: SparkSession, visits: DataFrame, cluster: Cluster, event_log: Path, key_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options: list[dict[str, Any]] = [{}, {"key_file": str(key_file)}]
    for given in options:
        qv.spark.tokenize(visits, "patient", **given).explain("extended")
        with pytest.raises(qv.QuorumVaultError, match="404 not-found"):
            qv.spark.tokenize(visits, "patient", urls=f"{cluster.url('n1')}/nowhere", **given)
    told = capfd.readouterr()
    logged = "".join(path.read_text() for path in event_log.rglob("*") if path.is_file())
    assert "MapInArrow quorumvault" in logged
    assert "== Physical Plan ==" in told.out
    for text in (told.out, told.err, logged, str(spark.sparkContext.getConf().getAll())):
        assert cluster.api_key("clinic") not in text


def test_what_is_sent_to_workers_is_where_the_key_is_and_not_the_key(cluster: Cluster, key_file: Path) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("QUORUMVAULT_API_KEY", cluster.api_key("clinic"))
        for path in (None, str(key_file)):
            connection = _Connection(cluster.url("n1"), path, "reporting", None, None, None)
            sent = cloudpickle.dumps(_asker("detokenize", connection))
            assert (path or cluster.url("n1")).encode() in sent
            assert cluster.api_key("clinic").encode() not in sent
            with cloudpickle.loads(cloudpickle.dumps(connection)).open() as vault:
                assert vault.epoch() == 1
