"""Pairs of faults on two disks: a table of what users see, what is lost in the worst case, and what an operator types.

    lost       the data directory is empty
    torn       the log ends with bytes that no write left there
    rotten     bits flip in blocks of the largest table; if both disks are rotten, one place is unreadable on both
    put back   the directory is a copy of an earlier moment
    full       not a byte is free on the disk's file system

Each cell is one cluster of real processes. A service manager restarts any that end with exit code 3. A cell of two faults **at
once** begins with the worst case: the third disk has missed the last writes, so only the two damaged disks had them. In a cell of
one fault **then** another, all three disks have every record, and the second fault comes while the first is being repaired.

The harness knows which records may be lost before the nodes start: those that no disk has any more, read without the nodes. A
cell fails if any other record is not returned in the end, or if a token that a disk still has is ever reported as not found.
"""

import itertools
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chaos.testbed.cluster import Cluster, ClusterError, wait_for
from chaos.testbed.host import private_mounts
from chaos.trial import AT_ONCE, FAULTS, FIRST, ORDERS, OWNER, SECOND, Cell, Trial

_FLOOR = 16 << 20
#: Seconds in which the three disks become identical, unless the machine is very busy.
_SAME = 60.0
_SOCKETS = shutil.ignore_patterns("*.sock")


@contextmanager
def prepared(records: int) -> Iterator[tuple[Path, Mapping[str, str], Mapping[str, str], dict[str, str]]]:
    """Yields a folder with the disks of a stopped cluster at three moments: some time ago (older), with all records on all three
    (same), and with the last tenth missing on the third (behind); then addresses, API keys, and tokens by value."""
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
            _write(cluster, tokens, last // 2)
            cluster.kill(FIRST, SECOND)
            cluster.start(FIRST, SECOND)  # a start writes the log's records to a table
            cluster.wait_ready(FIRST, SECOND)
            _write(cluster, tokens, last - last // 2)
            cluster.kill(FIRST, SECOND)
            shutil.copytree(cluster.directory, place / "same", ignore=_SOCKETS)
            addresses = {name: node.address for name, node in cluster.nodes.items()}
            keys = {OWNER: cluster.api_key(OWNER)}
            with Cluster(place / "same", addresses, keys) as same:
                same.bring_up()
                _settle(same)
        yield place, addresses, keys, tokens


def _write(cluster: Cluster, tokens: dict[str, str], count: int) -> None:
    for first in range(len(tokens), len(tokens) + count, AT_ONCE):
        values = [f"value {number}" for number in range(first, min(first + AT_ONCE, len(tokens) + count))]
        answer = cluster.api(FIRST, OWNER).tokenize(values)
        if answer.status != 200:
            raise ClusterError(f"{answer}")
        tokens.update(zip(values, answer.body["tokens"], strict=True))


def _settle(cluster: Cluster) -> None:
    """Waits until all three disks are identical, and stops the nodes."""
    if not wait_for(lambda: all(list(peer) == ["records"] for peer in cluster.verify(FIRST).values()), _SAME):
        raise ClusterError("the disks do not become the same")
    cluster.stop()


def cells(only: Sequence[str], seed: int) -> list[Cell]:
    """Returns all cells in an order drawn from the seed, or those named in ``only``, such as "rotten, full, at once"."""
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


def try_all(chosen: Sequence[Cell], records: int, keep: Path | None = None) -> Iterator[Cell]:
    """Runs the cells, and yields each when it is done. ``keep``: a directory for the clusters of failed cells."""
    if any("full" in (cell.first, cell.second) for cell in chosen):
        private_mounts()
    with prepared(records) as (place, addresses, keys, tokens):
        for cell in chosen:
            home = place / "cell" / "vault"
            shutil.copytree(place / ("behind" if cell.order == "at once" else "same"), home, ignore=_SOCKETS)
            with ExitStack() as ending:
                cluster = ending.enter_context(Cluster(home, addresses, keys))
                Trial(cluster, place / "older", tokens, cell, ending).run()
            if cell.wrong and keep is not None:
                shutil.move(place / "cell", keep / f"{cell.first}, {cell.second}, {cell.order}")
            else:
                shutil.rmtree(place / "cell")
            yield cell


def row(cell: Cell) -> str:
    """Returns a cell's row of the table in docs/operations.md."""
    typed = "; ".join(cell.typed) or "nothing"
    lost = f"{cell.lost:,}" if cell.lost else "nothing"
    return f"| {cell.first} | {cell.order} | {cell.second} | {'; '.join(cell.seen)} | {lost} | {typed} |"


def main(only: Sequence[str], records: int, seed: int, keep: Path | None) -> int:
    """Prints a row for each cell, and what was wrong. Returns the exit code."""
    began, chosen, failed = time.monotonic(), cells(only, seed), 0
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    for cell in try_all(chosen, records, keep):
        print(f"{row(cell)} {cell.seconds:.0f} s, {cell.gone:,} on no disk", flush=True)
        failed += bool(cell.wrong)
        for words in cell.wrong:
            print(f"  WRONG: {words}", flush=True)
    took = time.monotonic() - began
    print(
        f"{len(chosen) - failed} of {len(chosen)} cells as they have to be, {records:,} records in each; {took / 60:.1f} minutes"
    )
    return 1 if failed else 0
