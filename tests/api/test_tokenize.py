"""POST /tokenize: values and records, what is replaced, what stays exactly as it was, and one bad item among good ones."""

import json
from typing import Any

import pytest

from quorumvault.config.limits import Limits
from quorumvault.crypto.tokens import is_token
from tests.rigs.vault import CLINIC, SMALL, FaultyVault, Rig

TOKEN_OF_NOBODY = "qv_3_" + "0" * 48


def test_values_become_tokens_in_their_order(rig: Rig) -> None:
    answer = rig.post("/tokenize", {"values": ["a", 42, None, True, "a", ""]})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert list(answer.json()) == ["epoch", "tokens"]
    tokens = answer.json()["tokens"]
    assert tokens[2] is None
    assert tokens[0] == tokens[4]
    assert all(is_token(token) for token in tokens if token is not None)


def test_the_type_of_a_value_counts_and_nothing_is_normalised(rig: Rig) -> None:
    values = ["1", 1, True, "true", "01", " 1", "\u00e9", "e\u0301", "", "null", 0, False]
    assert len(set(rig.tokens(values))) == len(values)


def test_integers_keep_every_digit(rig: Rig) -> None:
    digits = b"9" * 5000
    answer = rig.post("/tokenize", b'{"values":[%b,-%b,-0,0]}' % (digits, digits))
    assert rig.vault.asked == [("tokenize", [b"i" + digits, b"i-" + digits, b"i0", b"i0"])]
    tokens = answer.json()["tokens"]
    assert tokens[2] == tokens[3]
    back = rig.post("/detokenize", {"tokens": tokens[:2]})
    assert back.content.startswith(b'{"results":[{"status":"ok","value":%b},{"status":"ok","value":-%b}]' % (digits, digits))


def test_the_owner_is_the_key_s_and_nothing_else_names_one(rig: Rig) -> None:
    mine, theirs = rig.tokens(["a"]), rig.tokens(["a"], key="lab")
    assert mine != theirs
    headers = {"X-Owner": "lab", "Owner": "lab", "X-Forwarded-User": "lab", "Cookie": "owner=lab"}
    assert rig.post("/tokenize?owner=lab&X-API-Key=x", {"values": ["a"]}, headers).json()["tokens"] == mine
    for body in [{"values": ["a"], "owner": "lab"}, {"owner": "lab"}, {"values": ["a"], "Owner": None}]:
        assert rig.post("/tokenize", body).status_code == 422


@pytest.mark.parametrize(
    "body", [{"values": []}, {"values": [None, None]}, {"records": []}, {"records": [{"x": 1}]}, {"record": {}}]
)
def test_a_request_without_a_value_still_asks_the_vault_for_the_epoch(rig: Rig, body: Any) -> None:
    rig.rotate()
    rig.vault.asked.clear()
    assert rig.post("/tokenize", body).json()["epoch"] == 2
    assert rig.vault.asked == [("tokenize", [])]


def test_configured_fields_are_replaced_and_counted(rig: Rig) -> None:
    record = {
        "id": 7,
        "ssn": "123-45-6789",
        "name": {"given": "Ada", "family": "Byron"},
        "contacts": [{"phone": "5550100"}, {"mail": "a@b"}, {"phone": 5550101}],
    }
    answer = rig.post("/tokenize", {"record": record}).json()
    ssn, family, first, second = rig.tokens(["123-45-6789", "Byron", "5550100", 5550101])
    contacts = [{"phone": first}, {"mail": "a@b"}, {"phone": second}]
    assert answer == {
        "epoch": 1,
        "record": {"id": 7, "ssn": ssn, "name": {"given": "Ada", "family": family}, "contacts": contacts},
        "replaced": {"$.ssn": 1, "$.name.family": 1, "$.contacts[*].phone": 2},
    }
    assert list(answer) == ["epoch", "record", "replaced"]
    assert list(answer["record"]) == list(record)


def test_records_in_their_order_with_one_call_of_the_vault(rig: Rig) -> None:
    records = [{"ssn": str(number % 3)} for number in range(9)]
    answer = rig.post("/tokenize", {"records": records}).json()
    assert [name for name, _ in rig.vault.asked] == ["tokenize"]
    tokens = rig.tokens(["0", "1", "2"])
    assert [record["ssn"] for record in answer["records"]] == tokens * 3
    assert answer["replaced"] == {"$.ssn": 9, "$.name.family": 0, "$.contacts[*].phone": 0}


