"""DuckDB, Arrow and three real nodes."""

from __future__ import annotations

import threading
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import quorumvault as qv
from chaos.testbed.cluster import NODES, Cluster
from quorumvault.analytics.arrow import look_up
from quorumvault.client import Limits


def client(cluster: Cluster, owner: str = "clinic") -> qv.Client:
    return qv.Client([cluster.url(name) for name in NODES], api_key=cluster.api_key(owner))


VISITS = "select range as id, 'patient-' || (range * 7919 % 400) as patient, range / 4 as cost from range(5000)"


def test_there_and_back(cluster: Cluster) -> None:
    with client(cluster) as vault, duckdb.connect() as con:
        tokenized = qv.tokenize(con, VISITS, "patient", client=vault)
        assert con.sql("select count(distinct patient), min(patient) like 'qv_1_%' from tokenized").fetchall() == [(400, True)]
        back = qv.detokenize(con, tokenized, "patient", missing="error", client=vault)
        assert back.project("id, patient, cost").fetchall() == con.sql(VISITS).fetchall()


def test_a_join_on_tokens_is_the_join_on_values(cluster: Cluster) -> None:
    with client(cluster) as vault, duckdb.connect() as con:
        con.execute(f"create table visits as {VISITS}")
        con.execute("create table patients as select 'patient-' || range as name, range % 7 as ward from range(0, 800, 2)")
        patients = qv.tokenize(con, "from patients", "name", client=vault)
        visits = qv.tokenize(con, "from visits", "patient", client=vault)
        joined = "select ward, count(*) from {} p join {} v on p.name = v.patient group by ward order by ward"
        on_tokens = con.sql(joined.format(patients.alias, visits.alias)).fetchall()
        assert on_tokens == con.sql(joined.format("patients", "visits")).fetchall()


def test_a_sampled_source_is_evaluated_once(cluster: Cluster) -> None:
    with client(cluster) as vault, duckdb.connect() as con:
        con.register("tokens", pa.table({"token": vault.tokenize([f"sampled-{number}" for number in range(500)])}))
        found = qv.detokenize(con, "select token, random() as chance from tokens using sample 100 rows", "token", client=vault)
        rows = found.fetchall()
        assert rows == found.fetchall()
        assert ({status for _, status, _ in rows}, len({value for value, *_ in rows})) == ({"ok"}, 100)


def test_another_owners_key_finds_nothing(cluster: Cluster) -> None:
    with client(cluster) as vault, client(cluster, "registry") as other, duckdb.connect() as con:
        tokenized = qv.tokenize(con, VISITS + " limit 10", "patient", client=vault)
        found = qv.detokenize(con, tokenized, "patient", client=other)
        assert set(found.project("patient, patient_status").fetchall()) == {(None, "not_found")}
        with pytest.raises(qv.TokensNotFound, match="10 of 10 tokens have no value here, column patient, rows 0, 1, 2, 3, 4, …"):
            qv.detokenize(con, tokenized, "patient", missing="error", client=other)
        qv.register(con, other)
        assert con.sql(f"select count(detokenize(patient)) from {tokenized.alias}").fetchall() == [(0,)]
        qv.register(con, vault)
        assert con.sql(f"select count(detokenize(patient)) from {tokenized.alias}").fetchall() == [(10,)]


class Counting:
    """A client that calls ``then`` when so many requests were sent; small requests, so that there are many."""

    def __init__(self, vault: qv.Client, requests: int, then: Any) -> None:
        self._vault = vault
        self._left = requests
        self._then = then
        self._lock = threading.Lock()

    def limits(self) -> Limits:
        return Limits(items=50, body_bytes=100_000, value_bytes=1000)

    def exchange_arrow(self, operation: Any, body: bytes) -> bytes:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._then()
        return self._vault.exchange_arrow(operation, body)


def test_a_node_killed_in_the_middle_changes_nothing(own_cluster: Cluster) -> None:
    values = [f"value-{number}" for number in range(3000)]
    with client(own_cluster) as vault:
        tokens: list[Any] = []
        killing = Counting(vault, 20, lambda: own_cluster.kill("n2"))
        for batch in look_up(killing, "tokenize", [pa.array(values)]):
            tokens += batch.column("result").to_pylist()
        own_cluster.start("n2")
        own_cluster.wait_ready(reachable=3)
        assert tokens == vault.tokenize(values)
        found: list[Any] = []
        killing = Counting(vault, 20, lambda: own_cluster.kill("n3"))
        for batch in look_up(killing, "detokenize", [pa.array(tokens)]):
            found += batch.column("result").to_pylist()
        assert found == values


def test_no_quorum_is_an_error_and_never_a_null(own_cluster: Cluster) -> None:
    urls = [own_cluster.url(name) for name in NODES]
    with (
        qv.Client(urls, api_key=own_cluster.api_key("clinic"), policy=qv.ClientPolicy(request=2.0)) as vault,
        duckdb.connect() as con,
    ):
        tokenized = qv.tokenize(con, VISITS + " limit 10", "patient", client=vault)
        qv.register(con, vault)
        own_cluster.kill("n2", "n3")
        with pytest.raises(qv.NoQuorum):
            qv.detokenize(con, tokenized, "patient", client=vault)
        with pytest.raises(duckdb.InvalidInputException, match="no-quorum"):
            con.sql(f"select detokenize(patient) from {tokenized.alias}").fetchall()
        assert isinstance(vault.last_error, qv.NoQuorum)
        own_cluster.start("n2", "n3")
        own_cluster.wait_ready(reachable=3)
        assert con.sql(f"select count(detokenize(patient)) from {tokenized.alias}").fetchall() == [(10,)]
