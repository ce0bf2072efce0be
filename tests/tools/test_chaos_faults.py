"""Applying faults: each is undone at its end, and all of them if the run breaks off. And what a command line selects."""

import asyncio
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from chaos import joins
from chaos.__main__ import options_of, parse_arguments
from chaos.faults import Faults
from chaos.nemesis import BRISK, JOINS, MAY_STOP, Fault, Kind, Pace, Wire, both_ways, script
from chaos.network import Weather
from chaos.recorder import Recorder
from chaos.tellers import again
from chaos.testbed.api import Answer
from chaos.testbed.cluster import NODES, Cluster, Node
from chaos.testbed.history import FaultBegan, FaultEnded, Note, read
from chaos.testbed.host import Unavailable

SECONDS = 20.0
NOW = Pace((0.0, 0.0), (0.0, 0.0))
HOUR = Pace((0.0, 0.0), (3600.0, 3600.0))


@dataclass
class FakeProcess:
    code: int | None = None

    def poll(self) -> int | None:
        return self.code


class FakeCluster:
    """A cluster with fake processes. ``journal`` records what was done to them."""

    def __init__(self, directory: Path) -> None:
        self.nodes = {name: Node(name, "", directory, directory / "log") for name in NODES}
        self.stopped: set[str] = set()
        self.answers: dict[str, Answer | None] = {name: Answer(200, {"state": "active"}) for name in NODES}
        self.journal: list[tuple[str, ...]] = []
        for node in self.nodes.values():
            (node.data / "store").mkdir(parents=True)
            (node.data / "store" / "000003.log").write_bytes(bytes(70_000))
            (node.data / "store" / "000002.ldb").write_bytes(bytes(1_000))

    def start(self, name: str) -> None:
        assert not self.nodes[name].running
        self.end(name, None)
        self.journal.append(("start", name))

    def kill(self, *names: str) -> None:
        for name in names:
            assert self.nodes[name].running
            self.end(name, -9)
        self.journal.append(("kill", *names))

    def end(self, name: str, code: int | None) -> None:
        """Gives a node another process: one that has ended with this exit code, or, for None, one that runs."""
        self.nodes[name].process = cast("subprocess.Popen[bytes]", FakeProcess(code))

    def health(self, name: str) -> Answer | None:
        return self.answers[name]

    def pause(self, name: str) -> None:
        self.stopped.add(name)

    def resume(self, name: str) -> None:
        self.stopped.remove(name)


@dataclass
class FakeNetwork:
    broken: set[Wire] = field(default_factory=set)

    async def cut(self, wires: Collection[Wire], *, loses: bool) -> None:
        self.broken |= set(wires)

    async def disturb(self, wires: Collection[Wire], weather: Weather) -> None:
        assert weather != Weather()
        self.broken |= set(wires)

    async def mend(self, wires: Collection[Wire]) -> None:
        self.broken -= set(wires)

    async def move(self, node: str, address: tuple[str, int] | None) -> None:
        raise Unavailable(f"{node} stays where it is")


class Idle:
    """No traffic: a kill in the middle of a request need not wait for one."""

    def under_way(self, node: str) -> int:
        return 0

    async def next_request(self, node: str) -> None: ...


@dataclass
class Rig:
    cluster: FakeCluster
    network: FakeNetwork
    faults: Faults
    path: Path
    told: list[tuple[str, bool]] = field(default_factory=list)

    def tell(self, fault: Fault, words: str, begins: bool) -> None:
        self.told.append((fault.kind.label, begins))

    def whole(self) -> bool:
        running = all(node.running for node in self.cluster.nodes.values())
        return running and not self.cluster.stopped and not self.network.broken

    def follow(self, *kinds: Kind) -> None:
        """Heals, then applies each of these faults and undoes it at once."""

        async def scenario() -> None:
            await self.faults.heal()
            await self.faults.follow(script(1, kinds, NOW), self.tell)

        asyncio.run(scenario())


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    cluster, network = FakeCluster(tmp_path), FakeNetwork()
    with Recorder.to(tmp_path / "history.jsonl") as recorder:
        faults = Faults(cast("Cluster", cluster), network, None, Idle(), recorder, rejoins=False)
        yield Rig(cluster, network, faults, tmp_path / "history.jsonl")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - another task makes it true
            await asyncio.sleep(0.001)


def files(cluster: FakeCluster) -> dict[Path, bytes]:
    return {path: path.read_bytes() for node in cluster.nodes.values() for path in node.data.rglob("*") if path.is_file()}


#: Not for this rig: a full disk would be this machine's, fake processes have no files or clocks, and disks are put back.
ELSEWHERE = JOINS | {Kind.FULL_DISK, Kind.SLOW_SYNCS, Kind.FAILING_SYNCS, Kind.FEW_FILES, Kind.CLOCK_JUMP}
#: Join faults that need no proxy.
ANYWHERE = {"crash-in-view-change", "disks-in-turn", "older-copy", "away-amid-cuts", "flipped-amid-cuts"}
HERE = [kind for kind in Kind if kind not in ELSEWHERE]


