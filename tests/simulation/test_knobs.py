"""Seeds turn knobs, and runs turn them back."""

from collections import Counter
from dataclasses import fields

from quorumvault.protocol import operations, revocations
from quorumvault.server.replica import revoked_keys
from tests.simulation.knobs import USUAL, KeyBounds, Knobs, draw

SEEDS = range(1, 121)


def test_every_knob_is_turned_by_some_seeds_and_none_by_every_third() -> None:
    turned = Counter(words.split()[0] for seed in SEEDS for words in draw(seed).words())
    assert {name.partition(".")[0] for name in turned} == {each.name for each in fields(Knobs)}
    assert min(turned.values()) > 5
    assert max(turned.values()) < len(SEEDS) / 2
    assert all((draw(seed) == USUAL) == (seed % 3 == 0) for seed in SEEDS)
    assert draw(7) == draw(7)


def test_constants_are_turned_for_a_run_and_back_after_it() -> None:
    most = revoked_keys._MOST_COPIED
    with Knobs(part_items=1, keys=KeyBounds(3, 6, 6)).turned():
        assert (operations.PART_ITEMS, revocations.MOST_REVOKED, revoked_keys._MOST_COPIED) == (1, 6, 18)
    assert (4_096, 50_000, most) == (operations.PART_ITEMS, revocations.MOST_REVOKED, revoked_keys._MOST_COPIED)
