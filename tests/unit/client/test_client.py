"""The client's operations: against a handler in place of the network, then both shells with the real API."""

import doctest
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import quorumvault
from quorumvault import errors
from quorumvault.client import AsyncClient, Client, Result
from quorumvault.client import batches as client_batches
from quorumvault.client.plan import Call, Reply, Send, Success
from quorumvault.client.policy import EPOCH_PASSES
from quorumvault.client.results import Limits
from quorumvault.client.settings import resolve
from quorumvault.crypto.tokens import is_token
from quorumvault.testing.serving import served
from tests.rigs.clients import InLoop, made_token
from tests.rigs.served import answering
from tests.rigs.vault import SMALL, Rig, key_text

KEY = key_text("clinic")
URLS = ("http://n1", "http://n2", "http://n3")


# Values and batches


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=50), st.integers(1, 7), st.integers(50, 100))
def test_cut_keeps_the_order_and_the_limits(texts: list[bytes], items: int, size: int) -> None:
    limits = Limits(items=items, body_bytes=size, value_bytes=100)
    runs = client_batches.cut(texts, limits, envelope=len(client_batches.body("values", ())))
    assert [text for run in runs for text in texts[run]] == texts
    for run in runs:
        assert 1 <= run.stop - run.start <= items
        assert len(client_batches.body("values", texts[run])) <= size


@given(st.lists(st.integers(0, 12), max_size=50), st.integers(1, 10))
def test_cut_keeps_the_limit_of_values_in_records_together(leaves: list[int], most: int) -> None:
    texts = [client_batches.encode_record({"list": [0] * count}) for count in leaves]
    limits = Limits(items=100, body_bytes=10_000, value_bytes=100, record_values=most)
    runs = client_batches.cut(texts, limits, 20, client_batches.record_values)
    assert [text for run in runs for text in texts[run]] == texts
    for run in runs:
        held = sum(leaves[run])
        assert held <= most or run.stop - run.start == 1


json_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=3), parts, max_size=4),
    max_leaves=20,
)


def leaves_of(part: Any) -> int:
    members = list(part.values()) if isinstance(part, dict) else part
    return sum(map(leaves_of, members)) if isinstance(members, list) and members else 1


@given(st.dictionaries(st.text(max_size=3), json_trees, max_size=5))
def test_a_record_never_has_more_values_than_are_counted(record: dict[str, Any]) -> None:
    assert leaves_of(record) <= client_batches.record_values(client_batches.encode_record(record))


def test_cut_refuses_what_fits_no_body() -> None:
    with pytest.raises(errors.TooLarge, match=r"^item 1:") as caught:
        client_batches.cut([b"1", b"1" * 100], Limits(10, 100, 100), envelope=20)
    assert [item.index for item in caught.value.errors] == [1]


@given(st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.integers(), st.booleans()))
def test_a_value_is_sent_as_its_json_text(value: str | int | bool) -> None:
    text = client_batches.encode_value(value)
    assert text is not None
    assert json.loads(text) == value
    assert type(json.loads(text)) is type(value)


# Operations, against a handler in place of the network


def problem(status: int, code: str, **members: Any) -> httpx2.Response:
    return httpx2.Response(status, json={"detail": "item 1: is one", "code": code, "retryable": False, **members})


