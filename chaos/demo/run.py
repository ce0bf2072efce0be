"""The demonstration: sends real records through three node processes and kills one half-way. Run by ``bin/demo``.

Each line with a mark is a claim that was just checked from outside, through the public commands and HTTP API. The first claim
that does not hold ends the demonstration with exit code 1.
"""

import argparse
import contextlib
import io
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.demo import analysis, trouble
from chaos.demo.partitions import Partitions
from chaos.demo.records import Input, UsageError, check_columns, check_values, configured_columns, invent_input, read_input
from chaos.testbed import sample
from chaos.testbed.api import Answer, Unanswered
from chaos.testbed.cluster import NODES, Cluster, ClusterError
from chaos.testbed.host import leave
from chaos.testbed.narration import ClaimFailed, Narrator
from chaos.testbed.table import Table

OWNER, OTHER = "clinic", "registry"

#: Items in a request, which by the contract takes at least 10,000.
_BATCH = 5_000
#: Shorter values may be in a file by coincidence (such as a date in a log); longer values are not.
_TELLING_LENGTH, _TELLING_VALUES = 11, 200
_FIRST_EPOCH_TOKEN = re.compile(r"qv_1_[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Show:
    """The objects that each step uses: cluster and links, records, columns to replace, and narrator."""

    cluster: Cluster
    links: Partitions
    tell: Narrator
    directory: Path
    records: Input
    columns: Sequence[str]

    def tokenize(self, via: str, owner: str = OWNER) -> bytes:
        """Returns the records with tokens, made by the file command."""
        return self._replace("tokenize", self.records.path, via, owner)

    def detokenize(self, tokenized: bytes, via: str) -> bytes:
        path = self.directory / "tokenized.csv"
        path.write_bytes(tokenized)
        return self._replace("detokenize", path, via, OWNER)

    def _replace(self, operation: str, path: Path, via: str, owner: str) -> bytes:
        done = self.cluster.command(operation, str(path), "--column", ",".join(self.columns), via=via, owner=owner)
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip()
            raise ClaimFailed(f"quorumvault {operation} through {via} succeeds", f"exit code {done.returncode}: {words}")
        return done.stdout

    def tokens(self, tokenized: bytes) -> list[str]:
        """Returns the distinct tokens in the replaced columns, in order of occurrence."""
        return list(dict.fromkeys(filter(None, Table.parse(tokenized).cells(self.columns))))

    def claim_recovered(self, text: str, recovered: bytes) -> None:
        original = self.records.content
        self.tell.claim(text, recovered == original, _first_difference(original, recovered))


def run(show: Show) -> None:
    """Runs the whole story. A step that needs a result of an earlier step takes it as an argument."""
    first = tokenize(show)
    lose_one_node(show, first)
    another_owner(show, first)
    second = rotate(show, first)
    lose_two_nodes(show, first)
    come_back(show, first, second)
    trouble.kill_in_mid_request(show.cluster, show.tell, OWNER)
    trouble.cut_off(show.cluster, show.links, show.tell, OWNER)
    analyse(show)
    trouble.timeline(show.cluster, show.tell)
    look_at_disks(show)
    stop(show)


def start(cluster: Cluster, tell: Narrator) -> None:
    tell.step("Three nodes start, each a process of its own")
    begun = time.monotonic()
    cluster.start()
    cluster.wait_ready()
    for name in NODES:
        tell.say(f"{name}  {cluster.url(name)}  pid {cluster.pid(name)}")
    whole = trouble.come_to_see(cluster, NODES, 3)
    tell.claim(f"all three serve and see each other, {time.monotonic() - begun:.1f} s after the start", whole, "that they do not")


def tokenize(show: Show) -> bytes:
    tell, before = show.tell, show.records.table
    tell.step(f"Identifiers become tokens, through n1: {', '.join(show.columns)}")
    tokenized = show.tokenize("n1")
    after = Table.parse(tokenized)
    _show_record(show, after)
    pairs = list(zip(before.cells(show.columns), after.cells(show.columns), strict=True))
    odd = sum(not (_FIRST_EPOCH_TOKEN.fullmatch(token) or value == token == "") for value, token in pairs)
    text = f"{len(after.rows):,} records, {sum(bool(token) for _, token in pairs):,} values: each is a token of epoch 1 now"
    tell.claim(text, odd == 0, f"{odd} cells that are none")
    kept = before.without(show.columns) == after.without(show.columns)
    tell.claim("every other cell, and the order of the records, is as it was", kept, "other cells that changed")
    distinct = {(value, token) for value, token in pairs if token}
    values, tokens = len({value for value, _ in distinct}), len({token for _, token in distinct})
    text = f"one value has one token wherever it stands: {values:,} different values have {tokens:,} different tokens"
    tell.claim(text, len(distinct) == values == tokens, f"{len(distinct)} pairs")
    tell.claim("n2, asked for the same, answers the same, byte for byte", show.tokenize("n2") == tokenized, "another file")
    return tokenized


def lose_one_node(show: Show, first: bytes) -> None:
    cluster, tell = show.cluster, show.tell
    tell.step(f"n3 is killed: kill -9 {cluster.pid('n3')}")
    cluster.kill("n3")
    noticed = trouble.come_to_see(cluster, ("n1", "n2"), 2)
    tell.claim("n1 and n2 have noticed, and are a quorum by themselves", noticed, "that they have not")
    recovered = show.detokenize(first, "n2")
    show.claim_recovered(f"through n2 every value comes back: {len(recovered):,} bytes, each the same as before", recovered)
    answer = cluster.api("n1", OWNER).tokenize(["a value that nobody has seen yet"])
    tell.claim("new values are taken too", answer.status == 200, str(answer.status))


def another_owner(show: Show, first: bytes) -> None:
    cluster, tell = show.cluster, show.tell
    tell.step(f"Another owner, {OTHER!r}, tokenizes the same records")
    own, foreign = show.tokens(first), show.tokens(show.tokenize("n1", OTHER))
    common = set(own) & set(foreign)
    tell.claim(
        f"of its {len(foreign):,} tokens none is among those of {OWNER!r}",
        not common and len(own) == len(foreign),
        f"{len(common)} are",
    )
    found = sum(_good(cluster.api("n2", OTHER).detokenize(batch)).body["found"] for batch in _batches(own))
    tell.claim(
        f"asked for the {len(own):,} tokens of {OWNER!r}, the answer to {OTHER!r} is: not found",
        found == 0,
        f"{found} were found",
    )


def rotate(show: Show, first: bytes) -> bytes:
    cluster, tell = show.cluster, show.tell
    tell.step("The epoch is rotated, through n1, while n3 is still dead")
    answers = [cluster.api(name, OWNER).post("/rotate-epoch", {"from_epoch": 1}) for name in ("n1", "n2", "n1")]
    once = [answer.body for answer in answers] == [{"active_epoch": 2}] * 3
    tell.claim("epoch 2 is active; the same request again, on either node, changes nothing", once, str(answers))
    second = show.tokenize("n2")
    old, new = show.tokens(first), show.tokens(second)
    fresh = len(new) == len(old) and all(token.startswith("qv_2_") for token in new)
    tell.claim(f"the same values get {len(new):,} new tokens, all of epoch 2", fresh, f"{len(new)} tokens for {len(old)}")
    show.claim_recovered("the old tokens still resolve, byte for byte", show.detokenize(first, "n2"))
    return second


def lose_two_nodes(show: Show, first: bytes) -> None:
    cluster, tell = show.cluster, show.tell
    tell.step(f"n2 is killed as well: kill -9 {cluster.pid('n2')}")
    cluster.kill("n2")
    tell.claim("n1 has noticed that it is alone", trouble.come_to_see(cluster, ("n1",), 1), "that it has not")
    api = cluster.api("n1", OWNER)
    asked = {
        "tokenizing is refused": api.tokenize(["any"]),
        "a token that is known is not told": api.detokenize(show.tokens(first)[:1]),
        "and of one that was never issued n1 does not say that it is 'not found': it can't know": api.detokenize(["qv_1_0"]),
    }
    for text, answer in asked.items():
        refused = answer.status == 503 and answer.body["code"] == "no-quorum"
        tell.claim(f"{text} (503 {answer.body.get('code')})", refused, str(answer.status))


def come_back(show: Show, first: bytes, second: bytes) -> None:
    cluster, tell = show.cluster, show.tell
    tell.step("n2 and n3 are started again, with no help but that")
    begun = time.monotonic()
    cluster.start("n2", "n3")
    cluster.wait_ready()
    whole = trouble.come_to_see(cluster, NODES, 3)
    tell.claim(f"all three serve and see each other, {time.monotonic() - begun:.1f} s later", whole, "that they do not")
    show.claim_recovered("through n3 the tokens of epoch 1 give back every value, byte for byte", show.detokenize(first, "n3"))
    show.claim_recovered("and so do those of epoch 2, which were made while n3 was dead", show.detokenize(second, "n3"))
    again = show.tokenize("n3") == second
    tell.claim("n3 missed the rotation, and still gives out tokens of epoch 2: the same ones", again, "others")


def analyse(show: Show) -> None:
    directory = show.directory / "analysis"
    tables = analysis.lay_out(show.records, show.columns, directory / "plain")
    analysis.analyse(show.cluster, show.tell, directory, OWNER, OTHER, tables)


def look_at_disks(show: Show) -> None:
    show.tell.step("What lies on the disks of the three nodes")
    values = {value for value in show.records.table.cells(show.columns) if len(value) >= _TELLING_LENGTH}
    sought = [value.encode() for value in sorted(values)[:_TELLING_VALUES]]
    files = [path for path in show.cluster.directory.rglob("*") if path.is_file()]
    readable = [path for path in files if any(map(path.read_bytes().__contains__, sought))]
    text = f"none of {len(sought)} values looked for can be read in the {len(files)} files that they keep, logs included"
    show.tell.claim(text, not readable, f"values in {', '.join(map(str, readable))}")


def stop(show: Show) -> None:
    show.tell.step("SIGTERM to all three")
    codes = show.cluster.stop()
    show.tell.claim("each finished what it had in hand and ended with exit code 0", set(codes.values()) == {0}, str(codes))


def _show_record(show: Show, after: Table) -> None:
    """Shows one record, token by token; with the values beside them only if the data is invented."""
    before = show.records.table
    row = max(range(min(len(before.rows), 50)), key=lambda index: sum(map(bool, after.rows[index])), default=None)
    if row is None:
        return
    for column in show.columns:
        place = before.header.index(column)
        value, token = before.rows[row][place], after.rows[row][place]
        shown = f"  <-  {value!r}" if show.records.invented else ""
        show.tell.say(f"{column:<10} {token[:16] + '...' if token else '(empty)':<20}{shown}".rstrip())


def _first_difference(wanted: bytes, got: bytes) -> str:
    """Says where two texts first differ, and shows neither, since the content may be private."""
    at = next((place for place, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), min(len(wanted), len(got)))
    return f"{len(got):,} bytes, where {len(wanted):,} were expected; they part at byte {at:,}"


def _batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    return (items[first : first + _BATCH] for first in range(0, len(items), _BATCH))


def _good(answer: Answer) -> Answer:
    if answer.status != 200:
        raise ClaimFailed("the node answers", f"{answer.status} {answer.body}")
    return answer


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bin/demo", description="Three nodes, real records, one node killed. Every claim is checked."
    )
    parser.add_argument("--input", type=Path, metavar="FILE.csv", help="your own records; default: invented patients")
    parser.add_argument(
        "--column", metavar="A,B,...", help="the columns to tokenize; default: the configured fields that the file has"
    )
    parser.add_argument("--tls", action="store_true", help="the API speaks TLS, as between hosts; between nodes it always is")
    parser.add_argument("--keep", action="store_true", help="keep the cluster's directory, and say where it is")
    chosen = parser.parse_args(arguments)
    if chosen.column is not None and chosen.input is None:
        parser.error("--column goes with --input")
    return chosen


