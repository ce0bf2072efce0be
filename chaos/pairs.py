"""Pairs of faults on two disks: a table of what is seen, what is lost in the worst case, and what an operator types.

    lost       the data directory is empty
    torn       the log ends with bytes that no write left there
    rotten     bits flip in blocks of the largest table; in one place the two disks cannot be read, if both are rotten
    put back   the directory is that of an earlier moment
    full       not a byte is free on the disk's file system

Each cell is one cluster of real processes, which a service manager starts again when they end with exit code 3. In the worst
case the third disk has missed what was written last, so that only the two have it: so begins a cell of two faults **at once**. In
a cell of one fault **then** another all three disks have all of it, and the second comes while the first is being dealt with.

What may be lost is known before the nodes start: it is what no disk has any more, read without them. A cell fails if anything
else is not told in the end, or any token is called not found meanwhile that a disk still has.
"""

import hashlib
import itertools
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos import disks
from chaos.testbed.api import Unanswered
from chaos.testbed.cluster import NODES, Cluster, ClusterError, run, wait_for
from chaos.testbed.host import flip_bits, private_mounts, small_disk
from quorumvault.server.storage.binding import plyvel

FAULTS = ("lost", "torn", "rotten", "put back", "full")
ORDERS = ("at once", "then")
OWNER = "clinic"
FIRST, SECOND, THIRD = NODES
#: Where bits flip, as shares of a table.
_FLIPPED = {FIRST: (0.30, 0.32, 0.60), SECOND: (0.60, 0.80)}
_SMALL_DISK_MEGABYTES = 96
_FLOOR = 16 << 20
#: What has not become whole by itself in so many seconds is the operator's.
_PATIENCE = 25.0
_WHOLE = 60.0
_WELL = 4.0
#: The second fault comes so many seconds after the first node's start.
_THEN = 1.5
_STEPS = 5
_SOCKETS = shutil.ignore_patterns("*.sock")
_TORN_BYTES = 300
_DIGEST_BYTES = 20
_AT_ONCE = 1000


@dataclass
class Cell:
    """``seen``: words of /health, and exit codes; ``typed``: what an operator did; ``wrong``: what must not be.

    ``lost``: acknowledged values that are not told in the end; ``gone``: those that no disk had after the faults.
    """

    first: str
    second: str
    order: str
    seen: list[str] = field(default_factory=list)
    typed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lost: int = 0
    gone: int = 0
    seconds: float = 0.0

    def note(self, words: str) -> None:
        self.seen += [words] if words not in self.seen else []


