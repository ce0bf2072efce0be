"""The checkers reject wrong histories, each for its reason, and accept some that only look wrong."""

import re
from collections.abc import Mapping
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.testbed import checkers, key_checker
from chaos.testbed.checkers import check
from chaos.testbed.history import Action, Complete, History, Invoke, Outcome
from chaos.testbed.violation import Violation
from tests import ROOT
from tests.simulation import legal
from tests.simulation.legal import Vault

BAD, GOOD = (sorted((ROOT / "tests" / "histories" / folder).glob("*.json")) for folder in ("bad", "good"))
TOKEN = "qv_1_aa"


def load(path: Path) -> History:
    return msgspec.json.decode(path.read_bytes(), type=History)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_history_is_refused_for_its_reason(path: Path) -> None:
    history = load(path)
    with pytest.raises(Violation) as refused:
        check(history)
    assert refused.value.rule == history.breaks


def test_every_rule_has_a_bad_history() -> None:
    sources = [Path(str(module.__file__)).read_text() for module in (checkers, key_checker)]
    rules = {rule for source in sources for rule in re.findall(r'Violation\("([^"]+)"', source)}
    assert rules | {"fence", "max-register", "isolation", "value from nowhere"} == {load(path).breaks for path in BAD}


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_history_passes(path: Path) -> None:
    check(load(path))


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
    """Now and then gives another token."""

    def token(self, owner: str, epoch: int, value: str) -> str:
        return super().token(owner, epoch, value) + "x" * (self.rng.random() < 0.1)


class MixesUp(Vault):
    """Now and then reads another value; retokenize then moves that value."""

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
    history = History([asked, Complete(0, Outcome.OK, ("unavailable",))], excused=frozenset({("acme", TOKEN)}))
    check(history)
    with pytest.raises(Violation, match="unanswered"):
        check(msgspec.structs.replace(history, excused=frozenset()))
