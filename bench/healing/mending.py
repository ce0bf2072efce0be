"""Breaks one node of three under load: it is away for a while, loses its disk, or has bits flipped in its tables."""

import itertools
import random
import shutil
import time
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path

from bench.healing.foreground import BATCH, Vault, foreground, read_all, reading
from bench.healing.plan import HealingPlan
from bench.healing.report import Answers, Away, Lost, Rotten, Verified
from bench.load import Load
from bench.report import Tell
from chaos.testbed.cluster import NODES, ClusterError, wait_for
from chaos.testbed.host import flip_bits

#: The node to break; the load goes to the others.
BROKEN, OTHERS = NODES[-1], NODES[:-1]
BITS = 100
_AT_ONCE = 16
#: A run whose node has not healed within this time has no figures.
_PATIENCE_SECONDS = 600.0
#: The exit code of a node that gives up its disk; an init system starts it again.
_DISK_GIVEN_UP = 3


class Mending:
    """One such run, on a fresh cluster. ``tell`` is told the progress."""

    def __init__(self, vault: Vault, plan: HealingPlan, tell: Tell) -> None:
        self._vault = vault
        self._cluster = vault.cluster
        self._plan = plan
        self._tell = tell

    def away(self) -> Away:
        capacity, rate = self._probe()
        before = self._before(rate)
        with foreground(self._vault, OTHERS, rate) as meanwhile:
            self._tell(f"{BROKEN} is down")
            self._cluster.kill(BROKEN)
            time.sleep(self._plan.away)
            missed = sum(self._cluster.owed(node, BROKEN) for node in OTHERS)
            self._tell(f"{BROKEN} is back, and was owed {missed:,} records")
            begun = time.monotonic()
            self._cluster.start(BROKEN)
            self._cluster.wait_ready(BROKEN)
            ready = time.monotonic() - begun
            _wait(lambda: not any(self._cluster.owed(node, BROKEN) for node in OTHERS), f"nobody owes {BROKEN} anything")
            caught_up = time.monotonic() - begun
        return Away(capacity, self._plan.away, missed, ready, caught_up, before, meanwhile.result(), self._verify())

    def lost(self) -> Lost:
        capacity, rate = self._probe()
        before = self._before(rate)
        with foreground(self._vault, OTHERS, rate) as meanwhile:
            self._tell(f"the data directory of {BROKEN} is deleted")
            self._cluster.kill(BROKEN)
            shutil.rmtree(self._cluster.directory / BROKEN)
            begun = time.monotonic()
            self._cluster.replace_disk(BROKEN)
            self._cluster.start(BROKEN)
            _wait(lambda: self._cluster.state(BROKEN) == "active", f"{BROKEN} votes")
            whole = time.monotonic() - begun
        return Lost(capacity, whole, before, meanwhile.result(), self._verify())

    def rotten(self) -> Rotten:
        self._tell(f"bits flip in the tables of {BROKEN}")
        self._cluster.kill(BROKEN)
        disk = self._cluster.identity(BROKEN)["disk"]
        tables = flip_tables(self._cluster.directory / BROKEN / "store", BITS, random.Random(self._plan.records))
        starts = 0

        def whole() -> bool:
            """Returns whether the node is whole. Also restarts its process, as an init system does."""
            nonlocal starts
            process = self._cluster.nodes[BROKEN].process
            code = None if process is None else process.poll()
            if code == _DISK_GIVEN_UP:
                self._cluster.start(BROKEN)
                starts += 1
            elif code is not None:
                raise ClusterError(f"{BROKEN} ended with exit code {code}; {self._cluster.nodes[BROKEN].log_tail()}")
            return self._cluster.state(BROKEN) == "active" and self._cluster.identity(BROKEN).get("disk") != disk

        begun = time.monotonic()
        self._cluster.start(BROKEN)
        starts += 1
        with reading(self._vault, BROKEN) as meanwhile:
            _wait(whole, f"{BROKEN} votes with a store that is whole")
            repaired = time.monotonic() - begun
        self._tell(f"all that was acknowledged is read back through {BROKEN}")
        self._cluster.wait_ready(reachable=len(NODES))
        afterwards = read_all(self._vault, BROKEN)
        return Rotten(BITS, tables, repaired, starts, meanwhile.result(), afterwards, self._verify())

    def _probe(self) -> tuple[float, float]:
        """Measures a closed loop. Returns the capacity in new values a second, and the load in requests a second."""
        self._tell("what the cluster can do")
        bodies = list(self._vault.new_bodies(self._plan.probes, BATCH))
        driven = Load(self._cluster).drive("/tokenize", bodies, _AT_ONCE).driven
        self._vault.accept(driven.bodies, BATCH)
        rate = len(bodies) / driven.seconds
        return rate * BATCH, rate * self._plan.load

    def _before(self, rate: float) -> Answers:
        with foreground(self._vault, OTHERS, rate) as load:
            self._tell("the load before anything is broken")
            time.sleep(self._plan.before)
        return load.result()

    def _verify(self) -> Verified:
        """Verifies through one node: all three replicas are identical if both others equal its own."""
        self._tell("three replicas are compared record by record")
        peers = self._cluster.verify(NODES[0]).items()
        identical = all(list(found) == ["records"] for _, found in peers)
        return Verified(identical, {peer: found.get("records", 0) for peer, found in peers})


def flip_tables(store: Path, count: int, rng: random.Random) -> int:
    """Flips ``count`` different bits, drawn uniformly, in the tables of a store whose node is down.

    Returns the number of tables hit. Raises ValueError if there are fewer bits.
    """
    tables = sorted(store.glob("*.ldb"))
    starts = [0, *itertools.accumulate(path.stat().st_size for path in tables)]
    chosen = sorted(rng.sample(range(8 * starts[-1]), count))
    hit = 0
    for table, bits in itertools.groupby(chosen, lambda bit: bisect_right(starts, bit // 8) - 1):
        flip_bits(tables[table], [(bit // 8 - starts[table], 1 << bit % 8) for bit in bits])
        hit += 1
    return hit


def _wait(condition: Callable[[], bool], what: str) -> None:
    if not wait_for(condition, _PATIENCE_SECONDS):
        raise ClusterError(f"it does not come about that {what}")