class Handler:
    """A node that implements the API as far as tests need it: tokens are numbered, and epochs follow a list.

    ``answers`` overrides the answer at some paths: a body, or a function of the request's body that may decline (None).
    """

    def __init__(self, epochs: Sequence[int] = (1,), answers: Mapping[str, Any] | None = None, **limits: int) -> None:
        self.limits = {"items": 3, "body_bytes": 10_000, "value_bytes": 100, "in_flight": 1, **limits}
        self.epochs = list(epochs)
        self.answers = answers or {}
        self.bodies: list[dict[str, Any]] = []
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        path = request.url.path
        answer = self.answers.get(path)
        if isinstance(answer, bytes):
            return httpx2.Response(200, content=answer)
        body = json.loads(request.content or b"{}")
        answered = answer(body) if answer else None
        answered = self.answer(path, body) if answered is None else answered
        return answered if isinstance(answered, httpx2.Response) else httpx2.Response(200, json=answered)

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any] | httpx2.Response:
        if path == "/limits":
            return self.limits
        if path == "/epoch":
            return {"active_epoch": self.epochs[0]}
        self.bodies.append(body)
        epoch = self.epochs.pop(0) if len(self.epochs) > 1 else self.epochs[0]
        match path, body:
            case "/retokenize", {"tokens": tokens}:
                return {"epoch": epoch, "results": [self.result(token, token=made_token(f"{epoch}:{token}")) for token in tokens]}
            case "/detokenize", {"tokens": tokens}:
                return {"results": [self.result(token, value=token.upper()) for token in tokens]}
            case "/tokens", {"values": values} if len(values) * epoch > self.limits["items"]:
                return problem(422, "too-many-items")
            case "/tokens", {"values": values}:
                return {
                    "epoch": epoch,
                    "tokens": [[made_token(f"{each}:{value}") for each in range(1, epoch + 1)] for value in values],
                }
            case _, {"values": values}:
                return {"epoch": epoch, "tokens": [made_token(f"{epoch}:{value}") for value in values]}
        records = [{**record, "epoch": epoch} for record in body["records"]]
        return {"epoch": epoch, "records": records, "replaced": {"$.a": len(records), "$.b": 0}}

    @staticmethod
    def result(asked: str, **found: str) -> dict[str, Any]:
        return {"status": asked} if asked.startswith(("not", "un", "col")) else {"status": "ok", **found}

    def client(self, **options: Any) -> Client:
        return Client(URLS[0], api_key=KEY, transport=answering(self), **options)


def test_many_values_go_in_requests_within_the_limits_each_distinct_one_once() -> None:
    handler = Handler()
    with handler.client() as vault:
        assert vault.tokenize(["a", "b", None, "a", "c", "d", "a"]) == [
            made_token("1:a"),
            made_token("1:b"),
            None,
            made_token("1:a"),
            made_token("1:c"),
            made_token("1:d"),
            made_token("1:a"),
        ]
    assert [body["values"] for body in handler.bodies] == [["a", "b", "c"], ["d"]]
    assert [request.url.path for request in handler.requests] == ["/limits", "/tokenize", "/tokenize"]


def test_bodies_are_cut_by_their_bytes_too() -> None:
    handler = Handler(items=100, body_bytes=40, value_bytes=20)
    with handler.client() as vault:
        assert vault.tokenize(["x" * 10, "y" * 10, "z" * 10]) == [made_token(f"1:{letter * 10}") for letter in "xyz"]
    assert [len(body["values"]) for body in handler.bodies] == [2, 1]
    assert all(len(request.content) <= 40 for request in handler.requests)


def test_nothing_to_ask_is_not_asked() -> None:
    handler = Handler()
    with handler.client() as vault:
        assert vault.tokenize([None, None]) == [None, None]
        assert vault.detokenize([]) == []
        assert vault.detokenize([None]) == [Result("null")]
    assert handler.bodies == []


def test_one_call_has_one_epoch_whatever_is_rotated_meanwhile() -> None:
    with Handler(epochs=[1, 1, 2, 2, 3, 3]).client() as vault:
        assert vault.tokenize([str(number) for number in range(9)]) == [made_token(f"3:{number}") for number in range(9)]
    with Handler(epochs=[1, 2, 2]).client() as vault:
        assert [result.token for result in vault.retokenize(["a", "b", "c", "d"])] == [
            made_token("2:a"),
            made_token("2:b"),
            made_token("2:c"),
            made_token("2:d"),
        ]


def test_an_epoch_that_never_stands_still_is_an_error() -> None:
    handler = Handler(epochs=range(1, 100))
    with handler.client() as vault, pytest.raises(errors.EpochMoved):
        vault.tokenize([str(number) for number in range(9)])
    assert len(handler.bodies) <= 3 * EPOCH_PASSES


