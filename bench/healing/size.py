"""Compares many records with few: start-up, memory, a comparison of replicas that finds nothing, and new tokens."""

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.healing.foreground import Vault
from bench.healing.plan import HealingPlan
from bench.healing.report import New, Rss, Size
from bench.healing.stores import Corpus, fill, keyring
from bench.load import OWNER, Load, Peak, prepare
from bench.processes import disk_bytes, until_idle
from bench.report import Tell
from bench.work import Results, TokensAsked, WrongAnswer
from chaos.testbed.cluster import NODES, Cluster, ClusterError, run, wait_for

_BATCH, _AT_ONCE = 1_000, 6
#: The time-out for ten million records on a machine with other work.
PATIENCE_SECONDS = 600.0
_IDLE_SECONDS = 2.0
_GLANCE_SECONDS = 0.2
#: The line that a node logs when its replica can be compared.
_COUNTED = "all buckets of the store are counted"

_body = msgspec.json.Encoder().encode
_results = msgspec.json.Decoder(Results).decode


@contextmanager
def filled(directory: Path, records: int, tell: Tell, make: Callable[[Path], Cluster]) -> Iterator[Vault]:
    """Yields a running cluster with ``records`` records, all counted, which ends with the block."""
    with make(directory) as cluster:
        corpus = Corpus(keyring(directory / "cluster.yaml"), OWNER, seed=records)
        fill(directory, [corpus], records, lambda done: tell(f"three stores of {records:,} records: {done:,}"))
        cluster.start()
        cluster.wait_ready(reachable=len(NODES), seconds=PATIENCE_SECONDS)
        tell("the nodes count their buckets")
        wait_counted(cluster, 1)
        yield Vault(cluster, corpus, records, [range(records)])


def wait_counted(cluster: Cluster, starts: int) -> None:
    """Waits until each node has counted its buckets after ``starts`` starts. Raises ClusterError."""

    def counted() -> bool:
        return all(cluster.nodes[name].log.read_text().count(_COUNTED) >= starts for name in NODES)

    if not wait_for(counted, PATIENCE_SECONDS):
        raise ClusterError("the nodes do not come to count their buckets")


def measure(directory: Path, plan: HealingPlan, tell: Tell) -> Size:
    """Measures all figures of Size. Raises ClusterError, LoadFailed, WrongAnswer."""
    with filled(directory / "many", plan.records, tell, prepare) as many:
        cluster = many.cluster
        disk_mib = max(disk_bytes(directory / "many" / name / "store") for name in NODES) / (1 << 20)
        starts = [start_seconds(cluster, name) for name in NODES]
        tell("the nodes count their buckets")
        begun = time.monotonic()
        wait_counted(cluster, 2)
        counted = time.monotonic() - begun
        resting = Rss(*Load(cluster).memory(sum))
        tell("a comparison that finds nothing")
        round_bytes, round_seconds, idle_bytes = _idle_round(cluster)
        peak, few, new = Peak(cluster, sum, _GLANCE_SECONDS), list[New](), list[New]()
        for pair in range(1, plan.pairs + 1):
            tell(f"new tokens among {plan.few:,} records and among {plan.records:,}: pair {pair} of {plan.pairs}")
            with (
                tempfile.TemporaryDirectory(prefix="few-", dir=directory) as place,
                filled(Path(place) / "few", plan.few, lambda doing, done=0.0: None, prepare) as vault,
            ):
                few.append(_tokenize(vault, plan.new))
            with peak.watching():
                new.append(_tokenize(many, plan.new))
        tell("records from everywhere are read")
        with peak.watching():
            _read_evenly(many, plan.new, random.Random(plan.records))
    most = Rss(*peak.most)
    return Size(plan.records, disk_mib, starts, counted, resting, most, round_bytes, round_seconds, idle_bytes, few, new)


def start_seconds(cluster: Cluster, name: str) -> float:
    """Kills one node. Returns the seconds from the start of its process until it serves."""
    cluster.kill(name)
    begun = time.monotonic()
    cluster.start(name)
    cluster.wait_ready(name, seconds=PATIENCE_SECONDS)
    return time.monotonic() - begun


def _idle_round(cluster: Cluster) -> tuple[int, float, float]:
    """Returns the bytes that nodes wrote during a comparison of one with both others, its seconds, and the bytes without one."""
    pids = [cluster.pid(name) for name in NODES]
    cluster.wait_ready(reachable=len(NODES))
    until_idle(*pids)
    first, begun = _written(pids), time.monotonic()
    time.sleep(_IDLE_SECONDS)
    second, between = _written(pids), time.monotonic()
    done = run("repair", str(cluster.directory), "--node", NODES[0], "--json")
    third, ended = _written(pids), time.monotonic()
    found = json.loads(done.stdout)["peers"] if done.stdout else {}
    if done.returncode != 0 or any(found[name] for name in NODES[1:]):
        raise ClusterError(f"a comparison of stores that are the same came to {found or done.stderr.decode().strip()}")
    return third - second, ended - between, (second - first) / (between - begun) * (ended - between)


def _written(pids: Sequence[int]) -> int:
    """Returns the bytes that processes have written so far to sockets and files (proc(5), io), messages between nodes included.

    uvloop writes to its sockets with write(2), which is counted here; send(2) would not be.
    """
    total = 0
    for pid in pids:
        words = Path(f"/proc/{pid}/io").read_text().split()
        total += int(words[words.index("wchar:") + 1])
    return total


def _read_evenly(vault: Vault, count: int, rng: random.Random) -> None:
    """Reads ``count`` of the initial records, drawn from all of them, which brings tables into memory."""
    drawn = [
        [vault.corpus.value(rng.randrange(vault.acknowledged[0].stop)) for _ in range(_BATCH)] for _ in range(count // _BATCH)
    ]
    bodies = [_body(TokensAsked(vault.corpus.tokens(values))) for values in drawn]
    driven = Load(vault.cluster).drive("/detokenize", bodies, _AT_ONCE).driven
    if [[result.value for result in _results(body).results] for body in driven.bodies] != drawn:
        raise WrongAnswer("it does not hold that a token gives back its value")


def _tokenize(vault: Vault, count: int) -> New:
    driving = Load(vault.cluster).drive("/tokenize", list(vault.new_bodies(count // _BATCH, _BATCH)), _AT_ONCE)
    vault.accept(driving.driven.bodies, _BATCH)
    return New(count / driving.driven.seconds, driving.nodes_cpu / count * 1e6)
