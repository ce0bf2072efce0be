"""The plans: the cells of the table, and the number of requests for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from bench.work import Operation


class State(Enum):
    """The state of both stores when a cell is measured.

    ``WRITING``: the cell measures new values. ``AFTER``: new values were written just before, and reads pay for the work left.
    ``SETTLED``: LevelDB has nothing left to compact, PostgreSQL was vacuumed and checkpointed, and both were read from.
    """

    WRITING = "writing"
    AFTER = "right after writes"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the table. ``hot``: a few tokens are read repeatedly. ``wanted``: values/s, as a multiple of the rival's."""

    operation: Operation
    state: State
    batch: int
    at_once: int
    wanted: float
    hot: bool = False

    @property
    def what(self) -> str:
        """The operation, and the way in which its values are drawn."""
        drawn = "" if self.operation is not Operation.RECOVERED else ", hot tokens" if self.hot else ", drawn from all"
        return f"{self.operation.value}{drawn}"

    @property
    def where(self) -> str:
        return f"{self.what}, batches of {self.batch:,}, {self.at_once} at once, {self.state.value}"


def _reads(state: State, repeated: float, drawn: float, hot: float) -> tuple[Cell, ...]:
    return (
        Cell(Operation.REPEATED, state, 1_000, 6, repeated),
        Cell(Operation.RECOVERED, state, 1_000, 6, drawn),
        Cell(Operation.RECOVERED, state, 1_000, 6, hot, hot=True),
    )


#: New values, written before each cell of ``AFTER``.
NEW = Cell(Operation.NEW, State.WRITING, 1_000, 6, 1.5)
AFTER = _reads(State.AFTER, 1.2, 1.1, 1.2)
SETTLED = (
    *_reads(State.SETTLED, 1.8, 1.4, 1.4),
    *(
        Cell(operation, State.SETTLED, batch, at_once, 1.2)
        for batch, at_once in ((100, 6), (1, 16))
        for operation in (Operation.REPEATED, Operation.RECOVERED)
    ),
)
SMALL_NEW = (Cell(Operation.NEW, State.WRITING, 100, 6, 1.2), Cell(Operation.NEW, State.WRITING, 1, 16, 1.2))

#: The parts of a run, in this order: settled first, so that both sides have been read from before they are measured right after
#: writes.
PARTS = PART_SETTLED, PART_AFTER, PART_SMALL = ("settled", "after-writes", "small-new")


@dataclass(frozen=True, slots=True)
class PostgresPlan:
    """``records``: stored by both at the start. ``repetitions``: pairs of each cell. ``requests``: by batch size.

    ``hot``: the number of hot tokens. ``settling``: the number of reads without a compaction after which a store is settled.
    """

    name: str
    records: int
    repetitions: int
    requests: Mapping[int, int]
    hot: int
    settling: int
    runs: tuple[str, ...] = PARTS

    @property
    def stride(self) -> int:
        """One in this many pairs is kept: about 200,000 in all."""
        return max(1, self.records // 200_000)


#: A node charges a table for one look-up in 257 (server/storage/leveldb.py), and compacts it after a thousand charges: fewer than
#: a million reads in all three could see no compaction while work is left.
POSTGRES = PostgresPlan("postgres", 2_000_000, 5, {1: 2_000, 100: 300, 1_000: 100}, hot=50_000, settling=1_000_000)
#: Shows within a minute that everything works. Its times mean little.
POSTGRES_SMOKE = PostgresPlan("postgres-smoke", 20_000, 2, {1: 200, 100: 40, 1_000: 10}, hot=5_000, settling=10_000)
POSTGRES_PLANS = {plan.name: plan for plan in (POSTGRES, POSTGRES_SMOKE)}