def test_records_come_back_in_order_with_counts() -> None:
    with Handler(epochs=[1, 2]).client() as vault:
        done = vault.tokenize_records([{"a": number, "x": 1.5} for number in range(5)])
    records = [{"a": number, "x": 1.5, "epoch": 2} for number in range(5)]
    assert (done.epoch, done.records, done.replaced) == (2, records, {"$.a": 5, "$.b": 0})
    assert "1.5" not in repr(done)


RAW = msgspec.Raw
UNFIT = {
    "tokenize": [1.5, b"x", "\ud800", ["a"], 10**5000, RAW(b"1.0"), RAW(b"1,2")],
    "detokenize": ["\ud800", 7],
    "tokenize_records": [{"a": float("inf")}, {"a": b"x"}, {"a": "\ud800"}, {"a": 10**5000}, ["a"]],
}


UNFIT_ITEMS = [(name, item) for name, items in UNFIT.items() for item in items]


@pytest.mark.parametrize(("operation", "item"), UNFIT_ITEMS, ids=[f"{name}-{type(item).__name__}" for name, item in UNFIT_ITEMS])
def test_an_item_that_cannot_be_sent_is_refused_with_its_place(operation: str, item: Any) -> None:
    handler, fine = Handler(), {} if operation == "tokenize_records" else "fine"
    refused = errors.NotTokenizable if operation == "tokenize" else errors.Invalid
    with handler.client() as vault, pytest.raises(refused) as caught:
        getattr(vault, operation)([fine, fine, item, item])
    assert [each.index for each in caught.value.errors] == [2, 3]
    assert "item 2" in str(caught.value)
    assert handler.requests == []


def test_one_string_is_no_sequence_of_values() -> None:
    with Handler().client() as vault:
        operations: list[Any] = [vault.tokenize, vault.detokenize, vault.tokenize_records]
        for operation in operations:
            with pytest.raises(TypeError):
                operation("123-45-6789")


def test_a_value_that_is_too_large_is_refused_before_it_is_sent() -> None:
    handler = Handler()
    with handler.client() as vault:
        vault.tokenize(["x" * 100, "ä" * 50, '"' * 100, 10**99])
        for value in ("x" * 101, "ä" * 51, 10**100):
            with pytest.raises(errors.ValueTooLarge) as caught:
                vault.tokenize(["fine", value])
            assert [item.index for item in caught.value.errors] == [1]
            assert "xx" not in str(caught.value)
    assert len(handler.bodies) == 2


def test_an_integer_longer_than_python_converts_can_be_sent_and_had_as_json() -> None:
    digits = b"9" * 5000
    answers = {
        "/tokenize": json.dumps({"epoch": 1, "tokens": [made_token("1:nines")]}).encode(),
        "/detokenize": b'{"results":[{"status":"ok","value":%b}]}' % digits,
    }
    handler = Handler(answers=answers, value_bytes=6000)
    with handler.client() as vault:
        assert vault.tokenize([msgspec.Raw(digits)]) == [made_token("1:nines")]
        (result,) = vault.detokenize(["token"])
    assert handler.requests[1].content == b'{"values":[%b]}' % digits
    assert result.json == digits
    with pytest.raises(errors.IntegerTooLong, match="5000 digits"):
        _ = result.value


OUTCOMES = ["ok", "null", "not_found", "ok", "ok", "ok"]


@pytest.mark.parametrize(
    ("operation", "attribute", "expected"),
    [
        ("detokenize", "value", ["A", None, None, "A", "B", "C"]),
        ("retokenize", "token", [made_token("1:a"), None, None, made_token("1:a"), made_token("1:b"), made_token("1:c")]),
    ],
)
def test_answers_are_in_order_and_repeats_are_asked_once(operation: str, attribute: str, expected: list[str | None]) -> None:
    handler = Handler()
    with handler.client() as vault:
        results = getattr(vault, operation)(["a", None, "not_found", "a", "b", "c"])
        untold = getattr(vault, operation)(["unavailable", "collision"])
    assert [(result.status, result.found) for result in results] == [(status, status == "ok") for status in OUTCOMES]
    assert [getattr(result, attribute) for result in results] == expected
    assert [body["tokens"] for body in handler.bodies[:2]] == [["a", "not_found", "b"], ["c"]]
    assert made_token("1:a") not in repr(results)
    for result, error in zip(untold, (errors.NoQuorum, errors.TokenCollision), strict=True):
        with pytest.raises(error):  # an unknown outcome is not a missing value
            getattr(result, attribute)


