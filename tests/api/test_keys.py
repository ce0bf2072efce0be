"""Keys that end, as clients see it: an expired or revoked key is unknown, and a node that cannot tell accepts no key."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from quorumvault.config.api_keys import KeyTable
from quorumvault.server.http import dependencies, vault_queue
from quorumvault.server.http.memory import Hold
from quorumvault.server.http.scope import CONNECTION
from tests.rigs.vault import CLINIC, JSON, Connection, Rig, api_key, bearer

ENDS = 1_000.0


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.keys = KeyTable([CLINIC], [api_key("clinic", CLINIC), api_key("ending", CLINIC, expires=ENDS)])
    return rig


def refusal(rig: Rig, key: str) -> tuple[int, dict[str, Any]]:
    response = rig.client.get("/fields", headers=bearer(key))
    return response.status_code, {name: value for name, value in response.json().items() if name != "request_id"}


def test_a_key_that_has_ended_or_was_revoked_is_as_good_as_unknown(rig: Rig) -> None:
    """Proves: keys end."""
    rig.wall = ENDS - 0.001
    assert rig.client.get("/fields", headers=bearer("ending")).status_code == 200
    rig.wall = ENDS
    rig.keys = rig.keys.without({"clinic"})
    unknown = refusal(rig, "nobody")
    assert unknown[0] == 401
    assert refusal(rig, "ending") == refusal(rig, "clinic") == unknown


@pytest.mark.parametrize(
    ("method", "path", "outcome"),
    [("POST", "/tokenize", "none"), ("POST", "/detokenize", None), ("GET", "/epoch", None), ("GET", "/fields", None)],
)
def test_a_node_that_does_not_know_what_is_revoked_takes_no_key(rig: Rig, method: str, path: str, outcome: str | None) -> None:
    """Proves: no key without knowledge."""
    rig.knows_revoked = False
    body = {"tokens": ["qv_1_" + "0" * 48]} if path == "/detokenize" else {"values": ["a"]}
    response = rig.client.request(method, path, json=body if method == "POST" else None)
    assert (response.status_code, response.json()["code"], response.json().get("outcome")) == (503, "no-quorum", outcome)
    assert "which API keys are revoked" in response.json()["detail"]
    assert refusal(rig, "nobody")[0] == 401
    if method == "POST":  # errors in the request itself come first, in the contract's order
        assert rig.client.post(path, json={"a": 1}).status_code == 422
        assert rig.client.post(path, content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
        assert rig.client.post(path, content=b"{", headers={"Content-Type": "text/csv"}).status_code == 415
    rig.learns_revoked = True
    assert rig.client.get("/fields").status_code == 200


class _Slow:
    """A body that arrives in two pieces. ``happens`` is called between them."""

    def __init__(self, happens: Any) -> None:
        self._happens = happens

    def __iter__(self) -> Any:
        yield b'{"values": ["a"'
        self._happens()
        yield b"]}"


@pytest.mark.parametrize("key", ["clinic", "ending"])
def test_a_key_that_ends_while_the_body_comes_is_not_taken(rig: Rig, key: str) -> None:
    """Proves: a revoked key stays revoked."""

    def ends() -> None:
        rig.keys, rig.wall = rig.keys.without({"clinic"}), ENDS

    headers = {"Content-Type": "application/json", "Content-Length": "17", **bearer(key)}
    response = rig.client.post("/tokenize", content=_Slow(ends), headers=headers)
    assert response.status_code == 401
    assert [(event.outcome, event.key_id) for event in rig.events.written] == [("unauthenticated", key)]
    assert rig.admission.in_flight == 0
    assert rig.client.post("/tokenize", content=b'{"values": []}', headers=headers).status_code == 401


@pytest.mark.parametrize("waits", ["enter_lane", "wait_for"])
def test_nor_is_one_that_ends_while_the_request_waits_for_others(rig: Rig, monkeypatch: pytest.MonkeyPatch, waits: str) -> None:
    """Proves: a revoked key stays revoked."""
    tokens = rig.client.post("/tokenize", json={"values": ["a", "b"]}, headers=bearer("clinic")).json()["tokens"]

    async def ends(self: Hold, *arguments: float) -> None:
        rig.keys = rig.keys.without({"clinic"})

    monkeypatch.setattr(dependencies, "LARGE", 0)
    monkeypatch.setattr(Hold, "enter_lane", _at_once)
    monkeypatch.setattr(Hold, "take_at_once", lambda self, size: waits != "wait_for")
    monkeypatch.setattr(Hold, waits, ends)
    response = rig.client.post("/detokenize", json={"tokens": tokens}, headers=bearer("clinic"))
    assert (response.status_code, "values" in response.json()) == (401, False)
    assert rig.events.written[-1].outcome == "unauthenticated"
    assert rig.admission.in_flight == 0


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("happens", ["revoked", "left"])
async def test_nor_is_one_that_is_gone_once_its_turn_at_the_vault_comes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, happens: str
) -> None:
    """Proves: a revoked key stays revoked."""
    monkeypatch.setattr(vault_queue, "FEW", 1)
    monkeypatch.setattr(vault_queue, "AT_ONCE", 2)
    rig.admission.queue = vault_queue.VaultQueue()
    rig.vault.gate.clear()
    wire = _Wire()
    first, second = (Connection(rig.app, "/tokenize", {**JSON, **bearer()}, b'{"values":["a","b"]}') for _ in range(2))
    second.scope[CONNECTION] = wire
    working, waiting = asyncio.ensure_future(first.run()), asyncio.ensure_future(second.run_in_silence())
    await rig.vault.reached.wait()
    if happens == "revoked":
        rig.keys = rig.keys.without({"clinic"})
    wire.ended = happens == "left"
    rig.vault.gate.set()
    await asyncio.gather(working, waiting, return_exceptions=True)
    assert len(rig.vault.asked) == 1
    assert [event.outcome for event in rig.events.written] == [
        "ok",
        {"revoked": "unauthenticated", "left": "disconnected"}[happens],
    ]
    assert (rig.admission.in_flight, rig.admission.queue.under_way) == (0, 0)


class _Wire:
    """A connection over which all of a request has arrived."""

    received = True
    ended = False

    def when_sent(self, callback: Callable[[], None]) -> None:
        callback()


async def _at_once(self: Hold, seconds: float) -> None: ...