class Trial:
    """One cell: a cluster that was prepared, its faults, and what becomes of it. ``tokens`` by value: what was acknowledged."""

    def __init__(self, cluster: Cluster, older: Path, tokens: Mapping[str, str], cell: Cell, ending: ExitStack) -> None:
        self._cluster = cluster
        self._older = older
        self._tokens = tokens
        self._cell = cell
        self._ending = ending
        self._ballast: list[disks.Damage] = []
        self._well_since: float | None = None
        #: Where the logs ended that were torn.
        self._ends: dict[Path, int] = {}

    def run(self) -> None:
        began, cell, cluster = time.monotonic(), self._cell, self._cluster
        self._damage(cell.first, FIRST)
        if cell.order == "at once":
            self._damage(cell.second, SECOND)
        left = self._left()
        cluster.start()
        if cell.order == "then":
            self._tend(lambda: False, _THEN)
            if cluster.nodes[SECOND].running:
                cluster.kill(SECOND)
            self._damage(cell.second, SECOND)
            cluster.start(SECOND)
        for _ in range(_STEPS):
            if self._tend(self._is_whole, _WHOLE if cell.typed else _PATIENCE):
                break
            self._check_told(left)
            if not self._operate():
                break
        if not self._is_whole():
            cell.wrong.append("it does not become whole")
        told = self._told(FIRST)
        cell.gone = len(self._tokens) - len(left)
        cell.lost = sum(value != "ok" for value in told.values())
        missing = [value for value in left if told.get(value) != "ok"]
        if missing:
            cell.wrong.append(f"{len(missing)} values are not told that a disk had")
        cell.seconds = time.monotonic() - began

    # The faults.

    def _damage(self, fault: str, name: str) -> None:
        node = self._cluster.nodes[name]
        if fault == "lost":
            disks.empty(node.data)
        elif fault == "torn":
            log = max((node.data / "store").glob("*.log"), key=lambda path: int(path.stem))
            self._ends[log] = log.stat().st_size
            with log.open("ab") as file:
                file.write(random.Random(name).randbytes(_TORN_BYTES))
        elif fault == "rotten":
            table = max((node.data / "store").glob("*.ldb"), key=lambda path: path.stat().st_size)
            flip_bits(table, [(int(table.stat().st_size * share), 1) for share in _FLIPPED[name]])
        elif fault == "put back":
            disks.empty(node.data)
            shutil.copytree(self._older / name, node.data, dirs_exist_ok=True)
        else:
            self._ending.enter_context(small_disk(node.data, _SMALL_DISK_MEGABYTES))
            self._ending.callback(self._kill_if_running, name)
            self._ballast.append(disks.fill(node.data))

    def _kill_if_running(self, name: str) -> None:
        if self._cluster.nodes[name].running:
            self._cluster.kill(name)

    def _left(self) -> set[str]:
        """The values whose record any disk still has, read without the nodes. What is behind the end of a log was no write."""
        keys, found = {_key(token): value for value, token in self._tokens.items()}, set[bytes]()
        for name in NODES:
            store = self._cluster.nodes[name].data / "store"
            if store.exists():
                with tempfile.TemporaryDirectory() as place:
                    copied = Path(shutil.copytree(store, Path(place) / "store"))
                    for log, length in self._ends.items():
                        if log.parent == store:
                            os.truncate(copied / log.name, length)
                    found |= set(_readable(copied, keys))
        return {keys[key] for key in found}

    # The service manager, and the operator.

    def _tend(self, until: Callable[[], bool], seconds: float) -> bool:
        """Start again what ended with exit code 3, and note what nodes say, until this is true. Returns False if it never is."""

        def look() -> bool:
            for name, node in self._cluster.nodes.items():
                if node.process is not None and not node.running and node.process.returncode == 3:
                    self._cell.note(f"{_who(name)} ends with exit code 3")
                    self._cluster.start(name)
                answer = self._cluster.health(name)
                for warning in [] if answer is None else answer.body["warnings"]:
                    self._cell.note(_short(warning))
            return until()

        return wait_for(look, seconds)

    def _is_whole(self) -> bool:
        """All is well, and has been for long enough for each node to have counted its records, and met its bad blocks."""
        answers = [self._cluster.health(name) for name in NODES]
        if not all(answer is not None and answer.body["status"] == "ok" for answer in answers):
            self._well_since = None
        elif self._well_since is None:
            self._well_since = time.monotonic()
        return self._well_since is not None and time.monotonic() - self._well_since > _WELL

    def _operate(self) -> bool:
        """Do what the page says for what is seen. Returns False if there is nothing more to do."""
        cluster, cell = self._cluster, self._cell
        if self._ballast:
            cell.typed.append("make room on the full disk")
            while self._ballast:
                self._ballast.pop().undo()
            return True
        lost = [name for name in NODES if not (cluster.nodes[name].data / "disk.json").exists()]
        if len(lost) == 1 and self._command("init", "--replace", lost[0], stopped=lost):
            return True
        if all(cluster.state(name) == "active" for name in NODES):
            return self._accept_loss()
        for options in ((), ("--accept-older",)):
            if self._command("recover", *options, stopped=NODES):
                return True
        return self._accept_loss() or self._rebuild()

    def _accept_loss(self) -> bool:
        """Of what nodes do not know, on those that can say what they lack."""
        directory = str(self._cluster.directory)

        def gives_up() -> bool:
            done = [run("repair", directory, "--node", name, "--accept-loss") for name in NODES]
            return any(b"gave up" in each.stdout for each in done)

        if gave_up := self._tend(gives_up, _PATIENCE):  # nodes that were just started count their records first
            self._cell.typed.append("quorumvault repair DIR --node nX --accept-loss")
        return gave_up

    def _command(self, command: str, *options: str, stopped: Iterable[str]) -> bool:
        """Run it while these nodes are down; they are started again if it succeeds. Returns whether it did."""
        cluster = self._cluster
        down = [name for name in stopped if cluster.nodes[name].running]
        if down:
            cluster.kill(*down)
        done = run(command, str(cluster.directory), *options)
        words = " ".join(["quorumvault", command, "DIR", *map(_who, options)])
        if done.returncode:
            self._cell.note(f"{words}: refused")
            cluster.start(*down)
            return False
        self._cell.typed.append(words)
        cluster.start(*(name for name in stopped if not cluster.nodes[name].running))
        return True

    def _rebuild(self) -> bool:
        cluster, new = self._cluster, self._cluster.directory.with_name("new")
        for name in NODES:
            self._kill_if_running(name)
        only = ("--only", THIRD, "--accept-loss", "--into", str(new))
        if run("recover", str(cluster.directory), *only).returncode:
            return False
        self._cell.typed.append("quorumvault recover DIR --only [third] --accept-loss --into NEW")
        keys = {OWNER: cluster.api_key(OWNER)}
        self._cluster = Cluster(new, {name: node.address for name, node in cluster.nodes.items()}, keys)
        self._ending.callback(self._cluster.close)
        self._cluster.start()
        return True

    # What is told.

    def _check_told(self, left: set[str]) -> None:
        for name in NODES:
            wrong = [value for value, status in self._told(name).items() if status == "not_found" and value in left]
            if wrong:
                self._cell.wrong.append(f"{len(wrong)} values are called not found through {_who(name)} that a disk has")

    def _told(self, via: str) -> dict[str, str]:
        """The status of each value's token; none of those that were not answered."""
        told: dict[str, str] = {}
        every = list(self._tokens)
        for values in (every[at : at + _AT_ONCE] for at in range(0, len(every), _AT_ONCE)):
            try:
                answer = self._cluster.api(via, OWNER).detokenize([self._tokens[value] for value in values])
            except Unanswered:
                continue
            if answer.status == 200:
                told |= {value: _status(value, result) for value, result in zip(values, answer.body["results"], strict=True)}
        return told