def test_tokens_of_every_epoch_so_many_values_at_once_as_their_tokens_are_within_the_limits() -> None:
    handler = Handler(epochs=[2], items=4)
    with handler.client() as vault:
        derived = vault.tokens_all_epochs(["a", None, "b", "a", "c"])
        assert vault.tokens_all_epochs([None]) == [None]
        assert quorumvault.tokens_all_epochs("a", vault) == [made_token("1:a"), made_token("2:a")]
        assert quorumvault.tokens_all_epochs(None, vault) == []
        with pytest.raises(errors.NotTokenizable):
            vault.tokens_all_epochs([1.5])  # type: ignore[list-item]
        with pytest.raises(errors.ValueTooLarge):
            vault.tokens_all_epochs(["x" * 101])
    assert derived == [
        [made_token("1:a"), made_token("2:a")],
        None,
        [made_token("1:b"), made_token("2:b")],
        [made_token("1:a"), made_token("2:a")],
        [made_token("1:c"), made_token("2:c")],
    ]
    assert [body["values"] for body in handler.bodies] == [["a", "b"], ["c"], ["a"]]


def test_a_rotation_meanwhile_makes_smaller_requests_and_one_epoch() -> None:
    handler = Handler(epochs=[1, 2, 2])
    with handler.client() as vault:
        derived = vault.tokens_all_epochs(["a", "b", "c", "d"])
    assert derived == [
        [made_token("1:a"), made_token("2:a")],
        [made_token("1:b"), made_token("2:b")],
        [made_token("1:c"), made_token("2:c")],
        [made_token("1:d"), made_token("2:d")],
    ]
    # Three values fit in a request of epoch 1, and the last one follows. In epoch 2 the three are sent again; only one fits.
    assert ["".join(body["values"]) for body in handler.bodies] == ["abc", "d", "abc", "a", "bc", "b", "c"]


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (Handler(epochs=[4]), errors.TooManyItems),  # more epochs than fit into an answer
        (Handler(answers={"/tokens": b'{"epoch":2,"tokens":[["1:a"],["1:b"]]}'}), errors.UnexpectedAnswer),
    ],
)
def test_tokens_of_every_epoch_are_all_there_or_an_error(handler: Handler, error: type[Exception]) -> None:
    with handler.client() as vault, pytest.raises(error):
        vault.tokens_all_epochs(["a", "b"])


@pytest.mark.parametrize("operation", ["detokenize", "retokenize"])
def test_values_that_are_too_long_for_one_answer_are_asked_for_in_halves(operation: str) -> None:
    sizes: list[int] = []
    fitting = 2

    def refuse(body: dict[str, Any]) -> httpx2.Response | None:
        sizes.append(len(body["tokens"]))
        return problem(413, "too-large") if sizes[-1] > fitting else None

    tokens = [chr(ord("a") + number) for number in range(11)]
    with Handler(answers={f"/{operation}": refuse}, items=9).client() as vault:
        results: list[Any] = getattr(vault, operation)(tokens)
        fitting = 0
        with pytest.raises(errors.TooLarge):  # one value is too long for an answer
            getattr(vault, operation)(["a", "b"])
    got = [result.value if isinstance(result, Result) else result.token for result in results]
    assert got == [token.upper() if operation == "detokenize" else made_token(f"1:{token}") for token in tokens]
    assert sizes == [9, 4, 2, 2, 5, 2, 3, 1, 2, 2, 2, 1]


@pytest.mark.parametrize("operation", ["detokenize", "retokenize"])
def test_a_status_that_this_release_does_not_know_is_never_taken_for_the_absence_of_a_value(operation: str) -> None:
    answer = b'{"epoch":1,"results":[{"status":"elsewhere"}]}'
    with Handler(answers={f"/{operation}": answer}).client() as vault, pytest.raises(errors.UnexpectedAnswer):
        getattr(vault, operation)(["token"])


