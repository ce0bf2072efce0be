"""One run: makes a cluster, runs clients and faults, mends everything, reads everything back, and judges the history.

plan (nemesis.py) ─▶ faults.py ─▶ processes, disks, links          history.jsonl ─▶ checkers.py ─▶ verdict.py ─┐
workload.py, keys.py ─▶ HTTP of three nodes ─▶ recorder.py ─▶ history.jsonl ─▶ measures.py, aftermath.py ──┴▶ summary.json
probe.py, convergence.py: the machine and the replicas meanwhile ─▶ recorder.py                  └▶ liveness.py ─▶ verdict.py
"""

import asyncio
import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import msgspec

from chaos import aftermath, liveness, measures, probe
from chaos.asking import Names, NodeClient
from chaos.convergence import ConvergenceWatch, Replicas
from chaos.faults import Faults
from chaos.final import read_back, ready
from chaos.keys import KeyTrial, add_keys
from chaos.nemesis import SMALL_DISK, Fault, Kind
from chaos.network import Site
from chaos.preloaded import Injector
from chaos.recorder import Recorder
from chaos.summary import CONVERGENCE_AIM, MENDING_AIM, Exit, Summary, Verdict
from chaos.testbed import history
from chaos.testbed.cluster import NODES, Cluster, ClusterError
from chaos.testbed.history import Begun, Outcome, Record
from chaos.testbed.host import Unavailable, small_disk
from chaos.testbed.spelling import Speller
from chaos.verdict import Observed, judge
from chaos.workload import OWNERS, Workload

#: The file to which ``quorumvault init`` writes the master secret, as 64 hexadecimal digits.
MASTER_SECRET = "secrets/master-s1.key"
HISTORY, SUMMARY, TOKENS = "history.jsonl", "summary.json", "tokens.tsv"
#: The size of the small disk: more than the free space at which a node accepts writes again (640 MiB), and many times the data
#: and event log of a long run.
_SMALL_DISK_MEGABYTES = 800


class Teller:
    """Is told what happens, with the seconds since the run began. This base class prints nothing."""

    def say(self, at: float, words: str) -> None: ...

    def began(self, at: float, fault: Fault, words: str) -> None: ...

    def ended(self, at: float, fault: Fault, counts: Mapping[Outcome, int]) -> None:
        """Tells that a fault ended. ``counts``: the outcomes of the requests that ended during the fault."""


@dataclass(frozen=True)
class Options:
    """The options of a run. ``plan``: the faults. ``kinds``: the kinds requested. ``command`` runs a node; empty: the default.

    ``rate``: requests a second through each node. ``rejoins``: see Faults.
    """

    seed: int
    profile: str
    seconds: float
    plan: Sequence[Fault]
    kinds: Sequence[Kind]
    rate: float
    net: str
    report: Path
    command: Sequence[str] = ()
    rejoins: bool = False


async def run(options: Options, site: Site, unavailable: dict[str, str], tell: Teller) -> Summary:
    """Does everything but the HTML report. Raises ClusterError, Unavailable if the harness cannot do its work."""
    options.report.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="quorumvault-chaos-") as name:
        place = Path(name)
        with Recorder.to(options.report / HISTORY) as recorder:
            observed, names = await _on_site(options, site, place, recorder, tell)
        observed.unavailable = {**unavailable, **observed.unavailable}
        summary = summarise(options, history.read(options.report / HISTORY), observed)
        (options.report / SUMMARY).write_bytes(msgspec.json.format(msgspec.json.encode(summary)) + b"\n")
        (options.report / TOKENS).write_text("".join(f"{short}\t{token}\n" for short, token in names.table()))
        kept = "cluster/logs" if summary.verdict is Verdict.VALID else "cluster"
        shutil.copytree(place / kept, options.report / kept, ignore=shutil.ignore_patterns("*.sock"))
    return summary


async def _on_site(options: Options, site: Site, place: Path, recorder: Recorder, tell: Teller) -> tuple[Observed, Names]:
    async with site(place, options.seed) as (cluster, network):
        cluster.command_line = tuple(options.command) or cluster.command_line
        recorder.write(_begun(options, cluster))
        injector = _injector(cluster, place)
        names = Names(Speller(bytes.fromhex((cluster.directory / MASTER_SECRET).read_text())))
        with contextlib.ExitStack() as stack:
            if any(fault.kind is Kind.FULL_DISK for fault in options.plan):
                stack.enter_context(small_disk(cluster.nodes[SMALL_DISK].data, _SMALL_DISK_MEGABYTES))
            stack.callback(cluster.close)
            clients = {
                name: NodeClient(cluster.nodes[name].address, {owner: cluster.api_key(owner) for owner in OWNERS}, names)
                for name in NODES
            }
            keys = _key_trial(cluster, recorder, options.seed)
            try:
                workload = Workload(clients, names, recorder, options.seed, options.rate)
                faults = Faults(cluster, network, injector, workload, recorder, rejoins=options.rejoins)
                return await _work(options, cluster, (workload, keys), faults, recorder, tell), names
            finally:
                await keys.close()
                for client in clients.values():
                    await client.close()


