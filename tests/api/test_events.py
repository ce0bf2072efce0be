"""Every request with a key has one line in the event log, whatever its outcome, written before its answer is sent."""

import asyncio
from contextlib import closing
from typing import Any
from unittest import mock

import pytest

from quorumvault.errors import NoQuorum
from quorumvault.server.telemetry.event_log import Event
from tests.rigs.vault import CLINIC, JSON, LAB, SMALL, Connection, Rig, bearer, key_text

UNKNOWN_TOKEN = "qv_1_" + "0" * 48
LIMITS = SMALL
LABELS = {"X-Request-ID": "mine", "X-Purpose": "audit-7"}


def only_event(rig: Rig) -> dict[str, Any]:
    (event,) = rig.events.written
    rig.events.written.clear()
    members = {name: getattr(event, name) for name in event.__struct_fields__}
    return {name: member for name, member in members.items() if member not in (None, "")}


def told(event: str, key: str = "clinic", **members: int) -> dict[str, Any]:
    """The log line of a successful request by the clinic with LABELS."""
    labelled = {"request_id": "mine", "purpose": "audit-7", "owner": "clinic", "key_id": key}
    return {"event": event, **labelled, "outcome": "ok", "duration_ms": 0.0, **members}


def test_tokenize(rig: Rig) -> None:
    rig.post("/tokenize", {"values": ["a", None, "b"]}, LABELS)
    assert only_event(rig) == told("tokenize", epoch=1, items=2)


def test_records(rig: Rig) -> None:
    rig.post("/tokenize", {"records": [{"ssn": "a"}, {"ssn": 1.5}, {"name": {"family": "b"}}], "on_error": "item"})
    event = only_event(rig)
    assert (event["epoch"], event["items"], event["replaced"]) == (1, 2, 2)
    rig.post("/detokenize", {"records": [{"ssn": "a"}]})
    event = only_event(rig)
    assert (event["items"], event["found"], event["not_found"], event["replaced"]) == (1, 0, 1, 0)


def test_detokenize(rig: Rig) -> None:
    tokens = rig.tokens(["a", "b"])
    rig.events.written.clear()
    rig.vault.unavailable.add(tokens[1])
    rig.post("/detokenize", {"tokens": [*tokens, None, "x"]}, key="reader")
    event = only_event(rig)
    assert (event["event"], event["key_id"], event["items"]) == ("detokenize", "reader", 3)
    assert (event["found"], event["not_found"]) == (1, 1)
    assert not any(token in str(event) for token in tokens)


def test_rotation_and_reads_of_the_epoch(rig: Rig) -> None:
    rig.rotate()
    event = only_event(rig)
    assert (event["event"], event["epoch"], event["outcome"]) == ("rotate_epoch", 2, "ok")
    rig.client.get("/epoch")
    assert only_event(rig)["event"] == "epoch"
    rig.client.get("/fields")
    assert only_event(rig)["event"] == "fields"


@pytest.mark.parametrize(
    ("path", "body", "key", "outcome"),
    [
        ("/tokenize", {"values": [1.5]}, "clinic", "not-tokenizable"),
        ("/tokenize", b"{", "clinic", "malformed"),
        ("/tokenize", b" " * 5000, "clinic", "too-large"),
        ("/tokenize", {"values": []}, "reader", "not-permitted"),
        ("/detokenize", {"token": UNKNOWN_TOKEN}, "clinic", "not-found"),
        ("/rotate-epoch", {"from_epoch": 9}, "admin", "epoch-ahead"),
    ],
)
def test_a_failure_has_its_code(rig: Rig, path: str, body: Any, key: str, outcome: str) -> None:
    rig.post(path, body, key=key)
    event = only_event(rig)
    assert (event["outcome"], event["owner"], event["key_id"]) == (outcome, "clinic", key)


def test_an_unknown_caller_has_no_owner(rig: Rig) -> None:
    rig.post("/tokenize", {"values": []}, {"Authorization": f"Bearer {key_text('nobody')}", "X-Purpose": "why"})
    event = {"event": "tokenize", "request_id": "fresh-1", "purpose": "why", "outcome": "unauthenticated", "duration_ms": 0.0}
    assert only_event(rig) == event


