"""Seeds that pass, runs that repeat exactly, and mutants that are noticed."""

import os
import subprocess
import sys
from collections import Counter
from functools import cache

import pytest

from chaos.testbed.history import Outcome
from quorumvault.errors import StorageFailed
from quorumvault.model import NODE_NAMES
from quorumvault.protocol.views import Mode
from quorumvault.server.coordinator.hedging import Hedge
from quorumvault.server.storage.disk_identity import DiskIdentity
from quorumvault.server.storage.store import CORRUPT
from tests import ROOT
from tests.rigs.undone import UNDONE
from tests.rigs.undone.mutant import FILES, LINKS, LOST_DISKS, PUT_BACK, REQUESTS, REVOKED
from tests.simulation import faults
from tests.simulation.disks import Disk
from tests.simulation.faults import KINDS, Fault
from tests.simulation.nodes import DISKS, VIEW
from tests.simulation.plays import PLAYS
from tests.simulation.run import main
from tests.simulation.shrink import shrink
from tests.simulation.world import Run, World, run, scenario

SEEDS, SEEDS_OF_OTHERS = range(1, 53), range(1, 13)
OTHERS = [play for play in PLAYS if play != REQUESTS]


@cache
def done_with(seed: int) -> Run:
    return run(scenario(seed))


@cache
def done_in(play: str, seed: int) -> Run:
    return PLAYS[play].seed(seed)


@pytest.mark.parametrize("seed", SEEDS_OF_OTHERS)
@pytest.mark.parametrize("play", OTHERS)
def test_no_rule_is_broken_in_any_play(play: str, seed: int) -> None:
    """Lost disks are replaced, disks that are put back never vote, and healed disks become the same without a read."""
    done = done_in(play, seed)
    assert done.violation is None, f"bin/simulate --seed {seed} --play {play}: {done.violation}"


@pytest.mark.parametrize("play", OTHERS)
def test_a_seed_is_the_same_run_each_time_in_any_play(play: str) -> None:
    assert PLAYS[play].seed(8).trace == done_in(play, 8).trace


@pytest.mark.parametrize("seed", SEEDS)
def test_no_rule_is_broken(seed: int) -> None:
    done = done_with(seed)
    assert done.violation is None, f"bin/simulate --seed {seed}: {done.violation}"
    assert done.asked >= 200
    assert done.overlapping >= 0.2
    assert done.outcomes[Outcome.OK] > done.asked / 3


def test_every_kind_of_fault_happens() -> None:
    assert {fault.kind for seed in SEEDS for fault in scenario(seed).faults} == KINDS.keys()


def test_what_is_rare_happens_all_the_same() -> None:
    branches = sum((done_with(seed).branches for seed in SEEDS), Counter())
    # Most processes here do not live long enough for a hedge budget to run out.
    assert branches.keys() - {f"hedge {Hedge.WITHHELD}"} == {
        "write-back", "fence retry", "committed by two", "left over", "view refusal", "crash before a sync",
        "stopped by its disk", "rotate from an epoch to come", "not_found", "unavailable", "collision", "unknown", "fail",
        "groups of several requests", "told alone", "settled by notice", "settled by comparison", "repeats that are settled",
        *(f"hedge {hedge}" for hedge in Hedge if hedge is not Hedge.WITHHELD),
    }  # fmt: skip
    assert sum(done_with(seed).scenario.narrow for seed in SEEDS) == len(SEEDS) // 4


def test_replicas_learn_what_is_settled_and_forget_it_in_any_play_with_records() -> None:
    for play in PLAYS.keys() - {REVOKED}:
        branches = sum((done_in(play, seed).branches for seed in SEEDS_OF_OTHERS), Counter())
        assert min(branches[each] for each in ("told alone", "settled by notice", "settled by comparison")) > 100, play
        assert branches["repeats that are settled"] > 30, play
        assert (branches["settled and forgotten"] > 0) == (play in (LOST_DISKS, PUT_BACK, FILES)), play


def test_successors_take_over_and_those_that_they_succeed_are_sent_away() -> None:
    branches = sum((done_in(LINKS, seed).branches for seed in SEEDS_OF_OTHERS), Counter())
    assert min(branches[each] for each in ("a successor", "one that was succeeded goes on", "sent away")) > 0


def test_bits_flip_on_any_disk_but_not_those_of_one_record_on_two() -> None:
    world = World(scenario(1))
    for node in world.cluster.values():
        node.disk.stored = {b"r%d" % number: b"record" for number in range(2)}
    for dice in range(2, 200):
        faults.begin(Fault("rot", 0.0, 0.0, dice), world.cluster)
    flipped = [key for node in world.cluster.values() for key in node.disk.flipped]
    unreadable = [node.name for node in world.cluster.values() if node.disk.unreadable]
    assert len(flipped) == len(set(flipped)) == 2
    assert unreadable == list(NODE_NAMES)


def traced(hash_seed: str) -> str:
    """What another process prints for a seed, with another hash seed: sets and dicts of strings then have another order."""
    command = [sys.executable, "-m", "tests.simulation.run", "--seed", "8"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout


def test_a_seed_is_the_same_run_each_time() -> None:
    trace = run(scenario(8)).trace
    assert run(scenario(8)).trace == trace
    assert run(scenario(9)).trace != trace
    assert traced("1") == traced("2")
    assert f"seed 8: trace {trace}" in traced("3")


def test_a_failing_seed_is_told_and_shrunk(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, replacement = UNDONE["no-fence"].patches[0]
    monkeypatch.setattr(owner, name, replacement)
    assert main(["--seed", "1", "--no-shrink"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("seed 1 fails: fence: ")
    assert told[1] == "once more: bin/simulate --seed 1"
    failed = run(scenario(1))
    smaller = shrink(failed, runs=60)
    assert smaller.violation is not None
    assert smaller.violation.rule == "fence"
    assert smaller.asked < failed.asked / 2
    assert len(smaller.scenario.faults) <= len(failed.scenario.faults)


def test_a_disk_loses_what_was_not_synced_and_nothing_else() -> None:
    disk = Disk(DiskIdentity("simulated", "n1", DISKS["n1"], 0, Mode.ACTIVE, VIEW))
    disk.write({b"r1": b"one"})
    disk.sync()
    disk.write({b"r2": b"two", b"r3": b"three"})
    assert disk.get([b"r1", b"r2", b"r3", b"r4"]) == [b"one", b"two", b"three", None]
    disk.crash(keeps=False)
    assert disk.get([b"r1", b"r2", b"r3"]) == [b"one", None, None]
    disk.write({b"r2": b"two", b"r3": b"three"})
    disk.crash(keeps=True)
    assert disk.get([b"r2", b"r3"]) == [b"two", b"three"]
    disk.rot(0, seen=True)
    disk.rot(1, seen=False)
    assert disk.get([b"r2", b"r3"]) == [b"tw" + bytes([ord("o") ^ 1]), CORRUPT]
    disk.full = True
    with pytest.raises(StorageFailed):
        disk.write({b"r5": b"five"})