def _status(value: str, result: Mapping[str, object]) -> str:
    return "wrong" if "value" in result and result["value"] != value else str(result["status"])


def _key(token: str) -> bytes:
    """Where stores have the record of a token: docs/token-format.md, and quorumvault/server/storage/layout.py."""
    _, epoch, body = token.split("_")
    digest = bytes.fromhex(body)[:_DIGEST_BYTES]
    owner = hashlib.blake2b(OWNER.encode(), digest_size=16, person=b"qv owner id").digest()
    return b"r" + digest[:2] + owner + int(epoch).to_bytes(4, "big") + digest[2:]


def _readable(store: Path, keys: Iterable[bytes]) -> Iterator[bytes]:
    """Those of the keys that the store has and can read."""
    try:
        with closing(plyvel.DB(str(store), create_if_missing=False, paranoid_checks=True)) as db:
            for key in keys:
                try:
                    if db.get(key, verify_checksums=True) is not None:
                        yield key
                except plyvel.CorruptionError:
                    continue
    except plyvel.Error:
        return


def _who(text: str) -> str:
    """Nodes by the part that they have in the cell."""
    for name, part in zip(NODES, ("first", "second", "third"), strict=True):
        text = text.replace(name, f"[{part}]")
    return text


def _short(warning: str) -> str:
    """The beginning of a warning, without what differs from run to run."""
    words = _who(warning).split(": ")[0].split(" (")[0].split(", ")[0]
    return "".join("N" if each.isdigit() else each for each in words)


