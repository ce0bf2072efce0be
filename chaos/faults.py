"""Applies a plan of faults (nemesis.py) to a running cluster, in turn or at the same time, and undoes each at its end.

Every fault can be undone, or its node gets a new disk. ``heal`` undoes all of them: before the work begins, and after the work,
however that ended.
"""

import asyncio
import contextlib
import os
import resource
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import NamedTuple, Protocol

from chaos import disks
from chaos.disks import Damage
from chaos.joins import Joins
from chaos.nemesis import JOINS, MAY_STOP, Fault, Kind
from chaos.network import Network, Weather
from chaos.preloaded import Injector, c_compiler
from chaos.recorder import Recorder
from chaos.summary import Exit
from chaos.testbed.cluster import NODES, Cluster
from chaos.testbed.history import FaultBegan, FaultEnded
from chaos.testbed.host import Unavailable

#: The exit code of a node whose store cannot be trusted.
_STORAGE_EXIT = 3
_POLL_SECONDS = 0.05
#: Seconds that a kill in mid-request waits for a request.
_MID_REQUEST_SECONDS = 1.0
#: Seconds that most requests take from their first byte on.
_REQUEST_SECONDS = 0.004
_SLOW = Weather(delay=0.05, spread=0.2)
_LOSSY = Weather(loss=0.1)
_REPEATED = Weather(twice=0.1)
#: The numbers of files that a process may still open, beyond those it has open.
_LEFT_FILES = (0, 1, 4, 16)
#: Seconds by which a clock is set wrong. Certificates are valid from an hour before they are made.
_JUMPS = (1, 30, 600, 3_000)

_NO_NETEM = "in network namespaces packets can be lost, and neither be late nor come twice; without --net namespaces they can"
_PUT_BACK = "disks are put back, and none is replaced: --lost-disks rejoin"
_ONE_HOME = "two processes of one node need a proxy that leads to the one or the other; without --net namespaces there is one"
_NOT_ROOT = "a small disk is a file system in memory, which root alone can mount"
_NOT_ITS_OWN = "a node keeps its process from others of its user, so that root alone can change its limits"

Mend = Callable[[], Awaitable[None]]


def missing(kinds: Collection[Kind], net: str, *, rejoins: bool) -> dict[Kind, str]:
    """Returns the kinds of faults that are impossible for this machine and user, with reasons. Plans leave them out.

    ``rejoins``: nodes get new disks when theirs are lost.
    """
    found: dict[Kind, str] = {}
    if not rejoins:
        found |= dict.fromkeys(JOINS, _PUT_BACK)
    if net == "namespaces":
        found |= dict.fromkeys((Kind.SLOW_LINKS, Kind.REPEATED_BYTES), _NO_NETEM)
        found[Kind.REPLACED] = _ONE_HOME
    if os.geteuid() != 0:
        found |= {Kind.FULL_DISK: _NOT_ROOT, Kind.FEW_FILES: _NOT_ITS_OWN}
    try:
        c_compiler()
    except Unavailable as why:
        found |= dict.fromkeys((Kind.SLOW_SYNCS, Kind.FAILING_SYNCS, Kind.CLOCK_JUMP), str(why))
    return {kind: why for kind, why in found.items() if kind in kinds}


class Traffic(Protocol):
    """The part of the clients' requests that faults have to know about."""

    def under_way(self, node: str) -> int:
        """Returns the number of requests through this node that wait for an answer."""

    async def next_request(self, node: str) -> None:
        """Waits until a request is about to be sent to this node."""


class Applied(NamedTuple):
    """A fault in force: in words, and the function that undoes it. ``instead``: the lesser kind that was applied in its place."""

    words: str
    mend: Mend
    instead: Kind | None = None


