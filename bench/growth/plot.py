"""Growth as an SVG picture: throughput above, CPU per value below, a panel for each axis, a line for each operation."""

from bench.growth.report import Axis, GrowthReport, median
from bench.panels import COLOURS, Line, Panel, Row, page
from chaos.testbed.draw import logarithmic

_TITLE = "QuorumVault: what growth costs"


def draw(report: GrowthReport) -> str:
    """Returns an SVG document. The report needs at least one axis."""
    panels = [_panels(axis) for axis in report.axes]
    above, below = zip(*panels, strict=True)
    days = " · ".join(dict.fromkeys(axis.made for axis in report.axes))
    rows = [
        Row(title, logarithmic(figure for panel in row for line in panel.lines for figure in line.figures.values()), row)
        for title, row in (
            ("Values a second (logarithmic)", above),
            ("Microseconds of the three nodes' CPU a value (logarithmic)", below),
        )
    ]
    names = report.axes[0].rows[0].series()
    return page(_TITLE, f"{days} · {report.machine}", zip(COLOURS, names, strict=False), rows)


def _panels(axis: Axis) -> tuple[Panel, Panel]:
    """Returns the panels of the throughput and the CPU along an axis."""
    points = [row.x for row in axis.rows]
    series = {name: {row.x: median(row.series()[name]) for row in axis.rows} for name in axis.rows[0].series()}
    speeds, cpu = [], []
    for colour, figures in zip(COLOURS, series.values(), strict=False):
        speeds.append(Line({x: speed.values_per_second for x, speed in figures.items()}, colour))
        cpu.append(Line({x: speed.cpu for x, speed in figures.items()}, colour))
    return Panel(axis.title, axis.unit, points, speeds), Panel(axis.title, axis.unit, points, cpu)
