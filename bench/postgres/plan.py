"""The plans: the cells of the table, and the number of requests for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from bench.work import Operation


class State(Enum):
    """The state of both stores when a cell is measured.

    ``WRITING``: new values are what it measures. ``AFTER``: they were written just before, and reads pay what that left.
    ``SETTLED``: LevelDB has nothing left to compact, PostgreSQL was vacuumed and checkpointed, and both were read from.
    """

    WRITING = "writing"
    AFTER = "right after writes"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the table. ``hot``: some tokens are asked for again and again. ``wanted``: values/s, as times the rival's."""

    operation: Operation
    state: State
    batch: int
    at_once: int
    wanted: float
    hot: bool = False

    @property
    def what(self) -> str:
        """The operation, and how its values are drawn."""
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


#: New values, which are written before each of the cells of ``AFTER``.
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

#: The parts of a run, in this order.
PARTS = PART_AFTER, PART_SETTLED, PART_SMALL = ("after-writes", "settled", "small-new")


@dataclass(frozen=True, slots=True)
class PostgresPlan:
    """``records`` are stored by both to begin with; ``repetitions`` are pairs of each cell; ``requests`` by batch size.

    ``hot``: how many tokens the hot ones are; ``settling``: reads after which a store that has compacted nothing is settled.
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
        """Every how many-th pair is kept: some 200,000 in all."""
        return max(1, self.records // 200_000)


#: Nodes charge a table for one look-up of 257 (server/storage/leveldb.py), and it takes a thousand charges: fewer reads than a
#: million in all three would find nothing compacted while something is left.
POSTGRES = PostgresPlan("postgres", 2_000_000, 5, {1: 2_000, 100: 300, 1_000: 100}, hot=50_000, settling=1_000_000)
#: Shows within a minute that all of it works. Its times say little.
POSTGRES_SMOKE = PostgresPlan("postgres-smoke", 20_000, 2, {1: 200, 100: 40, 1_000: 10}, hot=5_000, settling=10_000)
POSTGRES_PLANS = {plan.name: plan for plan in (POSTGRES, POSTGRES_SMOKE)}