def test_missing_tokens_can_be_an_error_that_shows_places_only() -> None:
    with Handler().client() as vault, pytest.raises(errors.TokensNotFound) as caught:
        vault.detokenize(["a", "not_found", None, "not_found"], missing="error")
    assert caught.value.indexes == (1, 3)
    assert "not_found" not in str(caught.value)


def test_a_nodes_complaints_are_about_the_callers_items() -> None:
    bad = [{"index": 1, "code": "already-tokenized", "detail": "is one"}, {"index": 99, "code": "invalid"}]

    def refuse(body: dict[str, Any]) -> httpx2.Response | None:
        return None if body["values"] == ["a", "b"] else problem(422, "already-tokenized", errors=bad)

    handler = Handler(answers={"/tokenize": refuse}, items=2)
    with handler.client() as vault, pytest.raises(errors.AlreadyTokenized, match=r"^item 5: is one") as caught:
        vault.tokenize(["a", "a", "b", "c", "a", "d"])
    assert [(item.index, item.code) for item in caught.value.errors] == [(5, "already-tokenized")]
    assert caught.value.request_id


BUSY = ((503, "no-quorum"), (429, "busy"))


def test_each_try_that_another_one_may_make_good_is_logged_and_shows_nothing_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="quorumvault.client")
    told = [*(httpx2.Response(status, json={"detail": "words", "code": code, "retryable": True}) for status, code in BUSY), None]
    handler = Handler(answers={"/tokenize": lambda body: told.pop(0)})
    with handler.client(sleep=lambda seconds: None) as vault:
        vault.tokenize(["a value"])
    first, second = (record.getMessage() for record in caplog.records)
    request_id = handler.requests[-1].headers["X-Request-ID"]
    assert first == f"POST /tokenize: try 1 failed at http://n1: 503 no-quorum (request {request_id})"
    assert second == f"POST /tokenize: try 2 failed at http://n1: 429 busy (request {request_id})"


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"[]", b"\xff", b"[" * 100_000),
        *(b'{"epoch": 1, "tokens": []}', b'{"epoch": 1, "tokens": ["a", "b"]}', b'{"tokens": ["a"]}'),
    ],
)
def test_an_answer_that_is_none_names_who_gave_it(answer: bytes) -> None:
    vault = Handler(answers={"/tokenize": answer}).client()
    with vault, pytest.raises(errors.UnexpectedAnswer, match="http://n1: 200") as caught:
        vault.tokenize(["value"])
    assert caught.value.request_id


