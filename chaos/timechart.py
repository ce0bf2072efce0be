"""A run as an SVG picture: everything that has a time, stacked above one time axis.

    faults        a named bar for each fault, in as many lanes as needed; each bar shades everything below it
    tokenize      latency of answered requests, by bucket: median and 99th percentile (logarithmic);
                  and requests a second: sent, and answered
    …             the same for each operation, on the same latency scale
    through n1    the share of requests through that node that were answered

Colours are CSS classes of the page's style sheet, so that they follow its theme.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from chaos.summary import FaultSeen, Series, Summary, Through
from chaos.testbed import draw
from chaos.testbed.draw import Scale, areas, path, text

_LEFT, _WIDTH, _RIGHT = 132.0, 1060.0, 18.0
_LANE, _LATENCY, _RATE, _SHARE = 17.0, 84.0, 34.0, 26.0
_BETWEEN, _INSIDE, _TOP, _AXIS = 20.0, 12.0, 22.0, 24.0
#: The left edge of panel names.
_NAME = 4.0
#: The largest width of a letter, and the most faults whose labels have more than a number.
_LETTER, _NAMED = 6.3, 40
_TICK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_TICKS = 14
_MINUTE = 60
#: The latency scale of a run without answers: from 1 ms to 1 s.
_USUAL_LATENCIES = (0.001, 1.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """The time axis: ``seconds`` in ``buckets`` over the width of the picture."""

    bucket: float
    buckets: int

    @property
    def seconds(self) -> float:
        return self.bucket * max(self.buckets, 1)

    def x(self, at: float) -> float:
        return _LEFT + min(max(at / self.seconds, 0.0), 1.0) * _WIDTH

    def edge(self, bucket: float) -> float:
        """Returns the position at which a bucket begins."""
        return self.x(bucket * self.bucket)

    @property
    def ticks(self) -> list[float]:
        step = next((step for step in _TICK_STEPS if self.seconds / step <= _TICKS), _TICK_STEPS[-1])
        return [float(at) for at in range(0, math.floor(self.seconds) + 1, step)]


@dataclass(frozen=True, slots=True)
class Bar:
    """A fault in its lane. ``label`` begins at the bar's left end, or ends at the picture's right end."""

    fault: FaultSeen
    lane: int
    label: str


def chart(summary: Summary) -> Markup:
    """Returns the picture of a run as an ``svg`` element."""
    axis = Axis(summary.bucket_seconds, _buckets(summary))
    bars = lanes(summary.faults, axis)
    top = _TOP + _LANE * (1 + max((bar.lane for bar in bars), default=0)) + _BETWEEN
    parts, bottom = _panels(summary, axis, top)
    marks = [_bar(bar, axis, bottom) for bar in bars]
    height = bottom + _AXIS
    return Markup("").join(
        [
            Markup(
                '<svg class="timechart" role="img" aria-labelledby="timechart-title timechart-text" viewBox="0 0 {:g} {:g}">'
            ).format(_LEFT + _WIDTH + _RIGHT, height),
            Markup('<title id="timechart-title">Latency, throughput and availability over time</title>'),
            Markup('<desc id="timechart-text">{}</desc>').format(_described(summary)),
            text(_NAME, _TOP + 12, "faults", "name"),
            *marks,
            *parts,
            *_time_axis(axis, _TOP, bottom),
            Markup("</svg>"),
        ]
    )


def lanes(faults: Sequence[FaultSeen], axis: Axis) -> list[Bar]:
    """Returns each fault in the first lane with room for its bar and its label."""
    ends: list[float] = []
    bars = []
    for fault in faults:
        label = f"{fault.number} {fault.kind} {' '.join(fault.nodes)}".rstrip() if len(faults) <= _NAMED else str(fault.number)
        begins = min(axis.x(fault.began), _LEFT + _WIDTH - _LETTER * len(label))
        lane = next((lane for lane, end in enumerate(ends) if end < begins), len(ends))
        ends[lane:] = [max(axis.x(fault.ended), begins + _LETTER * len(label)) + _INSIDE, *ends[lane + 1 :]]
        bars.append(Bar(fault, lane, label))
    return bars


def clock(at: float) -> str:
    """Returns a time of the run as text, in seconds or in minutes and seconds."""
    return f"{at:g} s" if at < _MINUTE else f"{int(at) // _MINUTE}:{int(at) % _MINUTE:02}"


def _buckets(summary: Summary) -> int:
    lengths = [len(series.asked) for series in summary.series.values()]
    lengths += [len(through.asked) for through in summary.availability.values()]
    return max([*lengths, math.ceil(max((fault.ended for fault in summary.faults), default=0.0) / summary.bucket_seconds)])


def _described(summary: Summary) -> str:
    faults = "; ".join(f"{fault.kind} from {fault.began:.0f} to {fault.ended:.0f} s" for fault in summary.faults)
    return f"Faults: {faults or 'none'}. The figures are in the tables below the picture."


def _panels(summary: Summary, axis: Axis, top: float) -> tuple[list[Markup], float]:
    """Returns all panels, and the position at which the last one ends."""
    parts: list[Markup] = []
    figures = [figure for series in summary.series.values() for figure in (*series.p50, *series.p99) if figure]
    scale = draw.logarithmic(figures or _USUAL_LATENCIES, leading=(1,))
    for action, series in sorted(summary.series.items(), key=lambda pair: -sum(pair[1].asked)):
        parts += _latency(action, series, axis, top, scale)
        parts += _rate(series, axis, top + _LATENCY + _INSIDE)
        top += _LATENCY + _INSIDE + _RATE + _BETWEEN
    for node, through in sorted(summary.availability.items()):
        parts += _share(node, through, axis, top)
        for left in summary.exits:
            if left.node == node:
                words = f"{left.at:.1f} s: {node} ended with exit code {left.code}: {left.words}"
                parts.append(_exit_mark(axis.x(left.at), top, words))
        top += _SHARE + _INSIDE
    return parts, top


def _latency(action: str, series: Series, axis: Axis, top: float, scale: Scale) -> Iterator[Markup]:
    y = scale.between(top + _LATENCY, _LATENCY)
    yield text(_NAME, top + 13, action, "name")
    for tick in scale.ticks:
        yield draw.rule(_LEFT, y(tick), _WIDTH)
        yield text(_LEFT - 8, y(tick) + 4, _duration(tick), "tick", "end")
    # A latency of 0 is drawn as a gap, since a logarithmic scale has no 0.
    p50, p99 = ([figure or None for figure in figures] for figures in (series.p50, series.p99))
    yield path("band", areas(p50, p99, axis.edge, y))
    yield path("p99", draw.steps(p99, axis.edge, y))
    yield path("p50", draw.steps(p50, axis.edge, y))


def _rate(series: Series, axis: Axis, top: float) -> Iterator[Markup]:
    asked, ok = ([count / axis.bucket for count in counts] for counts in (series.asked, series.ok))
    most = max([*asked, 1 / axis.bucket])
    yield from _answered(asked, ok, axis, top + _RATE, _RATE / most)
    yield text(_LEFT - 8, top + 9, f"{most:.3g}/s", "tick", "end")
    yield text(_LEFT - 8, top + _RATE + 3, "0", "tick", "end")


def _share(node: str, through: Through, axis: Axis, top: float) -> Iterator[Markup]:
    shares = [ok / asked if asked else None for asked, ok in zip(through.asked, through.ok, strict=True)]
    yield text(_NAME, top + 17, f"through {node}", "name")
    yield from _answered([share if share is None else 1.0 for share in shares], shares, axis, top + _SHARE, _SHARE)


def _answered(
    asked: Sequence[float | None], ok: Sequence[float | None], axis: Axis, bottom: float, unit: float
) -> Iterator[Markup]:
    """Draws answered requests over sent ones, so that the rest shows as lost. ``unit``: the height of 1."""
    zeros = [0.0] * len(asked)
    for name, figures in (("lost", asked), ("answered", ok)):
        yield path(name, areas(zeros, figures, axis.edge, lambda figure: bottom - figure * unit))
    yield draw.rule(_LEFT, bottom, _WIDTH, "axis")


def _bar(bar: Bar, axis: Axis, bottom: float) -> Markup:
    """Returns the bar, its label, and its shade over all panels."""
    fault = bar.fault
    left, top = axis.x(fault.began), _TOP + bar.lane * _LANE
    width = max(axis.x(fault.ended) - left, 2.0)
    right = left + _LETTER * len(bar.label) > _LEFT + _WIDTH
    return Markup(
        '<g class="fault"><title>{} {}, {:.1f} to {:.1f} s: {}</title>'
        '<rect class="shade" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
        '<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:g}" rx="2"/>{}</g>'
    ).format(
        fault.number, fault.kind, fault.began, fault.ended, fault.words,
        left, top, width, bottom - top,
        left, top, width, _LANE - 3,
        text(_LEFT + _WIDTH if right else left + 4, top + 11, bar.label, "label", "end" if right else "start"),
    )  # fmt: skip


def _exit_mark(x: float, top: float, words: str) -> Markup:
    return Markup('<path class="exit" d="M{:.1f} {:.1f}l-5 -8h10z"><title>{}</title></path>').format(x, top + 8, words)


def _time_axis(axis: Axis, top: float, bottom: float) -> Iterator[Markup]:
    for at in axis.ticks:
        yield Markup('<path class="grid" d="M{0:.1f} {1:.1f}V{2:.1f}"/>').format(axis.x(at), top, bottom)
        yield text(axis.x(at), bottom + 16, clock(at), "tick", "middle")
        yield text(axis.x(at), top - 8, clock(at), "tick", "middle")


def _duration(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1e3:g} ms"
