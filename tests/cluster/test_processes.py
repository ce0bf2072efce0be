"""chaos.testbed.cluster itself: what the other tests of this folder stand on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.testbed.api import Unanswered
from chaos.testbed.cluster import NODES, Cluster, ClusterError, wait_for
from tests import ROOT
from tests.cluster.conftest import OWNERS

GONE_SECONDS = 10.0


def runs(pid: int) -> bool:
    """A zombie that nobody has collected does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_killed_node_is_missed_and_welcomed_back(own_cluster: Cluster) -> None:
    tokens = own_cluster.api("n1", "clinic").tokenize(["a", "b"]).body["tokens"]
    own_cluster.kill("n3")
    with pytest.raises(ClusterError, match="n3 is not running"):
        own_cluster.pid("n3")
    own_cluster.wait_ready("n1", "n2")
    own_cluster.start("n3")
    own_cluster.wait_ready(reachable=3)
    answer = own_cluster.api("n3", "clinic").detokenize(tokens)
    assert [result["value"] for result in answer.body["results"]] == ["a", "b"]


def test_a_frozen_node_answers_nothing_until_it_thaws(own_cluster: Cluster) -> None:
    own_cluster.pause("n2")
    with pytest.raises(Unanswered):
        own_cluster.api("n2").get("/livez", timeout=0.2)
    assert own_cluster.api("n1", "clinic").tokenize(["while n2 is frozen"]).status == 200
    own_cluster.resume("n2")
    own_cluster.wait_ready(reachable=3)
    assert own_cluster.api("n2", "clinic").tokenize(["and after"]).status == 200


def test_sigterm_ends_nodes_with_exit_code_0(own_cluster: Cluster) -> None:
    assert own_cluster.stop() == dict.fromkeys(NODES, 0)


def test_commands_reach_the_node_that_is_named(cluster: Cluster, tmp_path: Path) -> None:
    source = tmp_path / "one.csv"
    source.write_bytes(b"id,name\n1,Ada\n")
    done = cluster.command("tokenize", str(source), "--column", "name", via="n2", owner="clinic")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"id,name\n1,qv_1_")


def test_a_node_that_cannot_start_says_why_at_once(tmp_path: Path) -> None:
    with Cluster.create(tmp_path / "cluster", OWNERS) as made:
        (tmp_path / "cluster" / "cluster.yaml").write_text("nonsense: true\n")
        made.start("n1")
        with pytest.raises(ClusterError, match=r"n1 ended with exit code 1 before it was ready(.|\n)*cluster\.yaml"):
            made.wait_ready("n1")


def test_a_directory_is_not_made_a_cluster_twice(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="quorumvault init ended with exit code"):
        Cluster.create(cluster.directory, OWNERS)


_ABANDON = """
import sys, time
from pathlib import Path
from chaos.testbed.cluster import NODES, Cluster
made = Cluster.create(Path(sys.argv[1]), ("clinic",))
made.start()
made.wait_ready()
print(*map(made.pid, NODES), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nodes_do_not_outlive_whoever_started_them(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", _ABANDON, str(tmp_path / "cluster")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.send_signal(number)
    assert len(pids) == 3
    assert wait_for(lambda: not any(map(runs, pids)), GONE_SECONDS)
