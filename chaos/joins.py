"""Faults around the replacement of a disk, for builds whose nodes rejoin: what an operator does, at the worst of times.

    replaced                a node stands still (SIGSTOP) and is taken for dead; another process, elsewhere, has a new disk in its
                            place. Then the old one goes on, and one of the two has to end by itself, and to do no harm until
                            then: the old one, unless the new one had not been welcomed yet
    crash-in-view-change    a disk joins, and both others are killed; the one that missed what was written last is back first
    disks-in-turn           each of the three disks is lost, the next one as soon as the one before is replaced
    older-copy              a node's disk is copied, and some seconds later put back: it has forgotten what it acknowledged since,
                            and has to find that out by itself before it votes
    away-amid-cuts          a node is cut off and misses writes; then the disk of a second one is away, as if it were not mounted,
                            and the third, which alone has those writes, is cut off in place of the first
    flipped-amid-cuts       the same, and a bit flips in the second one's log

Each begins with three disks that are active and can be read: two that are lost at a time are more than the promise covers, and
so is one that has what another one has lost.
"""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import yaml

from chaos import disks
from chaos.nemesis import Fault, Kind, both_ways, others
from chaos.network import Network
from chaos.testbed.cluster import NODES, Cluster
from chaos.testbed.host import move_all

#: A node that stands still is given up by the others after 2 s; then its name is free.
_GIVEN_UP_SECONDS = 3.0
#: The longest that a node may take to start and to copy the records of a short run, on a machine that has other work.
_JOIN_SECONDS = 30.0
#: Bytes of a store that a join copies in a second at least: it has longer for the records of a long run.
_COPIED_BYTES = 1_000_000
#: A process whose disk was replaced has to hear of that, and drains its requests first.
_END_SECONDS = 20.0
#: The time during which one of the other nodes misses writes.
_MISSED_SECONDS = 1.5
#: A log that has grown by so many bytes has a good part of a whole block of what came last; and the longest wait for it.
_FLIPPED_BYTES = 48 * 1024
_LOGGED_SECONDS = 6.0
#: The longest wait after the entry of the new view; a copy takes some milliseconds.
_IN_THE_MIDDLE_SECONDS = 0.02
_POLL_SECONDS = 0.005
#: Ports of a second process of a node, beyond its own: init leaves these free between those of the API and those of peers.
_BESIDE = 3
#: Exit code of a process that must not go on, for a reason that it has said.
_REFUSED_EXIT = 1
#: Exit code of a process whose disk cannot be trusted.
_STORAGE_EXIT = 3


class _Beside(NamedTuple):
    """The old process, and the cluster of one that has the new one."""

    old: subprocess.Popen[bytes]
    new: Cluster


