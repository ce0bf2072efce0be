"""One cluster of three nodes under load: drives requests through it, and reads their cost to its processes."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol, TypeVar

from bench.http import Driven, Lanes, encode
from bench.processes import Memory, cpu_seconds, disk_bytes, memory, until_idle
from chaos.testbed.cluster import NODES, Cluster

OWNER = "bench"
T = TypeVar("T")

#: On a machine with other work, a slow request should give a bad figure, not end the run.
_PATIENCE = "\n# The benchmark's:\ntimeouts:\n  request: 60.0\n  round: 30.0\n  silence: 30.0\n"


@dataclass(frozen=True, slots=True)
class Driving:
    """The answers, and CPU seconds: of the client's only thread, and of the processes that answered, compactions included."""

    driven: Driven
    client_cpu: float
    nodes_cpu: float


class Served(Protocol):
    """The processes that answer: their addresses, the key, and their cost so far."""

    @property
    def addresses(self) -> Sequence[str]: ...

    @property
    def key(self) -> str: ...

    @property
    def cacert(self) -> Path | None:
        """The CA certificate to trust for TLS; None for plain HTTP."""

    def pids(self) -> list[int]: ...

    def nodes_cpu(self) -> float: ...


def drive(served: Served, path: str, bodies: Sequence[bytes], at_once: int) -> Driving:
    """Drives requests with these bodies. Raises LoadFailed at the first answer that is not 200."""
    return send(served, [encode(path, served.key, body) for body in bodies], at_once)


def send(served: Served, requests: Sequence[bytes], at_once: int) -> Driving:
    """Drives encoded requests, each with its own key. Raises LoadFailed at the first answer that is not 200."""
    with closing(Lanes(served.addresses, at_once, cacert=served.cacert)) as lanes:
        client, nodes = time.thread_time(), served.nodes_cpu()
        driven = lanes.drive(requests)
        client = time.thread_time() - client
        until_idle(*served.pids())
        return Driving(driven, client, served.nodes_cpu() - nodes)


class Load:
    """Sends requests of one owner to all three nodes in turn."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.addresses = [cluster.nodes[name].address for name in NODES]
        self.key = cluster.api_key(OWNER)
        self.cacert = cluster.cacert

    def drive(self, path: str, bodies: Sequence[bytes], at_once: int) -> Driving:
        """Drives requests with these bodies. Raises LoadFailed at the first answer that is not 200."""
        return drive(self, path, bodies, at_once)

    def restart(self) -> None:
        """Kills all nodes, starts them again and waits until they are idle. Their memory is lost.

        The kernel keeps its cache of their files.
        """
        self._cluster.restart()
        self._cluster.wait_ready(reachable=len(NODES))
        until_idle(*self.pids())

    def memory(self, by: Callable[[Memory], float] = lambda memory: memory.own) -> Memory:
        """Returns the memory of the node with the most, by this measure."""
        return max(map(memory, self.pids()), key=by)

    def disk_bytes(self) -> float:
        """Returns the bytes of one store: the mean of the three."""
        return statistics.fmean(disk_bytes(self._cluster.directory / name / "store") for name in NODES)

    def nodes_cpu(self) -> float:
        """Returns the CPU seconds of the three nodes so far."""
        return sum(map(cpu_seconds, self.pids()))

    def pids(self) -> list[int]:
        return [self._cluster.pid(name) for name in NODES]


class Peak:
    """``most``: the peak memory of any node of a cluster, in MiB, by some measure, during blocks of ``watching``."""

    def __init__(self, cluster: Cluster, by: Callable[[Memory], float], glance_seconds: float) -> None:
        self.most = Memory(0.0, 0.0)
        self._load = Load(cluster)
        self._by = by
        self._glance_seconds = glance_seconds

    @contextmanager
    def watching(self) -> Iterator[None]:
        with beside(self._look):
            yield

    def _look(self, ended: Event) -> None:
        """Looks at regular intervals, and once more at the end."""
        last = False
        while not last:
            last = ended.wait(self._glance_seconds)
            self.most = max(self.most, self._load.memory(self._by), key=self._by)


@contextmanager
def beside(work: Callable[[Event], T]) -> Iterator[Future[T]]:
    """Runs ``work`` in another thread during the block. At the end of the block its event is set, and it has to end.

    Raises the error of ``work``, unless the block raised first.
    """
    ended = Event()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(work, ended)
        try:
            yield run
        finally:
            ended.set()
    run.result()


def prepare(directory: Path, settings: str = "") -> Cluster:
    """Makes a cluster for ``Load``, without starting it. The caller closes it. ``settings``: more of cluster.yaml."""
    cluster = Cluster.create(directory, (OWNER,))
    with (directory / "cluster.yaml").open("a") as configuration:
        configuration.write(_PATIENCE + settings)
    return cluster


def start(directory: Path, settings: str = "") -> Cluster:
    """Makes a cluster for ``Load`` and starts it. The caller closes it. ``settings``: more of cluster.yaml."""
    cluster = prepare(directory, settings)
    try:
        cluster.bring_up()
    except BaseException:
        cluster.close()
        raise
    return cluster
