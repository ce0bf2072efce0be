"""More load than the nodes can take: answers are right, refusals are as documented, and afterwards all is as before."""

import socket
import threading
import time
from contextlib import ExitStack, closing

import msgspec
import pytest

import bench.http
from bench.http import Lanes, LoadFailed, encode
from bench.load import OWNER
from bench.openloop import OpenLoop
from bench.overload import BATCH, Capacity, Overload, Phase, measure
from chaos.testbed.api import Api
from chaos.testbed.cluster import NODES, Cluster, wait_for
from tests.hostile.limited import raw_connection
from tests.rigs.clusters import metrics


def test_the_overload_benchmark_runs_through_and_nothing_is_left_of_the_load(cluster: Cluster) -> None:
    overload = measure(cluster, times=3.0, seconds=1.0)
    assert min(overload.younger.goodput, overload.older.goodput) > 0
    assert overload.places == 3 * 64
    assert [phase.name for phase in overload.phases] == ["before", "overload", "after"]
    for phase in overload.phases:
        assert set(phase.statuses) <= {"200", "429", "503"}
        assert phase.broken == 0
        assert phase.most_mib > 1
        assert min(phase.cpu_each_ms, phase.nodes_cores, phase.client_cores) > 0
    for node in NODES:
        assert metrics(cluster, node)["quorumvault_in_flight"] == 0
    assert len(overload.account().checks) == 4


def test_an_owner_whose_bodies_come_slowly_shuts_no_other_out(cluster: Cluster) -> None:
    """The owner takes and holds all the places that an owner may have. Only its own further requests are refused."""
    request = encode("/tokenize", cluster.api_key(OWNER), b'{"values":["slow"]}')
    with ExitStack() as stack:
        connections = [stack.enter_context(raw_connection(cluster)) for _ in range(48)]
        for connection in connections:
            connection.sendall(request[:-5])
        slow = cluster.api("n1", OWNER)
        assert wait_for(lambda: slow.tokenize(["refused"]).status == 429, 20)
        refused = slow.tokenize(["refused"])
        assert (refused.body["code"], refused.body["retryable"]) == ("busy", True)
        assert "as many as an owner may have" in refused.body["detail"]
        for other in ("clinic", "registry"):
            assert cluster.api("n1", other).tokenize([f"of {other}"]).status == 200
        for connection in connections:
            connection.sendall(request[-5:])
        assert [connection.recv(12) for connection in connections] == [b"HTTP/1.1 200"] * 48
    assert slow.tokenize(["and now"]).status == 200


def test_a_stranger_s_requests_leave_a_line_a_second_in_the_event_log(cluster: Cluster) -> None:
    log = cluster.directory / "n2" / "events.jsonl"
    before, begun = log.stat().st_size, time.monotonic()
    stranger = Api(cluster.nodes["n2"].address, "nobody's key")
    assert [stranger.tokenize(["x"]).status for _ in range(200)] == [401] * 200

    def lines() -> list[dict[str, object]]:
        with log.open("rb") as file:
            file.seek(before)
            new = [msgspec.json.decode(line) for line in file.read().splitlines()]
        return [line for line in new if line.get("outcome") == "unauthenticated"]

    assert wait_for(lambda: sum(1 + int(str(line.get("more", 0))) for line in lines()) == 200, 20)
    assert len(lines()) <= 2 + time.monotonic() - begun


# The load generator's clients, against nodes and against a server with scripted answers.


