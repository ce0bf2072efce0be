"""``quorumvault dev`` with real processes: three nodes come up, one may die, and none is left behind, however it ends."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.testbed.cluster import free_base_port, wait_for
from quorumvault.client import Client
from tests.rigs.clusters import SECONDS, runs


@pytest.fixture(params=[()], ids=[""])
def dev(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """The process, which is still starting its nodes. It has its own process group, as at a terminal. A test may add options."""
    place = (str(tmp_path / "dev"), "--base-port", str(free_base_port()))
    command = [sys.executable, "-m", "quorumvault", "dev", *place, "--json", *request.param]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0, stdin=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def ready(dev: subprocess.Popen[str]) -> dict[str, Any]:
    assert dev.stdout is not None
    answer: dict[str, Any] = json.loads(dev.stdout.readline())
    return answer


@pytest.mark.parametrize(("dev", "scheme"), [((), "http"), (("--tls",), "https")], indirect=["dev"], ids=["plain", "tls"])
def test_nodes_serve_one_dies_and_ctrl_c_stops_the_rest(dev: subprocess.Popen[str], scheme: str) -> None:
    answer = ready(dev)
    nodes = answer["nodes"]
    pids = [node["pid"] for node in nodes.values()]
    urls = [node["api"] for node in nodes.values()]
    assert {url.partition("://")[0] for url in urls} == {scheme}
    with Client(urls, api_key=answer["api_key"], cacert=answer.get("cacert")) as client:
        tokens = client.tokenize(["Ada Lovelace", 42])
        os.kill(nodes["n3"]["pid"], signal.SIGKILL)
        assert dev.stderr is not None
        assert f"n3 (pid {nodes['n3']['pid']}) was killed by SIGKILL; n1, n2 go on" in dev.stderr.readline()
        assert [result.value for result in client.detokenize(tokens)] == ["Ada Lovelace", 42]
    os.killpg(dev.pid, signal.SIGINT)  # what a terminal sends on Ctrl-C
    assert dev.wait(SECONDS) == 0
    assert wait_for(lambda: not any(map(runs, pids)), SECONDS)


def test_nodes_end_when_dev_is_killed(dev: subprocess.Popen[str]) -> None:
    pids = [node["pid"] for node in ready(dev)["nodes"].values()]
    dev.kill()
    dev.wait(SECONDS)
    assert wait_for(lambda: not any(map(runs, pids)), SECONDS)


def test_ports_that_are_taken_end_it_with_words(tmp_path: Path) -> None:
    base = free_base_port()
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(socket.socket())
        taken.bind(("127.0.0.1", base + 1))
        taken.listen()
        command = [sys.executable, "-m", "quorumvault", "dev", str(tmp_path / "dev"), "--base-port", str(base)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{base + 1}: Address already in use" in done.stderr
    assert "--base-port P" in done.stderr
    assert (done.stdout, (tmp_path / "dev").exists()) == ("", False)