@pytest.mark.parametrize(
    "record",
    [
        b'{"a":1.10,"b":1e400,"c":-0,"d":1E+2,"e":100000000000000000000000001}',
        b'{"z":1,"a":{"y":[1.0,{"x":0.10}]},"ssn":null}',
        b'{"name":"no object","contacts":{"phone":"no array"}}',
        b'{"name":{},"contacts":[]}',
        json.dumps({"x": '\u2028\u00e9\u0000"\\'}, separators=(",", ":")).encode(),
        '{"\u00e9":"e\u0301","":" "}'.encode(),
        b'{"x\\u0079":1,"contacts":[{"\\u00e9":"\\/"}, {}],"\\/":"","name":{"f\\/":1}}',
    ],
)
def test_what_is_not_configured_stays_to_the_letter(rig: Rig, record: bytes) -> None:
    answer = rig.post("/tokenize", b'{"record":' + record + b"}")
    assert b'"record":' + record + b"," in answer.content
    assert set(answer.json()["replaced"].values()) == {0}


def test_escaped_names_keep_their_spelling_beside_tokens(rig: Rig) -> None:
    records = b'{"\\u0073sn":"a","x\\u0079":[1]},{"ssn":"a"},{"\\/":0,"contacts":[{"phon\\u0065":"b"}]}'
    answer = rig.post("/tokenize", b'{"records":[' + records + b"]}")
    first, second = (json.dumps(token).encode() for token in rig.tokens(["a", "b"]))
    written = records.replace(b'"a"', first).replace(b'"b"', second)
    assert b'"records":[' + written + b"]" in answer.content
    answer = rig.post("/detokenize", b'{"records":[' + written + b"]}")
    assert answer.content.startswith(b'{"records":[' + records + b"]")


@pytest.mark.parametrize("bad", [{"a": 1}, [], ["a"], {}])
def test_an_object_or_array_at_a_configured_field_is_named(rig: Rig, bad: Any) -> None:
    answer = rig.post("/tokenize", {"records": [{"ssn": "a"}, {"contacts": [{"phone": "1"}, {"phone": bad}]}]})
    assert answer.status_code == 422
    assert answer.json()["code"] == "not-tokenizable"
    (error,) = answer.json()["errors"]
    assert (error["index"], error["path"], error["code"]) == (1, "$.contacts[1].phone", "not-tokenizable")
    assert set(error) == {"index", "path", "code", "detail"}
    assert rig.vault.asked == []


@pytest.mark.parametrize("number", [b"1.5", b"1.0", b"1e2", b"1E2", b"-0.0", b"1e400"])
def test_a_number_with_a_fraction_or_an_exponent_is_not_tokenizable(rig: Rig, number: bytes) -> None:
    for body in (b'{"values":["a",%b]}', b'{"records":[{},{"ssn":%b}]}'):
        answer = rig.post("/tokenize", body % number)
        assert (answer.status_code, answer.json()["code"]) == (422, "not-tokenizable")
        assert answer.json()["errors"][0]["index"] == 1
    assert rig.vault.asked == []


def test_a_token_is_not_tokenized_again_whoever_s_it_is(rig: Rig) -> None:
    mine, theirs = rig.tokens(["a"]), rig.tokens(["a"], key="lab")
    rotated = mine[0].replace("qv_1_", "qv_2_")
    for token in [*mine, *theirs, "qv_7_" + mine[0][5:]]:
        well_formed = is_token(token)
        for body in ({"values": [token]}, {"record": {"ssn": token}}):
            answer = rig.post("/tokenize", body)
            assert (answer.status_code == 422) is well_formed
            assert not well_formed or answer.json()["code"] == "already-tokenized"
    for almost in [mine[0].upper(), mine[0][:-1], mine[0] + " ", rotated, TOKEN_OF_NOBODY, "qv_"]:
        assert rig.post("/tokenize", {"values": [almost]}).status_code == 200


def test_several_kinds_of_bad_items_are_all_listed_and_the_first_names_the_request(rig: Rig) -> None:
    (token,) = rig.tokens(["a"])
    rig.vault.asked.clear()
    answer = rig.post("/tokenize", {"values": ["ok", "x" * 70_000, token, 1.5, [], None]})
    assert answer.json()["code"] == "value-too-large"
    codes = ["value-too-large", "already-tokenized", "not-tokenizable", "not-tokenizable"]
    assert [(error["index"], error["code"]) for error in answer.json()["errors"]] == [*enumerate(codes, 1)]
    assert all("path" not in error for error in answer.json()["errors"])
    assert rig.vault.asked == []


def test_no_more_than_a_hundred_bad_items_are_listed(rig: Rig) -> None:
    answer = rig.post("/tokenize", {"values": ["ok", *[0.5] * 300]})
    assert [error["index"] for error in answer.json()["errors"]] == list(range(1, 101))
    assert "200 faults are not listed" in answer.json()["detail"]


