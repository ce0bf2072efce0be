"""Effect sizes: how far apart two samples of times are. Unlike significance, they do not grow with the number of samples.

Cohen's d compares means, so a few slow requests weigh heavily. Cliff's delta compares every time of one sample with every time of
the other, and counts only which is larger. Both are 0 for samples that cannot be told apart. Intervals are 95 % confidence
intervals by the normal approximation, for which hundreds of samples suffice. Samples count as independent.
"""

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import msgspec

#: The standard deviations on either side of the mean that contain 95 % of a normal distribution.
_DEVIATIONS = statistics.NormalDist().inv_cdf(0.975)


class Effect(msgspec.Struct, frozen=True):
    """An effect size and its 95 % confidence interval."""

    size: float
    low: float
    high: float

    def within(self, bound: float) -> bool:
        """Returns whether the interval overlaps the one from -bound to bound."""
        return self.low <= bound and self.high >= -bound


def cohens_d(one: Sequence[float], other: Sequence[float]) -> Effect:
    """Returns the difference of the means in pooled standard deviations; above 0 if ``one`` has the larger mean.

    The standard error is that of Hedges and Olkin. Needs at least two samples of each.
    """
    n, m = len(one), len(other)
    pooled = ((n - 1) * statistics.variance(one) + (m - 1) * statistics.variance(other)) / (n + m - 2)
    difference = statistics.fmean(one) - statistics.fmean(other)
    d = difference / math.sqrt(pooled) if pooled else math.copysign(math.inf, difference) if difference else 0.0
    return _effect(d, math.sqrt((n + m) / (n * m) + d * d / (2 * (n + m))))


def cliffs_delta(one: Sequence[float], other: Sequence[float]) -> Effect:
    """Returns the probability that a time of ``one`` is larger than one of ``other``, less that it is smaller: from -1 to 1.

    (1 + delta) / 2 is the common-language effect size, the area under the ROC curve: how often a guess from two times which is
    which would be right. The standard error is DeLong's for that area. Needs at least two samples of each.
    """
    above, below = list(_placements(one, other)), list(_placements(other, one))
    delta = statistics.fmean(above)
    return _effect(delta, math.sqrt(statistics.variance(above) / len(one) + statistics.variance(below) / len(other)))


def _placements(times: Sequence[float], among: Sequence[float]) -> Iterator[float]:
    """Yields, for each time, the share of ``among`` that is smaller, less the share that is larger."""
    ordered = sorted(among)
    for time in times:
        yield (bisect_left(ordered, time) + bisect_right(ordered, time)) / len(ordered) - 1


def _effect(size: float, error: float) -> Effect:
    return Effect(size, size - _DEVIATIONS * error, size + _DEVIATIONS * error)