class Joins:
    """``start`` and ``stop`` are those of faults.py; ``down`` has the nodes that are meant to be.

    ``outlived`` says which processes on replaced disks did not end as they should, and which new disks did not join.
    """

    def __init__(
        self, cluster: Cluster, network: Network, down: set[str], start: Callable[[str], None], stop: Callable[..., None]
    ) -> None:
        self.outlived: list[str] = []
        self._cluster = cluster
        self._network = network
        self._down = down
        self._start = start
        self._stop = stop
        self._beside: dict[int, _Beside] = {}
        self._away: dict[int, disks.Damage] = {}

    async def replace(self, name: str) -> None:
        """Replaces a disk as an operator does: a node whose identity file is gone takes no new disk by itself."""
        self._stop(name)
        disks.empty(self._cluster.nodes[name].data)
        await asyncio.to_thread(self._cluster.replace_disk, name)
        self._start(name)

    def all_whole(self) -> bool:
        """Returns whether each node is active and can read all that it has: no disk is the only one that has something."""
        answers = [self._cluster.health(name) for name in NODES]
        return all(answer is not None and answer.body["state"] == "active" and "damaged" not in answer.body for answer in answers)

    def close(self) -> None:
        """Ends the second processes of nodes that were begun and not mended."""
        for _, new in self._beside.values():
            new.close()
        self._beside.clear()

    # Replaced, and not dead.

    async def leave_behind(self, fault: Fault) -> str:
        name = fault.node
        node = self._cluster.nodes[name]
        old = node.require_process()
        self._cluster.pause(name)
        self._down.add(name)
        home = self._cluster.directory / f"beside-{fault.number}"
        address, peer = _second_home(self._cluster.directory, home, name, node.config)
        new = Cluster(home, {name: address}, {})
        new.command_line, new.nodes[name].config = self._cluster.command_line, node.config
        new.nodes[name].variables = dict(node.variables)
        self._beside[fault.number] = _Beside(old, new)
        await asyncio.sleep(_GIVEN_UP_SECONDS)
        await asyncio.to_thread(new.replace_disk, name)
        await self._network.move(name, peer)
        new.start(name)
        if self._waits(fault):
            await self._joined(new, name)
        when = "has joined" if self._waits(fault) else "is starting"
        return f"{name} is stopped (SIGSTOP), and another process in its place, which has a new disk, {when}"

    @staticmethod
    def _waits(fault: Fault) -> bool:
        """Returns whether the new disk joins before the old process goes on."""
        return Random(fault.dice).random() < 0.5

    async def go_on(self, fault: Fault) -> None:
        """The old process does, and has to end. Then the new disk is where the old one was.

        A new process that is still starting may find that the old one is back. Then it is the one that ends, and nothing changed.
        """
        name, (old, new) = fault.node, self._beside.pop(fault.number)
        node, newer = self._cluster.nodes[name], new.nodes[name].require_process()
        self._cluster.resume(name)
        await _until(lambda: old.poll() is not None or newer.poll() is not None, _END_SECONDS)
        if old.poll() is None and newer.poll() == _REFUSED_EXIT and not self._waits(fault):
            new.close()
            await self._network.move(name, None)
            self._down.discard(name)
            return
        await self._require_end(old, _REFUSED_EXIT, f"{name} came back with a disk that was replaced")
        self._stop(name)
        await self._joined(new, name)
        new.close()
        await self._network.move(name, None)
        away = node.data.with_name(f"{name}.replaced-{fault.number}")
        move_all(node.data, away)
        move_all(new.directory / name, node.data)
        self._start(name)

    async def _require_end(self, process: subprocess.Popen[bytes], code: int, since: str) -> None:
        """Waits for a process that has to end by itself, with this exit code; notes one that does not."""
        try:
            ended = await asyncio.to_thread(process.wait, _END_SECONDS)
        except subprocess.TimeoutExpired:
            self.outlived.append(f"{since}, and its process goes on {_END_SECONDS:g} s later")
        else:
            if ended != code:
                self.outlived.append(f"{since}, and its process ended with exit code {ended}")

    async def _joined(self, cluster: Cluster, name: str) -> bool:
        seconds = _JOIN_SECONDS + max(_size(node.data / "store") for node in self._cluster.nodes.values()) / _COPIED_BYTES
        joined = await _until(lambda: cluster.state(name) == "active", seconds)
        if not joined:
            self.outlived.append(f"{name} has not joined with its new disk in {seconds:.0f} s")
        return joined

    # The middle of a view change.

    async def crash_in_view_change(self, fault: Fault) -> str:
        rng, name = Random(fault.dice), fault.node
        stale, knowing = rng.sample(others(name), 2)
        misses = rng.random() < 0.7
        if misses:
            self._cluster.pause(stale)
            await asyncio.sleep(_MISSED_SECONDS)
        try:
            await self.replace(name)
            if misses:
                # It asks for views by then, and nobody has handed off yet what the one that stands still has missed.
                await _until(lambda: self._cluster.health(name) is not None, _JOIN_SECONDS)
        finally:
            if misses:
                self._cluster.resume(stale)
        entered = await _until(lambda: self._cluster.identity(name).get("view") is not None, _JOIN_SECONDS)
        await asyncio.sleep(rng.random() * _IN_THE_MIDDLE_SECONDS)
        dead = NODES if rng.random() < 0.25 else (stale, knowing)
        self._stop(*dead)
        for each in dead:
            if each != knowing:
                self._start(each)
        late = f", and {stale} had missed what was written last" if misses else ""
        step = "is in the new view" if entered else "asks for one"
        return f"{name} joins with a new disk and {step}; {' and '.join(dead)} are killed, {knowing} stays down{late}"

    # Put back from an older copy.

    def _copy_of(self, fault: Fault) -> Path:
        return self._cluster.directory / f"{fault.node}.older-{fault.number}"

    async def copy(self, fault: Fault) -> str:
        self._stop(fault.node)
        data = self._cluster.nodes[fault.node].data
        shutil.copytree(data, self._copy_of(fault), ignore=shutil.ignore_patterns("admin.sock"))
        self._start(fault.node)
        return f"{fault.node}'s disk is copied, to be put back"

    async def put_back(self, fault: Fault) -> None:
        name, node = fault.node, self._cluster.nodes[fault.node]
        self._stop(name)
        disks.empty(node.data)
        move_all(self._copy_of(fault), node.data)
        self._start(name)
        self._down.add(name)
        await self._require_end(node.require_process(), _STORAGE_EXIT, f"the disk of {name} was put back from an older copy")
        self._start(name)

    # What is acknowledged is on the one disk that nobody reaches.

    async def lose_amid_cuts(self, fault: Fault) -> str:
        """A disk that goes on voting after it has lost something finds nobody in touch who knows better."""
        name = fault.node
        behind, knowing = self._behind_and_knowing(fault)
        await self._network.cut(both_ways(behind, others(behind)), loses=True)
        words = await (self._flip_newest(fault) if fault.kind is Kind.FLIPPED_AMID_CUTS else self._take_away(fault))
        await self._network.cut(both_ways(knowing, others(knowing)), loses=True)
        await self._network.mend(both_ways(behind, (name,)))
        self._start(name)
        return f"{behind} misses writes; {name} is killed and started again: {words}; {knowing} is cut off, and {behind} no more"

    @staticmethod
    def _behind_and_knowing(fault: Fault) -> list[str]:
        """The node that misses writes, and the one that alone has them in the end."""
        return Random(fault.dice).sample(others(fault.node), 2)

    async def _take_away(self, fault: Fault) -> str:
        await asyncio.sleep(_MISSED_SECONDS)
        self._stop(fault.node)
        self._away[fault.number] = damage = disks.take_away(self._cluster.nodes[fault.node].data)
        return damage.words

    async def _flip_newest(self, fault: Fault) -> str:
        """In what was written since now. If that is too little for one that nothing excuses, the disk is away instead."""
        store = self._cluster.nodes[fault.node].data / "store"
        logged = disks.logged(store)
        if not await _until(lambda: disks.logged(store) > logged + _FLIPPED_BYTES, _LOGGED_SECONDS):
            return await self._take_away(fault)
        self._stop(fault.node)
        return disks.flip_log(store, Random(fault.dice), logged).words

    async def reach_again(self, fault: Fault) -> None:
        """The third disk is back, and so is the second, if it was only away."""
        behind, knowing = self._behind_and_knowing(fault)
        await self._network.mend(both_ways(knowing, (behind, fault.node)))
        if away := self._away.pop(fault.number, None):
            self._stop(fault.node)
            away.undo()
        self._start(fault.node)

    # All three, one after the other.

    async def lose_in_turn(self, fault: Fault) -> str:
        """Loses the stores alone, so that nodes take new disks by themselves, or all data, so that an operator helps: by dice."""
        rng = Random(fault.dice)
        alone = rng.random() < 0.5
        order = rng.sample(NODES, len(NODES))
        for name in order:
            if alone:
                self._stop(name)
                shutil.rmtree(self._cluster.nodes[name].data / "store")
                self._start(name)
            else:
                await self.replace(name)
            if not await self._joined(self._cluster, name):
                break
        return f"{', then '.join(order)} lose {'their stores' if alone else 'all that they had on disk'}"


