"""The command line of the harness.

bin/chaos run --minutes 5 --faults kill,pause,partition --seed 7 --report DIR
bin/chaos run --net namespaces       three hosts in network namespaces instead of proxies on loopback; as root
bin/chaos long                       all faults for three quarters of an hour
bin/chaos demo                       two minutes, narrated
bin/chaos mutants [NAME ...]         broken builds, each of which the harness must notice
bin/chaos pairs [CELL ...]           two disks with one fault each, of all kinds: what is seen, what is lost, what to type
bin/chaos report DIR                 the page of an earlier run
bin/chaos check HISTORY ...          both checkers' verdicts on recorded histories

Exit codes: 0 valid · 1 invalid · 2 usage · 3 unknown, or the harness failed · 4 unknown, only because the machine was busy with
other things.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom

import msgspec

from chaos import mutants, namespaces, nemesis, pairs, report
from chaos.faults import missing
from chaos.nemesis import FAMILIES, Kind
from chaos.network import on_loopback
from chaos.run import Options, run
from chaos.summary import Verdict
from chaos.tellers import LineTeller, NarratingTeller
from chaos.testbed.cluster import ClusterError
from chaos.testbed.history import load
from chaos.testbed.host import Unavailable, leave, private_mounts
from chaos.verdict import OPINIONS

EXIT_CODES = {Verdict.VALID: 0, Verdict.INVALID: 1, Verdict.UNKNOWN: 3}
_USAGE, _HARNESS, _TOO_BUSY = 2, 3, 4
#: Shorter runs are for tests. Longer runs may have longer faults, and longer calms, which show that no effect comes late.
_BRISK_MINUTES, _STEADY_MINUTES = 1.0, 10.0
_LONG_MINUTES = 45.0
#: Requests a second through each node: a tenth of what one core can serve, since all processes share this machine.
_RATE = 20.0
#: The faults of the narrated run, in order.
_SHOWN = (
    Kind.KILL_IN_MID_REQUEST, Kind.PAUSE, Kind.CUT_OFF, Kind.ONE_WAY, Kind.ONE_TO_ONE, Kind.KILL_STARTING, Kind.SLOW_SYNCS,
    Kind.FULL_DISK, Kind.FLIPPED_TABLE, Kind.TORN_LOG, Kind.DISK_GONE, Kind.KILL_ALL,
)  # fmt: skip
_NARRATED_SEED = 1
#: Records of a pair: enough for several tables, with a rotten block in each part of them.
_PAIRS_RECORDS = 20_000
#: Seconds of a run with a mutant: enough for half a dozen faults.
_MUTANT_SECONDS = 45.0
#: The calm at the end of a script and of the narrated run.
_AFTER_SECONDS = 5.0


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bin/chaos", description="Break real nodes while clients work, and judge what the clients were told."
    )
    commands = parser.add_subparsers(dest="profile", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--report", type=Path, metavar="DIR", help="new directory for history, figures and page")
    common.add_argument("--net", choices=("proxies", "namespaces"), default="proxies", help="network between the nodes")
    planned = argparse.ArgumentParser(add_help=False, parents=[common])
    planned.add_argument("--seed", type=int, help="seed of faults and workload; default: a random one, which is printed")
    planned.add_argument("--faults", default=",".join(FAMILIES), metavar="A,B", help=f"faults; default: {','.join(FAMILIES)}")
    planned.add_argument("--rate", type=float, default=_RATE, help="requests per second through each node; default: %(default)g")
    planned.add_argument(
        "--lost-disks", choices=("put-back", "rejoin"), default="rejoin", help="what happens to lost or damaged disks"
    )
    planned.add_argument("--node-command", default="", metavar="COMMAND", help="command that runs a node; default: quorumvault")
    one = commands.add_parser("run", parents=[planned], help="one run")
    one.add_argument("--minutes", type=float, default=2.0, help="minutes of work; default: %(default)g")
    long = commands.add_parser("long", parents=[planned], help="a run of three quarters of an hour with all faults")
    long.add_argument("--minutes", type=float, default=_LONG_MINUTES, help="minutes of work; default: %(default)g")
    commands.add_parser("demo", parents=[common], help="a narrated run of two minutes")
    broken = commands.add_parser("mutants", help="runs with broken builds, each of which must be detected")
    broken.add_argument("--seconds", type=float, default=_MUTANT_SECONDS, help="seconds of work for each; default: %(default)g")
    broken.add_argument("names", nargs="*", metavar="NAME", help="mutants to run; default: all")
    two = commands.add_parser("pairs", help="two disks with a fault each: what is seen, what is lost, and what to type")
    two.add_argument("--records", type=int, default=_PAIRS_RECORDS, help="records in each cell; default: %(default)s")
    two.add_argument("--seed", type=int, default=1, help="seed of the order of the cells")
    two.add_argument("--keep", type=Path, metavar="DIR", help="directory for the clusters of failed cells")
    two.add_argument("cells", nargs="*", metavar="CELL", help='such as "rotten, full, at once"; default: all')
    page = commands.add_parser("report", help="write the page of an earlier run")
    page.add_argument("directory", type=Path)
    again = commands.add_parser("check", help="verdicts of both checkers on recorded histories")
    again.add_argument("histories", nargs="+", type=Path, metavar="HISTORY", help="history.jsonl of a run, or one JSON object")
    return parser.parse_args(arguments)


def options_of(chosen: argparse.Namespace) -> tuple[Options, dict[str, str]]:
    """Returns the options of a run, and the faults that are impossible here, with reasons. Raises ValueError if all are."""
    narrated = chosen.profile == "demo"
    asked = _SHOWN if narrated else nemesis.chosen(chosen.faults.split(","))
    rejoins = not narrated and chosen.lost_disks == "rejoin"
    unavailable = missing(asked, chosen.net, rejoins=rejoins)
    kinds = [kind for kind in asked if kind not in unavailable]
    if not kinds:
        raise ValueError("; ".join(f"{kind.label}: {why}" for kind, why in unavailable.items()))
    if narrated:
        seed, rate, command = _NARRATED_SEED, _RATE, []
        plan = nemesis.script(seed, kinds, nemesis.BRISK)
        seconds = plan[-1].ends + _AFTER_SECONDS
    else:
        seed = SystemRandom().randrange(1 << 32) if chosen.seed is None else chosen.seed
        rate, command = chosen.rate, chosen.node_command.split()
        seconds = 60 * chosen.minutes
        plan = nemesis.plan(seed, seconds, kinds, _pace(chosen.minutes))
    directory = chosen.report or Path(tempfile.mkdtemp(prefix="quorumvault-chaos-report-"))
    options = Options(seed, chosen.profile, seconds, plan, kinds, rate, chosen.net, directory, command, rejoins)
    return options, {kind.label: why for kind, why in unavailable.items()}


def _pace(minutes: float) -> nemesis.Pace:
    if minutes < _BRISK_MINUTES:
        return nemesis.BRISK
    return nemesis.STEADY if minutes < _STEADY_MINUTES else nemesis.LONG


def perform(chosen: argparse.Namespace) -> int:
    options, unavailable = options_of(chosen)
    tell = NarratingTeller(sys.stdout) if chosen.profile == "demo" else LineTeller(sys.stdout)
    tell.begins(options, unavailable)
    if any(fault.kind is Kind.FULL_DISK for fault in options.plan):
        private_mounts()
    site = namespaces.in_namespaces if chosen.net == "namespaces" else on_loopback
    summary = asyncio.run(run(options, site, unavailable, tell))
    tell.ends(options, summary, report.write(options.report))
    return _TOO_BUSY if summary.too_busy else EXIT_CODES[summary.verdict]


def check_again(paths: Sequence[Path]) -> int:
    """Prints each checker's verdict on each history. Returns the exit code of the worst verdict."""
    worst = 0
    for path in paths:
        history = load(path)
        for name, opinion in OPINIONS.items():
            verdict, words = opinion(history)
            print(f"{path}: {name}: {verdict}{words and f', {words}'}")
            worst = max(worst, EXIT_CODES[verdict], key=(0, 3, 1, 2).index)
    return worst


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    chosen = parse_arguments(given)
    signal.signal(signal.SIGTERM, leave)
    try:
        if chosen.profile == "report":
            print(report.write(chosen.directory))
            return 0
        if chosen.profile == "check":
            return check_again(chosen.histories)
        if chosen.profile == "pairs":
            return pairs.main(chosen.cells, chosen.records, chosen.seed, chosen.keep)
        if chosen.profile == "mutants":
            return mutants.hunt(chosen.names, chosen.seconds)
        if chosen.report is not None and chosen.report.exists() and any(chosen.report.iterdir()):
            raise ValueError(f"{chosen.report} is not empty; name a new directory")
        if chosen.net == "namespaces" and namespaces.VARIABLE not in os.environ:
            return namespaces.run_inside(given)
        return perform(chosen)
    except ValueError as error:
        return _failed(error, _USAGE)
    except (ClusterError, Unavailable, OSError, msgspec.MsgspecError) as error:
        return _failed(error, _HARNESS)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _failed(error: Exception, code: int) -> int:
    print(f"bin/chaos: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
