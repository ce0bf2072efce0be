"""The report: turns pairs into rows of medians and ranges. Each ratio is of one pair, measured within seconds."""

import statistics
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from bench.postgres.plan import POSTGRES, Cell, PostgresPlan, State
from bench.report import Account, Check, Report, Table, today

_SHOWS_NOT = (
    "Limits: one machine runs all processes of a side, and the client. The network is loopback, and one disk syncs for all. The "
    "figures do not show how either side performs on separate machines or at other sizes."
)


class Side(msgspec.Struct, frozen=True):
    """One measurement of one side. CPU in microseconds per value: of all its processes, and of the client's only thread."""

    values_per_second: float
    cpu: float
    client_cpu: float
    median_ms: float
    p99_ms: float


class Pair(msgspec.Struct, frozen=True):
    """Two measurements within seconds: the vault's, then the rival's."""

    vault: Side
    rival: Side

    @property
    def ratio(self) -> float:
        return self.vault.values_per_second / self.rival.values_per_second


class Row(msgspec.Struct, frozen=True):
    """A cell of the plan, and its pairs. ``wanted``: the target ratio of values/s."""

    what: str
    state: str
    batch: int
    at_once: int
    wanted: float
    pairs: list[Pair]

    @property
    def ratio(self) -> float:
        return statistics.median(pair.ratio for pair in self.pairs)

    @property
    def span(self) -> str:
        """The lowest and the highest ratio of a pair."""
        ratios = [pair.ratio for pair in self.pairs]
        return f"{min(ratios):.2f}–{max(ratios):.2f}"

    @property
    def vault(self) -> Side:
        return _medians([pair.vault for pair in self.pairs])

    @property
    def rival(self) -> Side:
        return _medians([pair.rival for pair in self.pairs])


def _medians(sides: Sequence[Side]) -> Side:
    """Returns the median of each figure."""
    return Side(*(statistics.median(getattr(side, name) for side in sides) for name in Side.__struct_fields__))


class PostgresReport(Report, frozen=True):
    """``settling_reads``: the values read until the vault's stores had nothing left to compact."""

    postgres: str
    records: int
    settling_reads: int
    rows: list[Row]

    def account(self) -> Account:
        """Returns the account. Missed targets never fail the run. They are judged only with as many records as they are for."""
        judged = self.records >= POSTGRES.records
        checks = [
            Check.of(
                f"{row.what}, batches of {row.batch:,}, {row.at_once} at once, {row.state}: values/s, times PostgreSQL's",
                *(row.ratio, "≥", row.wanted, ".2f"),
                judged=judged,
            )
            for row in self.rows
        ]
        title = "The vault, and the same API over PostgreSQL (medians; CPU: microseconds per value, of all processes)"
        return Account([Table.of(title, self.rows, _COLUMNS)], checks, list(_sentences(self)), asserted=False)


_COLUMNS = {
    "operation": "{0.what}",
    "batch": "{0.batch:,}",
    "at once": "{0.at_once}",
    "state": "{0.state}",
    "values/s": "{0.vault.values_per_second:,.0f}",
    "values/s PostgreSQL": "{0.rival.values_per_second:,.0f}",
    "÷ PostgreSQL": "{0.ratio:.2f}",
    "range": "{0.span}",
    "CPU": "{0.vault.cpu:,.1f}",
    "CPU PostgreSQL": "{0.rival.cpu:,.1f}",
    "p99 ms": "{0.vault.p99_ms:,.1f}",
    "p99 ms PostgreSQL": "{0.rival.p99_ms:,.1f}",
}


def report(plan: PostgresPlan, postgres: str, settling_reads: int, found: Mapping[Cell, Sequence[Pair]]) -> PostgresReport:
    """Makes the report: new values first, then the reads, in the order of the table of targets."""
    order = list(State)
    cells = sorted(found, key=lambda cell: (-cell.batch, cell.operation.value != "new", order.index(cell.state)))
    rows = [Row(cell.what, cell.state.value, cell.batch, cell.at_once, cell.wanted, list(found[cell])) for cell in cells]
    return PostgresReport(*today(), plan.name, postgres, plan.records, settling_reads, rows)


def _sentences(report: PostgresReport) -> Iterator[str]:
    """Yields sentences with what the table does not say."""
    pairs = max((len(row.pairs) for row in report.rows), default=0)
    yield f"{report.occasion}: {report.records:,} records in both at the start, up to {pairs} pairs per cell; {report.postgres}."
    if report.settling_reads:
        yield f"Settled after {report.settling_reads:,} reads, drawn from all; the last of them caused no compaction in LevelDB."
    yield _SHOWS_NOT
