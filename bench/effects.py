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

#: Standard deviations on either side of the mean that hold 95 % of a normal distribution.
_DEVIATIONS = statistics.NormalDist().inv_cdf(0.975)


class Effect(msgspec.Struct, frozen=True):
    """An effect size and the interval in which it lies, 95 times in 100."""

    size: float
    low: float
    high: float

    def within(self, bound: float) -> bool:
        """True if the interval meets the one from -bound to bound."""
        return self.low <= bound and self.high >= -bound


def cohens_d(one: Sequence[float], other: Sequence[float]) -> Effect:
    """The difference of the means, in standard deviations (pooled); above 0 if ``one`` has the larger mean.

    The standard error is that of Hedges and Olkin. Needs two samples of each at least.
    """
    n, m = len(one), len(other)
    pooled = ((n - 1) * statistics.variance(one) + (m - 1) * statistics.variance(other)) / (n + m - 2)
    difference = statistics.fmean(one) - statistics.fmean(other)
    d = difference / math.sqrt(pooled) if pooled else math.copysign(math.inf, difference) if difference else 0.0
    return _effect(d, math.sqrt((n + m) / (n * m) + d * d / (2 * (n + m))))


def cliffs_delta(one: Sequence[float], other: Sequence[float]) -> Effect:
    """Returns how much likelier a time of ``one`` is to be larger than one of ``other`` than smaller: from -1 to 1.

    (1 + delta) / 2 is the common-language effect size, the area under the ROC curve: how often somebody is right who guesses
    from two times which is which. The standard error is DeLong's for that area. Needs two samples of each at least.
    """
    above, below = list(_placements(one, other)), list(_placements(other, one))
    delta = statistics.fmean(above)
    return _effect(delta, math.sqrt(statistics.variance(above) / len(one) + statistics.variance(below) / len(other)))


def _placements(times: Sequence[float], among: Sequence[float]) -> Iterator[float]:
    """Yields for each time the share of ``among`` that is smaller, less the share that is larger."""
    ordered = sorted(among)
    for time in times:
        yield (bisect_left(ordered, time) + bisect_right(ordered, time)) / len(ordered) - 1


def _effect(size: float, error: float) -> Effect:
    return Effect(size, size - _DEVIATIONS * error, size + _DEVIATIONS * error)
