"""The report of a run over files: medians, and the spread of the single repetitions."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bench.files.dataset import Dataset
from bench.files.paths import PathSample, compare
from bench.files.plan import FILES, FilesPlan
from bench.files.run import Copies, CopySample
from bench.load import OWNER, Load, start
from bench.report import Account, Check, Report, Table, Tell, today
from chaos.testbed.cluster import NODES
from quorumvault.client import Client

#: The target for a machine of two cores that runs nodes and command.
TARGET_RATIO = 2.5
TARGET_MIB = 1024.0


class CopyFigures(msgspec.Struct, frozen=True):
    """One table. Seconds are medians; memory is the largest of all repetitions, in MiB; ``ratio`` is that of the medians."""

    rows: int
    distinct: int
    look_ups: int
    command_seconds: float
    duckdb_seconds: float
    ratio: float
    lowest_ratio: float
    highest_ratio: float
    command_cpu: float
    duckdb_cpu: float
    command_mib: float
    duckdb_mib: float


class PathFigures(msgspec.Struct, frozen=True):
    """One operation and way: medians; CPU in microseconds per text."""

    operation: str
    way: str
    texts: int
    texts_per_second: float
    client_cpu: float
    nodes_cpu: float


class FilesReport(Report, frozen=True):
    repetitions: int
    copies: list[CopyFigures]
    paths: list[PathFigures]

    def account(self) -> Account:
        """Returns the account. The targets of look-ups and memory hold on any machine; the ratio counts only for large files."""
        large = self.plan == FILES.name
        checks = [check for figures in self.copies for check in _checks(figures, large=large)]
        told = f"{self.occasion}: {self.repetitions} repetitions, each with a copy by DuckDB and then one by the command."
        return Account(_tables(self), checks, [told, "The nodes ran on the same machine."], asserted=not large)


def measure(plan: FilesPlan, place: Path, tell: Tell) -> FilesReport:
    """Runs a plan on a new cluster, in an empty directory."""
    with (
        start(place / "cluster") as cluster,
        Client([cluster.url(name) for name in NODES], api_key=cluster.api_key(OWNER)) as vault,
    ):
        tell(f"tokenizing {plan.distinct:,} values")
        dataset = Dataset(place / "dataset")
        dataset.tokenize(vault, plan.distinct)
        variables = {"QUORUMVAULT_URL": ",".join(map(cluster.url, NODES)), "QUORUMVAULT_API_KEY": cluster.api_key(OWNER)}
        copies = Copies(dataset, place / "copies", variables, tell).run(plan)
        paths = compare(vault, Load(cluster), dataset.tokens(plan.texts), plan.repetitions, tell)
        cluster.stop()
    return summarise(copies, paths, plan.name, plan.repetitions)


def summarise(copies: Sequence[CopySample], paths: Sequence[PathSample], plan: str, repetitions: int) -> FilesReport:
    """Summarizes samples. Needs at least one of each kind."""
    cases = list(dict.fromkeys(sample.case for sample in copies))
    ways = list(dict.fromkeys((sample.operation, sample.way) for sample in paths))
    return FilesReport(
        *today(),
        plan,
        repetitions,
        copies=[_copy([sample for sample in copies if sample.case == case]) for case in cases],
        paths=[_path([sample for sample in paths if (sample.operation, sample.way) == way]) for way in ways],
    )


def _copy(samples: Sequence[CopySample]) -> CopyFigures:
    command = statistics.median(sample.command.seconds for sample in samples)
    duckdb = statistics.median(sample.duckdb.seconds for sample in samples)
    ratios = [sample.command.seconds / sample.duckdb.seconds for sample in samples]
    return CopyFigures(
        rows=samples[0].case.rows,
        distinct=samples[0].case.distinct,
        look_ups=max(sample.look_ups for sample in samples),
        command_seconds=command,
        duckdb_seconds=duckdb,
        ratio=command / duckdb,
        lowest_ratio=min(ratios),
        highest_ratio=max(ratios),
        command_cpu=statistics.median(sample.command.cpu for sample in samples),
        duckdb_cpu=statistics.median(sample.duckdb.cpu for sample in samples),
        command_mib=max(sample.command.mib for sample in samples),
        duckdb_mib=max(sample.duckdb.mib for sample in samples),
    )


def _path(samples: Sequence[PathSample]) -> PathFigures:
    first = samples[0]
    speed = statistics.median(sample.texts / sample.seconds for sample in samples)
    client = statistics.median(sample.client_cpu / sample.texts for sample in samples)
    nodes = statistics.median(sample.nodes_cpu / sample.texts for sample in samples)
    return PathFigures(first.operation, first.way, first.texts, speed, client * 1e6, nodes * 1e6)


def _checks(figures: CopyFigures, *, large: bool) -> list[Check]:
    what = f"{figures.rows:,} rows, {figures.distinct:,} distinct tokens"
    return [
        Check.of(f"{what}: time relative to DuckDB alone", figures.ratio, "≤", TARGET_RATIO, ".2f", judged=large),
        Check.of(f"{what}: memory", figures.command_mib, "<", TARGET_MIB, ",.0f", " MiB"),
        Check(f"{what}: look-ups", f"{figures.look_ups:,}", f"{figures.distinct:,}", figures.look_ups == figures.distinct),
    ]


def _tables(report: FilesReport) -> list[Table]:
    json = {path.operation: path.texts_per_second for path in report.paths if path.way == "JSON"}
    copies = {
        "rows": "{0.rows:,}",
        "distinct": "{0.distinct:,}",
        "look-ups": "{0.look_ups:,}",
        "seconds": "{0.command_seconds:.1f}",
        "seconds DuckDB": "{0.duckdb_seconds:.1f}",
        "÷ DuckDB": "{0.ratio:.2f}",
        "range": "{0.lowest_ratio:.2f}–{0.highest_ratio:.2f}",
        "CPU": "{0.command_cpu:.1f}",
        "CPU DuckDB": "{0.duckdb_cpu:.1f}",
        "MiB": "{0.command_mib:,.0f}",
        "MiB DuckDB": "{0.duckdb_mib:,.0f}",
    }
    paths: dict[str, str | Callable[[PathFigures], str]] = {
        "operation": "{0.operation}",
        "way": "{0.way}",
        "texts": "{0.texts:,}",
        "texts/s": "{0.texts_per_second:,.0f}",
        "÷ JSON": lambda path: f"{path.texts_per_second / json[path.operation]:.2f}",
        "CPU client": "{0.client_cpu:.2f}",
        "CPU nodes": "{0.nodes_cpu:.1f}",
    }
    title = "Parquet to Parquet in row order: the command, and DuckDB alone with the values in a table"
    return [
        Table.of(title, report.copies, copies),
        Table.of("Distinct texts through the client (CPU: microseconds per text)", report.paths, paths),
    ]
