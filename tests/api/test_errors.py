"""Each row of the contract's error table, provoked."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from quorumvault.config.api_keys import KeyTable
from quorumvault.errors import NoQuorum
from quorumvault.server.http.schemas import TokenizeBody
from tests.rigs.vault import LAB, SMALL, Rig, api_key, key_text, without_id

MEMBERS = {"type", "title", "status", "detail", "code", "request_id", "retryable"}
UNKNOWN_TOKEN = "qv_1_" + "0" * 48


@pytest.fixture
def rig() -> Rig:
    return Rig(limits=SMALL)


def is_problem(answer: Any, status: int, code: str, retryable: bool = False) -> dict[str, Any]:
    """The problem, after a look at what all of them have."""
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == problem["request_id"]
    assert set(problem) >= MEMBERS
    assert problem["type"] == f"urn:quorumvault:problem:{code}"
    assert problem["retryable"] is retryable
    assert ("retry-after" in answer.headers) is retryable
    return problem


NOT_JSON = [b"", b"{", b"nul", b'{"values":["\xff"]}', b'{"values":["\\ud800"]}', b'{"values":[NaN]}', b"\xef\xbb\xbf{}"]
WITH_A_KEY = [("POST", "/tokenize"), ("POST", "/detokenize"), ("POST", "/rotate-epoch"), ("GET", "/epoch"), ("GET", "/fields")]


@pytest.mark.parametrize("body", NOT_JSON)
@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/rotate-epoch"])
def test_400_malformed(rig: Rig, path: str, body: bytes) -> None:
    is_problem(rig.post(path, body, key="admin"), 400, "malformed")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", b'{"record":{"a":"\xff"}}'),
        ("/tokenize", b'{"records":[{"a":"\xff"}]}'),
        ("/tokenize", b'{"values":[1,"\xff"]}'),
        ("/tokenize", b'{"values":["a"],"record":{"a":"\xff"}}'),
        ("/tokenize", b'{"more":"\xff"}'),
        ("/detokenize", b'{"records":[{"a":"\xff"}]}'),
        ("/detokenize", b'{"token":"a","records":[{"a":"\xff"}]}'),
        ("/rotate-epoch", b'{"from_epoch":"1","more":"\xff"}'),
    ],
)
def test_400_for_bytes_that_are_no_utf_8_wherever_they_are(rig: Rig, path: str, body: bytes) -> None:
    is_problem(rig.post(path, body, key="admin"), 400, "malformed")


@pytest.mark.parametrize("member", [b'"record":{"a":%s}', b'"records":[{"a":%s}]', b'"values":[%s]', b'"more":%s'])
def test_400_nested_too_deep(rig: Rig, member: bytes) -> None:
    deep = b"{" + member % (b"[" * 70 + b"]" * 70) + b"}"
    is_problem(rig.post("/tokenize", deep), 400, "malformed")
    is_problem(rig.post("/tokenize", b"[" * 4000), 400, "malformed")


def test_401_is_one_answer(rig: Rig) -> None:
    attempts: list[dict[str, str]] = [
        {},
        {"Authorization": "nonsense"},
        {"Authorization": f"Bearer {key_text('nobody')}"},
        {"Authorization": f"Bearer {key_text('clinic')}", "X-API-Key": key_text("lab")},
        {"Authorization": f"Bearer {key_text('clinic')[:-1]}b"},
    ]
    rig.client.headers.pop("authorization")
    answers = [rig.client.post("/tokenize", headers=headers) for headers in attempts]
    for answer in answers:
        is_problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
    bodies = [without_id(answer.json()) for answer in answers]
    assert all(body == bodies[0] for body in bodies)
    headers = [[pair for pair in answer.headers.multi_items() if pair[0] != "x-request-id"] for answer in answers]
    assert all(each == headers[0] for each in headers)


@pytest.mark.parametrize(("method", "path"), WITH_A_KEY)
def test_401_on_every_route_with_a_key(rig: Rig, method: str, path: str) -> None:
    rig.client.headers.pop("authorization")
    is_problem(rig.client.request(method, path), 401, "unauthenticated")


def test_403_not_permitted(rig: Rig) -> None:
    is_problem(rig.post("/rotate-epoch", {"from_epoch": 1}, key="clinic"), 403, "not-permitted")
    is_problem(rig.post("/tokenize", {"values": []}, key="reader"), 403, "not-permitted")
    rig.keys = KeyTable([LAB], [api_key("writer", LAB, ["tokenize"])])
    is_problem(rig.post("/detokenize", {"tokens": []}, key="writer"), 403, "not-permitted")
    assert rig.vault.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/tokenize/",
        "/health/",
        "/Tokenize",
        "/tokenize/x",
        "//tokenize",
        "/v1/tokenize",
        "/tokenize%0A",
        "/health%0A",
        "/health%0a%0a",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_404_unknown_path(rig: Rig, path: str, method: str) -> None:
    is_problem(rig.client.request(method, path, follow_redirects=False), 404, "not-found")


def test_404_single_token(rig: Rig) -> None:
    is_problem(rig.post("/detokenize", {"token": UNKNOWN_TOKEN}), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/tokenize", "POST"),
        ("PUT", "/tokenize", "POST"),
        ("OPTIONS", "/detokenize", "POST"),
        ("DELETE", "/rotate-epoch", "POST"),
        ("POST", "/epoch", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("PATCH", "/limits", "GET, HEAD"),
    ],
)
def test_405_says_what_is_allowed(rig: Rig, method: str, path: str, allow: str) -> None:
    answer = rig.client.request(method, path)
    is_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allow


def test_409_epoch_ahead_has_the_active_one(rig: Rig) -> None:
    problem = is_problem(rig.post("/rotate-epoch", {"from_epoch": 7}, key="admin"), 409, "epoch-ahead")
    assert problem["active_epoch"] == 1


def test_409_token_collision(rig: Rig) -> None:
    rig.vault.collided.add(UNKNOWN_TOKEN)
    is_problem(rig.post("/detokenize", {"token": UNKNOWN_TOKEN}), 409, "token-collision")


def test_413_too_large(rig: Rig) -> None:
    is_problem(rig.post("/tokenize", b" " * 4097), 413, "too-large")
    is_problem(rig.post("/tokenize", b" " * 4096), 400, "malformed")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/json"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json; profile=x"},
        {"Content-Type": "application/problem+json"},
        {"Content-Type": "application/vnd.apache.arrow.file"},
        {"Content-Type": "application/json, application/json"},
        {"Content-Type": ""},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "identity"},
    ],
)
def test_415_unsupported_media_type(rig: Rig, headers: dict[str, str]) -> None:
    is_problem(rig.post("/tokenize", {"values": ["a"]}, headers), 415, "unsupported-media-type")


def test_415_without_a_content_type_says_which_header_to_send(rig: Rig) -> None:
    problem = is_problem(rig.client.post("/tokenize", content=b'{"values":[]}'), 415, "unsupported-media-type")
    assert "Content-Type: application/json" in problem["detail"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_json_is_taken_however_it_is_spelled(rig: Rig, content_type: str) -> None:
    assert rig.post("/tokenize", {"values": []}, {"Content-Type": content_type}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", []),
        ("/tokenize", {}),
        ("/tokenize", {"values": ["a"], "record": {}}),
        ("/tokenize", {"values": ["a"], "owner": "lab"}),
        ("/tokenize", {"values": "a"}),
        ("/tokenize", {"values": None}),
        ("/tokenize", {"record": []}),
        ("/tokenize", {"records": {}}),
        ("/tokenize", {"records": [{}, None]}),
        ("/tokenize", {"values": [], "on_error": "skip"}),
        ("/tokenize", {"values": [], "on_error": None}),
        ("/detokenize", {}),
        ("/detokenize", {"token": 5}),
        ("/detokenize", {"token": None}),
        ("/detokenize", {"tokens": ["a", 5]}),
        ("/detokenize", {"tokens": "a"}),
        ("/detokenize", {"records": [5]}),
        ("/detokenize", {"token": "a", "tokens": ["a"]}),
        ("/detokenize", {"tokens": [], "on_error": "item"}),
        ("/rotate-epoch", {}),
        ("/rotate-epoch", {"from_epoch": 0}),
        ("/rotate-epoch", {"from_epoch": -1}),
        ("/rotate-epoch", {"from_epoch": True}),
        ("/rotate-epoch", {"from_epoch": "1"}),
        ("/rotate-epoch", {"from_epoch": 1.0}),
        ("/rotate-epoch", {"from_epoch": None}),
        ("/rotate-epoch", {"from_epoch": 1, "owner": "lab"}),
    ],
)
def test_422_invalid(rig: Rig, path: str, body: Any) -> None:
    is_problem(rig.post(path, body, key="admin"), 422, "invalid")
    assert rig.vault.asked == []


def test_422_says_where_and_what_is_taken(rig: Rig) -> None:
    problem = is_problem(rig.post("/detokenize", {"tokens": ["a", 5]}), 422, "invalid")
    assert problem["detail"].startswith("expected str | null, got int at $.tokens[1]; send one of ")
    problem = is_problem(rig.post("/tokenize", {"values": [], "onerror": "item"}), 422, "invalid")
    assert problem["detail"] == f"the body has a name in it that is not known here; {TokenizeBody.takes}"


@pytest.mark.parametrize("name", ["X-Request-ID", "X-Purpose"])
@pytest.mark.parametrize("value", ["", "x" * 129, "two words", "na\u00efve", "tab\tbed", "del\x7f"])
@pytest.mark.parametrize("path", ["/epoch", "/health", "/livez", "/readyz", "/limits"])
def test_422_malformed_labels_on_every_route(rig: Rig, name: str, value: str, path: str) -> None:
    answer = rig.client.get(path, headers=[(name.encode(), value.encode("latin-1"))])
    problem = is_problem(answer, 422, "invalid")
    assert name in problem["detail"]
    assert problem["request_id"].startswith("fresh-")


@pytest.mark.parametrize("name", ["X-Request-ID", "X-Purpose"])
def test_422_a_label_sent_twice(rig: Rig, name: str) -> None:
    is_problem(rig.client.get("/epoch", headers=[(name, "one"), (name, "one")]), 422, "invalid")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"values": ["a"] * 11}),
        ("/tokenize", {"values": [None] * 11}),
        ("/tokenize", {"values": ["a"] * 11, "on_error": "item"}),
        ("/tokenize", {"records": [{}] * 11}),
        ("/tokenize", {"record": {"contacts": [{"phone": "5"}] * 13}}),
        ("/detokenize", {"tokens": ["a"] * 11}),
        ("/detokenize", {"records": [{}] * 11}),
        ("/detokenize", {"records": [{"contacts": [{"phone": "5"}] * 7}] * 2}),
    ],
)
def test_422_too_many_items(rig: Rig, path: str, body: Any) -> None:
    is_problem(rig.post(path, body), 422, "too-many-items")
    assert rig.vault.asked == []


def test_422_value_too_large(rig: Rig) -> None:
    for value in ["x" * 101, "\u00e4" * 51, 10**100, -(10**99)]:
        is_problem(rig.post("/tokenize", {"values": [value]}), 422, "value-too-large")
    for value in ["x" * 100, "\u00e4" * 50, 10**99, -(10**98)]:
        assert rig.post("/tokenize", {"values": [value]}).status_code == 200


def test_429_busy(rig: Rig) -> None:
    with rig.admission.enter("one", 0, None), rig.admission.enter("other", 0, None):
        is_problem(rig.post("/tokenize", {"values": []}), 429, "busy", retryable=True)
        is_problem(rig.client.get("/epoch"), 429, "busy", retryable=True)
        assert rig.client.get("/health").status_code == 200
    assert rig.post("/tokenize", {"values": []}).status_code == 200


def test_429_busy_with_bytes(rig: Rig) -> None:
    with rig.admission.enter("other", 0, None) as other:
        other.memory.take(rig.limits.memory_bytes - 20)
        is_problem(rig.post("/tokenize", {"values": ["x" * 100]}), 429, "busy", retryable=True)
        assert rig.client.get("/epoch").status_code == 200
    assert rig.post("/tokenize", {"values": ["x" * 100]}).status_code == 200


def test_429_rate_limited(rig: Rig) -> None:
    for _ in range(2):
        assert rig.post("/detokenize", {"tokens": []}, key="slow").status_code == 200
    answer = rig.post("/detokenize", {"tokens": []}, key="slow")
    is_problem(answer, 429, "rate-limited", retryable=True)
    assert answer.headers["retry-after"] == "1"
    assert rig.post("/detokenize", {"tokens": []}).status_code == 200
    rig.clock.now += 1
    assert rig.post("/detokenize", {"tokens": []}, key="slow").status_code == 200


@pytest.mark.parametrize("outcome", ["none", "unknown"])
def test_503_no_quorum_on_a_write_says_what_may_have_happened(rig: Rig, outcome: Any) -> None:
    rig.vault.failure = NoQuorum("fewer than 2 nodes could decide this", outcome=outcome)
    for path, body in [("/tokenize", {"values": ["a"]}), ("/rotate-epoch", {"from_epoch": 1})]:
        problem = is_problem(rig.post(path, body, key="admin"), 503, "no-quorum", retryable=True)
        assert problem["outcome"] == outcome


def test_503_no_quorum_on_a_read(rig: Rig) -> None:
    rig.vault.failure = NoQuorum("fewer than 2 nodes could decide this")
    for answer in [
        rig.post("/detokenize", {"tokens": ["hello"]}),
        rig.post("/detokenize", {"token": "x"}),
        rig.client.get("/epoch"),
    ]:
        assert "outcome" not in is_problem(answer, 503, "no-quorum", retryable=True)


def test_503_draining(rig: Rig) -> None:
    rig.admission.refuse_new()
    problem = is_problem(rig.post("/tokenize", {"values": []}), 503, "draining", retryable=True)
    assert problem["outcome"] == "none"
    for answer in [rig.post("/detokenize", {"tokens": []}), rig.client.get("/epoch"), rig.client.get("/fields")]:
        assert "outcome" not in is_problem(answer, 503, "draining", retryable=True)


def test_500_for_what_nobody_foresaw_shows_nothing_of_it(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.vault.failure = KeyError("123-45-6789")
    with caplog.at_level(logging.DEBUG):
        answer = rig.post("/tokenize", {"values": ["a"]}, {"X-Request-ID": "mine"})
    is_problem(answer, 500, "internal")
    assert "123-45-6789" not in answer.text
    assert "123-45-6789" not in caplog.text
    assert "request mine: unforeseen KeyError" in caplog.text
    assert "vault.py" in caplog.text  # the place
