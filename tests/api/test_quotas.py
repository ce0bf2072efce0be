"""A key's quota, in values: all values of a request count, found or not, before any work is done."""

from typing import Any

import pytest

from quorumvault.config.api_keys import PERMISSIONS, KeyTable, Rates
from quorumvault.errors import NoQuorum
from tests.rigs.columns import ARROW, column
from tests.rigs.vault import CLINIC, Rig, api_key

NOBODYS = "qv_1_" + "0" * 48


@pytest.fixture
def rig() -> Rig:
    return limited(Rates(None, 10))


def limited(rates: Rates) -> Rig:
    rig = Rig(fields=["$.ssn", "$.tags[*]"])
    rig.keys = KeyTable([CLINIC], [api_key("admin", CLINIC, PERMISSIONS, rates=rates), api_key("free", CLINIC, PERMISSIONS)])
    return rig


def left(rig: Rig) -> int:
    """The number of values that the key may ask about right now. Counting them uses them up."""
    count = 0
    while rig.post("/detokenize", {"tokens": [NOBODYS]}, key="admin").status_code == 200:
        count += 1
    return count


@pytest.mark.parametrize(
    ("path", "body", "cost"),
    [
        ("/tokenize", {"values": ["a", None, "a", 5]}, 3),
        ("/tokenize", {"values": [1.5, "a", None], "on_error": "item"}, 1),
        ("/tokenize", {"record": {"ssn": "a", "tags": ["b", None, "c"], "other": "d"}}, 3),
        ("/tokenize", {"records": [{"ssn": "a"}, {}]}, 1),
        ("/detokenize", {"token": NOBODYS}, 1),
        ("/detokenize", {"tokens": [NOBODYS, NOBODYS, None, "x"]}, 3),
        ("/detokenize", {"records": [{"ssn": NOBODYS, "tags": [5, "x"]}]}, 2),
        ("/retokenize", {"tokens": [NOBODYS, None, "x"]}, 2),
        ("/tokens", {"values": ["a", None, "b"]}, 2),
        ("/tokenize", {"values": [1.5, "a"]}, 0),
        ("/tokenize", {"values": []}, 0),
        ("/rotate-epoch", {"from_epoch": 1}, 0),
    ],
)
def test_what_a_request_costs(rig: Rig, path: str, body: Any, cost: int) -> None:
    rig.post(path, body, key="admin")
    assert left(rig) == 10 - cost


def test_derived_tokens_cost_one_for_each_value_and_epoch(rig: Rig) -> None:
    for epoch in (1, 2):
        rig.post("/rotate-epoch", {"from_epoch": epoch}, key="admin")
    assert rig.post("/tokens", {"values": ["a", "b", None]}, key="admin").json()["epoch"] == 3
    assert left(rig) == 4


@pytest.mark.parametrize(("path", "name"), [("/tokenize", "value"), ("/detokenize", "token"), ("/retokenize", "token")])
def test_arrow_costs_what_its_rows_do_repeats_counted(rig: Rig, path: str, name: str) -> None:
    assert rig.post(path, column(name, ["a", "a", None, "b"]), ARROW, key="admin").status_code == 200
    assert left(rig) == 7


def test_what_is_used_up_is_said_with_the_wait_that_helps(rig: Rig) -> None:
    assert rig.post("/tokenize", {"values": ["a"] * 30}, key="admin").status_code == 200
    rig.vault.asked.clear()
    answer = rig.post("/detokenize", {"tokens": [NOBODYS] * 5}, key="admin")
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (429, "rate-limited", True)
    assert answer.headers["retry-after"] == "3"
    assert answer.json()["detail"] == "key admin may ask about 10 values a second; wait 3 s"
    assert rig.vault.asked == []
    assert rig.post("/detokenize", {"tokens": [NOBODYS]}, key="free").status_code == 200
    rig.clock.now += 3
    assert rig.post("/detokenize", {"tokens": [NOBODYS] * 5}, key="admin").status_code == 200


def test_what_can_never_be_is_not_to_be_tried_again() -> None:
    rig = limited(Rates(None, None, 5))
    answer = rig.post("/detokenize", {"tokens": [NOBODYS] * 6}, key="admin")
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (422, "too-many-items", False)
    assert "5 values a day, and these are 6: send fewer at once" in answer.json()["detail"]
    assert left(rig) == 5


def test_what_failed_was_paid_for_all_the_same(rig: Rig) -> None:
    rig.vault.failure = NoQuorum("fewer than 2 nodes could decide this", outcome="unknown")
    assert rig.post("/tokenize", {"values": ["a"] * 4}, key="admin").status_code == 503
    rig.vault.failure = None
    assert left(rig) == 6


def test_a_key_file_that_is_read_again_holds_at_once(rig: Rig) -> None:
    rig.post("/tokenize", {"values": ["a"] * 10}, key="admin")
    assert left(rig) == 0
    rig.keys = KeyTable([CLINIC], [api_key("admin", CLINIC, PERMISSIONS)])
    assert rig.post("/tokenize", {"values": ["a"] * 1000}, key="admin").status_code == 200
    rig.keys = KeyTable([CLINIC], [api_key("admin", CLINIC, PERMISSIONS, rates=Rates(None, 10, 15))])
    assert left(rig) == 0


def test_values_that_were_not_let_through_do_not_count_as_asked(rig: Rig) -> None:
    rig.post("/tokenize", {"values": ["a"] * 10}, key="admin")
    rig.post("/tokenize", {"values": ["a"] * 10}, key="admin")
    assert [(event.outcome, event.items) for event in rig.events.written] == [("ok", 10), ("rate-limited", None)]
