"""Each row of the contract's error table, provoked: a table in the contract's order, and one test that runs every row.

A request in the table must not reach the vault unless its row says so. An error is an RFC 9457 problem, as /openapi.json says.
"""

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from quorumvault.config.api_keys import PERMISSIONS, KeyTable, Rates
from quorumvault.crypto.tokens import format_token
from quorumvault.errors import NoQuorum
from quorumvault.server.http.schemas import TokenizeBody
from tests.api.test_openapi import CONTRACT, POSTS, allows, conforms, rows, served
from tests.rigs import arrow
from tests.rigs.columns import ARROW, GOOD, array, column, stream
from tests.rigs.vault import CLINIC, JSON, LAB, SMALL, FaultyVault, Rig, api_key, bearer

MEMBERS = {"type", "title", "status", "detail", "code", "request_id", "retryable"}
UNKNOWN_TOKEN = format_token(1, bytes(20))


@dataclass(frozen=True)
class Row:
    """One request and its error. The problem's detail contains ``says``, and ``more`` are its further members."""

    status: int
    code: str
    path: str
    body: Any = None
    key: str = "clinic"
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    before: Callable[[Rig], None] = lambda rig: None
    says: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)
    asks: bool = False
    digest_bits: int = 160

    def __str__(self) -> str:
        body = self.body if isinstance(self.body, bytes) else str(self.body)
        return f"{self.code}-{self.method} {self.path}-{self.key}-{body[:40]!r}{dict(self.headers) or ''}"[:110]


def each(status: int, code: str, path: str, *requests: Any, **options: Any) -> list[Row]:
    """Rows that differ only in their bodies."""
    return [Row(status, code, path, body, **options) for body in requests]


def only(*allow: Any) -> Callable[[Rig], None]:
    """Gives the lab's only key these permissions."""

    def before(rig: Rig) -> None:
        rig.keys = KeyTable([LAB], [api_key("writer", LAB, allow)])

    return before


def drains(rig: Rig) -> None:
    rig.admission.refuse_new()


def full(rig: Rig) -> None:
    rig.admission.in_flight = rig.limits.in_flight


def holds_all_memory(rig: Rig) -> None:
    rig.admission.enter(LAB, 0, None).memory.take(rig.limits.memory_bytes - 20)


def used_up(rig: Rig) -> None:
    rig.keys = KeyTable([CLINIC], [api_key("admin", CLINIC, PERMISSIONS, rates=Rates(0.5))])
    rig.client.get("/fields", headers=bearer("admin"))


def lost(outcome: Any = "none") -> Callable[[Rig], None]:
    def before(rig: Rig) -> None:
        rig.vault.failure = NoQuorum("fewer than 2 nodes could decide this", outcome=outcome)

    return before


def batch(texts: Any) -> Any:
    return stream(pa.record_batch({"token": texts}))


