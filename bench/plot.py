"""A report as an SVG picture: throughput above, CPU as a multiple of the floor's below, a panel for each operation.

    values/s (logarithmic)   | new  | repeated | recovered | recovered, cold |     a line for each number of requests at once;
    nodes' CPU ÷ floor's     | …    | …        | …         | …               |     the floor is dashed

All panels of a row share one scale, so that heights can be compared.
"""

from bench.figures import VaultReport
from bench.panels import COLOURS, Line, Panel, Row, page
from bench.work import Operation
from chaos.testbed.draw import logarithmic

_TITLE = "QuorumVault: throughput, and CPU beside the floor's"


def draw(report: VaultReport) -> str:
    """Returns an SVG document. The report needs at least one cell."""
    at_once = sorted({cell.at_once for cell in report.cells})
    speeds = [cell.values_per_second for cell in report.cells] + [floor.values_per_second for floor in report.floor]
    ratios = [1.0, *(cell.ratio for cell in report.cells)]
    operations = list(dict.fromkeys(cell.operation for cell in report.cells))
    panels = [_panels(report, operation, list(zip(COLOURS, at_once, strict=False))) for operation in operations]
    above, below = zip(*panels, strict=True)
    rows = [
        Row("Values a second (logarithmic)", logarithmic(speeds), above),
        Row("CPU of the three nodes, as a multiple of the floor's (logarithmic)", logarithmic(ratios), below),
    ]
    legend = [*((colour, f"{number} at once") for colour, number in zip(COLOURS, at_once, strict=False))]
    return page(_TITLE, f"{report.made} · {report.machine}", [*legend, (None, "the floor, one process")], rows)


def _panels(report: VaultReport, operation: Operation, colours: list[tuple[str, int]]) -> tuple[Panel, Panel]:
    """Returns the panels of an operation's throughput and CPU."""
    batches = sorted({cell.batch for cell in report.cells})
    floor = {each.batch: each.values_per_second for each in report.floor if each.operation is operation}
    speeds, ratios = [Line(floor)], [Line(dict.fromkeys(floor, 1.0))]
    for colour, number in colours:
        same = [cell for cell in report.cells if (cell.operation, cell.at_once) == (operation, number)]
        speeds.append(Line({cell.batch: cell.values_per_second for cell in same}, colour))
        ratios.append(Line({cell.batch: cell.ratio for cell in same}, colour))
    unit = "values in a request"
    return Panel(operation.value, unit, batches, speeds), Panel(operation.value, unit, batches, ratios)
