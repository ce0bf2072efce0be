"""Errors beside the contract's error table (test_contract.py): one answer for all bad keys, and limits on what is accepted."""

import logging
from contextlib import closing
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from quorumvault.config.limits import Limits
from quorumvault.errors import Busy
from quorumvault.server.http.middleware import RequestIdMiddleware
from tests.api.test_contract import problem
from tests.rigs.vault import CLINIC, LAB, SMALL, Connection, Rig, key_text

LIMITS = SMALL


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
    alike: list[object] = []
    for answer in answers:
        problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
        told = answer.json() | {"request_id": ""}
        headers = [pair for pair in answer.headers.multi_items() if pair[0] != "x-request-id"]
        alike.append((told, headers))
    assert all(each == alike[0] for each in alike)


def test_a_body_of_the_largest_size_is_read(rig: Rig) -> None:
    problem(rig.post("/tokenize", b" " * 4096), 400, "malformed")


def test_415_without_a_content_type_says_which_header_to_send(rig: Rig) -> None:
    told = problem(rig.client.post("/tokenize", content=b'{"values":[]}'), 415, "unsupported-media-type")
    assert "Content-Type: application/json" in told["detail"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_json_is_taken_however_it_is_spelled(rig: Rig, content_type: str) -> None:
    assert rig.post("/tokenize", {"values": []}, {"Content-Type": content_type}).status_code == 200


@pytest.mark.parametrize("name", ["X-Request-ID", "X-Purpose"])
def test_422_a_label_sent_twice(rig: Rig, name: str) -> None:
    problem(rig.client.get("/epoch", headers=[(name, "one"), (name, "one")]), 422, "invalid")


@pytest.mark.parametrize("value", ["x" * 100, "\u00e4" * 50, 10**99, -(10**98)])
def test_a_value_of_the_largest_size_is_taken(rig: Rig, value: Any) -> None:
    assert rig.post("/tokenize", {"values": [value]}).status_code == 200


def test_429_busy_until_a_place_is_free(rig: Rig) -> None:
    with closing(rig.admission.enter(CLINIC, 0, None)), closing(rig.admission.enter(LAB, 0, None)):
        problem(rig.post("/tokenize", {"values": []}), 429, "busy")
        assert rig.client.get("/health").status_code == 200
    assert rig.post("/tokenize", {"values": []}).status_code == 200


def test_the_keys_of_an_owner_have_one_share_of_places_and_memory_and_other_owners_have_the_rest() -> None:
    rig = Rig(Limits(in_flight=4, key_share=50))

    def asked(key: str) -> Any:
        return rig.post("/tokenize", {"values": []}, key=key)

    with closing(rig.admission.enter(CLINIC, 0, None)), closing(rig.admission.enter(CLINIC, 0, None)):
        for key in ("clinic", "admin"):
            assert "owner clinic has 2 requests under way" in problem(asked(key), 429, "busy")["detail"]
        assert asked("lab").status_code == 200
    with closing(rig.admission.enter(CLINIC, 0, None)) as held:
        held.memory.take(rig.limits.memory_bytes // 2)
        for key in ("clinic", "admin"):
            assert "owner clinic has as much" in problem(asked(key), 429, "busy")["detail"]
        assert asked("lab").status_code == 200


def test_429_busy_until_there_is_memory(rig: Rig) -> None:
    with closing(rig.admission.enter(LAB, 0, None)) as other:
        other.memory.take(rig.limits.memory_bytes - 20)
        problem(rig.post("/tokenize", {"values": ["x" * 100]}), 429, "busy")
        assert rig.client.get("/epoch").status_code == 200
    assert rig.post("/tokenize", {"values": ["x" * 100]}).status_code == 200


def test_429_rate_limited_until_time_has_passed(rig: Rig) -> None:
    answers = [rig.post("/detokenize", {"tokens": []}, key="slow") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[-1].headers["retry-after"] == "1"
    assert rig.post("/detokenize", {"tokens": []}).status_code == 200
    rig.clock.now += 1
    assert rig.post("/detokenize", {"tokens": []}, key="slow").status_code == 200


def test_500_for_what_nobody_foresaw_shows_nothing_of_it(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.vault.failure = KeyError("123-45-6789")
    with caplog.at_level(logging.DEBUG):
        answer = rig.post("/tokenize", {"values": ["a"]}, {"X-Request-ID": "mine"})
    problem(answer, 500, "internal")
    assert "123-45-6789" not in answer.text
    assert "123-45-6789" not in caplog.text
    assert "request mine: unforeseen KeyError" in caplog.text
    assert "vault.py" in caplog.text  # where the error was raised


@pytest.mark.usefixtures("run")
async def test_an_error_after_the_answer_has_begun_is_logged_and_begins_no_second_one(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise Busy("too late to be said")

    request = Connection(RequestIdMiddleware(app, lambda: "r1"), "/any", {})
    answer = await request.run()
    assert (answer.status, answer.headers, len(request.sent)) == (200, [(b"x-request-id", b"r1")], 1)
    assert "request r1: unforeseen Busy" in caplog.text
