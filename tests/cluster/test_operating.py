"""What operators rely on, with real processes: /metrics follows events, SIGHUP reloads, and ``serve`` exits with its codes."""

import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from chaos.testbed.cluster import HOST, READY_SECONDS, Cluster, environment, executable, wait_for
from tests.rigs.clusters import events, health, identical, metrics, sample_becomes

SECONDS = 30


def test_metrics_tell_what_happened(own_cluster: Cluster) -> None:
    clinic = own_cluster.api("n1", "clinic")
    tokens = clinic.tokenize(["a", "b", None]).body["tokens"]
    assert clinic.detokenize([*tokens, "qv_1_unknown"]).status == 200
    assert own_cluster.api("n1").tokenize(["without a key"]).status == 401
    before = metrics(own_cluster, "n1")
    assert before['quorumvault_requests_total{operation="tokenize",outcome="ok"}'] == 1
    assert before['quorumvault_requests_total{operation="tokenize",outcome="unauthenticated"}'] == 1
    assert before['quorumvault_rejected_total{reason="unauthenticated"}'] == 1
    assert (
        before['quorumvault_items_total{operation="tokenize"}'],
        before['quorumvault_items_total{operation="detokenize"}'],
    ) == (2, 3)
    assert before["quorumvault_sync_duration_seconds_count"] >= 1
    assert before['quorumvault_node_state{state="active"}'] == 1
    assert before["quorumvault_quorum_reachable"] == 3
    assert before["quorumvault_in_flight"] == 0
    assert before["quorumvault_disk_free_bytes"] > 0
    assert before['quorumvault_peer_owed_records{peer="n3"}'] == 0
    assert wait_for(lambda: identical(own_cluster, 2), SECONDS)  # two acks complete a write: n3 may store it later
    own_cluster.kill("n3")
    assert sample_becomes(own_cluster, "n1", 'quorumvault_peer_up{peer="n3"}', 0)
    missed = clinic.tokenize(["c", "d", "e"]).body["tokens"]
    after = metrics(own_cluster, "n1")
    assert after['quorumvault_peer_up{peer="n2"}'] == 1
    assert after["quorumvault_quorum_reachable"] == 2
    assert after['quorumvault_peer_owed_records{peer="n3"}'] == 3
    assert wait_for(lambda: metrics(own_cluster, "n1")['quorumvault_peer_owed_seconds{peer="n3"}'] > 0, SECONDS)
    own_cluster.bring_up("n3")
    assert own_cluster.api("n3", "clinic").detokenize(missed).body["found"] == 3
    assert sample_becomes(own_cluster, "n1", 'quorumvault_peer_owed_records{peer="n3"}', 0)
    healed = metrics(own_cluster, "n1")
    assert healed['quorumvault_peer_owed_seconds{peer="n3"}'] == 0
    assert healed['quorumvault_handoff_records_total{peer="n3"}'] == 3
    clinic.post("/rotate-epoch", {"from_epoch": 1})
    assert own_cluster.api("n2", "clinic").tokenize(["f"]).body["epoch"] == 2
    assert metrics(own_cluster, "n2")["quorumvault_fence_retries_total"] == 1


def test_a_node_that_is_asked_to_stop_says_that_it_drains_and_exits_0(own_cluster: Cluster) -> None:
    for node, number in (("n2", signal.SIGTERM), ("n1", signal.SIGINT)):
        process = own_cluster.nodes[node].require_process()
        process.send_signal(number)
        assert sample_becomes(own_cluster, node, 'quorumvault_node_state{state="draining"}', 1)
        assert health(own_cluster, node).body["state"] == "draining"
        assert process.wait(SECONDS) == 0