@pytest.mark.parametrize("kind", HERE, ids=lambda kind: kind.label)
def test_what_is_done_is_undone(kind: Kind, rig: Rig) -> None:
    before = files(rig.cluster)
    rig.follow(kind)
    assert rig.whole()
    assert (files(rig.cluster), rig.told) == (before, [(kind.label, True), (kind.label, False)])


@pytest.mark.parametrize("kind", HERE, ids=lambda kind: kind.label)
def test_a_run_that_breaks_off_is_healed(kind: Kind, rig: Rig) -> None:
    before = files(rig.cluster)

    async def scenario() -> None:
        await rig.faults.heal()
        following = asyncio.create_task(rig.faults.follow(script(1, [kind], HOUR), rig.tell))
        await until(lambda: bool(rig.told))
        assert not rig.whole() or files(rig.cluster) != before
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await rig.faults.heal()

    asyncio.run(scenario())
    assert rig.whole()
    assert files(rig.cluster) == before


def test_a_fault_that_cannot_be_had_is_left_out_and_said(rig: Rig) -> None:
    rig.follow(Kind.SLOW_SYNCS, Kind.PAUSE)
    assert rig.faults.skipped == {"slow-syncs": "there is no library in front of the disks"}
    assert (rig.told, rig.cluster.journal) == ([("pause", True), ("pause", False)], [("start", name) for name in NODES])


def test_a_process_with_few_files_left_has_its_own_limit_again(rig: Rig) -> None:
    waits = [sys.executable, "-c", "print('up', flush=True); input()"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"  # starting needs more files than the fault leaves
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        limits = []

        async def scenario() -> None:
            await rig.faults.heal()
            for node in rig.cluster.nodes.values():
                node.process = process
            following = asyncio.create_task(rig.faults.follow(script(1, [Kind.FEW_FILES], HOUR), rig.tell))
            await until(lambda: bool(rig.told))
            limits.append(resource.prlimit(process.pid, resource.RLIMIT_NOFILE))
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            await rig.faults.heal()

        asyncio.run(scenario())
        assert limits[0][0] < 64 <= limits[0][1] == before[1]
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == before
        process.communicate(b"\n", timeout=SECONDS)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind in JOINS], ids=str)
def test_no_disk_is_replaced_where_disks_are_put_back(kind: Kind, rig: Rig) -> None:
    asyncio.run(rig.faults.follow(script(1, [kind], NOW), rig.tell))
    assert rig.faults.skipped == {kind.label: "disks are put back in this run, and none is replaced"}
    assert (rig.told, rig.cluster.journal) == ([], [])


@pytest.mark.parametrize("writes", [True, False], ids=["busy", "idle"])
@pytest.mark.parametrize("kind", [Kind.AWAY_AMID_CUTS, Kind.FLIPPED_AMID_CUTS], ids=lambda kind: kind.label)
def test_a_disk_that_lost_something_meets_none_that_has_it(
    kind: Kind, writes: bool, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joins, "_MISSED_SECONDS", 0.0)
    monkeypatch.setattr(joins, "_LOGGED_SECONDS", SECONDS if writes else 0.0)
    data = rig.cluster.nodes["n1"].data
    store = data / "store"
    left: dict[Path, bytes] = {}

    def started() -> bool:
        """Whether n1 has been started without its last writes. Until then, if clients write, its log grows."""
        if rig.cluster.journal[-1] == ("start", "n1") and ("kill", "n1") in rig.cluster.journal:
            left.update((path, path.read_bytes()) for path in store.glob("*"))
            return True
        if writes and (store / "000003.log").exists():
            with (store / "000003.log").open("ab") as log:
                log.write(bytes(10_000))
        return False

    async def scenario(faults: Faults) -> set[Wire]:
        await faults.heal()
        following = asyncio.create_task(faults.follow([Fault(0, kind, 0.0, 1.0, "n1", frozenset(), 1)], rig.tell))
        await until(started)
        broken = set(rig.network.broken)
        await following
        return broken

    with Recorder.to(rig.path.with_name("rejoins.jsonl")) as recorder:
        broken = asyncio.run(scenario(Faults(cast("Cluster", rig.cluster), rig.network, None, Idle(), recorder, rejoins=True)))
    assert broken in [both_ways("n2", ("n1", "n3")), both_ways("n3", ("n1", "n2"))]
    if kind is Kind.FLIPPED_AMID_CUTS and writes:
        assert left[store / "000003.log"][:70_000] == bytes(70_000) != left[store / "000003.log"][70_000:][:70_000]
    else:
        assert left == {}
        assert (store / "000003.log").stat().st_size >= 70_000
    assert rig.whole()
    assert rig.told == [(kind.label, True), (kind.label, False)]


def test_a_disk_that_has_nothing_to_damage_was_killed_all_the_same(rig: Rig) -> None:
    for node in rig.cluster.nodes.values():
        (node.data / "store" / "000002.ldb").unlink()
    rig.follow(Kind.FLIPPED_TABLE)
    assert rig.whole()
    assert (rig.told, rig.faults.skipped) == ([("kill", True), ("kill", False)], {})


