"""Two checkers that share no code agree on histories, right and wrong."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.testbed.checkers import check
from chaos.testbed.history import Action, Complete, History, Invoke, Outcome
from chaos.testbed.linearizability import NotLinearizable, Step, Undecided, require_linearizable, search
from chaos.testbed.violation import Violation
from tests.simulation import legal
from tests.simulation.legal import Vault
from tests.simulation.test_checkers import BAD, GOOD, WRONG, load

#: Rules about anything but the order of operations on one epoch or one token.
OTHER_RULES = frozenset({"isolation", "unanswered", "epoch of token", "false collision", "revoked key", "key refused"})
#: Bad histories that show only when several tokens of one owner are compared.
ACROSS = frozenset({"more-tokens-than-values", "one-token-for-two-values"})


def is_linearizable(history: History) -> bool:
    try:
        require_linearizable(history)
    except NotLinearizable:
        return False
    return True


@pytest.mark.parametrize("path", [path for path in BAD if load(path).breaks not in OTHER_RULES], ids=lambda path: path.stem)
def test_a_bad_history_has_no_order_that_explains_it(path: Path) -> None:
    assert is_linearizable(load(path)) == (path.stem in ACROSS)


def broken_rule(history: History) -> str | None:
    try:
        check(history)
    except Violation as found:
        return found.rule
    return None


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_history_has_one(path: Path) -> None:
    require_linearizable(load(path))


@given(st.randoms(use_true_random=False), st.booleans())
def test_whatever_clients_of_a_right_vault_see_has_one(rng: Random, narrow: bool) -> None:
    require_linearizable(legal.history(Vault(narrow, rng), rng))


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_both_think_the_same_of_what_clients_of_a_wrong_vault_see(wrong: type[Vault]) -> None:
    noticed = 0
    for seed in range(60):
        rng = Random(seed)
        history = legal.history(wrong(False, rng), rng)
        rule = broken_rule(history)
        if rule not in OTHER_RULES:
            assert is_linearizable(history) == (rule is None), f"seed {seed}: {rule}"
            noticed += rule is not None
    # Overwrites is wrong only with narrow tokens, and only the first checker tells their values apart.
    assert noticed or wrong.__name__ in ("ForgetsOwners", "Overwrites")


def test_an_operation_is_named_that_nothing_explains() -> None:
    token = "qv_1_aa"
    events: list[Invoke | Complete] = [
        Invoke(0, Action.TOKENIZE, "acme", "n1", ("=a",)),
        Invoke(1, Action.DETOKENIZE, "acme", "n2", (token,)),
        Complete(0, Outcome.OK, (token,), epoch=1),
        Invoke(2, Action.DETOKENIZE, "acme", "n3", (token,)),
        Complete(1, Outcome.OK, ("not_found",)),
        Complete(2, Outcome.OK, ("not_found",)),
    ]
    with pytest.raises(NotLinearizable, match="qv_1_aa of acme: no order of the operations explains what operation 2 ") as found:
        require_linearizable(History(events))
    assert found.value.op == 2


def test_a_search_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten operations on a set at once, and a read of a state that none of them leaves: each subset of them is a state."""
    monkeypatch.setattr("chaos.testbed.linearizability._MOST_STEPS", 1000)

    def adds(number: int) -> Step[frozenset[int]]:
        return Step(number, number, 100, lambda held: held | {number})

    steps = [adds(number) for number in range(10)]
    reads: Step[frozenset[int]] = Step(10, 10, 99, lambda held: held if len(held) == 11 else None)
    with pytest.raises(Undecided, match="more than 1,000 steps"):
        search("a set", [*steps, reads], frozenset())
