"""The report of growth: a table for each axis, and the promises for ten million records."""

import statistics
from collections.abc import Iterator, Sequence

import msgspec

from bench.growth.plan import AXES, CLIENTS, OWNERS, RECORDS, VALUES
from bench.report import Account, Check, Column, Report, Table

#: The promises for ten million records: new tokens a second, as a share of those among a hundred thousand; a node's own memory;
#: the time of a start.
LEAST_SHARE, MOST_OWN_MIB, MOST_START_SECONDS = 0.8, 150.0, 5.0
_MANY, _FEW = 10_000_000, 100_000
#: The heading of an axis, and the quantity along it.
_TITLES = {
    RECORDS: ("Records stored", "records"),
    OWNERS: ("Owners", "owners"),
    VALUES: ("Length of values", "bytes"),
    CLIENTS: ("Clients", "clients"),
}


class Speed(msgspec.Struct, frozen=True):
    """Values a second, and the three nodes' CPU per value in microseconds, compactions included."""

    values_per_second: float
    cpu: float


class Kept(msgspec.Struct, frozen=True):
    """The cost of an idle store. Memory in MiB, of the node with the most; CPU of one node, in per cent of a core."""

    start_seconds: float
    own_mib: float
    mapped_mib: float
    idle_percent: float
    disk_bytes_per_record: float


class Row(msgspec.Struct, frozen=True):
    """One point of an axis. ``x``: the growing quantity. ``loaded_mib``: own memory of the node with the most, after the load."""

    x: int
    records: int
    owners: int
    value_bytes: int
    batch: int
    at_once: int
    new: list[Speed]
    repeated: list[Speed]
    recovered: list[Speed]
    kept: Kept
    loaded_mib: float

    def series(self) -> dict[str, list[Speed]]:
        return {"new": self.new, "repeated": self.repeated, "recovered": self.recovered}


class Axis(msgspec.Struct, frozen=True):
    """All points of one axis, measured in turn in one run: the day, the machine, and the number of repetitions."""

    name: str
    made: str
    machine: str
    repetitions: int
    rows: list[Row]

    @property
    def title(self) -> str:
        return _TITLES[self.name][0]

    @property
    def unit(self) -> str:
        return _TITLES[self.name][1]

    @property
    def table(self) -> Table:
        row = self.rows[0]
        same = {
            RECORDS: f"{row.records:,} records at first",
            OWNERS: "one owner" if row.owners == 1 else f"{row.owners:,} owners",
            VALUES: f"values of {row.value_bytes:,} bytes",
            CLIENTS: f"{row.at_once} requests at once",
        }
        rest = ", ".join([f"batches of {row.batch:,}", *(words for axis, words in same.items() if axis != self.name)])
        return Table.of(f"{self.title} ({rest}; CPU: microseconds per value)", self.rows, {self.unit: "{0.x:,}", **_COLUMNS})


def median(speeds: Sequence[Speed]) -> Speed:
    """Returns the median of each figure."""
    return Speed(statistics.median(each.values_per_second for each in speeds), statistics.median(each.cpu for each in speeds))


def _figures(speeds: Sequence[Speed]) -> str:
    """Returns the median, the lowest and the highest figure as text."""
    each = [speed.values_per_second for speed in speeds]
    return f"{statistics.median(each):,.0f} ({min(each):,.0f}–{max(each):,.0f})"


_COLUMNS: dict[str, Column] = {
    "new/s": lambda row: _figures(row.new),
    "repeated/s": lambda row: _figures(row.repeated),
    "recovered/s": lambda row: _figures(row.recovered),
    "CPU new": lambda row: f"{median(row.new).cpu:,.1f}",
    "CPU repeated": lambda row: f"{median(row.repeated).cpu:,.1f}",
    "CPU recovered": lambda row: f"{median(row.recovered).cpu:,.1f}",
    "start s": "{0.kept.start_seconds:.2f}",
    "own MiB": "{0.kept.own_mib:,.0f}",
    "own MiB loaded": "{0.loaded_mib:,.0f}",
    "mapped MiB": "{0.kept.mapped_mib:,.0f}",
    "idle CPU %": "{0.kept.idle_percent:.1f}",
    "B/record": "{0.kept.disk_bytes_per_record:,.0f}",
}


class GrowthReport(Report, frozen=True):
    repetitions: int
    axes: list[Axis]

    def account(self) -> Account:
        """Returns the account. The promises for ten million records are shown if measured, and never fail the run."""
        return Account([axis.table for axis in self.axes], list(self._checks()), list(self._sentences()), asserted=False)

    def joined(self, earlier: bytes) -> Report:
        """Returns this report with the axes that only an earlier run of the same plan measured. Each axis has its own day."""
        before = msgspec.json.decode(earlier, type=GrowthReport)
        if before.plan != self.plan:
            return self
        axes = {axis.name: axis for axis in (*before.axes, *self.axes)}
        return msgspec.structs.replace(self, axes=[axes[name] for name in AXES if name in axes])

    def _checks(self) -> Iterator[Check]:
        rows = {row.x: row for axis in self.axes if axis.name == RECORDS for row in axis.rows}
        if _MANY in rows and _FEW in rows:
            many, few = rows[_MANY], rows[_FEW]
            shares = [a.values_per_second / b.values_per_second for a, b in zip(many.new, few.new, strict=True)]
            what = f"{_MANY:,} records: new tokens per second, as a share of those among {_FEW:,} (median of pairs)"
            yield Check.of(what, statistics.median(shares), "≥", LEAST_SHARE, ".2f")
            own = max(many.kept.own_mib, many.loaded_mib)
            yield Check.of(f"{_MANY:,} records: a node's own memory", own, "<", MOST_OWN_MIB, ".0f", " MiB")
            what = f"{_MANY:,} records: time from a node's start until it serves"
            yield Check.of(what, many.kept.start_seconds, "<", MOST_START_SECONDS, ".2f", " s")

    def _sentences(self) -> Iterator[str]:
        for axis in self.axes:
            yield f"{axis.title}: measured on {axis.made} on {axis.machine}, {axis.repetitions} rounds in turn."
        yield f"Medians, with the lowest and highest. Plan {self.plan}. All processes and the client shared the machine."