@contextmanager
def prepared(records: int) -> Iterator[tuple[Path, Mapping[str, str], Mapping[str, str], dict[str, str]]]:
    """Yield a folder with the disks of a stopped cluster: as they were some time ago (older), as all three have all records
    (same), and as the third missed the last tenth (behind); addresses, API keys, tokens by value."""
    with tempfile.TemporaryDirectory(prefix="quorumvault-pairs-") as name:
        place = Path(name)
        with Cluster.create(place / "behind", [OWNER]) as cluster:
            config = cluster.directory / "cluster.yaml"
            config.write_text(config.read_text() + f"\nlimits:\n  free_space_floor: {_FLOOR}\n")
            tokens: dict[str, str] = {}
            last = records // 10
            cluster.bring_up()
            _write(cluster, tokens, records - last)
            _settle(cluster)
            shutil.copytree(cluster.directory, place / "older", ignore=shutil.ignore_patterns("*.sock", "logs"))
            cluster.start(FIRST, SECOND)
            cluster.wait_ready(FIRST, SECOND)
            _write(cluster, tokens, last)
            cluster.kill(FIRST, SECOND)
            cluster.start(FIRST, SECOND)  # what is in a log becomes a table at a start
            cluster.wait_ready(FIRST, SECOND)
            cluster.kill(FIRST, SECOND)
            shutil.copytree(cluster.directory, place / "same", ignore=_SOCKETS)
            addresses = {name: node.address for name, node in cluster.nodes.items()}
            keys = {OWNER: cluster.api_key(OWNER)}
            with Cluster(place / "same", addresses, keys) as same:
                same.bring_up()
                _settle(same)
        yield place, addresses, keys, tokens


def _write(cluster: Cluster, tokens: dict[str, str], count: int) -> None:
    for first in range(len(tokens), len(tokens) + count, _AT_ONCE):
        values = [f"value {number}" for number in range(first, min(first + _AT_ONCE, len(tokens) + count))]
        answer = cluster.api(FIRST, OWNER).tokenize(values)
        if answer.status != 200:
            raise ClusterError(f"{answer}")
        tokens.update(zip(values, answer.body["tokens"], strict=True))


def _settle(cluster: Cluster) -> None:
    """Wait until all three disks are the same, and stop."""
    if not wait_for(lambda: all(list(peer) == ["records"] for peer in cluster.verify(FIRST).values()), _WHOLE):
        raise ClusterError("the disks do not become the same")
    cluster.stop()


def cells(only: Sequence[str], seed: int) -> list[Cell]:
    """All of them in an order by the seed; those of ``only``, each "rotten, full, at once" say, in that one."""
    if only:
        parts = [[part.strip() for part in text.split(",")] for text in only]
        if any(len(each) != len(("first", "second", "order")) for each in parts):
            raise ValueError("a cell is FAULT, FAULT, ORDER")
        chosen = [Cell(first, second, order) for first, second, order in parts]
        if any(each.first not in FAULTS or each.second not in FAULTS or each.order not in ORDERS for each in chosen):
            raise ValueError(f"a cell is FAULT, FAULT, ORDER: of {', '.join(FAULTS)}; {', '.join(ORDERS)}")
        return chosen
    found = [Cell(first, second, "at once") for first, second in itertools.combinations_with_replacement(FAULTS, 2)]
    found += [Cell(first, second, "then") for first, second in itertools.product(FAULTS, FAULTS)]
    random.Random(seed).shuffle(found)
    return found


def try_all(chosen: Sequence[Cell], records: int) -> Iterator[Cell]:
    """Run the cells, and yield each when it is done."""
    if any("full" in (cell.first, cell.second) for cell in chosen):
        private_mounts()
    with prepared(records) as (place, addresses, keys, tokens):
        for cell in chosen:
            home = place / "cell" / "vault"
            shutil.copytree(place / ("behind" if cell.order == "at once" else "same"), home, ignore=_SOCKETS)
            with ExitStack() as ending:
                cluster = ending.enter_context(Cluster(home, addresses, keys))
                Trial(cluster, place / "older", tokens, cell, ending).run()
            shutil.rmtree(place / "cell")
            yield cell


def row(cell: Cell) -> str:
    """A row of the table in docs/operations.md."""
    typed = "; ".join(cell.typed) or "nothing"
    lost = f"{cell.lost:,}" if cell.lost else "nothing"
    return f"| {cell.first} | {cell.order} | {cell.second} | {'; '.join(cell.seen)} | {lost} | {typed} |"


def main(only: Sequence[str], records: int, seed: int) -> int:
    """Print a row for each cell, and what was wrong. Returns the exit code."""
    failed = 0
    for cell in try_all(cells(only, seed), records):
        print(f"{row(cell)} {cell.seconds:.0f} s, {cell.gone:,} on no disk", flush=True)
        for words in cell.wrong:
            failed += 1
            print(f"  WRONG: {words}", flush=True)
    return 1 if failed else 0
