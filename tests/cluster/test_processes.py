"""Tests of chaos.testbed.cluster itself, which the other tests of this folder build on."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.testbed.cluster import Cluster, ClusterError, wait_for
from tests import ROOT
from tests.rigs.clusters import runs

GONE_SECONDS = 10.0


def test_a_node_that_cannot_start_says_why_at_once(made: Cluster) -> None:
    (made.directory / "cluster.yaml").write_text("nonsense: true\n")
    made.start("n1")
    with pytest.raises(ClusterError, match=r"n1 ended with exit code 1 before it was ready(.|\n)*cluster\.yaml"):
        made.wait_ready("n1")


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
