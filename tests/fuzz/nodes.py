"""Three real nodes, watched while one is fed: alive, bounded in memory and in turns of the loop, and silent about values."""

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
#: Bytes of a node's own memory (docs/decisions/0025) above which something was held that nothing bounds.
MOST_MEMORY = 1 << 30
_PROBE_SECONDS = 0.01
_READY_SECONDS = 60.0
#: In a log. A line at level ERROR is a slip in the node too.
_SLIPS = (b" ERROR ", b"Traceback (most recent call last)", b" CRITICAL ", b"Exception ignored", b"Fatal error", b"never awaited")
#: What a node says at level ERROR about the machine that it is on.
_LACKS = (b"event log: its disk takes longer",)
_SPAWN = multiprocessing.get_context("spawn")


class Nodes:
    """A context manager."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.cluster = Cluster.create(Path(self._folder.name) / "cluster", (OWNER,))
        self._read: dict[Path, int] = {}
        self._most = 0.0
        #: Seconds, and bytes: shared with the process that probes.
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
        """Raises Violation. What one reports, the next does not report again."""
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
        """What a node tells anybody has nothing in it that was planted."""
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
        """What was written since the last time; of a file that was rotated meanwhile, all."""
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
    """A target whose inputs go to a real node, each over a connection of its own."""

    over_sockets = True
    #: Connections that are open at a time.
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
        """What this input led to. Raises Violation; and OSError if there was no connection."""

    def figures(self) -> Figures:
        return self.nodes.figures


def _is_slip(line: bytes) -> bool:
    return any(slip in line for slip in _SLIPS) and not any(lack in line for lack in _LACKS)


def _ends(line: str) -> str:
    """A long line without its middle: of a stack trace the last words matter most."""
    return line if len(line) < 700 else f"{line[:150]} ... {line[-500:]}"


def probe(address: str, pid: int, parent: int, longest: Any, memory: Any) -> None:
    """Asks for /livez again and again, as a peer would ping. ``longest``: seconds; ``memory``: bytes; both only ever rise here.

    The time that counts is the one that the node's loop itself has used between question and answer, by the kernel's account: a
    machine that has other work makes no turn longer. Runs in a process of its own, for the same reason.
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
    """Seconds of its first thread, on which the loop runs."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9
