"""Headers that no node sends in an answer do not break a client."""

from typing import Any

import httpx2
import pytest

from quorumvault import errors
from quorumvault.client import Client, ClientPolicy
from tests.rigs.clients import InLoop
from tests.rigs.served import answering

KEY = "clinic"
both = pytest.mark.parametrize("kind", [Client, InLoop])


@both
def test_cookies_are_neither_kept_nor_sent(kind: Any) -> None:
    seen: list[httpx2.Request] = []

    def node(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        cookies = [("Set-Cookie", f"c{number}={'x' * 4000}; Path=/; Max-Age=99999") for number in range(20)]
        return httpx2.Response(200, json={"active_epoch": 1}, headers=cookies)

    with kind(["http://n1:1", "http://n1:2"], api_key=KEY, transport=answering(node)) as vault:
        assert [vault.epoch() for _ in range(3)] == [1, 1, 1]
    assert not any("cookie" in request.headers for request in seen)


@both
@pytest.mark.parametrize(("told", "heeded"), [("9" * 400, 3600), ("7", 7)], ids=["400 nines", "7"])
def test_a_retry_after_of_any_length_is_a_number_of_seconds(told: str, heeded: int, kind: Any) -> None:
    problem = {"detail": "words", "code": "rate-limited", "retryable": True}
    limited = answering(lambda request: httpx2.Response(429, json=problem, headers={"Retry-After": told}))
    with (
        kind("http://n1", api_key=KEY, transport=limited, policy=ClientPolicy(request=1.0)) as vault,
        pytest.raises(errors.RateLimited) as caught,
    ):
        vault.epoch()
    assert caught.value.retry_after == heeded