async def _work(
    options: Options, cluster: Cluster, asking: tuple[Workload, KeyTrial], faults: Faults, recorder: Recorder, tell: Teller
) -> Observed:
    workload, keys = asking
    await faults.heal()
    if problem := await ready(cluster, reachable=len(NODES)):
        raise ClusterError(problem)
    observed = Observed(
        breaches=workload.breaches,
        exits=faults.exits,
        outlived=faults.outlived,
        unavailable=faults.skipped,
        planned=frozenset(fault.kind.label for fault in options.plan),
        version=_version(cluster),
    )
    tell.say(recorder.now, f"three nodes serve; {options.seconds:g} s of work begin, with {len(options.plan)} faults")
    recorder.note("the work begins")
    before: dict[int, dict[Outcome, int]] = {}
    replicas = Replicas(cluster)
    convergence = ConvergenceWatch(replicas.nodes, replicas.difference, recorder)

    def heard(fault: Fault, words: str, begins: bool) -> None:
        """Tells of a fault, and at its end of its effects on clients."""
        if begins:
            convergence.begun()
            before[fault.number] = dict(workload.counts)
            tell.began(recorder.now, fault, words)
        else:
            convergence.ended()
            then = before.pop(fault.number)
            tell.ended(recorder.now, fault, {outcome: count - then[outcome] for outcome, count in workload.counts.items()})

    watch = asyncio.create_task(faults.watch())
    try:
        async with probe.watched(recorder, cluster.directory):
            await _under_faults(options, asking, faults, recorder, heard)
            problem = await ready(cluster, reachable=len(NODES))
            if problem is None:
                await convergence.finish(MENDING_AIM + CONVERGENCE_AIM)
    finally:
        watch.cancel()
    if problem is not None:
        observed.not_ready.append(problem)
        return observed
    tell.say(recorder.now, "everything is mended; what is known is read back, through each node and from each two disks")
    await keys.use_everything()
    await _end(options, cluster, workload, recorder, observed)
    return observed


async def _end(options: Options, cluster: Cluster, workload: Workload, recorder: Recorder, observed: Observed) -> None:
    """Reads everything back, and stops the nodes."""
    order = Random(options.seed).sample(NODES, len(NODES))
    observed.final, problems = await read_back(cluster, workload, recorder, order)
    observed.not_ready += problems
    if problems:
        return
    asked = "it was asked to stop (SIGTERM)"
    for name, code in cluster.stop().items():
        if code != 0:
            observed.exits.append(Exit(name, recorder.now, code, expected=False, words=asked))


async def _under_faults(
    options: Options,
    asking: tuple[Workload, KeyTrial],
    faults: Faults,
    recorder: Recorder,
    heard: Callable[[Fault, str, bool], None],
) -> None:
    """Runs clients and faults together; then mends everything, however that ended."""
    ends = recorder.now + options.seconds
    try:
        async with asyncio.TaskGroup() as tasks:
            for clients in asking:
                tasks.create_task(clients.run(lambda: recorder.now < ends))
            tasks.create_task(faults.follow(options.plan, heard))
    except BaseExceptionGroup as group:
        raise _first(group) from None
    finally:
        await faults.heal()
    recorder.note("everything is mended")


def _first(failure: BaseException) -> BaseException:
    """Returns the first failure in a group of failures, however deep it lies."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


def _key_trial(cluster: Cluster, recorder: Recorder, seed: int) -> KeyTrial:
    texts = add_keys(cluster.directory / "api_keys.yaml")
    addresses = {name: node.address for name, node in cluster.nodes.items()}
    sockets = {name: node.data / "admin.sock" for name, node in cluster.nodes.items()}
    return KeyTrial(addresses, sockets, texts, recorder, seed)


def _injector(cluster: Cluster, place: Path) -> Injector | None:
    """Preloads the libraries for every disk and clock, if available. With them a kill loses what a power cut would lose."""
    try:
        injector = Injector(place)
    except Unavailable:
        return None
    for name, node in cluster.nodes.items():
        node.variables = injector.variables(name)
    return injector


def _version(cluster: Cluster) -> str:
    answer = cluster.health(NODES[0])
    return "" if answer is None else str(answer.body["version"])


def _begun(options: Options, cluster: Cluster) -> Begun:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    kinds = tuple(kind.label for kind in options.kinds)
    return Begun(options.seed, options.profile, started, options.seconds, kinds, options.net, cluster.command_line)


def summarise(options: Options, records: Sequence[Record], observed: Observed) -> Summary:
    """Returns the verdict on a history, and its figures."""
    found = measures.measured(records)
    seen = aftermath.faults(found)
    judgement = judge(history.calls(records), observed, {fault.kind for fault in seen}, liveness.judge(seen))
    width = measures.bucket_seconds(found.end)
    begun = next(record for record in records if isinstance(record, Begun))
    return Summary(
        verdict=judgement.verdict,
        too_busy=judgement.too_busy,
        reasons=judgement.reasons,
        violation=judgement.broken,
        seed=options.seed,
        profile=options.profile,
        started=begun.started,
        seconds=options.seconds,
        net=options.net,
        command=begun.command,
        version=observed.version,
        bucket_seconds=width,
        operations=measures.operations(found.calls),
        series=measures.series(found.calls, found.end, width),
        availability=measures.availability(found.calls, NODES, found.end, width),
        faults=seen,
        fault_counts=dict(Counter(fault.kind for fault in seen)),
        unavailable=observed.unavailable,
        aims=liveness.aims(seen),
        machine=aftermath.load(found.machine),
        final=observed.final,
        exits=tuple(observed.exits),
    )
