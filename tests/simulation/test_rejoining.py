"""Seeds in which disks are lost and replaced."""

from collections import Counter
from dataclasses import replace

import pytest

from tests.rigs.undone import UNDONE
from tests.rigs.undone.mutant import LOST_DISKS
from tests.simulation.losses import LOSSES, TIMES, begin
from tests.simulation.nodes import Process
from tests.simulation.rejoining import Rejoining, losing, run_rejoining
from tests.simulation.run import main
from tests.simulation.world import Scenario, World


def only(kind: str, seed: int) -> Scenario:
    """Two clients, and this kind of fault alone."""
    chosen = losing(seed)
    faults = tuple(replace(fault, kind=kind) for fault in chosen.faults if fault.kind in LOSSES)
    return replace(chosen, calls=chosen.calls[:2], faults=faults)


@pytest.mark.parametrize("kind", LOSSES)
def test_disks_are_lost_in_each_way(kind: str) -> None:
    done = run_rejoining(only(kind, 1))
    assert done.violation is None
    assert 2 <= done.branches[kind] <= len(TIMES)


def test_somebody_dies_at_each_step_of_a_join() -> None:
    branches: Counter[str] = Counter()
    for seed in range(1, 61):
        done = run_rejoining(only("broken join", seed))
        assert done.violation is None, f"seed {seed}: {done.violation}"
        branches.update(done.branches)
    deaths = [branch for branch in branches if " of a join died " in branch]
    for step in ("AskView", "ProposeView", "ViewIs", "Copy", "Copied"):
        assert any(branch.startswith(f"at {step} ") for branch in deaths), step
    for entered in range(3):
        assert any(branch.endswith(f"another; had entered: {entered}") for branch in deaths), entered


def left_behind(seed: int) -> list[Process]:
    """Returns the processes whose disks were replaced while the processes lived on."""
    world = World(losing(seed), begin)
    Rejoining(world)
    world.play()
    return [process for node in world.cluster.values() for process in node.left_behind]


def test_a_process_on_a_replaced_disk_goes_on_and_ends() -> None:
    processes = [process for seed in (7, 10) for process in left_behind(seed)]
    assert processes
    assert not any(process.schedule.alive for process in processes)


def test_a_failing_seed_is_told_with_what_was_played(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, replacement = UNDONE["copies-nothing"].patches[0]
    monkeypatch.setattr(owner, name, replacement)
    assert main(["--seed", "2", "--play", LOST_DISKS, "--no-shrink"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("seed 2 fails: ")
    assert told[1] == "once more: bin/simulate --seed 2 --play lost-disks"
