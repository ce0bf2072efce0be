"""POST /tokens: the tokens of values in every epoch, by derivation alone."""

from typing import Any

from quorumvault.config.api_keys import KeyTable
from tests.api.test_events import LABELS, only_event, told
from tests.rigs.vault import CLINIC, SMALL, Rig, api_key


def all_epochs(rig: Rig, values: list[Any], key: str = "admin") -> dict[str, Any]:
    return rig.told("/tokens", {"values": values}, key)


def test_they_are_those_that_tokenize_gave_in_each_epoch(rig: Rig) -> None:
    values = ["1", 1, True, "", "Zoë"]
    first = rig.tokens(values)
    rig.rotate()
    second = rig.tokens(values)
    rig.rotate(2)
    issued = zip(first, second, rig.tokens(values), strict=True)
    assert all_epochs(rig, values) == {"epoch": 3, "tokens": [list(tokens) for tokens in issued]}


def test_order_repeats_and_nulls(rig: Rig) -> None:
    rig.rotate()
    b, null, a, again = all_epochs(rig, ["b", None, "a", "b"])["tokens"]
    assert null is None
    assert b == again
    assert b != a
    assert [len(tokens) for tokens in (a, b)] == [2, 2]
    assert all_epochs(rig, [None]) == {"epoch": 2, "tokens": [None]}
    assert all_epochs(rig, []) == {"epoch": 2, "tokens": []}


def test_nothing_is_stored_and_what_was_never_issued_has_no_value(rig: Rig) -> None:
    ((token,),) = all_epochs(rig, ["a"])["tokens"]
    assert [operation for operation, _ in rig.vault.asked] == ["epoch", "derive"]
    assert rig.post("/detokenize", {"token": token}).status_code == 404
    assert rig.tokens(["a"]) == [token]


def test_another_owner_has_others(rig: Rig) -> None:
    assert all_epochs(rig, ["a"])["tokens"] != all_epochs(rig, ["a"], key="labadmin")["tokens"]


def test_it_needs_a_permission_of_its_own(rig: Rig) -> None:
    rig.keys = KeyTable([CLINIC], [api_key("only", CLINIC, ["derive"])])
    assert rig.post("/tokens", {"values": []}, key="only").status_code == 200
    assert rig.post("/tokenize", {"values": []}, key="only").status_code == 403


def test_values_that_cannot_be_tokenized_are_refused_as_by_tokenize(rig: Rig) -> None:
    (token,) = rig.tokens(["a"])
    refused: list[list[object]] = [[1.5, "a", {}], ["a", token], ["a", "x" * 70_000], [1e300], [[]]]
    for values in refused:
        rig.vault.asked.clear()
        one, other = (rig.post(path, {"values": values}, key="admin") for path in ("/tokens", "/tokenize"))
        assert (one.status_code, one.json() | {"request_id": ""}) == (422, other.json() | {"request_id": ""})
        assert rig.vault.asked == []
    lone = rig.post("/tokens", b'{"values":["\\ud800"]}', key="admin")
    assert (lone.status_code, lone.json()["code"]) == (400, "malformed")


def test_values_times_epochs_are_bounded() -> None:
    rig = Rig(limits=SMALL)
    rig.rotate()
    rig.rotate(2)
    assert len(all_epochs(rig, ["a", "b", "c", *[None] * 7])["tokens"]) == 10
    answer = rig.post("/tokens", {"values": ["a", "b", "c", "d"]}, key="admin")
    assert (answer.status_code, answer.json()["code"]) == (422, "too-many-items")
    words = "an answer has at most 10 tokens here (GET /limits), and each value has 3; send up to 3 values at once"
    assert answer.json()["detail"] == words
    for epoch in range(3, 11):
        rig.rotate(epoch)
    rig.vault.asked.clear()
    answer = rig.post("/tokens", {"values": ["a"]}, key="admin")
    assert (answer.status_code, answer.json()["code"]) == (422, "too-many-items")
    assert answer.json()["detail"].endswith("each value has 11; raise limits.items in the nodes' cluster.yaml")
    assert rig.vault.asked == [("epoch", [])]


def test_its_line_in_the_event_log(rig: Rig) -> None:
    rig.rotate()
    rig.events.written.clear()
    rig.post("/tokens", {"values": ["Zc4secretQ7", None, 5]}, LABELS, key="admin")
    assert only_event(rig) == told("tokens", "admin", epoch=2, items=2)
