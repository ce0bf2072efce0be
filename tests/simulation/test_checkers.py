"""The checkers say no to histories that are wrong, each for its reason, and yes to some that only look so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.testbed import checkers
from chaos.testbed.checkers import Violation, check
from chaos.testbed.history import Action, Complete, History, Invoke, Outcome
from tests import ROOT
from tests.simulation import legal
from tests.simulation.legal import Vault

BAD = sorted((ROOT / "tests" / "histories" / "bad").glob("*.json"))
TOKEN, OTHER = "qv_1_aa", "qv_1_bb"


def load(path: Path) -> History:
    return msgspec.json.decode(path.read_bytes(), type=History)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_history_is_refused_for_its_reason(path: Path) -> None:
    history = load(path)
    with pytest.raises(Violation) as refused:
        check(history)
    assert refused.value.rule == history.breaks


def test_every_rule_has_a_bad_history() -> None:
    rules = set(re.findall(r'Violation\("([^"]+)"', Path(checkers.__file__).read_text()))
    assert rules | {"fence", "max-register", "isolation", "value from nowhere"} == {load(path).breaks for path in BAD}


def invoke(op: int, action: Action, *given: str, epoch: int = 0, owner: str = "acme") -> Invoke:
    return Invoke(op, action, owner, "n1", given, epoch)


def ok(op: int, *answers: str | None, epoch: int = 0) -> Complete:
    return Complete(op, Outcome.OK, answers, epoch)


def unknown(op: int) -> Complete:
    return Complete(op, Outcome.UNKNOWN)


def ahead(op: int, active: int) -> Complete:
    return Complete(op, Outcome.FAIL, epoch=active, why="epoch-ahead")


GOOD: dict[str, list[Invoke | Complete]] = {
    "a value seen while it is written, after a read that did not see it": [
        invoke(0, Action.TOKENIZE, "=a"),
        invoke(1, Action.DETOKENIZE, TOKEN),
        ok(1, "not_found"),
        invoke(2, Action.DETOKENIZE, TOKEN),
        ok(2, "=a"),
        ok(0, TOKEN, epoch=1),
    ],
    "not found, by a read that began before the value was issued": [
        invoke(0, Action.DETOKENIZE, TOKEN),
        invoke(1, Action.TOKENIZE, "=a"),
        ok(1, TOKEN, epoch=1),
        ok(0, "not_found"),
    ],
    "a write that nobody heard of takes effect late": [
        invoke(0, Action.TOKENIZE, "=a"),
        unknown(0),
        invoke(1, Action.DETOKENIZE, TOKEN),
        ok(1, "not_found"),
        invoke(2, Action.DETOKENIZE, TOKEN),
        ok(2, "=a"),
    ],
    "a rotate that nobody heard of takes effect late, or never": [
        invoke(0, Action.ROTATE, epoch=1),
        unknown(0),
        invoke(1, Action.EPOCH),
        ok(1, epoch=1),
        invoke(2, Action.TOKENIZE, "=a"),
        ok(2, "qv_2_aa", epoch=2),
    ],
    "a token of the old epoch, by a call that began before the rotate returned": [
        invoke(0, Action.ROTATE, epoch=1),
        invoke(1, Action.TOKENIZE, "=a"),
        ok(0, epoch=2),
        ok(1, TOKEN, epoch=1),
    ],
    "two owners, one value, two tokens, two epochs": [
        invoke(0, Action.ROTATE, epoch=1),
        ok(0, epoch=2),
        invoke(1, Action.TOKENIZE, "=a"),
        ok(1, "qv_2_aa", epoch=2),
        invoke(2, Action.TOKENIZE, "=a", owner="zeta"),
        ok(2, OTHER, epoch=1),
        invoke(3, Action.DETOKENIZE, "qv_2_aa", owner="zeta"),
        ok(3, "not_found"),
    ],
    "a rotate that nobody heard of opens its epoch once the one before is open": [
        invoke(0, Action.ROTATE, epoch=2),
        unknown(0),
        invoke(1, Action.ROTATE, epoch=1),
        ok(1, epoch=3),
    ],
    "a rotate is refused while the one before it is under way": [
        invoke(0, Action.ROTATE, epoch=1),
        invoke(1, Action.ROTATE, epoch=2),
        ok(0, epoch=2),
        ahead(1, active=1),
    ],
    "a rotate failed, and another one opened its epoch": [
        invoke(0, Action.ROTATE, epoch=1),
        invoke(1, Action.ROTATE, epoch=1),
        ok(1, epoch=2),
        Complete(0, Outcome.FAIL),
    ],
    "a write failed, and another one of its value was read": [
        invoke(0, Action.TOKENIZE, "=a"),
        invoke(1, Action.TOKENIZE, "=a"),
        invoke(2, Action.DETOKENIZE, TOKEN),
        ok(2, "=a"),
        Complete(0, Outcome.FAIL),
    ],
    "tokens that nobody was told of are moved, from two epochs to one token, and read": [
        invoke(0, Action.TOKENIZE, "=a", "=b"),
        invoke(1, Action.ROTATE, epoch=1),
        ok(1, epoch=2),
        invoke(2, Action.RETOKENIZE, TOKEN, "qv_2_aa", OTHER),
        ok(2, "qv_2_aa", "qv_2_aa", "qv_2_bb", epoch=2),
        invoke(3, Action.DETOKENIZE, "qv_2_bb", TOKEN),
        ok(3, "=b", "=a"),
        invoke(4, Action.TOKENIZE, "=b", "=a"),
        ok(4, "qv_2_bb", "qv_2_aa", epoch=2),
    ],
    "moved to the epoch that was active when it began, while its token was rotated": [
        invoke(0, Action.RETOKENIZE, "qv_2_aa"),
        invoke(1, Action.ROTATE, epoch=1),
        ok(1, epoch=2),
        invoke(2, Action.TOKENIZE, "=a"),
        ok(2, "qv_2_aa", epoch=2),
        ok(0, TOKEN, epoch=1),
    ],
    "an answer that is not there is no word against what is": [
        invoke(0, Action.TOKENIZE, "=a"),
        ok(0, TOKEN, epoch=1),
        invoke(1, Action.DETOKENIZE, TOKEN),
        ok(1, "unavailable"),
        invoke(2, Action.DETOKENIZE, TOKEN),
        ok(2, "=a"),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_passes(name: str) -> None:
    check(History(GOOD[name]))


def test_a_read_that_began_before_two_values_met_may_show_one_of_them() -> None:
    events: list[Invoke | Complete] = [
        invoke(0, Action.TOKENIZE, "=a", "=b"),
        invoke(1, Action.DETOKENIZE, TOKEN),
        invoke(2, Action.DETOKENIZE, TOKEN),
        ok(2, "collision"),
        ok(1, "=a"),
    ]
    check(History(events, narrow=True))


@given(st.randoms(use_true_random=False), st.booleans())
def test_whatever_clients_of_a_right_vault_see_is_legal(rng: Random, narrow: bool) -> None:
    check(legal.history(Vault(narrow, rng), rng))


class Loses(Vault):
    def write(self, owner: str, epoch: int, value: str) -> str | None:
        token = super().write(owner, epoch, value)
        if self.rng.random() < 0.1:
            self.stored.pop((owner, token or ""), None)
        return token


class Overwrites(Vault):
    def write(self, owner: str, epoch: int, value: str) -> str | None:
        token = self.token(owner, epoch, value)
        self.stored[owner, token] = value
        return token


class ForgetsOwners(Vault):
    def token(self, owner: str, epoch: int, value: str) -> str:
        return super().token(legal.OWNERS[0], epoch, value)


class Guesses(Vault):
    """Another token now and then."""

    def token(self, owner: str, epoch: int, value: str) -> str:
        return super().token(owner, epoch, value) + "x" * (self.rng.random() < 0.1)


class MixesUp(Vault):
    """What is read is another value now and then, and so is what is moved."""

    def read(self, owner: str, token: str) -> str:
        found = super().read(owner, token)
        return self.rng.choice(legal.VALUES) if found.startswith("=") and self.rng.random() < 0.3 else found


class Leaps(Vault):
    def rotate(self, owner: str, epoch: int) -> int:
        self.epochs[owner] += 2 * (self.epochs[owner] == epoch)
        return self.epochs[owner]


class RotatesFromAnywhere(Vault):
    def rotate(self, owner: str, epoch: int) -> int:
        self.epochs[owner] = max(self.epochs[owner], epoch + 1)
        return self.epochs[owner]


class FallsBack(Vault):
    def rotate(self, owner: str, epoch: int) -> int:
        active = super().rotate(owner, epoch)
        self.epochs[owner] -= self.rng.random() < 0.1
        return active


class RefusesRotates(Vault):
    def rotate(self, owner: str, epoch: int) -> int:
        return epoch - 1 if self.rng.random() < 0.2 else super().rotate(owner, epoch)


WRONG: Mapping[type[Vault], str] = {
    Loses: "lost",
    Overwrites: "write-once",
    ForgetsOwners: "isolation",
    Guesses: "deterministic",
    MixesUp: "write-once",
    Leaps: "epoch from nowhere",
    RotatesFromAnywhere: "epoch from nowhere",
    FallsBack: "max-register",
    RefusesRotates: "false epoch-ahead",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_what_clients_of_a_wrong_vault_see_is_noticed(wrong: type[Vault]) -> None:
    rules = set()
    for seed in range(60):
        rng = Random(seed)
        try:
            check(legal.history(wrong(wrong is Overwrites, rng), rng))
        except Violation as found:
            rules.add(found.rule)
    assert WRONG[wrong] in rules


def test_what_rotted_may_stay_unavailable() -> None:
    asked = Invoke(0, Action.DETOKENIZE, "acme", "n1", (TOKEN,), final=True)
    history = History([asked, ok(0, "unavailable")], excused=frozenset({("acme", TOKEN)}))
    check(history)
    with pytest.raises(Violation, match="unanswered"):
        check(msgspec.structs.replace(history, excused=frozenset()))
