"""The command line of the fuzzer.

bin/fuzz --list                                 lists the targets
bin/fuzz                                        runs all targets, ten seconds each, with a new seed each time
bin/fuzz json csv --seconds 60 --seed 7         runs two targets, with this seed
bin/fuzz json --inputs 5000 --seed 7 --from 5000    runs inputs 5000 to 9999 of this seed
bin/fuzz --profile ci                           runs for two minutes, always with the same seed
bin/fuzz --profile long                         runs a million inputs
bin/fuzz json --replay FILE …                   runs saved inputs
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import SystemRandom

from tests.fuzz.campaign import FuzzerError, keep, print_end, print_header, print_report, run
from tests.fuzz.target import Violation
from tests.fuzz.targets import TARGETS, Entry, made
from tests.fuzz.worker import Found, Order

_SECONDS = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 if no input failed, 1 if one did, and 2 if the fuzzer itself failed."""
    parser = argparse.ArgumentParser(prog="bin/fuzz", description="Feed hostile input to QuorumVault's readers of bytes.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    parser.add_argument("--list", action="store_true", help="list the targets")
    parser.add_argument("--seed", type=int, help="seed of the inputs; default: 1 with --profile, otherwise a new one")
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="N", help="start with input N of each target")
    parser.add_argument("--seconds", type=float, help="feed each target for this long")
    parser.add_argument("--inputs", type=int, help="feed each target this many inputs")
    parser.add_argument(
        "--profile", choices=("ci", "long"), help="give each target its share of two minutes, or of a million inputs"
    )
    parser.add_argument(
        "--findings", type=Path, default=Path(".fuzz"), metavar="DIR", help="directory for failing inputs; default: %(default)s"
    )
    parser.add_argument("--replay", nargs="+", type=Path, metavar="FILE", help="feed these files to the one TARGET")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.targets) - TARGETS.keys())
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}; bin/fuzz --list says which there are")
    if sum(given is not None for given in (options.seconds, options.inputs, options.profile)) > 1:
        parser.error("--seconds, --inputs and --profile are one of three")
    if options.list:
        for name, entry in TARGETS.items():
            print(f"{name:<15}{entry.words}")
        return 0
    # pyarrow reads this when it is loaded, in each process: its pool then checks the ends of a block whenever the block is freed.
    os.environ["ARROW_DEBUG_MEMORY_POOL"] = "abort"
    if options.replay:
        if len(options.targets) != 1:
            parser.error("--replay needs the one TARGET that the files are for")
        return replay(options.targets[0], options.replay)
    if options.seed is None:
        options.seed = 1 if options.profile else SystemRandom().randrange(10**6)
    return feed(orders(options), partial(keep, options.findings, options.seed))


def orders(options: argparse.Namespace) -> list[Order]:
    names = options.targets or TARGETS
    return [Order(name, options.seed, options.first, *_share(options, TARGETS[name])) for name in names]


def _share(options: argparse.Namespace, entry: Entry) -> tuple[int | None, float | None]:
    """The number of inputs of a target, or its seconds."""
    if options.profile == "ci":
        return None, entry.seconds
    if options.profile == "long":
        return max(0, entry.inputs - options.first), None
    return options.inputs, options.seconds or (None if options.inputs else _SECONDS)


def feed(todo: Sequence[Order], kept: Callable[[str, Found], None]) -> int:
    print(f"seed {todo[0].seed}")
    print_header()
    reports = []
    for order in todo:
        try:
            report = run(order, kept)
        except FuzzerError as error:
            print(error, file=sys.stderr)
            return 2
        print_report(report)
        reports.append(report)
    print_end(reports, todo[0].seed)
    return 1 if any(report.found for report in reports) else 0


def replay(name: str, files: Sequence[Path]) -> int:
    failed = 0
    with made(name) as target:
        for file in files:
            try:
                (outcome,) = target.check([file.read_bytes()])
            except Violation as violation:
                failed += 1
                outcome = f"FAILED: {violation}"
            print(f"{file}: {outcome}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
