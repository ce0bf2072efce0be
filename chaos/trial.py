"""One pair of faults on two disks: the damage, the service manager, the operator, and the nodes' answers about the records."""

import random
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from chaos import autopsy, disks
from chaos.testbed.api import Unanswered
from chaos.testbed.cluster import NODES, Cluster, run, wait_for
from chaos.testbed.host import flip_bits, small_disk

FAULTS = ("lost", "torn", "rotten", "put back", "full")
ORDERS = ("at once", "then")
OWNER = "clinic"
FIRST, SECOND, THIRD = NODES
#: Values in one request.
AT_ONCE = 1000
#: The number of tokens to read through each node whenever its health is checked.
_SAMPLE = 100
#: The positions of flipped bits, as shares of a table.
_FLIPPED = {FIRST: (0.30, 0.32, 0.60), SECOND: (0.60, 0.80)}
_SMALL_DISK_MEGABYTES = 96
#: Seconds after which the operator acts if the cluster has not become whole by itself.
_PATIENCE = 25.0
#: Seconds: until all is well after the operator acted; for which it has to stay well; for a start.
_WHOLE, _WELL, _STARTING = 60.0, 4.0, 60.0
#: Seconds from the first node's start to the second fault.
_THEN = 1.5
#: The most times that the operator may act.
_STEPS = 5
#: Seconds from a node's start until it has told the other nodes what it remembers about them.
_TOLD = 1.0
#: Warnings that nodes give at every start of a cluster.
_OF_ANY_START = (" is down", "it could not ask two nodes which API keys are revoked")
#: The header of a 200-byte record with a wrong checksum, and other bytes: a store with such a log does not open.
_TORN = b"\x01\x02\x03\x04" + (200).to_bytes(2, "little") + b"\x01" + random.Random(1).randbytes(300)


