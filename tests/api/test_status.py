"""Epochs, fields, health and limits, and the request id that every response carries."""

from typing import Any

import msgspec
import pytest

from quorumvault import __version__
from quorumvault.config.limits import Limits
from quorumvault.server.http.health import PeerHealth, QuorumHealth
from quorumvault.testing.fake import HEALTHY
from tests.rigs.vault import FIELDS, SMALL, Rig, bearer

OPEN = ["/health", "/livez", "/readyz", "/limits"]


def test_an_owner_starts_at_epoch_one_and_rotates_by_itself(rig: Rig) -> None:
    assert rig.client.get("/epoch").json() == {"active_epoch": 1}
    answer = rig.post("/rotate-epoch", {"from_epoch": 1}, key="admin")
    assert (answer.status_code, answer.json()) == (200, {"active_epoch": 2})
    assert rig.client.get("/epoch").json() == {"active_epoch": 2}
    assert rig.post("/tokenize", {"values": []}, key="lab").json()["epoch"] == 1


def test_repeating_a_rotation_changes_nothing(rig: Rig) -> None:
    for _ in range(3):
        assert rig.post("/rotate-epoch", {"from_epoch": 1}, key="admin").json() == {"active_epoch": 2}
    assert rig.post("/rotate-epoch", {"from_epoch": 2}, key="admin").json() == {"active_epoch": 3}
    assert rig.post("/rotate-epoch", {"from_epoch": 1}, key="admin").json() == {"active_epoch": 3}


@pytest.mark.parametrize("key", ["clinic", "reader", "admin"])
def test_any_key_may_ask_for_the_fields_and_the_epoch(rig: Rig, key: str) -> None:
    assert rig.client.get("/fields", headers=bearer(key)).json() == {"fields": list(FIELDS)}
    assert rig.client.get("/epoch", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize(("status", "code"), [("ok", 200), ("degraded", 200), ("unavailable", 503)])
@pytest.mark.parametrize("path", ["/health", "/readyz"])
def test_health_is_its_status(status: Any, code: int, path: str) -> None:
    health = msgspec.structs.replace(
        HEALTHY,
        status=status,
        quorum=QuorumHealth(reachable=1),
        peers={"n2": PeerHealth("up", "joining"), "n3": PeerHealth("down")},
        warnings=["n2 has other fields"],
    )
    answer = Rig(health=health).client.get(path, headers={"Authorization": ""})
    assert answer.status_code == code
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "status": status,
        "node": "n1",
        "state": "active",
        "quorum": {"needed": 2, "reachable": 1},
        "peers": {"n2": {"status": "up", "state": "joining"}, "n3": {"status": "down"}},
        "warnings": ["n2 has other fields"],
        "version": __version__,
    }


def test_a_node_that_leaves_is_healthy_and_not_ready(rig: Rig) -> None:
    rig.admission.announce_stop()
    assert rig.client.get("/health").status_code == 200
    assert rig.post("/tokenize", {"values": ["a"]}).status_code == 200
    ready = rig.client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert ready.json()["warnings"] == ["this node is about to stop"]
    rig.admission.refuse_new()
    assert rig.client.get("/readyz").status_code == 503
    assert rig.client.get("/health").status_code == 503
    assert rig.client.get("/livez").json() == {"status": "ok"}


def test_limits_are_those_in_force() -> None:
    assert Rig(limits=SMALL).client.get("/limits").json() == {
        "items": 10,
        "record_values": 12,
        "body_bytes": 4096,
        "value_bytes": 100,
        "in_flight": 2,
        "answer_bytes": 64 << 20,
        "memory_bytes": 320 << 20,
    }
    limits = Rig().client.get("/limits").json()
    assert limits["items"] >= 10_000
    assert limits["body_bytes"] >= 16 * 1024 * 1024
    assert limits["value_bytes"] >= 64 * 1024
    assert limits["in_flight"] == Limits().in_flight


def test_what_needs_no_key_has_no_event(rig: Rig) -> None:
    rig.client.headers.pop("authorization")
    for path in OPEN:
        assert rig.client.get(path).status_code == 200
    assert rig.events.written == []


@pytest.mark.parametrize("path", ["/epoch", "/fields", *OPEN])
def test_head_is_get_without_the_body(rig: Rig, path: str) -> None:
    get, head = rig.client.get(path), rig.client.head(path)
    assert head.status_code == get.status_code
    assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize("request_id", ["x", "x" * 128, "!~", 'a/b:c,d=e;{}"'])
def test_the_caller_s_request_id_comes_back(rig: Rig, request_id: str) -> None:
    headers = {"X-Request-ID": request_id}
    for answer in [
        rig.client.get("/limits", headers=headers),
        rig.client.get("/nowhere", headers=headers),
        rig.client.put("/limits", headers=headers),
        rig.client.get("/epoch", headers={**headers, "Authorization": ""}),
        rig.post("/tokenize", {"values": ["a"]}, headers),
        rig.post("/tokenize", {"values": [1.5]}, headers),
    ]:
        assert answer.headers.get_list("x-request-id") == [request_id]
    assert {event.request_id for event in rig.events.written} == {request_id}


def test_without_one_there_is_a_fresh_one_each_time(rig: Rig) -> None:
    ids = {rig.client.get("/limits").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5
