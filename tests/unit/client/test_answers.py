"""The client rejects answers of status 200 that no node gives, so that only tokens get into the caller's data."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import msgspec
import pytest

from quorumvault import errors
from quorumvault.client import Client
from tests.rigs.clients import InLoop, made_token
from tests.rigs.served import answering

LIMITS = {"items": 100, "body_bytes": 100_000, "value_bytes": 1000}
A, B, A2 = made_token("1:a"), made_token("1:b"), made_token("2:a")
ESCAPES = "\x1b]0;title\x07\x1b[2J"
both = pytest.mark.parametrize("kind", [Client, InLoop])


def asked(answer: Mapping[str, Any], call: Callable[[Any], Any], kind: Any = Client) -> Any:
    node = answering(lambda request: httpx2.Response(200, json=LIMITS if request.url.path == "/limits" else answer))
    with kind("http://n1", api_key="clinic", transport=node) as vault:
        return call(vault)


@both
@pytest.mark.parametrize(
    "tokens",
    [[A, None], ["a", "b"], [A, B[:-1] + "x"], [A, B.upper()], [A, A], [A, A2], [A2, made_token("2:b")], [A, ESCAPES], [A, ""]],
    ids=["null", "values", "check", "case", "one for two", "two epochs", "other epoch", "escapes", "empty"],
)
def test_other_than_a_token_of_the_epoch_for_each_value_is_refused(tokens: list[Any], kind: Any) -> None:
    with pytest.raises(errors.UnexpectedAnswer, match="is this the URL of a QuorumVault node") as caught:
        asked({"epoch": 1, "tokens": tokens}, lambda vault: vault.tokenize(["a", "b"]), kind)
    assert not any(text in str(caught.value) for text in (A, B, ESCAPES))


def test_two_spellings_of_one_value_have_one_token() -> None:
    values = ["a", msgspec.Raw(b'"\\u0061"'), "b"]
    assert asked({"epoch": 1, "tokens": [A, A, B]}, lambda vault: vault.tokenize(values)) == [A, A, B]
    with pytest.raises(errors.UnexpectedAnswer):
        asked({"epoch": 1, "tokens": [A, B, A]}, lambda vault: vault.tokenize(values))


@both
@pytest.mark.parametrize(
    "result",
    [
        *({"status": "ok"}, {"status": "ok", "value": None}, {"status": "ok", "value": {"a": 1}}, {"status": "ok", "value": [1]}),
        *({"status": "ok", "value": 1.5}, {"status": "ok", "value": 1e300}, {"status": "not_found", "value": "a"}),
    ],
    ids=json.dumps,
)
def test_a_status_without_its_value_is_refused(result: dict[str, Any], kind: Any) -> None:
    with pytest.raises(errors.UnexpectedAnswer):
        asked({"results": [{"status": "ok", "value": "a"}, result]}, lambda vault: vault.detokenize([A, B]), kind)


@pytest.mark.parametrize("value", ["", "a", 0, -5, 10**30, True, False])
def test_every_value_comes_back(value: Any) -> None:
    (result,) = asked({"results": [{"status": "ok", "value": value}]}, lambda vault: vault.detokenize([A]))
    assert result.value == value
    assert type(result.value) is type(value)


@both
@pytest.mark.parametrize(
    "result",
    [{"status": "ok"}, {"status": "ok", "token": A}, {"status": "ok", "token": "a"}, {"status": "not_found", "token": A2}],
    ids=["none", "other epoch", "no token", "not found"],
)
def test_a_moved_token_is_one_of_the_epoch_and_there_if_it_is_ok(result: dict[str, Any], kind: Any) -> None:
    def answer(second: dict[str, Any]) -> dict[str, Any]:
        return {"epoch": 2, "results": [{"status": "ok", "token": A2}, second]}

    with pytest.raises(errors.UnexpectedAnswer):
        asked(answer(result), lambda vault: vault.retokenize([A, B]), kind)
    # one request may hold tokens of an old and of a new epoch
    moved = asked(answer({"status": "ok", "token": A2}), lambda vault: vault.retokenize([A, A2]), kind)
    assert [each.token for each in moved] == [A2, A2]


@pytest.mark.parametrize("tokens", [[A2, A2], [A, A], [A, "a"], [A2, A]], ids=["first", "second", "none", "order"])
def test_derived_tokens_are_one_of_each_epoch(tokens: list[str]) -> None:
    def call(vault: Any) -> Any:
        return vault.tokens_all_epochs(["a"])

    def answer(tokens: list[str]) -> Mapping[str, Any]:
        return {"active_epoch": 2, "epoch": 2, "tokens": [tokens]}

    assert asked(answer([A, A2]), call) == [[A, A2]]
    with pytest.raises(errors.UnexpectedAnswer):
        asked(answer(tokens), call)
