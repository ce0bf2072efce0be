"""Node processes that belong to one terminal: started together, watched, and ended with the terminal.

Each node is ``quorumvault serve`` in this process group, so Ctrl-C reaches it. This process passes SIGTERM on. If this process is
killed, the kernel signals the nodes (process.py).
"""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable

from quorumvault.config.cluster import Cluster

#: Seconds that a node gets beyond its drain time before it is killed.
_STOP_MARGIN = 5.0


class NodeProcesses:
    """The node processes. ``on_end(node, process)`` is called when a node ends that this object did not stop."""

    def __init__(self, cluster: Cluster, log_level: str, on_end: Callable[[str, Process], None]) -> None:
        self._cluster = cluster
        self._log_level = log_level
        self._on_end = on_end
        self._stopping = False
        self._watchers: list[asyncio.Task[None]] = []
        self.running: dict[str, Process] = {}
        #: Set once no node runs.
        self.all_ended = asyncio.Event()

    async def start(self) -> None:
        for node in self._cluster.nodes:
            self.running[node] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "quorumvault", "serve"),
                *("--config", str(self._cluster.file), "--node", node),
                *("--log-level", self._log_level, "--parent", str(os.getpid())),
                stdin=DEVNULL,
            )
        for node, process in list(self.running.items()):
            self._watchers.append(asyncio.create_task(self._watch(node, process)))

    async def stop(self) -> None:
        """Sends SIGTERM to all nodes and waits until they have drained; sends SIGKILL to a node that takes longer."""
        self._stopping = True
        timeouts = self._cluster.timeouts
        self._signal(signal.SIGTERM)
        if self._watchers:
            await asyncio.wait(self._watchers, timeout=timeouts.drain_notice + timeouts.drain + _STOP_MARGIN)
            self._signal(signal.SIGKILL)
            await asyncio.wait(self._watchers)

    def _signal(self, number: int) -> None:
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):  # the process ended a moment ago
                process.send_signal(number)

    async def _watch(self, node: str, process: Process) -> None:
        await process.wait()
        del self.running[node]
        if not self._stopping:
            self._on_end(node, process)
        if not self.running:
            self.all_ended.set()
