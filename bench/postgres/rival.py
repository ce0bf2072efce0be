"""The whole rival: three API processes and their PostgreSQL, started, under load, and stopped."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.load import OWNER
from bench.postgres.database import Database, PostgresError
from bench.processes import cpu_seconds
from chaos.testbed.api import Api, Unanswered
from chaos.testbed.cluster import HOST, NODES, PORT_OFFSETS, Cluster, environment, free_base_port, wait_for

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 30.0


class Rival:
    """The rival accepts the API key of a cluster's owner, and gives the cluster's tokens. Use it as a context manager."""

    def __init__(self, directory: Path, cluster: Cluster) -> None:
        """Makes ``directory``. Raises PostgresError if PostgreSQL is missing."""
        ports = [free_base_port() + offset for offset in PORT_OFFSETS]
        self.database = Database(directory, (ports[3], ports[4], ports[5]))
        self.addresses = [f"{HOST}:{port}" for port in ports[:3]]
        self.key = cluster.api_key(OWNER)
        self.cacert = None
        self._cluster = cluster
        self._logs = directory.with_name("api")
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def pids(self) -> list[int]:
        return [*(process.pid for process in self._processes), *self.database.pids()]

    def nodes_cpu(self) -> float:
        """Returns the CPU seconds so far of the API processes and all of PostgreSQL's processes."""
        return sum(cpu_seconds(process.pid) for process in self._processes) + self.database.cpu_seconds()

    def _start(self) -> None:
        self.database.start()
        self._logs.mkdir()
        for node, address in zip(NODES, self.addresses, strict=True):
            arguments = [str(self._cluster.directory), node, address.rpartition(":")[2], str(self._logs / f"{node}.jsonl")]
            with (self._logs / f"{node}.log").open("ab") as log:
                self._processes.append(
                    subprocess.Popen(
                        ["setpriv", "--pdeathsig", "KILL", sys.executable, "-P", "-m", "bench.postgres.api", *arguments],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        cwd=_ROOT,
                        env=environment(**self.database.variables(), PYTHONPATH=str(_ROOT)),
                        start_new_session=True,
                    )
                )
        for node, address in zip(NODES, self.addresses, strict=True):
            if not wait_for(partial(_answers, address), _START_SECONDS):
                raise PostgresError(f"the API over PostgreSQL does not start: {(self._logs / f'{node}.log').read_text()[-2000:]}")

    def _stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self.database.stop()


def _answers(address: str) -> bool:
    try:
        return Api(address).get("/livez", timeout=1.0).status == 404
    except Unanswered:
        return False