@pytest.mark.parametrize("options", [{"purpose": "study-7"}, {}])
def test_headers_of_requests(options: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Handler()
    monkeypatch.setenv("QUORUMVAULT_PURPOSE", "other" if options else "study-7")
    with handler.client(**options) as vault:
        vault.tokenize(["a"])
        vault.tokenize(["b"])
    limits, first, second = (request.headers for request in handler.requests)
    expected = {"Authorization": f"Bearer {KEY}", "X-Purpose": "study-7", "Content-Type": "application/json"}
    assert {name: first[name] for name in expected} == expected
    assert "Authorization" not in limits
    assert first["X-Request-ID"] != second["X-Request-ID"]


def test_health_asks_every_node_once() -> None:
    body = {"status": "unavailable", "node": "n2", "state": "joining", "quorum": {"needed": 2, "reachable": 1}, "peers": {}}

    def node(request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "n1":
            raise httpx2.ConnectError("refused")
        return httpx2.Response(503, json=body) if request.url.host == "n2" else httpx2.Response(200, text="hello")

    with Client(URLS, transport=answering(node)) as vault:
        first, second, third = vault.health()
    assert (first.url, first.report, first.problem) == ("http://n1", None, "no connection (refused)")
    assert second.report is not None
    assert (second.report.node, second.report.quorum.reachable, second.problem) == ("n2", 1, None)
    assert third.problem == "an answer of status 200 that is none of this API"


# What is never shown


def test_no_repr_shows_a_key_a_value_or_a_token() -> None:
    with Handler().client() as vault:
        shown = [repr(vault), repr(vault.detokenize(["hush"])), repr(vault.retokenize(["hush"]))]
        shown.append(repr(resolve(None, KEY, None, None, {})))
        vault.tokenize(["hush"])
    shown.append(repr(Send(URLS[0], "POST", {"Authorization": KEY}, b"hush", 1, 1)))
    shown.append(repr(Reply(200, None, b"hush")))
    shown.append(repr(Success(b"hush", (), "id")))
    shown.append(repr(Call("POST", "/tokenize", b"hush")))
    assert not [text for text in shown if KEY in text or "hush" in text.lower()]


# Arguments and environment


THERE = {
    "QUORUMVAULT_URL": "http://a:1, https://b:2/,,http://a:1",
    "QUORUMVAULT_API_KEY": "from-there",
    "QUORUMVAULT_PURPOSE": "study-7",
}


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ((None, None, None), {}, (("http://127.0.0.1:8700",), None, None)),
        ((None, None, None), THERE, (("http://a:1", "https://b:2"), "from-there", "study-7")),
        (("http://c", "mine", "why"), THERE, (("http://c",), "mine", "why")),
        ((["http://c", "http://d"], None, None), THERE, (("http://c", "http://d"), "from-there", "study-7")),
        (("https://a", None, None), {"QUORUMVAULT_PURPOSE": "", "QUORUMVAULT_CACERT": ""}, (("https://a",), None, None)),
    ],
)
def test_settings_come_from_arguments_then_from_the_environment_then_from_the_default(
    arguments: tuple[Any, Any, Any], environment: dict[str, str], expected: tuple[Any, Any, Any]
) -> None:
    settings = resolve(*arguments, None, environment)
    assert (settings.urls, settings.api_key, settings.purpose) == expected


def test_a_wrong_certificate_file_or_environment_is_named(tmp_path: Path) -> None:
    absent = {"QUORUMVAULT_CACERT": str(tmp_path / "theirs.pem")}
    for cacert, name in ((None, "theirs"), (tmp_path / "mine.pem", "mine")):
        with pytest.raises(errors.ConfigError, match=rf"{name}\.pem"):
            resolve("https://a", None, None, cacert, absent).tls()
    (tmp_path / "none.pem").write_text("no certificate")
    with pytest.raises(errors.ConfigError, match=r"none\.pem"):
        Client("https://a", cacert=tmp_path / "none.pem")
    shown = {"QUORUMVAULT_CLIENT_CERT": str(tmp_path / "none.pem")}
    for client_cert, environment in ((None, shown), (tmp_path / "none.pem", {}), (tmp_path / "gone.pem", {})):
        with pytest.raises(errors.ConfigError, match=r"(none|gone)\.pem: expected a certificate and its key"):
            resolve("https://a", None, None, None, environment, client_cert).tls()
    with pytest.raises(errors.ConfigError, match=r"^QUORUMVAULT_PURPOSE: expected 1 to 128 visible"):
        resolve("http://a", None, None, None, {"QUORUMVAULT_PURPOSE": "two words"})


WRONG_URLS: list[Any] = [
    "ftp://a",
    "localhost:8700",
    "http://",
    "http://a:99999",
    "http://user:hush@a",
    "http://a?key=hush",
    "http://[::1",
]


@pytest.mark.parametrize(
    ("urls", "key", "purpose"),
    [
        *((urls, None, None) for urls in [*WRONG_URLS, [], " , "]),
        *(("http://a", key, None) for key in ("hush hush", "hush\n", "")),
        *(("http://a", "fine", purpose) for purpose in ("two words", "x" * 129)),
    ],
)
def test_bad_settings_are_refused_without_being_quoted(urls: Any, key: str | None, purpose: str | None) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        Client(urls, api_key=key, purpose=purpose)
    assert "hush" not in str(caught.value)


# The cost of an import, and the examples in docstrings


def imported_by(statement: str) -> set[str]:
    """The top-level modules from outside the standard library that a fresh interpreter has loaded after this statement."""
    check = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {check}"], capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.decode().split()} - sys.stdlib_module_names - {"__main__"}


