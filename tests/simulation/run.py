"""The command line of the simulator.

bin/simulate --seed 17             runs one seed; prints its trace hash, the same each time, or why it fails, and a smaller run
bin/simulate --seeds 600           runs that many seeds, from --seed on or from 1
bin/simulate --seeds 600 --play lost-disks    the same while disks are lost and replaced; or --play healing, on nodes that heal
bin/simulate --mutants [NAME …]    undoes each safety, or the named ones: a row for each, with the check that notices it
bin/simulate --exhaustive [SCOPE …]    without seeds: explores all states of small worlds, or of the named ones (tests/model/)
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from chaos.testbed.history import Invoke, lines
from tests.model import run as exhaustive
from tests.rigs.undone import SIMULATED
from tests.rigs.undone.mutant import REQUESTS
from tests.simulation.hunting import SEEDS, hunt
from tests.simulation.plays import PLAYS
from tests.simulation.shrink import shrink
from tests.simulation.world import Run


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 if everything was as it has to be: no seed failed, every mutant was noticed."""
    parser = argparse.ArgumentParser(prog="bin/simulate", description="Simulate three nodes, clients and faults from a seed.")
    parser.add_argument("--seed", type=int, help="run this seed; with --seeds, start with it")
    parser.add_argument("--seeds", type=int, help="run this many seeds")
    parser.add_argument("--play", choices=PLAYS, default=REQUESTS, help="play to run; default: %(default)s")
    parser.add_argument("--mutants", nargs="*", metavar="NAME", help=f"disable safety mechanisms: {', '.join(SIMULATED)}")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="mutants to run at a time; default: %(default)s")
    parser.add_argument("--exhaustive", nargs="*", metavar="SCOPE", help=f"explore small worlds: {', '.join(exhaustive.SCOPES)}")
    parser.add_argument("--no-shrink", action="store_true", help="do not shrink the first run that fails")
    options = parser.parse_args(arguments)
    if options.exhaustive is not None:
        return exhaustive.main(options.exhaustive)
    if options.mutants is not None:
        unknown = sorted(set(options.mutants) - SIMULATED.keys())
        if unknown:
            parser.error(f"no such mutant: {', '.join(unknown)}")
        return hunt(options.mutants or list(SIMULATED), options.seeds or SEEDS, options.jobs)
    if options.seed is None and options.seeds is None:
        parser.error("expected --seed, --seeds, --mutants or --exhaustive")
    first = 1 if options.seed is None else options.seed
    if options.seeds is None:
        return replay(options.play, first, smaller=not options.no_shrink)
    return sweep(options.play, range(first, first + options.seeds), smaller=not options.no_shrink)


def replay(play: str, seed: int, *, smaller: bool) -> int:
    done = PLAYS[play].seed(seed)
    if done.violation is not None:
        tell_failure(done, play, smaller=smaller)
        return 1
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(done.outcomes.items()))
    print(f"seed {seed}: trace {done.trace}")
    print(f"{done.operations} operations ({outcomes}), {done.overlapping:.0%} beside a fault; {len(done.scenario.faults)} faults")
    print(f"{done.seconds:.1f} simulated seconds, {done.events} events, no rule broken")
    return 0


def sweep(play: str, seeds: range, *, smaller: bool) -> int:
    """Runs many seeds; ends with the first that fails."""
    began, began_cpu = time.perf_counter(), time.process_time()
    simulated, operations, kinds, branches = 0.0, 0, Counter[str](), Counter[str]()
    for number, seed in enumerate(seeds, 1):
        done = PLAYS[play].seed(seed)
        if done.violation is not None:
            tell_failure(done, play, smaller=smaller)
            return 1
        simulated, operations = simulated + done.seconds, operations + done.operations
        kinds.update(fault.kind for fault in done.scenario.faults)
        branches.update(done.branches)
        if number % 100 == 0:
            print(f"{number} of {len(seeds)} seeds", file=sys.stderr)
    took, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    print(f"seeds {seeds.start} to {seeds.stop - 1}: no rule broken")
    print(f"{operations} operations; faults: " + _listed(kinds))
    print(f"what is rare: {_listed(branches)}")
    print(f"{simulated / 3600:.2f} simulated hours in {took:.1f} s, {simulated / took:.0f} times real time")
    print(f"{60 * len(seeds) / took:.0f} seeds a minute, {60 * len(seeds) / cpu:.0f} in a minute of one core")
    return 0


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def tell_failure(done: Run, play: str, *, smaller: bool) -> None:
    """Prints the seed first; then the rule, what happened, and which faults were under way."""
    print(f"seed {done.scenario.seed} fails: {done.violation}")
    print(f"once more: bin/simulate --seed {done.scenario.seed}" + ("" if play == REQUESTS else f" --play {play}"))
    if smaller:
        before = done
        done = shrink(done, PLAYS[play].run)
        print(
            f"shrunk from {before.asked} calls and {len(before.scenario.faults)} faults "
            f"to {done.asked} and {len(done.scenario.faults)}: {done.violation}"
        )
    print(f"\nknobs that are turned: {', '.join(done.scenario.knobs.words()) or 'none'}")
    print("\nfaults, in seconds:")
    for fault in done.scenario.faults:
        print(f"  {fault}")
    print("\nhistory: seconds, operation, node, owner, what was asked; -> what came of it")
    final = {event.op for event in done.history.events if isinstance(event, Invoke) and event.final}
    for event, line in zip(done.history.events, lines(done.history), strict=True):
        if event.op not in final:
            print(f"  {line}")


if __name__ == "__main__":
    raise SystemExit(main())