def test_bad_values_become_null_and_the_others_go_through(rig: Rig) -> None:
    values = ["a", 1.5, None, {"a": 1}, "b", "x" * 70_000]
    answer = rig.post("/tokenize", {"values": values, "on_error": "item"})
    first, second = rig.tokens(["a", "b"])
    assert answer.status_code == 200
    assert answer.json() == {
        "epoch": 1,
        "tokens": [first, None, None, None, second, None],
        "errors": [
            {"index": 1, "code": "not-tokenizable"},
            {"index": 3, "code": "not-tokenizable"},
            {"index": 5, "code": "value-too-large"},
        ],
    }


def test_all_bad_items_are_listed_for_whom_they_do_not_stop(rig: Rig) -> None:
    answer = rig.post("/tokenize", {"values": [0.5] * 300, "on_error": "item"})
    assert len(answer.json()["errors"]) == 300
    assert rig.vault.asked == [("tokenize", [])]


def test_an_empty_list_of_errors_says_that_there_was_none(rig: Rig) -> None:
    bodies: list[dict[str, Any]] = [{"values": ["a"]}, {"record": {}}, {"records": []}]
    for body in bodies:
        assert "errors" not in rig.post("/tokenize", body).json()
        assert rig.post("/tokenize", {**body, "on_error": "item"}).json()["errors"] == []


def test_a_bad_record_becomes_null_as_a_whole(rig: Rig) -> None:
    records = [{"ssn": "a"}, {"ssn": "b", "name": {"family": 1.5}}, 5, {"ssn": "c", "contacts": [{"phone": []}, {"phone": {}}]}]
    answer = rig.post("/tokenize", {"records": records, "on_error": "item"})
    (token,) = rig.tokens(["a"])
    assert answer.json() == {
        "epoch": 1,
        "records": [{"ssn": token}, None, None, None],
        "replaced": {"$.ssn": 1, "$.name.family": 0, "$.contacts[*].phone": 0},
        "errors": [
            {"index": 1, "path": "$.name.family", "code": "not-tokenizable"},
            {"index": 2, "code": "invalid"},
            {"index": 3, "path": "$.contacts[0].phone", "code": "not-tokenizable"},
            {"index": 3, "path": "$.contacts[1].phone", "code": "not-tokenizable"},
        ],
    }
    assert rig.vault.asked[0] == ("tokenize", [b"sa"])
    alone = rig.post("/tokenize", {"record": records[1], "on_error": "item"})
    assert alone.json()["record"] is None


def test_a_collision_fails_the_request_or_the_item() -> None:
    rig = Rig(vault=FaultyVault(digest_bits=8))
    first, second = rig.vault.colliding_values(CLINIC)
    cases: list[tuple[dict[str, Any], list[Any]]] = [
        ({"values": [None, first, second]}, [(2, None)]),
        ({"records": [{"ssn": first}, {"ssn": second, "name": {"family": second}}]}, [(1, "$.ssn"), (1, "$.name.family")]),
    ]
    for body, places in cases:
        answer = rig.post("/tokenize", body)
        assert (answer.status_code, answer.json()["code"]) == (409, "token-collision")
        assert [(error["index"], error.get("path")) for error in answer.json()["errors"]] == places
        lenient = rig.post("/tokenize", {**body, "on_error": "item"}).json()
        assert [(error["index"], error.get("path"), error["code"]) for error in lenient["errors"]] == [
            (*place, "token-collision") for place in places
        ]
        kept = lenient.get("tokens") or lenient["records"]
        assert kept[1 if "tokens" in lenient else 0] is not None
        assert kept[-1] is None
    assert lenient["replaced"] == {"$.ssn": 1, "$.name.family": 0, "$.contacts[*].phone": 0}


def test_ten_thousand_values_and_records_are_taken(rig: Rig) -> None:
    assert Limits().items == 10_000
    values = [str(number) for number in range(10_000)]
    assert len(rig.tokens(values)) == 10_000
    answer = rig.post("/tokenize", {"records": [{"ssn": value, "name": {"family": value}} for value in values]})
    assert answer.json()["replaced"]["$.name.family"] == 10_000


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_the_values_of_all_records_together_have_a_limit_of_their_own(path: str) -> None:
    rig = Rig(limits=SMALL)
    six = {"contacts": [{"phone": "5"}] * 6}
    assert rig.post(path, {"records": [six, six]}).status_code == 200
    answer = rig.post(path, {"records": [six, six, {"ssn": "1"}]})
    assert (answer.status_code, answer.json()["code"]) == (422, "too-many-items")
    assert "12 configured values" in answer.json()["detail"]


def test_the_body_may_be_spelled_in_any_way_that_is_json(rig: Rig) -> None:
    expected = rig.tokens(["a\u00e9\U0001f600"])
    for body in [
        ' { "on_error" : "fail" ,\r\n\t"values" : [ "a\\u00e9\\ud83d\\ude00" ] } ',
        '{"\\u0076alues":["a\u00e9\U0001f600"]}',
    ]:
        assert rig.post("/tokenize", body.encode()).json()["tokens"] == expected
