"""``bin/bench revocation``: how long nodes still accept a revoked API key, measured from the request to revoke it.

    all up         three nodes that reach each other
    one down       the third node does not run
    one cut off    the third node and the others cannot reach each other, from before the revocation on
    cut off, back  the same, but the third node reconnects three seconds after the revocation
    down, back     the third node does not run when the key is revoked, and starts afterwards

Each trial revokes a key of its own at the first node's admin socket. One client for each node uses the key repeatedly, with
requests that need no quorum. A node has refused the key at its first answer other than 200 after which it never answers 200
again. A node that comes back has to refuse the key from its first answer on.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import httpx2
import msgspec

from bench.load import OWNER
from bench.report import Account, Check, Report, Table, Tell, percentile, today
from bench.work import WrongAnswer
from chaos.keys import add_keys
from chaos.nemesis import both_ways, others
from chaos.network import Links, behind_proxies
from chaos.testbed.cluster import NODES, Cluster

#: The bound of the API's contract.
_BOUND_MS = 2_000.0
#: Seconds between two checks that a key is accepted everywhere; seconds to watch a key after the last refusal, and at most; and
#: seconds for which a node stays cut off: longer than it accepts keys without having asked another node.
_BEFORE, _AFTER, _AT_MOST, _APART = 0.02, 0.1, 10.0, 3.0
_READY = 30.0


class Situation(Enum):
    ALL_UP = "all up"
    DOWN = "one down"
    CUT_OFF = "one cut off"
    CUT_OFF_BACK = "cut off, back"
    DOWN_BACK = "down, back"


@dataclass(frozen=True, slots=True)
class RevocationPlan:
    """``repetitions``: trials of each short situation; situations that wait or start a node have a quarter as many."""

    name: str = "revocation"
    repetitions: int = 40

    def trials(self) -> dict[Situation, int]:
        few = max(1, self.repetitions // 4)
        return {
            Situation.ALL_UP: self.repetitions,
            Situation.DOWN: self.repetitions,
            Situation.CUT_OFF: few,
            Situation.CUT_OFF_BACK: few,
            Situation.DOWN_BACK: few,
        }


class Row(msgspec.Struct, frozen=True):
    """Milliseconds until the last node refused. ``returned``: requests that the node accepted after it was back."""

    situation: Situation
    trials: int
    median_ms: float
    p95_ms: float
    worst_ms: float
    returned: int


class RevocationReport(Report, frozen=True):
    rows: list[Row]

    def account(self) -> Account:
        columns = {
            "third node": "{0.situation.value}",
            "trials": "{0.trials}",
            "median": "{0.median_ms:,.0f} ms",
            "p95": "{0.p95_ms:,.0f} ms",
            "longest": "{0.worst_ms:,.0f} ms",
            "accepted once back": "{0.returned}",
        }
        trials = sum(row.trials for row in self.rows)
        checks = [
            Check.of(
                f"the latest refusal in {trials} trials", max(row.worst_ms for row in self.rows), "≤", _BOUND_MS, ",.0f", " ms"
            ),
            Check.of("accepted by a node after its return", sum(row.returned for row in self.rows), "≤", 0, "d"),
        ]
        sentences = ["Times run from the request to revoke a key until the last node refuses the key.", self.occasion]
        return Account([Table.of("Revoked keys", self.rows, columns)], checks, sentences)


def run(plan: RevocationPlan, place: Path, tell: Tell) -> RevocationReport:
    """Runs a plan. Raises WrongAnswer if a key is refused before its revocation, or accepted forever; ClusterError."""
    return asyncio.run(_run(plan, place, tell))


async def _run(plan: RevocationPlan, place: Path, tell: Tell) -> RevocationReport:
    trials = plan.trials()
    with Cluster.create(place / "cluster", (OWNER,)) as cluster:
        keys = iter(add_keys(cluster.directory / "api_keys.yaml", OWNER, sum(trials.values())).items())
        async with behind_proxies(cluster, seed=1) as links:
            cluster.start()
            await asyncio.to_thread(cluster.wait_ready, reachable=len(NODES), seconds=_READY)
            bench = _Bench(cluster, links, keys)
            rows = []
            for situation, count in trials.items():
                tell(situation.value)
                rows.append(await bench.measure(situation, count, lambda done: tell(situation.value, done)))  # noqa: B023
            cluster.close()
    return RevocationReport(*today(), plan.name, rows)


@dataclass
class _Watch:
    """A client that uses one key at one node repeatedly. ``refused``: the time of the first in the last run of refusals."""

    taken: int = 0
    refused: float | None = None

    async def run(self, client: httpx2.AsyncClient, key: str) -> None:
        while True:
            try:
                response = await client.get("/fields", headers={"Authorization": f"Bearer {key}"})
            except httpx2.TransportError:
                await asyncio.sleep(0.01)  # the node does not run yet, or no longer
                continue
            if response.status_code == 200:
                self.taken += 1
                self.refused = None
            elif self.refused is None:
                self.refused = time.monotonic()


@dataclass
class _Bench:
    cluster: Cluster
    links: Links
    keys: Iterator[tuple[str, str]]
    _times: list[float] = field(default_factory=list)
    _returned: int = 0

    async def measure(self, situation: Situation, trials: int, done: Callable[[float], object]) -> Row:
        self._times, self._returned = [], 0
        third = NODES[-1]
        if situation is Situation.DOWN:
            self.cluster.kill(third)
        for number in range(trials):
            done(number / trials)
            await self._trial(situation, third)
        if situation is Situation.DOWN:
            await self._start(third)
        times = [1e3 * seconds for seconds in self._times]
        worst = max(times)
        return Row(situation, trials, statistics.median(times), percentile(times, 95), worst, self._returned)

    async def _trial(self, situation: Situation, third: str) -> None:
        wires = both_ways(third, others(third))
        if situation in (Situation.CUT_OFF, Situation.CUT_OFF_BACK):
            await self.links.cut(wires, loses=True)
        elif situation is Situation.DOWN_BACK:
            self.cluster.kill(third)
        running = [name for name in NODES if self.cluster.nodes[name].running]
        key_id, key = next(self.keys)
        began = await self._revoke(key_id, key, running)
        self._times.append(began)
        if situation is Situation.CUT_OFF:
            await self.links.mend(wires)
            await self._ready(third)
        elif situation is Situation.CUT_OFF_BACK:
            await asyncio.sleep(_APART)
            self._returned += await self._come_back(third, key, lambda: self.links.mend(wires))
        elif situation is Situation.DOWN_BACK:
            self._returned += await self._come_back(third, key, lambda: self._start(third))

    async def _revoke(self, key_id: str, key: str, nodes: Sequence[str]) -> float:
        """Revokes a key. Returns the seconds from the request until the last of these nodes refuses the key."""
        watches = {name: _Watch() for name in nodes}
        clients = {name: self._client(name) for name in nodes}
        tasks = [asyncio.create_task(watches[name].run(clients[name], key)) for name in nodes]
        socket = httpx2.AsyncHTTPTransport(uds=str(self.cluster.nodes[NODES[0]].data / "admin.sock"))
        async with httpx2.AsyncClient(transport=socket, base_url="http://node", timeout=_AT_MOST) as admin:
            asked = time.monotonic()
            while not all(watch.taken for watch in watches.values()):
                if time.monotonic() - asked > _AT_MOST:
                    raise WrongAnswer("a key is not taken that nobody has revoked")
                await asyncio.sleep(_BEFORE)
            began = time.monotonic()
            response = await admin.post(f"/revoke?key_id={key_id}")
            if response.status_code != 200:
                raise WrongAnswer(f"the revocation was answered {response.status_code}")
        while not all(watch.refused is not None and time.monotonic() - watch.refused > _AFTER for watch in watches.values()):
            if time.monotonic() - began > _AT_MOST:
                raise WrongAnswer("a revoked key is taken for ever")
            await asyncio.sleep(_AFTER / 4)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in clients.values():
            await client.aclose()
        return max(watch.refused or began for watch in watches.values()) - began

    async def _come_back(self, node: str, key: str, back: Callable[[], object]) -> int:
        """Returns how often the node accepts the revoked key while it comes back, until it serves."""
        watch, client = _Watch(), self._client(node)
        task = asyncio.create_task(watch.run(client, key))
        coming = back()
        if asyncio.iscoroutine(coming):
            await coming
        await self._ready(node)
        await asyncio.sleep(_AFTER)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()
        return watch.taken

    def _client(self, node: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=f"http://{self.cluster.nodes[node].address}", timeout=_AT_MOST, trust_env=False)

    async def _start(self, node: str) -> None:
        self.cluster.start(node)
        await self._ready(node)

    async def _ready(self, node: str) -> None:
        await asyncio.to_thread(self.cluster.wait_ready, node, reachable=len(NODES), seconds=_READY)
