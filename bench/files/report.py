"""What a run over files says: medians, and how far the single repetitions lie apart."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import msgspec

from bench.files.paths import PathSample
from bench.files.plan import FILES
from bench.files.run import CopySample
from bench.table import Table

#: For a machine of two cores that runs nodes and command. Told, and asserted nowhere.
TARGET_RATIO = 3.0
TARGET_MIB = 1024.0


class CopyFigures(msgspec.Struct, frozen=True):
    """Of one table. Seconds are medians, memory in MiB is the largest of all repetitions; ``ratio`` is that of the medians."""

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
    """Of one operation and way: medians; CPU in microseconds a text."""

    operation: str
    way: str
    texts: int
    texts_per_second: float
    client_cpu: float
    nodes_cpu: float


class FilesReport(msgspec.Struct, frozen=True):
    """A whole run. ``made`` is a date."""

    made: str
    machine: str
    plan: str
    repetitions: int
    copies: list[CopyFigures]
    paths: list[PathFigures]


def summarise(
    copies: Sequence[CopySample], paths: Sequence[PathSample], *, made: str, machine: str, plan: str, repetitions: int
) -> FilesReport:
    """Of at least one sample each."""
    cases = list(dict.fromkeys(sample.case for sample in copies))
    ways = list(dict.fromkeys((sample.operation, sample.way) for sample in paths))
    return FilesReport(
        made=made,
        machine=machine,
        plan=plan,
        repetitions=repetitions,
        copies=[_copy([sample for sample in copies if sample.case == case]) for case in cases],
        paths=[_path([sample for sample in paths if (sample.operation, sample.way) == way]) for way in ways],
    )


def _copy(samples: Sequence[CopySample]) -> CopyFigures:
    def median(figure: Callable[[CopySample], float]) -> float:
        return statistics.median(map(figure, samples))

    command, duckdb = median(lambda sample: sample.command.seconds), median(lambda sample: sample.duckdb.seconds)
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
        command_cpu=median(lambda sample: sample.command.cpu),
        duckdb_cpu=median(lambda sample: sample.duckdb.cpu),
        command_mib=max(sample.command.mib for sample in samples),
        duckdb_mib=max(sample.duckdb.mib for sample in samples),
    )


def _path(samples: Sequence[PathSample]) -> PathFigures:
    def median(figure: Callable[[PathSample], float]) -> float:
        return statistics.median(map(figure, samples))

    return PathFigures(
        operation=samples[0].operation,
        way=samples[0].way,
        texts=samples[0].texts,
        texts_per_second=median(lambda sample: sample.texts / sample.seconds),
        client_cpu=median(lambda sample: sample.client_cpu / sample.texts) * 1e6,
        nodes_cpu=median(lambda sample: sample.nodes_cpu / sample.texts) * 1e6,
    )


def tables(report: FilesReport) -> list[Table]:
    """Rows of text."""
    return [
        Table(
            "Parquet to Parquet in the order of the rows: the command, and DuckDB alone with the values in a table",
            (
                *("rows", "distinct", "look-ups", "seconds", "seconds DuckDB", "÷ DuckDB", "range"),
                *("CPU", "CPU DuckDB", "MiB", "MiB DuckDB"),
            ),
            [_copy_row(figures) for figures in report.copies],
        ),
        Table(
            "Distinct texts through the client (CPU: microseconds a text)",
            ("operation", "way", "texts", "texts/s", "÷ JSON", "CPU client", "CPU nodes"),
            [_path_row(figures, _json_of(report, figures)) for figures in report.paths],
        ),
    ]


def _copy_row(figures: CopyFigures) -> tuple[str, ...]:
    return (
        f"{figures.rows:,}",
        f"{figures.distinct:,}",
        f"{figures.look_ups:,}",
        f"{figures.command_seconds:.1f}",
        f"{figures.duckdb_seconds:.1f}",
        f"{figures.ratio:.2f}",
        f"{figures.lowest_ratio:.2f}–{figures.highest_ratio:.2f}",
        f"{figures.command_cpu:.1f}",
        f"{figures.duckdb_cpu:.1f}",
        f"{figures.command_mib:,.0f}",
        f"{figures.duckdb_mib:,.0f}",
    )


def _path_row(figures: PathFigures, json: PathFigures) -> tuple[str, ...]:
    return (
        figures.operation,
        figures.way,
        f"{figures.texts:,}",
        f"{figures.texts_per_second:,.0f}",
        f"{figures.texts_per_second / json.texts_per_second:.2f}",
        f"{figures.client_cpu:.2f}",
        f"{figures.nodes_cpu:.1f}",
    )


def _json_of(report: FilesReport, figures: PathFigures) -> PathFigures:
    return next(each for each in report.paths if (each.operation, each.way) == (figures.operation, "JSON"))


def findings(report: FilesReport) -> list[str]:
    """In sentences; how it stands to its targets is told of a plan whose files are large enough to say."""
    told = [
        f"Measured on {report.made} on {report.machine}, which ran the nodes too.",
        f"Plan {report.plan}: {report.repetitions} repetitions, of which each copy by DuckDB comes before one by the command.",
    ]
    for figures in report.copies:
        words = [_memory(figures), _look_ups(figures)]
        if report.plan == FILES.name:
            words.insert(0, _ratio(figures))
        told.append(f"{figures.rows:,} rows, {figures.distinct:,} distinct tokens: {'; '.join(words)}.")
    return told


def holds(report: FilesReport) -> bool:
    """What has to hold on any machine, whatever else it does: the look-ups and the memory."""
    return all(figures.look_ups == figures.distinct and figures.command_mib < TARGET_MIB for figures in report.copies)


def _ratio(figures: CopyFigures) -> str:
    verdict = _verdict(figures.ratio <= TARGET_RATIO)
    return f"{figures.ratio:.2f} times DuckDB alone (target: at most {TARGET_RATIO:g}, {verdict})"


def _memory(figures: CopyFigures) -> str:
    return f"{figures.command_mib:,.0f} MiB (target: below {TARGET_MIB:,.0f}, {_verdict(figures.command_mib < TARGET_MIB)})"


def _look_ups(figures: CopyFigures) -> str:
    verdict = _verdict(figures.look_ups == figures.distinct)
    return f"{figures.look_ups:,} look-ups (target: one for each distinct token, {verdict})"


def _verdict(met: bool) -> str:
    return "met" if met else "missed"