@pytest.mark.parametrize(
    "other",
    [Answer(200, {"state": "active", "damaged": True}), Answer(503, {"state": "joining"}), None],
    ids=["cannot read all that it has", "joins", "does not answer"],
)
def test_no_disk_is_lost_while_another_one_may_need_it(other: Answer | None, rig: Rig) -> None:
    """The records in one disk's damaged blocks may be on that disk and nowhere else."""
    rig.cluster.answers["n3"] = other
    with Recorder.to(rig.path.with_name("rejoins.jsonl")) as recorder:
        faults = Faults(cast("Cluster", rig.cluster), rig.network, None, Idle(), recorder, rejoins=True)
        for kind in (*JOINS, Kind.DISK_GONE, Kind.FLIPPED_TABLE):
            asyncio.run(faults.follow(script(1, [kind], NOW), rig.tell))
            assert "no second one may be lost meanwhile" in faults.skipped[kind.label]
    assert (rig.told, rig.cluster.journal) == ([], [])


@pytest.mark.parametrize(
    ("net", "lost_disks", "left"),
    [("proxies", "rejoin", {"replaced", *ANYWHERE}), ("namespaces", "rejoin", ANYWHERE), ("proxies", "put-back", {"kill"})],
)
def test_a_plan_has_replacements_where_they_can_be_had(net: str, lost_disks: str, left: set[str], tmp_path: Path) -> None:
    words = ["run", "--minutes", "20", "--seed", "1", "--net", net, "--lost-disks", lost_disks, "--report", str(tmp_path)]
    options, unavailable = options_of(parse_arguments([*words, "--faults", "joins,kill" if left == {"kill"} else "joins"]))
    assert {fault.kind.label for fault in options.plan} >= left
    assert {kind.label for kind in JOINS} - left == unavailable.keys()


def watched(rig: Rig, kind: Kind | None, code: int) -> bool:
    """Ends a process with this exit code under a fault of this kind, or none. Returns whether the exit was expected."""

    async def scenario() -> None:
        await rig.faults.heal()
        watch = asyncio.create_task(rig.faults.watch())
        plan = script(1, [kind], HOUR) if kind else ()
        following = asyncio.create_task(rig.faults.follow(plan, rig.tell))
        await until(lambda: not plan or bool(rig.told))
        rig.cluster.end(plan[0].node if plan else "n1", code)
        await until(lambda: bool(rig.faults.exits))
        watch.cancel()
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    asyncio.run(scenario())
    (exit_,) = rig.faults.exits
    assert exit_.code == code
    return exit_.expected


@pytest.mark.parametrize(
    ("kind", "code", "expected"),
    [(Kind.TORN_LOG, 3, True), (Kind.TORN_LOG, 1, False), (Kind.PAUSE, 3, False), (None, 3, False), (None, 0, False)],
)
def test_a_process_may_end_by_itself_for_its_disk_and_only_so(kind: Kind | None, code: int, expected: bool, rig: Rig) -> None:
    assert watched(rig, kind, code) is expected is (kind in MAY_STOP and code == 3)


def test_faults_are_in_the_history_with_their_ends(rig: Rig) -> None:
    for kind in (Kind.ONE_TO_ONE, Kind.KILL_ALL):
        rig.follow(kind)
    rig.faults._recorder._file.flush()
    records = [record for record in read(rig.path) if not isinstance(record, Note)]
    assert [type(record) for record in records] == [FaultBegan, FaultEnded] * 2
    assert [record.nodes for record in records if isinstance(record, FaultBegan)] == [(), NODES]


@pytest.mark.parametrize(
    "arguments",
    [
        "run --seed 7 --minutes 3.5 --faults pause,partition,torn",
        "run --seed 7 --minutes 0.5 --faults kill --lost-disks rejoin --node-command 'python -m broken'",
        "long --seed 9 --faults partition,gone --rate 7 --minutes 50",
    ],
)
def test_the_command_that_is_said_makes_the_same_run(arguments: str, tmp_path: Path) -> None:
    where = ["--report", str(tmp_path)]
    first, _ = options_of(parse_arguments([*shlex.split(arguments), *where]))
    program, *words = shlex.split(again(first))
    second, _ = options_of(parse_arguments([*words, *where]))
    assert program == "bin/chaos"
    assert first.plan
    assert second == first


def test_faults_that_a_network_of_namespaces_does_not_have_are_left_out(tmp_path: Path) -> None:
    where = ["--report", str(tmp_path), "--net", "namespaces", "--seed", "1"]
    options, unavailable = options_of(parse_arguments(["run", "--faults", "links,pause", *where]))
    assert [kind.label for kind in options.kinds] == ["pause", "lossy-links"]
    assert unavailable.keys() == {"slow-links", "repeated-bytes"}
    with pytest.raises(ValueError, match="slow-links: in network namespaces"):
        options_of(parse_arguments(["run", "--faults", "slow-links", *where]))


def test_the_narrated_run_is_below_two_minutes(tmp_path: Path) -> None:
    options, _ = options_of(parse_arguments(["demo", "--report", str(tmp_path)]))
    assert options.seconds < 100
    assert BRISK.trouble[0] <= options.plan[0].ends - options.plan[0].begins
