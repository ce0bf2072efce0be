"""POST /detokenize: values with their types, one answer for all that is not found, and honest statuses for uncertain tokens."""

from typing import Any

import pytest

from quorumvault.crypto.tokens import format_token
from tests.rigs.vault import Rig

NEVER_ISSUED = format_token(1, bytes(20))
OTHER_EPOCH = format_token(4_000_000_000, bytes(20))


def test_one_token(rig: Rig) -> None:
    for value in ["a", "", 5, -5, True, False, "\u00e9\U0001f600\u0000"]:
        (token,) = rig.tokens([value])
        answer = rig.post("/detokenize", {"token": token})
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json() == {"token": token, "value": value}
        assert type(answer.json()["value"]) is type(value)


def test_many_tokens_in_their_order_with_repeats_and_nulls(rig: Rig) -> None:
    a, five = rig.tokens(["a", 5])
    answer = rig.post("/detokenize", {"tokens": [a, None, NEVER_ISSUED, five, a, "", NEVER_ISSUED]})
    told, absent = {"status": "ok", "value": "a"}, {"status": "not_found"}
    results = [told, {"status": "null"}, absent, {"status": "ok", "value": 5}, told, absent, absent]
    assert answer.json() == {"results": results, "found": 3, "not_found": 3}
    assert list(answer.json()["results"][0]) == ["status", "value"]


@pytest.mark.parametrize("body", [{"tokens": []}, {"tokens": [None]}, {"records": []}, {"records": [{"ssn": 5}]}])
def test_nothing_to_look_up(rig: Rig, body: Any) -> None:
    answer = rig.post("/detokenize", body).json()
    assert (answer["found"], answer["not_found"]) == (0, 0)
    assert rig.vault.asked == [("detokenize", [])]


def absent_tokens(rig: Rig) -> list[str]:
    """One of every kind that the contract names, and what people send by mistake."""
    (mine,) = rig.tokens(["a"])
    (theirs,) = rig.tokens(["a"], key="lab")
    rig.vault.asked.clear()
    mistaken = [mine.upper(), mine[:-1], mine + " ", " " + mine, "hello", "", "qv_01_x", "\u00e9" * 5000]
    return [NEVER_ISSUED, theirs, OTHER_EPOCH, *mistaken]


def test_not_found_is_the_same_bytes_for_one_token(rig: Rig) -> None:
    answers = []
    for token in absent_tokens(rig):
        answers.append(rig.post("/detokenize", {"token": token}, {"X-Request-ID": "mine"}))
        assert rig.vault.asked == [("detokenize", [token])]
        rig.vault.asked.clear()
    assert len({(answer.status_code, answer.content, str(answer.headers)) for answer in answers}) == 1
    assert (answers[0].status_code, answers[0].json()["code"]) == (404, "not-found")


def test_not_found_is_one_answer_in_a_batch(rig: Rig) -> None:
    tokens = absent_tokens(rig)
    answer = rig.post("/detokenize", {"tokens": tokens})
    assert answer.json()["results"] == [{"status": "not_found"}] * len(tokens)
    assert rig.vault.asked == [("detokenize", tokens)]


def test_what_cannot_be_told_spoils_no_other_item(rig: Rig) -> None:
    a, unsure, met = rig.tokens(["a", "b", "c"])
    rig.vault.unavailable, rig.vault.collided = {unsure}, {met}
    answer = rig.post("/detokenize", {"tokens": [unsure, a, met, "x"]}).json()
    assert answer == {
        "results": [{"status": "unavailable"}, {"status": "ok", "value": "a"}, {"status": "collision"}, {"status": "not_found"}],
        "found": 1,
        "not_found": 1,
    }


def test_one_token_that_cannot_be_told_fails_the_request(rig: Rig) -> None:
    (unsure,) = rig.tokens(["b"])
    rig.vault.unavailable.add(unsure)
    answer = rig.post("/detokenize", {"token": unsure})
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "no-quorum", "1")


def test_records_get_their_values_back_where_the_tokens_are(rig: Rig) -> None:
    record = {"id": 1, "ssn": "a", "name": {"family": 5}, "contacts": [{"phone": True}, {"phone": None}, {}]}
    tokenized = rig.post("/tokenize", {"record": record}).json()["record"]
    answer = rig.post("/detokenize", {"records": [tokenized, tokenized]})
    assert answer.json() == {"records": [record, record], "found": 6, "not_found": 0, "missing": []}


def test_what_is_not_found_in_a_record_stays_and_is_listed(rig: Rig) -> None:
    (a,) = rig.tokens(["a"])
    records = [{"ssn": "plain"}, {"ssn": a, "contacts": [{"phone": a}, {"phone": "555"}, {"phone": 555}]}]
    answer = rig.post("/detokenize", {"records": records}).json()
    assert answer == {
        "records": [{"ssn": "plain"}, {"ssn": "a", "contacts": [{"phone": "a"}, {"phone": "555"}, {"phone": 555}]}],
        "found": 2,
        "not_found": 2,
        "missing": [{"index": 0, "path": "$.ssn"}, {"index": 1, "path": "$.contacts[1].phone"}],
    }


def test_what_cannot_be_told_in_a_record_stays_and_says_so(rig: Rig) -> None:
    unsure, met = rig.tokens(["b", "c"])
    rig.vault.unavailable, rig.vault.collided = {unsure}, {met}
    answer = rig.post("/detokenize", {"records": [{"ssn": unsure, "name": {"family": met}}, {"ssn": "x"}]}).json()
    assert answer == {
        "records": [{"ssn": unsure, "name": {"family": met}}, {"ssn": "x"}],
        "found": 0,
        "not_found": 1,
        "missing": [
            {"index": 0, "path": "$.ssn", "status": "unavailable"},
            {"index": 0, "path": "$.name.family", "status": "collision"},
            {"index": 1, "path": "$.ssn"},
        ],
    }


@pytest.mark.parametrize("kept", [b"5", b"1.50", b"true", b"null", b'{"a":1.0}', b"[]", b"[1.10]"])
def test_what_is_no_string_stays_as_it_is(rig: Rig, kept: bytes) -> None:
    answer = rig.post("/detokenize", b'{"records":[{"ssn":%b,"x":1.10}]}' % kept)
    assert answer.content.startswith(b'{"records":[{"ssn":%b,"x":1.10}]' % kept)
    assert answer.json()["missing"] == []


def test_tokens_of_every_epoch_work_together(rig: Rig) -> None:
    (old,) = rig.tokens(["a"])
    rig.rotate()
    (new,) = rig.tokens(["a"])
    assert (old[:5], new[:5]) == ("qv_1_", "qv_2_")
    assert rig.post("/detokenize", {"tokens": [old, new]}).json()["found"] == 2
    records = rig.post("/detokenize", {"records": [{"ssn": old, "name": {"family": new}}]}).json()["records"]
    assert records == [{"ssn": "a", "name": {"family": "a"}}]


def test_a_record_that_is_none_is_named(rig: Rig) -> None:
    answer = rig.post("/detokenize", {"records": [{}, 5, {}, None]})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert [error["index"] for error in answer.json()["errors"]] == [1, 3]


def test_a_reader_may_read_and_another_owner_finds_nothing(rig: Rig) -> None:
    tokens = rig.tokens(["a", "b"])
    assert rig.post("/detokenize", {"tokens": tokens}, key="reader").json()["found"] == 2
    assert rig.post("/detokenize", {"tokens": tokens}, key="lab").json()["not_found"] == 2