BUSY = (("busy", full), ("rate-limited", used_up))
NARROW = 8
COLLIDING = FaultyVault(digest_bits=NARROW).colliding_values(CLINIC)
GETS = [path for method, path in CONTRACT if method == "GET"]
NOT_JSON = [b"", b"{", b"nul", b'{"values":["\xff"]}', b'{"values":["\\ud800"]}', b'{"values":[NaN]}', b"\xef\xbb\xbf{}"]
NOT_UTF8 = [
    ("/tokenize", b'{"record":{"a":"\xff"}}'), ("/tokenize", b'{"records":[{"a":"\xff"}]}'),
    ("/tokenize", b'{"values":[1,"\xff"]}'),
    ("/tokenize", b'{"values":["a"],"record":{"a":"\xff"}}'), ("/tokenize", b'{"more":"\xff"}'),
    ("/detokenize", b'{"records":[{"a":"\xff"}]}'), ("/detokenize", b'{"token":"a","records":[{"a":"\xff"}]}'),
    ("/rotate-epoch", b'{"from_epoch":"1","more":"\xff"}'),
]  # fmt: skip
DEEP = b"[" * 70 + b"]" * 70
TWICE = [
    b'{"record":{"ssn":{"a":1},"x":1,"ssn":"a"}}', b'{"records":[{"ssn":"a"},{"a":[{"b":1,"\\u0062":2}]}]}',
    b'{"values":["a"],"values":["b"]}', b'{"values":["a:"],"\\u0076alues":[1]}', b'{"values":[1,{"a":1,"a":1}]}',
]  # fmt: skip
NO_STREAM = [b"", b"{}", b"\xff" * 8, b"ARROW1\x00\x00" + GOOD, GOOD[:-40], GOOD[:100], GOOD[8:]]
NOT_TEXT = [
    pa.array([1]), pa.array([b"a"]), pa.nulls(1), pa.array([1, 1]).dictionary_encode(), pa.array([["a"]]),
    pa.array(["a"], pa.string_view()), array(["a"], pa.dictionary(pa.int8(), pa.string_view())),
]  # fmt: skip
NOT_UTF8_ROWS = pa.Array.from_buffers(pa.utf8(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
BACKWARDS = arrow.Rows([arrow.bits(True, False), arrow.offsets(0, 1, -1), b"ab"], rows=2, nulls=1)
PATHS = ["/", "/tokenize/", "/health/", "/Tokenize", "/tokenize/x", "//tokenize", "/v1/tokenize"]
PATHS += ["/tokenize%0A", "/health%0A", "/health%0a%0a"]
OTHER_TYPES = [
    "application/x-www-form-urlencoded", "text/json", "application/json; charset=latin-1", "application/json; profile=x",
    "application/problem+json", "application/vnd.apache.arrow.file", "application/json, application/json", "",
]  # fmt: skip
INVALID: dict[str, list[Any]] = {
    "/tokenize": [
        [], {}, {"values": ["a"], "record": {}}, {"values": ["a"], "owner": "lab"}, {"values": "a"}, {"values": None},
        {"record": []}, {"records": {}}, {"records": [{}, None]}, {"values": [], "on_error": "skip"},
        {"values": [], "on_error": None},
    ],
    "/detokenize": [
        {}, {"token": 5}, {"token": None}, {"tokens": ["a", 5]}, {"tokens": [True]}, {"tokens": "a"}, {"records": [5]},
        {"token": "a", "tokens": ["a"]}, {"tokens": [], "on_error": "item"},
    ],
    "/retokenize": [
        {}, {"tokens": "x"}, {"tokens": [5]}, {"tokens": None}, {"token": "x"}, {"tokens": [], "missing": "null"}, [], 5,
    ],
    "/tokens": [
        {}, {"values": "x"}, {"values": None}, {"record": {}}, {"values": [], "epoch": 1},
        {"values": [], "on_error": "item"}, [], 5,
    ],
    "/rotate-epoch": [
        {}, {"from_epoch": 0}, {"from_epoch": -1}, {"from_epoch": True}, {"from_epoch": "1"}, {"from_epoch": 1.0},
        {"from_epoch": None}, {"from_epoch": 1, "owner": "lab"},
    ],
}  # fmt: skip
SENDS = {"/retokenize": '"tokens": ["…", null, …]', "/tokens": 'send "values": ["…", 42, null, …]'}
LABELS = ["", "x" * 129, "two words", "na\u00efve", "tab\tbed", "del\x7f"]
TOO_MANY: dict[str, list[Any]] = {
    "/tokenize": [
        {"values": ["a"] * 11}, {"values": [None] * 11}, {"values": ["a"] * 11, "on_error": "item"}, {"records": [{}] * 11},
        {"record": {"contacts": [{"phone": "5"}] * 13}},
    ],
    "/detokenize": [{"tokens": ["a"] * 11}, {"records": [{}] * 11}, {"records": [{"contacts": [{"phone": "5"}] * 7}] * 2}],
    "/retokenize": [{"tokens": ["x"] * 11}],
    "/tokens": [{"values": ["a"] * 11}],
}  # fmt: skip

TABLE = [
    *itertools.chain(*(each(400, "malformed", path, *NOT_JSON, key="admin") for path in POSTS)),
    *(Row(400, "malformed", path, body, "admin") for path, body in NOT_UTF8),
    *each(400, "malformed", "/tokenize", *(b"{" + member % DEEP + b"}" for member in
          (b'"record":{"a":%s}', b'"records":[{"a":%s}]', b'"values":[%s]', b'"more":%s')), b"[" * 4000),
    *each(400, "malformed", "/tokenize", *TWICE, says="an object of the body has one name twice, at byte"),
    *each(400, "malformed", "/detokenize", *NO_STREAM, headers=ARROW),
    *each(400, "malformed", "/detokenize", *map(batch, NOT_TEXT), headers=ARROW, says="utf8, large_utf8"),
    *each(400, "malformed", "/detokenize", *map(batch, NOT_TEXT), headers={**ARROW, "X-Purpose": "with spaces"}),
    *each(400, "malformed", "/tokenize", stream(pa.record_batch({"value": NOT_UTF8_ROWS})),
          arrow.stream(arrow.schema(), arrow.batch(BACKWARDS)), headers=ARROW),
    Row(400, "malformed", "/detokenize", GOOD),
    *(Row(401, "unauthenticated", path, {}, headers={"Authorization": "no"}) for path in POSTS),
    *(Row(401, "unauthenticated", path, method="GET", headers={"Authorization": "no"}) for path in ("/epoch", "/fields")),
    Row(401, "unauthenticated", "/tokenize", b"junk", headers={**ARROW, "Authorization": "no"}),
    Row(403, "not-permitted", "/rotate-epoch", {"from_epoch": 1}),
    Row(403, "not-permitted", "/tokenize", {"values": []}, "reader"),
    Row(403, "not-permitted", "/tokenize", b"junk", "reader", ARROW),
    Row(403, "not-permitted", "/detokenize", {"tokens": []}, "writer", before=only("tokenize")),
    Row(403, "not-permitted", "/tokenize", {"values": []}, "writer", before=only("derive")),
    Row(403, "not-permitted", "/retokenize", {"tokens": []}, "reader"),
    Row(403, "not-permitted", "/tokens", {"values": []}, "reader"),
    Row(403, "not-permitted", "/tokens", {"values": []},
        says="may detokenize, tokenize, not derive; `quorumvault keys create --allow`"),
    *(Row(404, "not-found", path, method=method) for path in PATHS for method in ("GET", "POST")),
    Row(404, "not-found", "/detokenize", {"token": UNKNOWN_TOKEN}, asks=True),
    *(Row(405, "method-not-allowed", path, method=method) for path in POSTS for method in ("GET", "PUT", "OPTIONS", "DELETE")),
    *(Row(405, "method-not-allowed", path, method=method) for path in ("/epoch", "/health", "/limits") for method in
      ("POST", "PATCH")),
    Row(409, "epoch-ahead", "/rotate-epoch", {"from_epoch": 7}, "admin", more={"active_epoch": 1}, asks=True),
    Row(409, "token-collision", "/tokenize", {"values": COLLIDING}, digest_bits=NARROW, asks=True),
    Row(409, "token-collision", "/detokenize", {"token": UNKNOWN_TOKEN}, asks=True,
        before=lambda rig: rig.vault.collided.add(UNKNOWN_TOKEN)),
    *(Row(413, "too-large", path, b" " * 4097, "admin") for path in POSTS),
    Row(413, "too-large", "/detokenize", column("token", ["x" * 5000]), headers=ARROW),
    *(Row(415, "unsupported-media-type", "/tokenize", {"values": ["a"]}, headers={"Content-Type": kind}) for kind in OTHER_TYPES),
    *(Row(415, "unsupported-media-type", path, {}, "admin", {"Content-Type": "text/plain"}) for path in POSTS),
    *(Row(415, "unsupported-media-type", "/tokenize", {"values": ["a"]}, headers={"Content-Encoding": coding})
      for coding in ("gzip", "identity")),
    *(Row(415, "unsupported-media-type", "/detokenize", GOOD, headers={"Content-Type": kind})
      for kind in ("application/vnd.apache.arrow.file", "application/octet-stream")),
    Row(415, "unsupported-media-type", "/rotate-epoch", GOOD, "admin", ARROW),
    Row(415, "unsupported-media-type", "/detokenize", GOOD, headers={**ARROW, "Content-Encoding": "gzip"}),
    *(Row(422, "invalid", path, body, "admin", says=SENDS.get(path, "")) for path in INVALID for body in INVALID[path]),
    Row(422, "invalid", "/detokenize", {"tokens": ["a", 5]}, says="expected str | null, got int at $.tokens[1]; send one of "),
    Row(422, "invalid", "/tokenize", {"values": [], "onerror": "item"},
        says=f"the body has a name in it that is not known here; {TokenizeBody.takes}"),
    *(Row(422, "invalid", path, method="GET", headers={name: value}, says=name) for path in
      GETS for name in ("X-Request-ID", "X-Purpose") for value in LABELS),
    Row(422, "invalid", "/detokenize", GOOD, headers={**ARROW, "X-Purpose": "with spaces"}),
    *each(422, "invalid", "/detokenize", column("tokens", ["a"]),
          stream(pa.record_batch({"token": pa.array(["a"]), "more": pa.array(["b"])})), headers=ARROW, says="token"),
    *(Row(422, "too-many-items", path, body, "admin") for path in TOO_MANY for body in TOO_MANY[path]),
    *each(422, "too-many-items", "/detokenize", column("token", ["a"] * 11),
          stream(*[pa.record_batch({"token": pa.array(["a"] * 6)})] * 2), headers=ARROW),
    *(Row(422, code, path, {"values": [value]}, "admin") for path in ("/tokenize", "/tokens") for code, value in
      [("not-tokenizable", 1.5), ("already-tokenized", UNKNOWN_TOKEN), ("value-too-large", "x" * 101)]),
    *each(422, "value-too-large", "/tokenize", *({"values": [v]} for v in ("x" * 101, "\u00e4" * 51, 10**100, -(10**99)))),
    *(Row(429, code, path, {}, "admin", before=before) for code, before in BUSY for path in POSTS),
    *(Row(429, code, path, key="admin", method="GET", before=before) for code, before in BUSY for path in ("/epoch", "/fields")),
    Row(429, "busy", "/tokenize", {"values": ["x" * 100]}, before=holds_all_memory),
    *(Row(503, "no-quorum", path, body, "admin", before=lost(outcome), more={"outcome": outcome}, asks=True)
      for outcome in ("none", "unknown") for path, body in
      [("/tokenize", {"values": ["a"]}), ("/retokenize", {"tokens": ["x"]}), ("/rotate-epoch", {"from_epoch": 1})]),
    Row(503, "no-quorum", "/tokenize", column("value", ["a"]), headers=ARROW, before=lost(), more={"outcome": "none"}, asks=True),
    *(Row(503, "no-quorum", path, body, "admin", before=lost(None), more={"outcome": None}, asks=True)
      for path, body in
      [("/detokenize", {"tokens": ["hello"]}), ("/detokenize", {"token": "x"}), ("/tokens", {"values": ["x"]})]),
    Row(503, "no-quorum", "/epoch", method="GET", before=lost(None), more={"outcome": None}, asks=True),
    *(Row(503, "draining", path, body, before=drains, more={"outcome": "none"}) for path, body in
      [("/tokenize", {"values": []}), ("/retokenize", {"tokens": ["x"]})]),
    *(Row(503, "draining", path, body, "admin", before=drains, more={"outcome": None}) for path, body in
      [("/detokenize", {"tokens": []}), ("/tokens", {"values": ["x"]})]),
    Row(503, "draining", "/rotate-epoch", {"from_epoch": 1}, "admin", before=drains, more={"outcome": "none"}),
    *(Row(503, "draining", path, method="GET", before=drains, more={"outcome": None}) for path in ("/epoch", "/fields")),
]  # fmt: skip


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """Returns the problem, after checking the members that all problems have."""
    told: dict[str, Any] = answer.json()
    assert (answer.status_code, told["status"], told["code"]) == (status, status, code), told
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == told["request_id"]
    assert set(told) >= MEMBERS
    assert told["type"] == f"urn:quorumvault:problem:{code}"
    assert told["retryable"] is ("retry-after" in answer.headers) is (status in (429, 503))
    return told


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_an_error_is_as_the_contract_says(row: Row) -> None:
    rig = Rig(limits=SMALL, vault=FaultyVault(row.digest_bits))
    row.before(rig)
    content = row.body if isinstance(row.body, bytes) else json.dumps(row.body).encode()
    sent = (JSON if row.method == "POST" else {}) | bearer(row.key) | dict(row.headers)
    headers = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
    answer = rig.client.request(
        row.method, row.path, content=content if row.method == "POST" else None, headers=headers, follow_redirects=False
    )
    told = problem(answer, row.status, row.code)
    assert row.says in told["detail"]
    assert {name: told.get(name) for name in row.more} == row.more
    assert row.asks or rig.vault.asked == []
    if row.method.lower() in served()["paths"].get(row.path, {}):
        conforms(row.method, row.path, answer)
    if row.code == "invalid" and row.method == "POST" and not isinstance(row.body, bytes):
        # JSON Schema cannot tell 1.0 from 1; the description of the field covers this.
        assert not allows(row.path, row.body) or content == b'{"from_epoch": 1.0}'
    if row.code == "method-not-allowed":
        assert answer.headers["allow"] == ("POST" if row.path in POSTS else "GET, HEAD")
    if "X-Request-ID" in row.headers:
        assert told["request_id"].startswith("fresh-")


def test_every_error_that_a_path_may_have_is_in_the_table() -> None:
    assert {row for operation in CONTRACT for row in rows(*operation)} <= {
        (row.method, row.path, row.status, row.code) for row in TABLE
    }
