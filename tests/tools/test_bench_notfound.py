"""The benchmark of "not found": effect sizes compared with independently computed figures, and which pairs are judged."""

import itertools
import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.effects import Effect, cliffs_delta, cohens_d
from bench.notfound import NEGLIGIBLE, SHAPES, Kind, NotFoundReport, Pair, Row

samples = st.lists(st.integers(0, 20).map(float), min_size=2, max_size=30)


@given(samples, samples)
def test_cliffs_delta_is_what_comparing_all_pairs_gives(one: list[float], other: list[float]) -> None:
    pairs = [(a > b) - (a < b) for a, b in itertools.product(one, other)]
    effect = cliffs_delta(one, other)
    assert effect.size == pytest.approx(statistics.fmean(pairs))
    assert effect.low <= effect.size <= effect.high
    assert cliffs_delta(other, one).size == pytest.approx(-effect.size)


def test_an_interval_of_cliffs_delta_is_as_wide_as_delta_varies() -> None:
    """Compared with the standard deviation over many draws. The draws have long tails, as request times do."""
    chance = random.Random(1)
    draws = [
        cliffs_delta([chance.lognormvariate(0.2, 1) for _ in range(60)], [chance.lognormvariate(0, 1) for _ in range(40)])
        for _ in range(400)
    ]
    width = statistics.fmean((draw.high - draw.low) / 2 for draw in draws)
    assert width == pytest.approx(1.96 * statistics.stdev(draw.size for draw in draws), rel=0.15)


def test_cohens_d_is_in_standard_deviations() -> None:
    # Computed by hand: means 3 and 5, variances 2.5 and 2.5, so d = -2 / sqrt(2.5).
    effect = cohens_d([1, 2, 3, 4, 5], [3, 4, 5, 6, 7])
    assert effect.size == pytest.approx(-2 / math.sqrt(2.5))
    error = math.sqrt(10 / 25 + effect.size**2 / 20)
    assert (effect.size - effect.low, effect.high - effect.size) == pytest.approx((1.96 * error, 1.96 * error), rel=1e-4)


def test_times_that_do_not_vary_are_no_error() -> None:
    assert (cohens_d([1, 1], [1, 1]).size, cohens_d([2, 2], [1, 1]).size) == (0, math.inf)
    assert (cliffs_delta([1, 1], [1, 1]), cliffs_delta([2, 2], [1, 1])) == (Effect(0, 0, 0), Effect(1, 1, 1))


def report(delta: Effect) -> NotFoundReport:
    """A report in which "another's" and "never issued" differ by ``delta``, and all other pairs differ much."""
    rows = [Row(shape.batch, kind, 20_000, 1.5, 2.5, 12.25) for shape in SHAPES for kind in Kind]
    far = Effect(0.9, 0.8, 1.0)
    pairs = [
        Pair(shape.batch, both, far, delta if both == (Kind.ANOTHERS, Kind.NEVER_ISSUED) else far)
        for shape in SHAPES
        for both in itertools.combinations(Kind, 2)
    ]
    return NotFoundReport("2026-01-01", "a machine", "notfound", 7, 20_000, rows, pairs)


@pytest.mark.parametrize(
    ("delta", "held"),
    [
        (Effect(0.0, -0.01, 0.01), True),
        (Effect(0.3, 0.1, 0.5), True),
        (Effect(0.3, NEGLIGIBLE + 0.01, 0.5), False),
        (Effect(-0.3, -0.5, -NEGLIGIBLE - 0.01), False),
    ],
)
def test_only_what_would_tell_of_other_owners_is_judged(delta: Effect, held: bool) -> None:
    account = report(delta).account()
    assert account.holds is held
    assert len(account.checks) == len(SHAPES)
    assert account.sentences == [
        "Measured on 2026-01-01 on a machine. Plan notfound: 20,000 requests of each kind and shape, seed 7."
    ]
