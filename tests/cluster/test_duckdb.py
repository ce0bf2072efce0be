"""DuckDB, Arrow and three real nodes."""

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


class Counting:
    """A client that calls ``then`` after ``requests`` requests. Its requests are small, so that there are many."""

    def __init__(self, vault: qv.Client, requests: int, then: Any) -> None:
        self._vault = vault
        self._left = requests
        self._then = then
        self._lock = threading.Lock()

    def limits(self) -> Limits:
        return Limits(items=50, body_bytes=100_000, value_bytes=1000)

    def exchange_arrow(self, operation: Any, encode: Any, count: int) -> list[tuple[slice, bytes]]:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._then()
        return self._vault.exchange_arrow(operation, encode, count)


def test_a_node_killed_in_the_middle_changes_nothing(own_cluster: Cluster) -> None:
    values = [f"value-{number}" for number in range(3000)]
    with client(own_cluster) as vault:
        tokens: list[Any] = []
        killing = Counting(vault, 20, lambda: own_cluster.kill("n2"))
        for batch in look_up(killing, "tokenize", [pa.array(values)]):
            tokens += batch.column("result").to_pylist()
        own_cluster.bring_up("n2")
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
        own_cluster.bring_up("n2", "n3")
        assert con.sql(f"select count(detokenize(patient)) from {tokenized.alias}").fetchall() == [(10,)]