@contextlib.contextmanager
def workplace(keep: bool) -> Iterator[Path]:
    """Yields a directory for the cluster, removed afterwards unless ``keep``."""
    if keep:
        directory = Path(tempfile.mkdtemp(prefix="quorumvault-demo-"))
        try:
            yield directory
        finally:
            print(f"\nKept: {directory}", flush=True)
    else:
        with tempfile.TemporaryDirectory(prefix="quorumvault-demo-") as name:
            yield Path(name)


def demonstrate(chosen: argparse.Namespace, tell: Narrator) -> None:
    records = None if chosen.input is None else read_input(chosen.input)
    columns = None if chosen.column is None or records is None else check_columns(chosen.column.split(","), records.table)
    with workplace(chosen.keep) as directory:
        if records is None:
            records, columns = invent_input(directory), sample.IDENTIFIERS
        with Cluster.create(directory / "cluster", (OWNER, OTHER), tls=chosen.tls) as cluster, Partitions(cluster) as links:
            start(cluster, tell)
            if columns is None:
                fields = _good(cluster.api("n1", OWNER).get("/fields")).body["fields"]
                columns = configured_columns(fields, records.table)
            check_values(columns, records.table)
            run(Show(cluster, links, tell, directory, records, columns))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demonstration. Returns the exit code: 0 all claims held · 1 one did not · 2 usage."""
    chosen = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # whatever the locale, since names and marks are not ASCII
    tell = Narrator(sys.stdout)
    try:
        demonstrate(chosen, tell)
    except UsageError as error:
        print(f"bin/demo: {error}", file=sys.stderr)
        return 2
    except ClaimFailed as claim:
        tell.failed(claim)
        return 1
    except (ClusterError, Unanswered) as error:
        tell.failed(ClaimFailed("the cluster does what it is told", str(error)))
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader is gone; buffered output must not raise this again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    tell.say()
    tell.say(f"All {tell.held} claims held.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
