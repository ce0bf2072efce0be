"""POST /retokenize: tokens move to the active epoch, and the answer shows no value."""

from typing import Any

import pytest

from quorumvault.crypto.tokens import format_token
from tests.api.test_events import LABELS, only_event, told
from tests.rigs.vault import FaultyVault, Rig

NEVER_ISSUED = format_token(1, bytes(20))
SECRET = "Zc4secretQ7"


def retokenize(rig: Rig, tokens: list[Any], key: str = "clinic") -> dict[str, Any]:
    return rig.told("/retokenize", {"tokens": tokens}, key)


def test_tokens_of_every_epoch_become_what_their_values_have_now(rig: Rig) -> None:
    first = rig.tokens(["a", 5])
    rig.rotate()
    second = rig.tokens(["a", 5])
    rig.rotate(2)
    third = rig.tokens(["a", 5])
    assert retokenize(rig, [*first, *second, *third]) == {
        "epoch": 3,
        "results": [{"status": "ok", "token": token} for token in third * 3],
    }


def test_a_token_that_is_there_already_comes_back_itself_and_was_asked_about_like_any_other(rig: Rig) -> None:
    tokens = rig.tokens(["a"])
    rig.vault.asked.clear()
    assert retokenize(rig, tokens) == {"epoch": 1, "results": [{"status": "ok", "token": tokens[0]}]}
    assert rig.vault.asked == [("retokenize", tokens)]


def test_order_repeats_nulls_and_what_is_not_found(rig: Rig) -> None:
    a, b = rig.tokens(["a", "b"])
    rig.rotate()
    new_a, new_b = rig.tokens(["a", "b"])
    answer = retokenize(rig, [b, None, NEVER_ISSUED, a, b, "no token", ""])
    moved_a, moved_b = ({"status": "ok", "token": token} for token in (new_a, new_b))
    absent = {"status": "not_found"}
    assert answer["results"] == [moved_b, {"status": "null"}, absent, moved_a, moved_b, absent, absent]


@pytest.mark.parametrize("tokens", [[], [None], [None, None]])
def test_nothing_to_move_still_asks_for_the_epoch(rig: Rig, tokens: list[Any]) -> None:
    rig.rotate()
    rig.vault.asked.clear()
    assert retokenize(rig, tokens) == {"epoch": 2, "results": [{"status": "null"}] * len(tokens)}
    assert rig.vault.asked == [("retokenize", [])]


def test_what_cannot_be_told_spoils_no_other_item(rig: Rig) -> None:
    a, unsure, met = rig.tokens(["a", "b", "c"])
    rig.vault.unavailable, rig.vault.collided = {unsure}, {met}
    results = retokenize(rig, [unsure, a, met])["results"]
    assert results == [{"status": "unavailable"}, {"status": "ok", "token": a}, {"status": "collision"}]


def test_two_values_that_meet_in_the_new_epoch_are_a_collision() -> None:
    rig = Rig(vault=FaultyVault(digest_bits=8))
    old: list[str] = []
    for number in range(300):
        answer = rig.post("/tokenize", {"values": [str(number)], "on_error": "item"}).json()
        old += [token for token in answer["tokens"] if token is not None]
    rig.rotate()
    results = retokenize(rig, old)["results"]
    moved = [result["token"] for result in results if result["status"] == "ok"]
    assert len(set(moved)) == len(moved)
    assert [result for result in results if result["status"] != "ok"] == [{"status": "collision"}] * (len(old) - len(moved))
    assert moved != []
    assert len(moved) < len(old)


def test_another_owners_tokens_are_not_found(rig: Rig) -> None:
    tokens = rig.tokens(["a", "b"])
    assert retokenize(rig, tokens, key="lab")["results"] == [{"status": "not_found"}] * 2


def test_no_value_is_shown(rig: Rig) -> None:
    (token,) = rig.tokens([SECRET])
    answer = rig.post("/retokenize", {"tokens": [token]})
    assert SECRET not in answer.text + str(answer.headers) + str(rig.events.written)


def test_its_line_in_the_event_log(rig: Rig) -> None:
    a, unsure = rig.tokens(["a", "b"])
    rig.rotate()
    rig.vault.unavailable.add(unsure)
    rig.events.written.clear()
    rig.post("/retokenize", {"tokens": [a, None, unsure, NEVER_ISSUED]}, LABELS)
    assert only_event(rig) == told("retokenize", epoch=2, items=3, found=1, not_found=1)
