"""``quorumvault dev`` for real: three nodes come up, one may die, and none is left behind, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quorumvault.client import Client

DEADLINE = 60


def free_base_port() -> int:
    """P such that P to P+2 and P+10 to P+12 are free."""
    while True:
        base = random.randrange(20_000, 60_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for offset in (0, 1, 2, 10, 11, 12):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", base + offset))
            return base


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_end(pids: list[int]) -> None:
    end = time.monotonic() + DEADLINE
    while any(map(is_running, pids)):
        assert time.monotonic() < end, "a node outlived quorumvault dev"
        time.sleep(0.02)


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The process, once its nodes are being started. Its own process group, as in a terminal."""
    command = [sys.executable, "-m", "quorumvault", "dev", str(tmp_path / "dev"), "--base-port", str(free_base_port()), "--json"]
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


def test_nodes_serve_one_dies_and_ctrl_c_stops_the_rest(dev: subprocess.Popen[str]) -> None:
    answer = ready(dev)
    nodes = answer["nodes"]
    pids = [node["pid"] for node in nodes.values()]
    with Client([node["api"] for node in nodes.values()], api_key=answer["api_key"]) as client:
        tokens = client.tokenize(["Ada Lovelace", 42])
        os.kill(nodes["n3"]["pid"], signal.SIGKILL)
        assert dev.stderr is not None
        assert f"n3 (pid {nodes['n3']['pid']}) was killed by SIGKILL; n1, n2 go on" in dev.stderr.readline()
        assert [result.value for result in client.detokenize(tokens)] == ["Ada Lovelace", 42]
    os.killpg(dev.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
    assert dev.wait(DEADLINE) == 0
    wait_for_end(pids)


def test_nodes_end_when_dev_is_killed(dev: subprocess.Popen[str]) -> None:
    pids = [node["pid"] for node in ready(dev)["nodes"].values()]
    dev.kill()
    dev.wait(DEADLINE)
    wait_for_end(pids)


def test_ports_that_are_taken_end_it_with_words(tmp_path: Path) -> None:
    base = free_base_port()
    with contextlib.ExitStack() as stack:
        for number in range(3):
            taken = stack.enter_context(socket.socket())
            taken.bind(("127.0.0.1", base + number))
            taken.listen()
        command = [sys.executable, "-m", "quorumvault", "dev", str(tmp_path / "dev"), "--base-port", str(base)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{base + 1}" in done.stderr
    assert "none is left" in done.stderr
