"""SVG pictures of benchmarks: rows of panels with lines, a legend above, and one scale for all panels of a row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from chaos.testbed.draw import Point, Scale, dot, polyline, rule, text

_WIDTH, _HEIGHT = 230.0, 190.0
_GAP, _LEFT, _TOP, _BETWEEN, _BOTTOM = 26.0, 78.0, 132.0, 108.0, 50.0
#: Colours that can be told apart with red-green colour blindness, and in grey (Okabe and Ito).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
_DASHED_COLOUR = "#666"
_STYLE = """
text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #333 }
.title { font-size: 17px; font-weight: 600 } .row { font-size: 14px; font-weight: 600 } .small { font-size: 11px; fill: #666 }
.grid { stroke: #e4e4e4 } .axis { stroke: #999 } .floor { stroke-dasharray: 5 4; fill: none; stroke-width: 1.5 }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round }
"""


@dataclass(frozen=True, slots=True)
class Line:
    """A line: figures by their labels on the axis. A line without a colour is the baseline, dashed."""

    figures: dict[int, float]
    colour: str | None = None

    def draw(self, points: Sequence[Point]) -> list[Markup]:
        """Draws the line, and except for the baseline a dot at each point: a line of one point would be invisible."""
        if self.colour is None:
            return [polyline("floor", points, _DASHED_COLOUR)]
        return [polyline("line", points, self.colour), *(dot(point, self.colour) for point in points)]


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel. ``below``: the figures under its axis, evenly spaced. ``unit``: their unit."""

    title: str
    unit: str
    below: Sequence[int]
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Row:
    """Panels side by side, on one scale."""

    title: str
    scale: Scale
    panels: Sequence[Panel]


def page(title: str, subtitle: str, legend: Iterable[tuple[str | None, str]], rows: Sequence[Row]) -> str:
    """Returns an SVG document. ``legend``: colours (None: the baseline) and their meaning. All rows have equally many panels."""
    width = _LEFT + len(rows[0].panels) * (_WIDTH + _GAP)
    height = _TOP + len(rows) * _HEIGHT + (len(rows) - 1) * _BETWEEN + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">',
        f"<title>{title}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
        text(_LEFT, 28, title, "title"),
        text(_LEFT, 47, subtitle, "small"),
        *_legend(legend),
    ]
    for number, row in enumerate(rows):
        top = _TOP + number * (_HEIGHT + _BETWEEN)
        parts.append(text(_LEFT, top - 30, row.title, "row"))
        for column, panel in enumerate(row.panels):
            parts += _draw(_LEFT + column * (_WIDTH + _GAP), top, panel, row.scale, labelled=column == 0)
    return "\n".join([*parts, "</svg>", ""])


def _legend(names: Iterable[tuple[str | None, str]]) -> list[Markup]:
    parts, left = [], _LEFT
    for colour, name in names:
        parts += [*Line({}, colour).draw([(left, 68), (left + 26, 68)]), text(left + 34, 72, name)]
        left += 110
    return parts


def _draw(left: float, top: float, panel: Panel, scale: Scale, *, labelled: bool) -> list[Markup]:
    bottom = top + _HEIGHT
    y = scale.between(bottom, _HEIGHT)

    def x(figure: int) -> float:
        return left + (panel.below.index(figure) + 0.5) * _WIDTH / len(panel.below)

    parts = [text(left, top - 10, panel.title)]
    for tick in scale.ticks:
        parts.append(rule(left, y(tick), _WIDTH))
        if labelled:
            parts.append(text(left - 8, y(tick) + 4, f"{tick:,.10g}", anchor="end"))
    parts.append(rule(left, bottom, _WIDTH, "axis"))
    parts += [text(x(figure), bottom + 17, f"{figure:,}", anchor="middle") for figure in panel.below]
    parts.append(text(left + _WIDTH / 2, bottom + 33, panel.unit, "small", anchor="middle"))
    for line in panel.lines:
        parts += line.draw([(x(below), y(figure)) for below, figure in sorted(line.figures.items())])
    return parts
