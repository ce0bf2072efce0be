"""Reading a node's answer to the letter of the contract: an operation's outcome is known, unknown, or a breach."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.asking import Breach, Names, Told, body_of, name_of, told, value_of
from chaos.testbed.history import KEY_ACTIONS, Action, Outcome
from chaos.testbed.spelling import Speller
from chaos.workload import OWNERS, Asked, Known, draw, misspelled
from quorumvault.crypto.tokens import is_token
from tests import ROOT

VECTORS = json.loads((ROOT / "tests" / "vectors" / "tokens.json").read_bytes())["vectors"]
SPELLER = Speller(bytes(32))
TOKEN, OTHER = SPELLER.token("acme", 3, "=a"), SPELLER.token("acme", 4, "=a")


def answer(action: Action, count: int, status: int, body: object, names: Names | None = None) -> Told:
    return told(action, count, status, json.dumps(body).encode(), names or Names(SPELLER))


def problem(code: str, **more: str) -> dict[str, str]:
    return {"type": "about:blank", "title": "a title", "code": code, **more}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['owner']}-{vector['epoch']}-{vector['json'][:20]}")
def test_tokens_are_spelled_by_their_specification(vector: dict[str, Any]) -> None:
    speller = Speller(bytes.fromhex(vector["master_secret"]))
    assert speller.token(vector["owner"], vector["epoch"], json.loads(vector["json"])) == vector["token"]


@given(st.one_of(st.text().map(lambda text: "=" + text).filter(lambda text: text[1:2] not in "#?"), st.integers(), st.booleans()))
def test_a_value_is_told_by_its_name_with_its_type(value: str | int | bool) -> None:
    back = value_of(name_of(value))
    assert (back, type(back)) == (value, type(value))


def test_tokens_have_short_names_that_show_the_epoch() -> None:
    names = Names(SPELLER)
    assert [names.name(token) for token in (TOKEN, OTHER, TOKEN)] == ["qv_3_0", "qv_4_1", "qv_3_0"]
    assert (names.table(), names.token("qv_4_1")) == ([("qv_3_0", TOKEN), ("qv_4_1", OTHER)], OTHER)


@pytest.mark.parametrize(
    "text", ["", "qv_1_", "qv_0_" + "a" * 48, "qv_01_" + "a" * 48, "QV_1_" + "a" * 48, "qv_1_" + "a" * 60, "x"]
)
def test_what_is_no_token_has_no_name(text: str) -> None:
    with pytest.raises(Breach, match="no token"):
        Names(SPELLER).name(text)


def test_what_is_sent() -> None:
    names = Names(SPELLER)
    token, other = names.name(TOKEN), names.name(OTHER)
    assert body_of(Action.TOKENIZE, ("=a", "=#7", "=?1"), 0, names) == {"values": ["=a", 7, True]}
    assert body_of(Action.DETOKENIZE, (token,), 0, names) == {"token": TOKEN}
    assert body_of(Action.DETOKENIZE, (token, other), 0, names) == {"tokens": [TOKEN, OTHER]}
    assert body_of(Action.RETOKENIZE, (other,), 0, names) == {"tokens": [OTHER]}
    assert body_of(Action.ROTATE, (), 5, names) == {"from_epoch": 5}


OK, FAIL, UNKNOWN = Outcome.OK, Outcome.FAIL, Outcome.UNKNOWN
WRITES, READS = (Action.TOKENIZE, Action.RETOKENIZE, Action.ROTATE), (Action.DETOKENIZE, Action.EPOCH)
RESULTS: list[dict[str, Any]] = [{"status": "ok", "value": "=a"}, {"status": "not_found"}, {"status": "unavailable"}]
TOLD: list[tuple[Action, int, int, object, Told]] = [
    (Action.TOKENIZE, 2, 200, {"epoch": 3, "tokens": [TOKEN, None]}, Told(OK, ("qv_3_0", None), 3)),
    (Action.DETOKENIZE, 1, 200, {"token": TOKEN, "value": 7}, Told(OK, ("=#7",))),
    (Action.DETOKENIZE, 1, 404, problem("not-found"), Told(OK, ("not_found",))),
    (Action.DETOKENIZE, 1, 409, problem("token-collision"), Told(OK, ("collision",))),
    (Action.DETOKENIZE, 3, 200, {"results": RESULTS, "found": 1, "not_found": 1}, Told(OK, ("=a", "not_found", "unavailable"))),
    (Action.RETOKENIZE, 2, 200, {"epoch": 4, "results": [{"status": "ok", "token": OTHER}, {"status": "not_found"}]},
     Told(OK, ("qv_4_0", "not_found"), 4)),
    (Action.ROTATE, 0, 200, {"active_epoch": 9}, Told(OK, (), 9)),
    (Action.EPOCH, 0, 200, {"active_epoch": 9}, Told(OK, (), 9)),
    # The answer to a refused rotate has the active epoch.
    (Action.ROTATE, 0, 409, {**problem("epoch-ahead"), "active_epoch": 4}, Told(FAIL, epoch=4, why="epoch-ahead")),
    # A refused write has failed only if the answer says so. A refused read did nothing.
    *((write, 1, 503, problem("no-quorum", outcome="none"), Told(FAIL, why="no-quorum")) for write in WRITES),
    *((write, 1, 503, problem("no-quorum", outcome="unknown"), Told(UNKNOWN, why="no-quorum")) for write in WRITES),
    *((write, 1, 503, problem("no-quorum"), Told(UNKNOWN, why="no-quorum")) for write in WRITES),
    *((write, 1, 429, problem("busy"), Told(FAIL, why="busy")) for write in WRITES),
    *((read, 1, 503, problem(code), Told(FAIL, why=code)) for read in READS for code in ("no-quorum", "draining")),
]  # fmt: skip


@pytest.mark.parametrize(("action", "count", "status", "body", "expected"), TOLD)
def test_what_is_told(action: Action, count: int, status: int, body: object, expected: Told) -> None:
    assert answer(action, count, status, body) == expected


BREACHES: list[tuple[Action, int, int, object]] = [
    (Action.TOKENIZE, 1, 500, problem("internal")),
    (Action.TOKENIZE, 1, 401, problem("unauthenticated")),
    (Action.TOKENIZE, 2, 200, {"epoch": 1, "tokens": [TOKEN]}),
    (Action.TOKENIZE, 1, 200, {"tokens": [TOKEN]}),
    (Action.TOKENIZE, 1, 200, {"epoch": 1, "tokens": ["a value"]}),
    (Action.DETOKENIZE, 1, 200, {"token": TOKEN, "value": 1.5}),
    (Action.DETOKENIZE, 2, 404, problem("not-found")),
    (Action.DETOKENIZE, 2, 200, {"results": [{"status": "ok"}, {"status": "not_found"}], "found": 1, "not_found": 1}),
    (Action.DETOKENIZE, 2, 200, {"results": [{"status": "lost"}, {"status": "not_found"}], "found": 0, "not_found": 1}),
    (Action.DETOKENIZE, 2, 200, {"results": [{"status": "not_found"}] * 2, "found": 0, "not_found": 1}),
    (Action.RETOKENIZE, 1, 200, {"epoch": 1, "results": [{"status": "ok"}]}),
    (Action.EPOCH, 0, 200, {"active_epoch": "1"}),
    (Action.EPOCH, 0, 409, problem("epoch-ahead")),
    (Action.ROTATE, 0, 409, problem("epoch-ahead")),
    (Action.EPOCH, 0, 503, "no object"),
]


@pytest.mark.parametrize(("action", "count", "status", "body"), BREACHES)
def test_an_answer_that_the_contract_does_not_have_is_a_breach(action: Action, count: int, status: int, body: object) -> None:
    with pytest.raises(Breach):
        answer(action, count, status, body)


def test_a_breach_shows_no_value() -> None:
    with pytest.raises(Breach) as breach:
        answer(Action.TOKENIZE, 1, 200, {"epoch": 1, "tokens": ["123-45-6789"]})
    assert "123-45-6789" not in str(breach.value)


@given(st.randoms(use_true_random=False), st.floats(0, 3_000))
def test_what_clients_ask_for_can_be_asked(rng: Random, seconds: float) -> None:
    names, known = Names(SPELLER), {owner: Known() for owner in OWNERS}
    known["acme"].learn(2, [names.name(TOKEN)])
    for _ in range(30):
        asked = draw(rng, known, seconds, names)
        body = body_of(asked.action, asked.given, asked.epoch, names)
        assert asked.owner in OWNERS
        if asked.action in (Action.DETOKENIZE, Action.RETOKENIZE):
            assert all(is_token(token) for token in body.get("tokens", [body.get("token")]))
        if asked.action is Action.ROTATE:
            assert asked.epoch in {known[asked.owner].epoch + more for more in (-1, 0, 1)} - {0}


def test_clients_meet_at_values_and_ask_for_tokens_of_all_kinds() -> None:
    names, known, rng = Names(SPELLER), {owner: Known() for owner in OWNERS}, Random(1)
    tokens = {owner: names.spelled(owner, 1, "=told") for owner in OWNERS}
    for owner, token in tokens.items():
        known[owner].learn(1, [token])
    known["acme"].doubtful.append(("=doubtful", 1))
    drawn = [draw(rng, known, 10.0, names) for _ in range(2_000)]
    assert {asked.action for asked in drawn} == set(Action) - KEY_ACTIONS
    written = [value for asked in drawn if asked.action is Action.TOKENIZE for value in asked.given]
    values = [value for value in written if not value.startswith("=once-")]
    assert len(set(values)) < len(values) / 20
    assert {type(value_of(value)) for value in values} == {str, int}
    once = set(written) - set(values)
    assert len(once) == sum(value in once for value in written) > 0
    asked_for = {(asked.owner, token) for asked in drawn if asked.action is Action.DETOKENIZE for token in asked.given}
    assert ("bell", tokens["acme"]) in asked_for, "another owner's"
    assert ("acme", names.spelled("acme", 1, "=doubtful")) in asked_for
    assert ("acme", names.spelled("acme", 1, "=51")) in asked_for, "of the moment, whether it was told or not"
    assert Asked(Action.TOKENIZE, "acme") in drawn, "an empty batch reads the epoch"


def test_one_answer_shows_a_token_that_is_not_the_one_of_its_value() -> None:
    names = Names(SPELLER)
    a1, a2, b1, b2 = (names.spelled("acme", epoch, value) for value in ("=a", "=b") for epoch in (1, 2))
    theirs = names.spelled("zeta", 1, "=a")

    def wrong(action: Action, given: tuple[str, ...], *answers: str, owner: str = "acme") -> str | None:
        return misspelled(Asked(action, owner, given), Told(Outcome.OK, answers, 2), names)

    assert wrong(Action.TOKENIZE, ("=a", "=b"), a2, b2) is None
    assert wrong(Action.TOKENIZE, ("=a", "=b"), b2, a2) == f"=a of acme is said to have {b2}, and has {a2}"
    assert wrong(Action.DETOKENIZE, (a1, b2, theirs), "=a", "=b", "not_found") is None
    assert wrong(Action.DETOKENIZE, (a1,), "=b") == f"=b of acme is said to have {a1}, and has {b1}"
    assert wrong(Action.DETOKENIZE, (theirs,), "=a") == f"=a of acme is said to have {theirs}, and has {a1}"
    assert wrong(Action.RETOKENIZE, (a1, a2, b1, theirs), a2, a2, "unavailable", "not_found") is None
    assert wrong(Action.RETOKENIZE, (a1,), b2) == f"=a of acme is said to have {b2}, and has {a2}"
    assert wrong(Action.RETOKENIZE, (theirs,), a2) == f"{theirs} is moved to {a2}, and no value of acme is known to have it"
    unheard = names.name(SPELLER.token("acme", 1, "=c"))
    assert wrong(Action.RETOKENIZE, (unheard,), a2) == f"{unheard} is moved to {a2}, and no value of acme is known to have it"
    assert wrong(Action.EPOCH, ()) is None