def test_what_fails_in_the_vault_is_there_with_what_was_asked(rig: Rig) -> None:
    rig.vault.failure = NoQuorum("fewer than 2 nodes could decide this", outcome="unknown")
    rig.post("/tokenize", {"values": ["a", "b"]})
    event = only_event(rig)
    assert (event["outcome"], event["items"]) == ("no-quorum", 2)
    rig.vault.failure = ZeroDivisionError()
    rig.post("/tokenize", {"values": ["a", "b"]})
    assert only_event(rig)["outcome"] == "internal"


def test_a_request_that_is_not_admitted(rig: Rig) -> None:
    with closing(rig.admission.enter(CLINIC, 0, None)), closing(rig.admission.enter(LAB, 0, None)):
        rig.client.get("/epoch")
    assert only_event(rig)["outcome"] == "busy"
    for _ in range(3):
        rig.client.get("/epoch", headers=bearer("slow"))
    assert rig.events.written.pop().outcome == "rate-limited"
    rig.events.written.clear()
    rig.admission.refuse_new()
    rig.client.get("/epoch")
    assert only_event(rig)["outcome"] == "draining"


def test_what_cannot_be_recorded_is_not_begun(rig: Rig) -> None:
    rig.events.refuses = "event log: cannot be written: No space left on device"
    for path, body, outcome in (("/tokenize", {"values": ["a"]}, "none"), ("/detokenize", {"tokens": []}, None)):
        answer = rig.post(path, body)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["retryable"]) == (503, "no-quorum", True)
        assert (problem.get("outcome"), answer.headers["retry-after"]) == (outcome, "1")
        assert "cannot write its event log" in problem["detail"]
    assert rig.vault.asked == []
    assert rig.client.get("/epoch").status_code == rig.client.get("/fields").status_code == 200
    assert rig.post("/tokenize", {"values": []}, key="reader").status_code == 403
    assert rig.client.get("/limits").status_code == 200
    rig.events.refuses = None
    assert rig.post("/tokenize", {"values": ["a"]}).status_code == 200


def test_what_was_done_and_could_not_be_recorded_is_not_told(rig: Rig) -> None:
    token = rig.tokens(["Zc4secretQ7"])[0]
    rig.events.writable = False
    written, read = rig.post("/tokenize", {"values": ["b"]}), rig.post("/detokenize", {"token": token})
    assert (written.status_code, written.json()["outcome"]) == (503, "unknown")
    assert read.status_code == 503
    assert "outcome" not in read.json()
    assert "Zc4secretQ7" not in read.text
    assert rig.post("/tokenize", b"{").status_code == 400
    assert rig.client.get("/fields").status_code == 200
    assert (rig.admission.in_flight, rig.admission.memory.held) == (0, 0)


def test_a_request_that_is_cancelled_while_its_line_is_written_leaves_its_place(rig: Rig) -> None:
    rig.events.write = mock.AsyncMock(side_effect=asyncio.CancelledError)  # type: ignore[method-assign]
    connection = Connection(rig.app, "/tokenize", {**JSON, **bearer()}, b'{"values":["a"]}')
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(connection.run())
    assert (rig.admission.in_flight, rig.admission.memory.held) == (0, 0)


def test_the_duration_is_what_passed_on_the_clock(rig: Rig) -> None:
    async def slow(owner: object) -> int:
        rig.clock.now += 0.0123456
        return 1

    rig.vault.epoch = slow  # type: ignore[method-assign]
    rig.client.get("/epoch")
    assert only_event(rig)["duration_ms"] == 12.346


def test_the_line_is_written_before_the_answer_leaves(rig: Rig) -> None:
    sent_before: list[int] = []

    async def write(event: Event) -> bool:
        sent_before.append(len(connection.sent))
        return True

    rig.events.write = write  # type: ignore[method-assign]
    for body in (b'{"values":["a"]}', b"{"):
        connection = Connection(rig.app, "/tokenize", {**JSON, **bearer()}, body)
        asyncio.run(connection.run())
    assert sent_before == [0, 0]