@dataclass
class Cell:
    """A cell. ``seen``: words of /health, and exit codes. ``typed``: the operator's commands. ``wrong``: what must not happen.

    ``lost``: acknowledged values that nodes do not return in the end. ``gone``: values that no disk had after the faults.
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

    def find(self, words: str) -> None:
        self.wrong += [words] if words not in self.wrong else []


class Trial:
    """The trial of one cell: a prepared cluster, its faults, and their outcome. ``tokens``: acknowledged tokens, by value."""

    def __init__(self, cluster: Cluster, older: Path, tokens: Mapping[str, str], cell: Cell, ending: ExitStack) -> None:
        self._cluster = cluster
        self._older = older
        self._tokens = tokens
        self._cell = cell
        self._ending = ending
        self._ballast: list[disks.Damage] = []
        self._well_since: float | None = None
        #: The former ends of the torn logs.
        self._ends: dict[Path, int] = {}
        self._left: set[str] = set()
        self._sampling = random.Random(1)
        #: The nodes that have answered since the beginning, and when the last of the three did.
        self._up: set[str] = set()
        self._all_up_since: float | None = None

    def run(self) -> None:
        began, cell, cluster = time.monotonic(), self._cell, self._cluster
        self._damage(cell.first, FIRST)
        if cell.order == "at once":
            self._damage(cell.second, SECOND)
        stores = [cluster.nodes[name].data / "store" for name in NODES]
        self._left = autopsy.left(stores, OWNER, self._tokens, self._ends)
        cluster.start()
        if cell.order == "then":
            self._tend(lambda: False, _THEN, starting=0.0)
            if cluster.nodes[SECOND].running:
                cluster.kill(SECOND)
            self._damage(cell.second, SECOND)
            cluster.start(SECOND)
        for _ in range(_STEPS):
            if self._tend(self._is_whole, _WHOLE if cell.typed else _PATIENCE):
                break
            self._check_told()
            if not self._operate():
                break
        self._judge()
        cell.seconds = time.monotonic() - began

    def _judge(self) -> None:
        """Checks the end: all is well, nodes return what a disk had, values get the same tokens again, disks are identical."""
        cell = self._cell
        if not self._tend(self._is_whole, _WHOLE):
            cell.wrong.append("it does not become whole")
        self._check_told()
        told = self._told(FIRST, list(self._tokens))
        cell.gone = len(self._tokens) - len(self._left)
        cell.lost = sum(told.get(value) != "ok" for value in self._tokens)
        if missing := sum(told.get(value) != "ok" for value in self._left):
            cell.wrong.append(f"{missing} values are not told that a disk had")
        if cell.wrong:
            return
        if others := self._written_again():
            cell.wrong.append(f"{others} values get another token than they had, or none")
        if not wait_for(lambda: all(list(peer) == ["records"] for peer in self._cluster.verify(FIRST).values()), _WHOLE):
            cell.wrong.append("the three disks do not become the same")

    # The faults.

    def _damage(self, fault: str, name: str) -> None:
        node = self._cluster.nodes[name]
        if fault == "lost":
            disks.empty(node.data)
        elif fault == "torn":
            log = max((node.data / "store").glob("*.log"), key=lambda path: int(path.stem))
            self._ends[log] = log.stat().st_size
            with log.open("ab") as file:
                file.write(_TORN)
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

    # The service manager, and the operator.

    def _tend(self, until: Callable[[], bool], seconds: float, starting: float = _STARTING) -> bool:
        """Restarts nodes that ended with exit code 3, and notes the nodes' reports, until ``until()``. Returns False on time-out.

        The seconds begin when each node has answered or ended, and after ``starting`` seconds at the latest: a start takes long
        on a machine with other work.
        """
        heard: set[str] = set()

        def look() -> bool:
            for name, node in self._cluster.nodes.items():
                if node.process is not None and not node.running and node.process.returncode == 3:
                    self._cell.note(f"{_who(name)} ends with exit code 3")
                    heard.add(name)
                    self._cluster.start(name)
                answer = self._cluster.health(name)
                for warning in [] if answer is None else map(_short, answer.body["warnings"]):
                    if not warning.endswith(_OF_ANY_START):
                        self._cell.note(warning)
                if answer is not None:
                    heard.add(name)
                    self._up.add(name)
            if self._up == set(NODES) and self._all_up_since is None:
                self._all_up_since = time.monotonic()
            for name in NODES:
                self._check_told_via(name, self._sampling.sample(list(self._tokens), _SAMPLE))
            return until()

        wait_for(lambda: look() or heard == set(NODES), starting)
        return wait_for(look, seconds)

    def _is_whole(self) -> bool:
        """Returns whether all is well, for long enough that each node has counted its records and found its bad blocks."""
        answers = [self._cluster.health(name) for name in NODES]
        if not all(answer is not None and answer.body["status"] == "ok" for answer in answers):
            self._well_since = None
        elif self._well_since is None:
            self._well_since = time.monotonic()
        return self._well_since is not None and time.monotonic() - self._well_since > _WELL

    def _operate(self) -> bool:
        """Acts on what is seen, as docs/operations.md says. Returns False if there is nothing more to do."""
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
        """Gives up unknown records, on the nodes that know what they lack."""
        directory = str(self._cluster.directory)

        def gives_up() -> bool:
            done = [run("repair", directory, "--node", name, "--accept-loss") for name in NODES]
            return any(b"gave up" in each.stdout for each in done)

        gave_up = False

        def settled() -> bool:
            nonlocal gave_up
            gave_up = gave_up or gives_up()  # at a second request a node has nothing left to give up
            return gave_up or self._is_whole()

        self._tend(settled, _WHOLE)  # just started nodes count their records first
        if gave_up:
            self._cell.typed.append("quorumvault repair DIR --node nX --accept-loss")
        return gave_up

    def _command(self, command: str, *options: str, stopped: Iterable[str]) -> bool:
        """Runs a command while these nodes are down, and starts them again if it succeeds. Returns whether it did."""
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

    # The nodes' answers about records.

    def _check_told(self) -> None:
        for name in NODES:
            self._check_told_via(name, list(self._tokens))

    def _check_told_via(self, name: str, values: Sequence[str]) -> None:
        """Checks answers through a node, once all nodes have been up for a second: a disk is unknown before its node is up, and
        a node needs a second to tell what it remembers about others."""
        if self._all_up_since is None or time.monotonic() - self._all_up_since < _TOLD:
            return
        for value, status in self._told(name, values).items():
            if status == "wrong":
                self._cell.find(f"another value is told through {_who(name)}")
            if status == "not_found" and value in self._left:
                self._cell.find(f"what a disk has is called not found through {_who(name)}")

    def _told(self, via: str, values: Sequence[str]) -> dict[str, str]:
        """Returns the status of each value's token, without those that were not answered."""
        told: dict[str, str] = {}
        if not self._cluster.nodes[via].running:
            return told
        for asked in (values[at : at + AT_ONCE] for at in range(0, len(values), AT_ONCE)):
            try:
                answer = self._cluster.api(via, OWNER).detokenize([self._tokens[value] for value in asked])
            except Unanswered:
                break
            if answer.status != 200:  # the node has no quorum, nor will it for the next requests
                break
            told |= {value: _status(value, result) for value, result in zip(asked, answer.body["results"], strict=True)}
        return told

    def _written_again(self) -> int:
        """Returns how many values get another token than before."""
        others, values = 0, list(self._tokens)
        for asked in (values[at : at + AT_ONCE] for at in range(0, len(values), AT_ONCE)):
            answer = self._cluster.api(SECOND, OWNER).tokenize(asked)
            given = answer.body["tokens"] if answer.status == 200 else [None] * len(asked)
            others += sum(self._tokens[value] != token for value, token in zip(asked, given, strict=True))
        return others


def _status(value: str, result: Mapping[str, object]) -> str:
    return "wrong" if "value" in result and result["value"] != value else str(result["status"])


def _who(text: str) -> str:
    """Replaces node names by their roles in the cell."""
    for name, part in zip(NODES, ("first", "second", "third"), strict=True):
        text = text.replace(name, f"[{part}]")
    return text


def _short(warning: str) -> str:
    """Returns the beginning of a warning, without the parts that differ between runs."""
    words = _who(warning).split(": ")[0].split(" (")[0].split(", ")[0]
    return "".join("N" if each.isdigit() else each for each in words).replace("N part ", "N parts ")