def test_public_names_are_all_there() -> None:
    assert {name: getattr(quorumvault, name) for name in quorumvault.__all__}
    assert set(quorumvault.__all__) <= set(dir(quorumvault))
    assert "importlib" not in dir(quorumvault)
    with pytest.raises(AttributeError):
        _ = quorumvault.nothing


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    assert imported_by("import quorumvault as qv") == {"quorumvault"}
    assert imported_by("import quorumvault as qv; qv.NoQuorum; dir(qv)") == {"quorumvault"}
    assert not imported_by("import quorumvault.testing.plugin") & {"httpx2", "msgspec", "starlette", "uvicorn"}
    client = imported_by("import quorumvault as qv; qv.Client")
    assert client >= {"quorumvault", "httpx2", "msgspec"}
    assert not client & {"cryptography", "plyvel", "pyarrow", "starlette", "uvicorn", "uvloop", "yaml"}


def documented() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(recurse=False)
    methods = [member for name, member in vars(Client).items() if not name.startswith("_") and callable(member)]
    return [test for method in methods for test in finder.find(method) if test.examples]


@pytest.mark.parametrize("example", documented(), ids=lambda example: example.name)
def test_the_examples_of_the_operations_do_what_they_say(example: doctest.DocTest) -> None:
    with served(Rig(fields=["$.ssn"]).app) as url, Client(url, api_key=key_text("admin")) as vault:
        example.globs = {"vault": vault}
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example).failed == 0


def test_every_operation_has_an_example() -> None:
    operations = {name for name in vars(Client) if not name.startswith("_")} - {"close", "exchange_arrow"}
    assert {example.name for example in documented()} == operations


# Both shells, over sockets, to the real API


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    with served(Rig(limits=SMALL).app) as url:
        yield url


#: Some of these differ only in type.
VALUES = ["1", 1, True, "true", None, "1", -(10**40), "", 10**30, *(f"v{number}" for number in range(20))]
both = pytest.mark.parametrize("kind", [Client, InLoop])


@both
def test_both_clients_do_the_round_trip(api: str, kind: Any) -> None:
    with kind(api, api_key=key_text("admin")) as vault:
        tokens = vault.tokenize(VALUES)
        assert all(token is None or is_token(token) for token in tokens)
        found = [result.value for result in vault.detokenize([*tokens, "qv_1_none"])]
        assert json.dumps(found) == json.dumps([*VALUES, None])
        assert [result.token for result in vault.retokenize([*tokens, "qv_1_none"])] == [*tokens, None]
        assert vault.fields() == ["$.ssn", "$.name.family", "$.contacts[*].phone"]
        assert vault.limits().items == SMALL.items
        contacts = [{"phone": "1"}] * 5
        done = vault.tokenize_records([{"ssn": "1", "x": 1.25}, {}, *[{"contacts": contacts}] * 5])
        assert done.records == [{"ssn": tokens[0], "x": 1.25}, {}, *[{"contacts": [{"phone": tokens[0]}] * 5}] * 5]
        first = vault.epoch()
        assert first == vault.rotate(first) - 1
        derived = vault.tokens_all_epochs(VALUES)
        assert [each and each[first - 1] for each in derived] == tokens
        assert [each and each[first] for each in derived] == vault.tokenize(VALUES)
        with pytest.raises(errors.EpochAhead) as caught:
            vault.rotate(1000)
        assert caught.value.active_epoch == vault.epoch()
        with pytest.raises(errors.AlreadyTokenized):
            vault.tokenize(["x", tokens[0]])
        with pytest.raises(errors.TokensNotFound):
            vault.detokenize(["qv_1_none"], missing="error")
        assert vault.health()[0].report is not None
    with kind(api, api_key=key_text("reader")) as vault, pytest.raises(errors.NotPermitted):
        vault.tokenize(["x"])
    with kind(api, api_key="unknown") as vault, pytest.raises(errors.Unauthenticated):
        vault.epoch()


def test_both_clients_have_the_same_operations() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(Client) == public(AsyncClient)
