"""The checkers say no to histories that are wrong, each for its reason, and yes to some that only look so."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from chaos import checkers
from chaos.checkers import Violation, check
from chaos.history import Action, Complete, History, Invoke, Outcome

BAD = sorted((Path(__file__).parents[1] / "histories" / "bad").glob("*.json"))
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


def test_what_rotted_may_stay_unavailable() -> None:
    asked = Invoke(0, Action.DETOKENIZE, "acme", "n1", (TOKEN,), final=True)
    history = History([asked, ok(0, "unavailable")], excused=frozenset({("acme", TOKEN)}))
    check(history)
    with pytest.raises(Violation, match="unanswered"):
        check(msgspec.structs.replace(history, excused=frozenset()))
