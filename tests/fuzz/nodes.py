"""Three real nodes. One is fed and watched: it stays alive, bounded in memory and turns of the loop, and silent about values."""

import asyncio
import http.client
import multiprocessing
import os
import tempfile
import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from bench.processes import memory as memory_of
from chaos.testbed.cluster import Cluster
from tests.fuzz.canaries import VALUE, Planted
from tests.fuzz.target import LONGEST_TURN, Figures, Target, Violation

#: The node that is fed.
NODE = "n1"
OWNER = "clinic"
#: The bound on a node's own memory in bytes (docs/decisions/0025): more means that the node holds something without a bound.
MOST_MEMORY = 1 << 30
_PROBE_SECONDS = 0.01
_READY_SECONDS = 60.0
#: Marks of an error in a log. A line at level ERROR is an error in the node too.
_SLIPS = (b" ERROR ", b"Traceback (most recent call last)", b" CRITICAL ", b"Exception ignored", b"Fatal error", b"never awaited")
#: What a node logs at level ERROR about its machine.
_LACKS = (b"event log: its disk takes longer",)
_SPAWN = multiprocessing.get_context("spawn")


class Nodes:
    """A context manager that runs the nodes."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.cluster = Cluster.create(Path(self._folder.name) / "cluster", (OWNER,))
        self._read: dict[Path, int] = {}
        self._most = 0.0
        #: Seconds and bytes, shared with the process that probes.
        self._longest: Any = _SPAWN.Value("d", 0.0, lock=False)
        self._memory: Any = _SPAWN.Value("q", 0, lock=False)

    def __enter__(self) -> Self:
        self.cluster.start()
        self._ready()
        tokens = self.cluster.api(NODE, OWNER).tokenize([f"{VALUE} {number}" for number in range(4)]).body["tokens"]
        self.planted = Planted(self.cluster.api_key(OWNER), tokens)
        self._prober = self._probing()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._prober.kill()
        self._prober.join()
        self.cluster.close()
        self._folder.cleanup()

    @property
    def figures(self) -> Figures:
        return Figures(max(self._most, self._longest.value), self._memory.value)

    def check(self) -> None:
        """Raises Violation. Reports each problem once."""
        self._check_alive()
        for node in self.cluster.nodes.values():
            written = self._new_of(node.log)
            line = next((line for line in written.split(b"\n") if _is_slip(line)), None)
            if line is not None:
                raise Violation(f"a slip in the log of {node.name}: {_ends(line.decode(errors='replace'))}")
            if self.planted.found_in(written + self._new_of(node.data / "events.jsonl")):
                raise Violation(f"something planted is in the log or the events of {node.name}")
        longest, memory = self._longest.value, self._memory.value
        self._most = max(self._most, longest)
        self._longest.value = 0.0
        if longest > LONGEST_TURN:
            raise Violation(f"one turn of the event loop took {NODE} {longest:.1f} s")
        if memory > MOST_MEMORY:
            self._memory.value = 0
            raise Violation(f"{NODE} holds {memory >> 20} MiB")

    def check_told(self) -> None:
        """Checks that what a node tells anybody contains nothing that was planted."""
        api = self.cluster.api(NODE)
        for path in ("/metrics", "/health"):
            if self.planted.found_in(api.text(path).encode()):
                raise Violation(f"something planted is in {path}")

    def _check_alive(self) -> None:
        dead = [node.name for node in self.cluster.nodes.values() if not node.running]
        if not dead:
            return
        words = self.cluster.nodes[dead[0]].log_tail()
        self.cluster.start(*dead)
        self._ready()
        self._prober.kill()
        self._prober.join()
        self._prober = self._probing()
        raise Violation(f"{dead[0]} has ended: {words}")

    def _ready(self) -> None:
        self.cluster.wait_ready(reachable=3, seconds=_READY_SECONDS)

    def _probing(self) -> SpawnProcess:
        given = (self.cluster.nodes[NODE].address, self.cluster.pid(NODE), os.getpid(), self._longest, self._memory)
        process = _SPAWN.Process(target=probe, args=given, daemon=True)
        process.start()
        return process

    def _new_of(self, path: Path) -> bytes:
        """Returns what was written since the last call; all of a file that was rotated meanwhile."""
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                start = self._read.get(path, 0)
                file.seek(start if start <= size else 0)
                written = file.read()
                self._read[path] = file.tell()
        except FileNotFoundError:
            return b""
        return written


class OverSockets(Target):
    """A target whose inputs go to a real node, each over its own connection."""

    over_sockets = True
    #: The number of connections open at a time.
    at_once: ClassVar[int]

    def open(self, stack: ExitStack) -> None:
        self.nodes = stack.enter_context(Nodes())
        self._runner = stack.enter_context(asyncio.Runner())

    def check(self, inputs: Sequence[bytes]) -> list[str]:
        outcomes = self._runner.run(self._send_all(inputs))
        self.nodes.check()
        return outcomes

    async def _send_all(self, inputs: Sequence[bytes]) -> list[str]:
        gate = asyncio.Semaphore(self.at_once)

        async def send(place: int, data: bytes) -> str:
            async with gate:
                try:
                    return await self.send(place, data)
                except OSError as error:
                    return f"no connection ({type(error).__name__})"

        done = await asyncio.gather(*(send(place, data) for place, data in enumerate(inputs)), return_exceptions=True)
        for failed in (each for each in done if isinstance(each, BaseException)):
            raise failed
        return [each for each in done if isinstance(each, str)]

    @abstractmethod
    async def send(self, place: int, data: bytes) -> str:
        """Returns the outcome of this input. Raises Violation, or OSError if there was no connection."""

    def figures(self) -> Figures:
        return self.nodes.figures


def _is_slip(line: bytes) -> bool:
    return any(slip in line for slip in _SLIPS) and not any(lack in line for lack in _LACKS)


def _ends(line: str) -> str:
    """Cuts out the middle of a long line: the last words of a stack trace matter most."""
    return line if len(line) < 700 else f"{line[:150]} ... {line[-500:]}"


def probe(address: str, pid: int, parent: int, longest: Any, memory: Any) -> None:
    """Asks for /livez again and again, as a peer would ping. ``longest``: seconds; ``memory``: bytes; both only rise here.

    What counts is the CPU time of the node's loop between question and answer, by the kernel's account: other work on the machine
    makes no turn longer. The probe runs in its own process for the same reason.
    """
    connection: http.client.HTTPConnection | None = None
    while os.getppid() == parent:
        time.sleep(_PROBE_SECONDS)
        try:
            before = _used(pid)
            connection = connection or http.client.HTTPConnection(address, timeout=60)
            connection.request("GET", "/livez")
            connection.getresponse().read()
            longest.value = max(longest.value, _used(pid) - before)
            memory.value = max(memory.value, round(memory_of(pid).own * 2**20))
        except (OSError, http.client.HTTPException):
            connection = None


def _used(pid: int) -> float:
    """CPU seconds of the process's first thread, which runs the loop."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9
