"""A report as a picture, in SVG: throughput above, CPU as a multiple of the floor's below, a panel for each operation.

    values/s (logarithmic)   | new  | repeated | recovered | recovered, cold |     a line for each number of requests at once;
    nodes' CPU ÷ floor's     | …    | …        | …         | …               |     the floor is dashed

All panels of a row share their scale, so that heights can be compared across.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bench.figures import VaultReport
from bench.work import Operation
from chaos.testbed.draw import Point, Scale, dot, logarithmic, polyline, rule, text

_PANEL_WIDTH, _PANEL_HEIGHT = 230.0, 190.0
_GAP, _LEFT, _TOP, _BETWEEN, _BOTTOM = 26.0, 78.0, 132.0, 108.0, 50.0
#: Colours that are told apart by people who see no red or no green, and in grey (Okabe and Ito).
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
_FLOOR_COLOUR = "#666"
_TITLE = "QuorumVault: throughput, and CPU beside the floor's"
_STYLE = """
text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #333 }
.title { font-size: 17px; font-weight: 600 } .row { font-size: 14px; font-weight: 600 } .small { font-size: 11px; fill: #666 }
.grid { stroke: #e4e4e4 } .axis { stroke: #999 } .floor { stroke-dasharray: 5 4; fill: none; stroke-width: 1.5 }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round }
"""


@dataclass(frozen=True, slots=True)
class Line:
    """Figures by batch size. Without a colour it is the floor's."""

    figures: dict[int, float]
    colour: str | None = None

    def draw(self, points: Sequence[Point]) -> list[Markup]:
        """Draws a dot at each point too, if it is not the floor's: a line of one point would not be seen."""
        if self.colour is None:
            return [polyline("floor", points, _FLOOR_COLOUR)]
        return [polyline("line", points, self.colour), *(dot(point, self.colour) for point in points)]


@dataclass(frozen=True, slots=True)
class Row:
    """Panels beside each other: their lines by operation, on one scale."""

    title: str
    scale: Scale
    lines: dict[Operation, list[Line]]


def draw(report: VaultReport) -> str:
    """An SVG document; it needs at least one cell."""
    operations = list(dict.fromkeys(cell.operation for cell in report.cells))
    batches = sorted({cell.batch for cell in report.cells})
    at_once = sorted({cell.at_once for cell in report.cells})
    width = _LEFT + len(operations) * (_PANEL_WIDTH + _GAP)
    height = _TOP + 2 * _PANEL_HEIGHT + _BETWEEN + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">',
        f"<title>{_TITLE}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
        text(_LEFT, 28, _TITLE, "title"),
        text(_LEFT, 47, f"{report.made} · {report.machine}", "small"),
        *_legend(at_once),
    ]
    for number, row in enumerate(_rows(report, at_once)):
        top = _TOP + number * (_PANEL_HEIGHT + _BETWEEN)
        parts.append(text(_LEFT, top - 30, row.title, "row"))
        for column, operation in enumerate(operations):
            left = _LEFT + column * (_PANEL_WIDTH + _GAP)
            parts += _panel(left, top, operation.value, row.scale, row.lines[operation], batches, labelled=column == 0)
    return "\n".join([*parts, "</svg>", ""])


def _rows(report: VaultReport, at_once: Sequence[int]) -> list[Row]:
    speeds: dict[Operation, list[Line]] = {}
    ratios: dict[Operation, list[Line]] = {}
    for operation in dict.fromkeys(cell.operation for cell in report.cells):
        cells = [cell for cell in report.cells if cell.operation is operation]
        floor = {each.batch: each.values_per_second for each in report.floor if each.operation is operation}
        speeds[operation] = [Line(floor)]
        ratios[operation] = [Line(dict.fromkeys(floor, 1.0))]
        for colour, number in zip(_COLOURS, at_once, strict=False):
            same = [cell for cell in cells if cell.at_once == number]
            speeds[operation].append(Line({cell.batch: cell.values_per_second for cell in same}, colour))
            ratios[operation].append(Line({cell.batch: cell.ratio for cell in same}, colour))
    figures = [cell.values_per_second for cell in report.cells] + [floor.values_per_second for floor in report.floor]
    return [
        Row("Values a second (logarithmic)", logarithmic(figures), speeds),
        Row(
            "CPU of the three nodes, as a multiple of the floor's (logarithmic)",
            logarithmic([1.0, *(cell.ratio for cell in report.cells)]),
            ratios,
        ),
    ]


def _legend(at_once: Sequence[int]) -> list[Markup]:
    names = [(colour, f"{number} at once") for colour, number in zip(_COLOURS, at_once, strict=False)]
    parts, left = [], _LEFT
    for colour, name in [*names, (None, "the floor, one process")]:
        parts += [*Line({}, colour).draw([(left, 68), (left + 26, 68)]), text(left + 34, 72, name)]
        left += 110
    return parts


def _panel(
    left: float, top: float, title: str, scale: Scale, lines: Sequence[Line], batches: Sequence[int], *, labelled: bool
) -> list[Markup]:
    bottom = top + _PANEL_HEIGHT
    y = scale.between(bottom, _PANEL_HEIGHT)

    def x(batch: int) -> float:
        return left + (batches.index(batch) + 0.5) * _PANEL_WIDTH / len(batches)

    parts = [text(left, top - 10, title)]
    for tick in scale.ticks:
        parts.append(rule(left, y(tick), _PANEL_WIDTH))
        if labelled:
            parts.append(text(left - 8, y(tick) + 4, f"{tick:,.10g}", anchor="end"))
    parts.append(rule(left, bottom, _PANEL_WIDTH, "axis"))
    parts += [text(x(batch), bottom + 17, f"{batch:,}", anchor="middle") for batch in batches]
    parts.append(text(left + _PANEL_WIDTH / 2, bottom + 33, "values in a request", "small", anchor="middle"))
    for line in lines:
        parts += line.draw([(x(batch), y(figure)) for batch, figure in sorted(line.figures.items())])
    return parts