def _second_home(cluster: Path, home: Path, name: str, config: str) -> tuple[str, tuple[str, int]]:
    """A directory like the cluster's, for this node alone, at ports of its own: as if on another host.

    The addresses of its API, and of what its peers dial.
    """
    home.mkdir()
    for entry in cluster.iterdir():
        if entry.suffix == ".yaml" or entry.name == "secrets":
            (home / entry.name).symlink_to(entry)
    addresses: dict[str, str] = {}
    for file in {"cluster.yaml", config}:
        settings = yaml.safe_load((cluster / file).read_text())
        mine = settings["nodes"][name]
        for key in ("api", "peer"):
            host, _, port = mine[key].rpartition(":")
            mine[key] = addresses[key] = f"{host}:{int(port) + _BESIDE}"
        (home / file).unlink()
        (home / file).write_text(yaml.safe_dump(settings, sort_keys=False))
    host, _, port = addresses["peer"].rpartition(":")
    return addresses["api"], (host, int(port))


async def _until(condition: Callable[[], bool], seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                if await asyncio.to_thread(condition):
                    return True
                await asyncio.sleep(_POLL_SECONDS)
    return False


def _size(store: Path) -> int:
    """Bytes of its files, without those that go meanwhile."""
    total = 0
    for path in store.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
