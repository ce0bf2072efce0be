"""Draws SVG without a library: scales, and the shapes in the pictures of the harness and the benchmarks.

Each shape is Markup, so its text is escaped. The page or document around the shapes styles them by CSS classes.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

#: Maps a figure to its position on a picture, in the picture's units.
Place = Callable[[float], float]
Point = tuple[float, float]

_DECADES_IN_STEPS = 2


@dataclass(frozen=True, slots=True)
class Scale:
    """A scale. ``place`` returns 0 for the bottom of a panel and 1 for its top; ``ticks`` are the figures with a grid line."""

    place: Callable[[float], float]
    ticks: Sequence[float]

    def between(self, bottom: float, height: float) -> Place:
        return lambda figure: bottom - self.place(figure) * height


def logarithmic(figures: Iterable[float], leading: Sequence[int] | None = None) -> Scale:
    """Returns a scale from and to a number whose first digit is one of ``leading``, with a tick at each such number between.

    By default the digits are 1, 2 and 5 for up to two decades, and 1 for more. Needs at least one figure, all above 0.
    """
    known = list(figures)
    low, high = math.log10(min(known)), math.log10(max(known))
    leading = leading or ((1, 2, 5) if high - low <= _DECADES_IN_STEPS else (1,))
    steps = sorted(first * 10.0**power for power in range(math.floor(low) - 1, math.ceil(high) + 2) for first in leading)
    below = max(step for step in steps if step <= min(known))
    above = min(step for step in steps if step >= max(known) and step > below)
    span = math.log10(above / below)
    return Scale(lambda figure: math.log10(figure / below) / span, [step for step in steps if below <= step <= above])


def text(x: float, y: float, words: str, name: str = "", anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(name, x, y, anchor, words)


def rule(x: float, y: float, width: float, name: str = "grid") -> Markup:
    """Returns a horizontal line."""
    return Markup('<path class="{}" d="M{:g} {:.1f}h{:g}"/>').format(name, x, y, width)


def path(name: str, d: str) -> Markup:
    """Returns a path element; empty if the path ``d`` is empty."""
    return Markup('<path class="{}" d="{}"/>').format(name, d) if d else Markup("")


def polyline(name: str, points: Sequence[Point], colour: str = "none") -> Markup:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<polyline class="{}" style="stroke: {}" points="{}"/>').format(name, colour, joined)


def dot(point: Point, colour: str) -> Markup:
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"/>').format(*point, colour)


def steps(figures: Sequence[float | None], x: Place, y: Place) -> str:
    """Returns the path of a line at figure ``n`` from ``x(n)`` to ``x(n + 1)``, with gaps where a figure is None."""
    drawn = []
    for start, run in _runs(figures):
        drawn.append(f"M{x(start):.1f} {y(run[0][0]):.1f}")
        drawn += [f"V{y(figure):.1f}H{x(at + 1):.1f}" for at, (figure,) in enumerate(run, start)]
    return "".join(drawn)


def areas(low: Sequence[float | None], high: Sequence[float | None], x: Place, y: Place) -> str:
    """Returns the path around the area between two such lines."""
    drawn = []
    for start, run in _runs(low, high):
        drawn.append(f"M{x(start):.1f} {y(run[0][0]):.1f}")
        drawn += [f"V{y(above):.1f}H{x(at + 1):.1f}" for at, (_, above) in enumerate(run, start)]
        drawn += [f"V{y(below):.1f}H{x(at):.1f}" for at, (below, _) in reversed(list(enumerate(run, start)))]
        drawn.append("Z")
    return "".join(drawn)


def _runs(*columns: Sequence[float | None]) -> Iterator[tuple[int, list[tuple[float, ...]]]]:
    """Yields, for each stretch in which all columns have figures, the number of its first row, and its rows."""
    run: list[tuple[float, ...]] = []
    for at, row in enumerate([*zip(*columns, strict=True), (None,)]):
        known = tuple(figure for figure in row if figure is not None)
        if len(known) == len(row):
            run.append(known)
        elif run:
            yield at - len(run), run
            run = []