def test_a_peer_that_moved_is_found_after_sighup(own_cluster: Cluster) -> None:
    file = own_cluster.directory / "cluster.yaml"
    own_cluster.stop("n2")
    with socket.create_server((HOST, 0)) as probe:
        address = f"{HOST}:{probe.getsockname()[1]}"
    old = yaml.safe_load(file.read_text())["nodes"]["n2"]["peer"]
    text = file.read_text()
    file.write_text("no configuration\n")
    own_cluster.nodes["n1"].require_process().send_signal(signal.SIGHUP)
    assert wait_for(lambda: "peer addresses stay as they were" in own_cluster.nodes["n1"].log.read_text(), SECONDS)
    assert sample_becomes(own_cluster, "n1", "quorumvault_reload_failed", 1)
    warning = "reload failed: the peer addresses stay as they were; the node's log says why"
    assert warning in own_cluster.api("n1").get("/health").body["warnings"]
    file.write_text(text.replace(old, address))
    own_cluster.start("n2")
    own_cluster.nodes["n1"].require_process().send_signal(signal.SIGHUP)
    assert sample_becomes(own_cluster, "n1", "quorumvault_reload_failed", 0)
    assert warning not in own_cluster.api("n1").get("/health").body["warnings"]
    assert sample_becomes(own_cluster, "n1", 'quorumvault_peer_up{peer="n2"}', 1)
    assert metrics(own_cluster, "n3")['quorumvault_peer_up{peer="n2"}'] == 0  # n3 was not told of the new address
    own_cluster.nodes["n3"].require_process().send_signal(signal.SIGHUP)
    own_cluster.wait_ready(reachable=3)


def test_the_event_log_has_starts_stops_reloads_and_keys(own_cluster: Cluster) -> None:
    key = own_cluster.make_key("clinic", "derive")
    own_cluster.stop("n3")
    kinds = ["node_started", "key_added", "reload", "node_stopping", "node_stopped"]
    told = [event for event in events(own_cluster, "n3") if event["event"] in kinds]
    assert [event["event"] for event in told] == kinds
    assert (told[1]["key_id"], told[1]["owner"]) == (key.split("_")[1], "clinic")
    assert told[2]["detail"].startswith("asked for by the administrative socket; read again: API keys")
    assert told[3]["detail"] == "SIGTERM"
    assert key not in (own_cluster.directory / "n3" / "events.jsonl").read_text()


def test_a_node_that_is_to_record_all_serves_nothing_while_it_cannot(made: Cluster) -> None:
    with (made.directory / "cluster.yaml").open("a") as file:
        file.write("\nevents:\n  on_failure: refuse\n  retry: 0.1\n")
    made.bring_up()
    clinic, log = made.api("n1", "clinic"), made.directory / "n1" / "events.jsonl"
    assert clinic.tokenize(["a"]).status == 200
    log.unlink()
    log.mkdir()
    refused = clinic.tokenize(["b"])
    assert (refused.status, refused.body["code"], refused.body["outcome"]) == (503, "no-quorum", "unknown")
    refused = clinic.tokenize(["b"])
    assert (refused.status, refused.body["outcome"]) == (503, "none")
    assert made.api("n1").get("/health").status == made.api("n1").get("/readyz").status == 503
    assert made.api("n2", "clinic").tokenize(["b"]).status == 200
    log.rmdir()
    assert wait_for(lambda: made.api("n1").get("/health").status == 200, SECONDS)
    assert clinic.tokenize(["b"]).status == 200
    assert [event["outcome"] for event in events(made, "n1") if event["event"] == "tokenize"] == ["ok", "no-quorum", "ok"]


@pytest.mark.parametrize(
    ("damage", "code", "says"),
    [
        (lambda home: (home / "api_keys.yaml").write_text("owners: []\n"), 1, "api_keys.yaml: keys: is missing"),
        (lambda home: (home / "secrets" / "n1.pem").chmod(0o644), 1, "expected mode 0600, not 0644"),
        (lambda home: (home / "n1" / "store" / "CURRENT").unlink(), 3, "the file CURRENT is missing"),
    ],
    ids=["bad configuration", "a secret for all to read", "a damaged store"],
)
def test_serve_ends_at_once_with_words_and_an_exit_code(
    made: Cluster, damage: Callable[[Path], object], code: int, says: str
) -> None:
    damage(made.directory)
    command = [executable(), "serve", "--config", str(made.directory / "cluster.yaml"), "--node", "n1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=READY_SECONDS, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert done.stderr.startswith("quorumvault: ")
    assert "Traceback" not in done.stderr


def test_a_node_runs_without_any_standard_stream(made: Cluster) -> None:
    """Otherwise a file of the store could get the number of a closed stream, and the log would be written into that file."""
    command = f"exec {executable()} serve --config {made.directory / 'cluster.yaml'} --node n1 --log-level debug <&- >&- 2>&-"
    with subprocess.Popen(["bash", "-c", command], env=environment()) as process:
        try:
            assert wait_for(lambda: made.health("n1") is not None, READY_SECONDS)
            streams = [Path(f"/proc/{process.pid}/fd/{number}").readlink() for number in range(3)]
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert streams == [Path("/dev/null")] * 3