class Faults:
    """Applies and undoes faults. ``injector`` is None where there can be none. ``rejoins``: a node that lost its disk gets a new
    one, and nothing is put back; for a build without rejoining, each disk comes back as it was.

    It runs on the event loop's thread, which started the nodes and outlives them.
    """

    def __init__(
        self,
        cluster: Cluster,
        network: Network,
        injector: Injector | None,
        traffic: Traffic,
        recorder: Recorder,
        *,
        rejoins: bool,
    ) -> None:
        #: Processes that ended by themselves; and faults of the plan that could not be applied, with the reason.
        self.exits: list[Exit] = []
        self.skipped: dict[str, str] = {}
        self._cluster = cluster
        self._network = network
        self._injector = injector
        self._traffic = traffic
        self._recorder = recorder
        self._rejoins = rejoins
        self._active: dict[int, tuple[Fault, Applied]] = {}
        #: Nodes whose process this object ended, until they are started again.
        self._down: set[str] = set()
        #: For each node the fault that damaged its store, and the disk: as long as it has that disk, the node may stop for it.
        self._damaged: dict[str, tuple[Kind, object]] = {}
        #: True while a fault of this plan replaces a disk.
        self._replacing = False
        self._joins = Joins(cluster, network, self._down, self._start_now, self._stop)
        self._apply = self._appliers()

    def _appliers(self) -> dict[Kind, Callable[[Fault], Awaitable[Applied]]]:
        return {
            Kind.KILL: self._kill,
            Kind.KILL_IN_MID_REQUEST: self._kill_in_mid_request,
            Kind.KILL_STARTING: self._kill_starting,
            Kind.KILL_ALL: self._kill_all,
            Kind.PAUSE: self._pause,
            Kind.CUT_OFF: self._cut,
            Kind.ONE_WAY: self._cut,
            Kind.ONE_TO_ONE: self._cut,
            Kind.SLOW_LINKS: partial(self._disturb, weather=_SLOW),
            Kind.LOSSY_LINKS: partial(self._disturb, weather=_LOSSY),
            Kind.REPEATED_BYTES: partial(self._disturb, weather=_REPEATED),
            Kind.FULL_DISK: self._fill,
            Kind.FAILING_SYNCS: self._fail_syncs,
            Kind.SLOW_SYNCS: self._slow_syncs,
            Kind.FLIPPED_TABLE: partial(self._damage_store, damage=disks.flip_table),
            Kind.FLIPPED_LOG: partial(self._damage_store, damage=disks.flip_log),
            Kind.TORN_LOG: partial(self._damage_store, damage=disks.tear_log),
            Kind.DISK_GONE: self._take_disk_away,
            Kind.FEW_FILES: self._leave_few_files,
            Kind.CLOCK_JUMP: self._set_clock,
            Kind.REPLACED: partial(self._replace, apply=self._joins.leave_behind, mend=self._joins.go_on),
            Kind.CRASH_IN_VIEW_CHANGE: partial(self._replace, apply=self._joins.crash_in_view_change, mend=self._start_all),
            Kind.DISKS_IN_TURN: partial(self._replace, apply=self._joins.lose_in_turn, mend=self._start_all),
            Kind.OLDER_COPY: partial(self._replace, apply=self._joins.copy, mend=self._joins.put_back),
            Kind.AWAY_AMID_CUTS: partial(self._replace, apply=self._joins.lose_amid_cuts, mend=self._joins.reach_again),
            Kind.FLIPPED_AMID_CUTS: partial(self._replace, apply=self._joins.lose_amid_cuts, mend=self._joins.reach_again),
        }

    @property
    def outlived(self) -> list[str]:
        """Returns the processes that did not end when their disk was replaced."""
        return self._joins.outlived

    async def follow(self, plan: Sequence[Fault], tell: Callable[[Fault, str, bool], None]) -> None:
        """Applies the whole plan, at its times after now by the recorder's clock. Calls ``tell`` when a fault begins and ends."""
        zero = self._recorder.now
        async with asyncio.TaskGroup() as tasks:
            for fault in plan:
                tasks.create_task(self._follow_one(fault, zero, tell), name=f"fault {fault.number}")

    async def _follow_one(self, fault: Fault, zero: float, tell: Callable[[Fault, str, bool], None]) -> None:
        await asyncio.sleep(zero + fault.begins - self._recorder.now)
        began = self._recorder.now
        try:
            if self._replacing:
                raise Unavailable("a disk is being replaced, which takes longer than was planned")
            applied = await self._apply[fault.kind](fault)
        except Unavailable as why:
            self.skipped[fault.kind.label] = str(why)
            self._recorder.note(f"no {fault.kind.label} of {fault.node}: {why}")
            return
        if applied.instead is not None:
            fault = replace(fault, kind=applied.instead)
        self._active[fault.number] = fault, applied
        self._recorder.write(FaultBegan(fault.number, fault.kind.label, fault.on, began, applied.words))
        tell(fault, applied.words, True)
        await asyncio.sleep(zero + fault.ends - self._recorder.now)
        await applied.mend()
        del self._active[fault.number]
        self._recorder.write(FaultEnded(fault.number, self._recorder.now, "mended"))
        tell(fault, applied.words, False)

    async def heal(self) -> None:
        """Undoes all faults, and starts every node."""
        for number, (_, applied) in tuple(self._active.items()):
            await applied.mend()
            del self._active[number]
        self._joins.close()
        await self._start_all()

    async def watch(self) -> None:
        """Notes each process that ends by itself, until cancelled. The fault on a node at that moment decides if it may end."""
        while True:
            for name, node in self._cluster.nodes.items():
                code = None if node.process is None else node.process.poll()
                if code is not None and name not in self._down:
                    self._down.add(name)
                    causes = [fault.kind for fault, _ in self._active.values() if fault.node == name]
                    kind, disk = self._damaged.get(name, (None, None))
                    left = kind is not None and not causes and disk == self._cluster.identity(name).get("disk")
                    causes += [kind] if left and kind is not None else []
                    expected = code == _STORAGE_EXIT and not MAY_STOP.isdisjoint(causes)
                    words = ", ".join(kind.label for kind in causes) or "nothing was done to it"
                    self.exits.append(Exit(name, self._recorder.now, code, expected, words))
                    self._recorder.note(f"{name} ended by itself with exit code {code}: {words}")
                    if left and expected:
                        self._start_now(name)  # no fault starts the node: its fault is over
            await asyncio.sleep(_POLL_SECONDS)

    async def _start(self, name: str) -> None:
        self._start_now(name)

    def _start_now(self, name: str) -> None:
        self._down.discard(name)
        if not self._cluster.nodes[name].running:
            self._cluster.start(name)

    def _stop(self, *names: str) -> None:
        """Kills the nodes that run, as nearly at once as signals allow."""
        self._down.update(names)
        running = [name for name in names if self._cluster.nodes[name].running]
        if running:
            self._cluster.kill(*running)

    async def _kill(self, fault: Fault) -> Applied:
        at_hand = self._traffic.under_way(fault.node)
        self._stop(fault.node)
        return Applied(f"{fault.node} is killed, with {at_hand} requests at hand", partial(self._start, fault.node))

    async def _kill_in_mid_request(self, fault: Fault) -> Applied:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MID_REQUEST_SECONDS):
                await self._traffic.next_request(fault.node)
        await asyncio.sleep(Random(fault.dice).random() * _REQUEST_SECONDS)
        return await self._kill(fault)

    async def _kill_starting(self, fault: Fault) -> Applied:
        seconds = 0.02 + Random(fault.dice).random() * 0.8
        self._stop(fault.node)
        await self._start(fault.node)
        await asyncio.sleep(seconds)
        self._stop(fault.node)
        words = f"{fault.node} is killed, and killed again {seconds:.2f} s after it was started"
        return Applied(words, partial(self._start, fault.node))

    async def _kill_all(self, fault: Fault) -> Applied:
        self._stop(*NODES)
        return Applied("all three are killed at once", self._start_all)

    async def _pause(self, fault: Fault) -> Applied:
        if not self._cluster.nodes[fault.node].running:
            raise Unavailable("it does not run")
        self._cluster.pause(fault.node)

        async def resume() -> None:
            self._cluster.resume(fault.node)

        return Applied(f"{fault.node} is stopped (SIGSTOP)", resume)

    async def _cut(self, fault: Fault) -> Applied:
        await self._network.cut(fault.wires, loses=bool(fault.dice & 2))
        return Applied(f"nothing passes {_arrows(fault)}", partial(self._network.mend, fault.wires))

    async def _disturb(self, fault: Fault, weather: Weather) -> Applied:
        await self._network.disturb(fault.wires, weather)
        what = "bytes are lost" if weather.loss else "bytes come twice" if weather.twice else "everything is slow"
        return Applied(f"{what} {_arrows(fault)}", partial(self._network.mend, fault.wires))

    async def _fill(self, fault: Fault) -> Applied:
        return self._until_undone(fault, await asyncio.to_thread(disks.fill, self._cluster.nodes[fault.node].data))

    async def _fail_syncs(self, fault: Fault) -> Applied:
        return self._until_undone(fault, self._required_injector().fail_syncs(fault.node))

    async def _slow_syncs(self, fault: Fault) -> Applied:
        milliseconds = Random(fault.dice).choice((100, 400, 1000, 3000))
        return self._undone_in_place(fault, self._required_injector().slow_syncs(fault.node, milliseconds))

    async def _set_clock(self, fault: Fault) -> Applied:
        rng = Random(fault.dice)
        return self._undone_in_place(fault, self._required_injector().jump(fault.node, rng.choice(_JUMPS) * rng.choice((-1, 1))))

    async def _leave_few_files(self, fault: Fault) -> Applied:
        """Lets the process's next opens fail: a connection, a table or a log of its store, a file of its own."""
        process = self._cluster.nodes[fault.node].process
        if process is None or process.poll() is not None:
            raise Unavailable("it does not run")
        left = Random(fault.dice).choice(_LEFT_FILES)
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        most = max(map(int, os.listdir(f"/proc/{process.pid}/fd"))) + 1 + left
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (most, before[1]))

        async def mend() -> None:
            if process.poll() is None:
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
            await self._start(fault.node)

        return Applied(f"{fault.node} may open {left} files more", mend)

    def _undone_in_place(self, fault: Fault, damage: Damage) -> Applied:
        async def mend() -> None:
            damage.undo()

        return Applied(f"{fault.node}: {damage.words}", mend)

    def _until_undone(self, fault: Fault, damage: Damage) -> Applied:
        """Applies damage that makes a running node stop. The node may be about to stop, so it is restarted in any case."""

        async def mend() -> None:
            self._stop(fault.node)
            damage.undo()
            await self._start(fault.node)

        return Applied(f"{fault.node}: {damage.words}", mend)

    async def _damage_store(self, fault: Fault, damage: Callable[..., Damage]) -> Applied:
        def make() -> Damage:
            made = damage(self._cluster.nodes[fault.node].data / "store", Random(fault.dice))
            if self._rejoins:
                self._damaged[fault.node] = fault.kind, self._cluster.identity(fault.node).get("disk")
            return made

        return await self._while_down(fault, make)

    async def _take_disk_away(self, fault: Fault) -> Applied:
        data = self._cluster.nodes[fault.node].data
        if not self._rejoins:
            return await self._while_down(fault, lambda: disks.take_away(data))
        applied = await self._while_down(fault, lambda: disks.lose(data))
        return Applied(applied.words, partial(self._joins.replace, fault.node))

    async def _replace(
        self, fault: Fault, apply: Callable[[Fault], Awaitable[str]], mend: Callable[[Fault], Awaitable[None]]
    ) -> Applied:
        """Replaces a disk. No other fault is applied to a node before this one is mended."""
        if not self._rejoins:
            raise Unavailable("disks are put back in this run, and none is replaced")
        await self._check_whole()
        self._replacing = True

        async def mended() -> None:
            try:
                await mend(fault)
            finally:
                self._replacing = False

        return Applied(await apply(fault), mended)

    async def _start_all(self, fault: Fault | None = None) -> None:
        for name in NODES:
            await self._start(name)

    async def _while_down(self, fault: Fault, make: Callable[[], Damage]) -> Applied:
        """Damages a disk while no process has it open. Then starts the node, which may refuse to start."""
        if self._rejoins:
            await self._check_whole()
        self._stop(fault.node)
        try:
            damage, instead = make(), None
        except Unavailable as why:  # requests that failed meanwhile still failed because of this fault
            damage, instead = Damage(str(why), lambda: None), Kind.KILL
        finally:
            await self._start(fault.node)

        async def mend() -> None:
            if not self._rejoins:
                self._stop(fault.node)
                damage.undo()
            await self._start(fault.node)

        return Applied(f"{fault.node} is killed and started again: {damage.words}", mend, instead)

    async def _check_whole(self) -> None:
        if not await asyncio.to_thread(self._joins.all_whole):
            raise Unavailable("a node has not joined again yet, or not mended its disk: no second one may be lost meanwhile")

    def _required_injector(self) -> Injector:
        if self._injector is None:
            raise Unavailable("there is no library in front of the disks")
        return self._injector


def _arrows(fault: Fault) -> str:
    """Returns wires in a form for people: "n1 ↔ n2, n1 → n3"."""
    shown = []
    for source, target in sorted(fault.wires):
        if (target, source) not in fault.wires:
            shown.append(f"{source} → {target}")
        elif source < target:
            shown.append(f"{source} ↔ {target}")
    return ", ".join(shown)