def test_a_connection_that_was_idle_is_not_used_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes close idle connections. Here the client keeps none at all, so that every request has to open a new one."""
    monkeypatch.setattr("bench.http._KEPT_SECONDS", 0.0)
    connect, opened = bench.http._connect, []
    monkeypatch.setattr("bench.http._connect", lambda *to: opened.append(to) or connect(*to))
    addresses = [node.address for node in cluster.nodes.values()]
    request = encode("/tokenize", cluster.api_key("bench"), b'{"values":["1"]}')
    with closing(Lanes(addresses, 2)) as lanes:
        driven = lanes.drive([request] * 10)
    assert len(driven.bodies) == 10
    assert len(set(driven.bodies)) == 1
    assert len(opened) == 2 * len(addresses) + 10


def test_it_stops_at_an_answer_that_is_none(cluster: Cluster) -> None:
    addresses = [node.address for node in cluster.nodes.values()]
    with closing(Lanes(addresses, 1)) as lanes, pytest.raises(LoadFailed, match="401"):
        lanes.drive([encode("/tokenize", "no key", b"{}")])


class Server:
    """Answers each request with the next of ``answers``; None closes the connection."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = iter(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while connection.recv(1 << 16):
                answer = next(self._answers, None)
                if answer is None:
                    return
                connection.sendall(answer)


def answer(status: int, body: bytes = b"{}") -> bytes:
    return b"HTTP/1.1 %d Some Words\r\nserver: s\r\nContent-Length: %d\r\nx: y\r\n\r\n%b" % (status, len(body), body)


def test_every_request_has_its_answer_and_connections_are_kept() -> None:
    with (
        closing(Server(*[answer(200, b"first"), answer(429), answer(200, b"x" * 500_000)])) as server,
        closing(OpenLoop([server.address])) as loop,
    ):
        for status, body in ((200, b"first"), (429, b"{}"), (200, b"x" * 500_000)):
            run = loop.run([b"request"], rate=100)
            (answered,) = run.answered
            assert (answered.request, answered.status, answered.body) == (0, status, body)
            assert (run.unsent, run.broken) == (0, 0)
            assert 0 < answered.seconds <= run.seconds
        assert server.connections == 1


def test_requests_are_sent_when_they_are_due_and_not_when_there_is_an_answer() -> None:
    """Nobody answers. All requests are sent all the same, each over its own connection, and counted when that connection ends."""
    with closing(Server()) as server, closing(OpenLoop([server.address, server.address])) as loop:
        run = loop.run([b"request"] * 20, rate=1_000)
        assert (run.answered, run.unsent, run.broken) == ([], 0, 20)
        assert server.connections == 20


def test_a_request_for_which_no_connection_is_free_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.openloop._CONNECTIONS", 2)
    monkeypatch.setattr("bench.openloop._GRACE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, closing(OpenLoop([f"127.0.0.1:{silent.getsockname()[1]}"])) as loop:
        run = loop.run([b"request"] * 5, rate=1_000)
    assert (run.answered, run.unsent, run.broken) == ([], 3, 2)


def phase(name: str, **changed: object) -> Phase:
    usual = Phase(
        name=name,
        offered=50,
        goodput=50,
        median_ms=5,
        p99_ms=10,
        statuses={"200": 500},
        unsent=0,
        broken=0,
        most_mib=50,
        cpu_each_ms=4,
        nodes_cores=1.7,
        client_cores=0.1,
    )
    return msgspec.structs.replace(usual, **changed)


def verdicts(before: Phase, during: Phase, after: Phase) -> list[bool]:
    younger, older = Capacity(goodput=110, cpu_each_ms=3), Capacity(goodput=90, cpu_each_ms=4)  # 100 at the age in between
    overload = Overload("2026-01-01", "some machine", "overload", BATCH, 3.0, younger, older, 192, [before, during, after])
    return [check.held for check in overload.account().checks]


def test_what_is_held_against_an_overload() -> None:
    before, during, after = phase("before"), phase("overload", goodput=90, p99_ms=2000, most_mib=100), phase("after")
    assert verdicts(before, during, after) == [True, True, True, True]
    assert verdicts(before, msgspec.structs.replace(during, goodput=79), after)[0] is False
    assert verdicts(before, msgspec.structs.replace(during, p99_ms=4300), after)[1] is False
    assert verdicts(before, msgspec.structs.replace(during, most_mib=151), after)[2] is False
    assert verdicts(before, during, msgspec.structs.replace(after, p99_ms=51))[3] is False
    assert verdicts(before, during, msgspec.structs.replace(after, statuses={"200": 499, "429": 1}))[3] is False
