"""A user's project: five tests with the fixtures of the plugin, which pytest finds by itself."""

import os
import select
import subprocess
import sys
from pathlib import Path

from quorumvault.testing.cluster import VaultCluster, end, joined
from tests.rigs.clusters import SECONDS, runs

FIVE = Path(__file__).with_name("five.py")
#: Notes which cluster each test of the project was given.
CONFTEST = """
import os, pathlib
import pytest


@pytest.fixture(autouse=True)
def noted(request):
    if "vault_cluster" in request.fixturenames:
        cluster = request.getfixturevalue("vault_cluster")
        note = pathlib.Path(os.environ["NOTES"], request.node.name)
        note.write_text(f"{cluster.folder} {sorted(cluster.pids.values())}")
"""


def test_two_processes_of_a_run_share_one_cluster_that_is_gone_after_them(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(FIVE.read_text())
    (tmp_path / "conftest.py").write_text(CONFTEST)
    notes = tmp_path / "notes"
    notes.mkdir()
    without = [option for plugin in ("cacheprovider", "hypothesispytest", "anyio") for option in ("-p", f"no:{plugin}")]
    command = [sys.executable, "-m", "pytest", "-q", *without, "-n", "2", str(tmp_path)]
    environment = os.environ | {"NOTES": str(notes), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert "5 passed" in done.stdout, done.stdout + done.stderr
    first, second = (note.read_text() for note in notes.iterdir())
    assert first == second
    folder, _, pids = first.partition(" ")
    assert not Path(folder).exists()
    assert [pid for pid in map(int, pids.strip("[]").split(",")) if runs(pid)] == []


def test_the_nodes_end_with_the_process_that_the_run_began_with(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as began:
        running = joined(folder, began.pid)
        handle = os.pidfd_open(running.parent)
        with VaultCluster(folder, running) as vault:
            assert vault.epoch() == 1
        began.kill()
    try:
        assert select.select([handle], [], [], SECONDS)[0]
    finally:
        os.close(handle)
    assert [pid for pid in running.pids.values() if runs(pid)] == []
    end(folder)
    assert not folder.exists()
