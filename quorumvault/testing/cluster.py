"""``VaultCluster``: a client, and behind it three nodes of ``quorumvault dev`` in a temporary folder.

The processes of one test run share a cluster: the first one that needs it starts it, and the run's main process stops it
(plugin.py). If the main process is killed, the nodes end with it.
"""

import contextlib
import fcntl
import os
import random
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import yaml

from quorumvault.client import Client, ClientPolicy
from quorumvault.config.addresses import PORT_OFFSETS, plan_nodes
from quorumvault.config.api_keys import PERMISSIONS
from quorumvault.config.cluster import load_cluster
from quorumvault.config.key_changes import create_key
from quorumvault.errors import QuorumVaultError
from quorumvault.server.offline.init import init
from quorumvault.testing.fake import OWNER

#: Most seconds until three nodes are ready, and until they have stopped: many times what each takes.
_START, _STOP = 60.0, 60.0
_HOST = "127.0.0.1"
#: Below the range from which Linux assigns ports to outgoing connections.
_BASE_PORTS: Final = range(20_000, 32_000, 20)
_STATE = "cluster.json"
#: There is no load balancer that has to notice a stopping node.
_SETTINGS = "\ntimeouts:\n  drain_notice: 0\n"
#: The child processes that this process has to reap, by process id.
_started: dict[int, subprocess.Popen[bytes]] = {}


class Running(msgspec.Struct, frozen=True):
    """A running cluster, as in its folder's ``cluster.json``. ``parent`` is the process id of ``quorumvault dev``."""

    urls: dict[str, str]
    pids: dict[str, int]
    api_key: str
    parent: int

    def __repr__(self) -> str:
        return f"Running({self.urls})"


def joined(folder: Path, lasts_with: int, fields: Sequence[str] | None = None) -> Running:
    """Returns the cluster in ``folder``; starts it if it does not run. It ends with process ``lasts_with``, or by ``end``.

    Raises QuorumVaultError with the nodes' output if the nodes are not ready in time.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = folder / _STATE
        if not state.exists():
            state.write_bytes(msgspec.json.encode(_start(folder, lasts_with, fields)))
        return msgspec.json.decode(state.read_bytes(), type=Running)


def _start(folder: Path, lasts_with: int, fields: Sequence[str] | None) -> Running:
    vault, now = folder / "vault", datetime.now(UTC)
    init(vault, plan_nodes([_HOST], free_base_port()), [], now=now, entropy=secrets.token_bytes)
    with (vault / "cluster.yaml").open("a", encoding="utf-8") as settings:
        settings.write(_SETTINGS)
    if fields is not None:
        (vault / "fields.yaml").write_text(yaml.safe_dump({"fields": list(fields)}), encoding="utf-8")
    keys = load_cluster(vault / "cluster.yaml").api_keys
    key = create_key(keys, OWNER, now=now, entropy=secrets.token_bytes, allow=PERMISSIONS, new_owner=True)
    command = (sys.executable, "-m", "quorumvault", "dev", str(vault), "--json", "--parent", str(lasts_with))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - no argument comes from outside
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True, cwd=folder
        )
    assert process.stdout is not None
    _started[process.pid] = process
    ready, _, _ = select.select([process.stdout], [], [], _START)
    line = process.stdout.readline() if ready else b""
    if not line:
        _stop(process.pid, folder)
        shutil.rmtree(vault)  # another process may try again
        raise QuorumVaultError(f"three nodes were not ready:\n{(folder / 'log').read_text(errors='replace')[-2000:]}")
    nodes = msgspec.json.decode(line)["nodes"]
    urls, pids = ({name: node[key] for name, node in nodes.items()} for key in ("api", "pid"))
    return Running(urls, pids, key.text, process.pid)


def free_base_port() -> int:
    """Returns a port for ``--base-port``: this port and the five others of a cluster were free just now."""
    for base in random.sample(_BASE_PORTS, len(_BASE_PORTS)):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for offset in PORT_OFFSETS:
                held.enter_context(socket.create_server((_HOST, base + offset)))
            return base
    raise QuorumVaultError(f"no six free ports between {_BASE_PORTS.start} and {_BASE_PORTS.stop}")


def end(folder: Path) -> None:
    """Stops the cluster in ``folder`` and removes the folder. Does nothing if there is no cluster."""
    state = folder / _STATE
    if state.exists():
        _stop(msgspec.json.decode(state.read_bytes(), type=Running).parent, folder)
    shutil.rmtree(folder, ignore_errors=True)


def _stop(process: int, folder: Path) -> None:
    """Asks ``quorumvault dev`` to stop, and waits until it has."""
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        handle = os.pidfd_open(process)
        try:
            # Another process may have the id by now.
            if os.fsencode(folder) in Path(f"/proc/{process}/cmdline").read_bytes():
                signal.pidfd_send_signal(handle, signal.SIGTERM)
                select.select([handle], [], [], _STOP)
        finally:
            os.close(handle)
    own = _started.pop(process, None)
    if own is not None:
        own.communicate(timeout=_STOP)


class VaultCluster(Client):
    """A client of three real nodes on this machine, with a key that may do everything. See ``urls``, ``pids`` and ``folder``.

    Code that makes its own client, in this process or another, finds the cluster by the variables in ``environment``.
    """

    def __init__(self, folder: Path, running: Running, policy: ClientPolicy | None = None) -> None:
        #: The folder with the nodes' data, configuration and logs.
        self.folder = folder
        #: Process ids by node: n1, n2, n3.
        self.pids = running.pids
        #: The key's text, for another client: ``AsyncClient(cluster.urls, api_key=cluster.api_key)``.
        self.api_key = running.api_key
        super().__init__(list(running.urls.values()), api_key=running.api_key, policy=policy)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables by which another client, or the command ``quorumvault``, finds this cluster."""
        return {"QUORUMVAULT_URL": ",".join(self.urls), "QUORUMVAULT_API_KEY": self.api_key}

    @contextlib.contextmanager
    def paused(self, node: str) -> Iterator[None]:
        """For the block, this node hangs, as if its machine were stopped or cut off; the two others serve."""
        os.kill(self.pids[node], signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pids[node], signal.SIGCONT)
