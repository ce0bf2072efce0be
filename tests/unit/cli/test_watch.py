"""``status --watch`` without a terminal: it prints only what has changed. tests/cluster/test_terminal.py has the terminal."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from quorumvault.cli.watch import watch
from quorumvault.client import Health, NodeHealth
from quorumvault.client.results import PeerHealth, QuorumHealth

AT = datetime(2025, 6, 15, 15, 6, 40, 250_000, tzinfo=UTC)
FINE = Health("ok", "n1", "active", QuorumHealth(2, 3), {"n2": PeerHealth("up", "active")}, [], "1")
ALONE = Health("unavailable", "n1", "active", QuorumHealth(2, 1), {"n2": PeerHealth("down")}, ["n2 is down: no answer"], "1")
GONE = NodeHealth("http://n2", None, "no connection")


def looks(*answers: Sequence[NodeHealth]) -> tuple[Callable[[], Sequence[NodeHealth]], Callable[[float], None]]:
    """A function that returns these answers in turn, and a sleep that is interrupted after the last answer."""
    left = list(answers)

    def sleep(_: float) -> None:
        if not left:
            raise KeyboardInterrupt

    return lambda: left.pop(0), sleep


def nodes(health: Health) -> list[NodeHealth]:
    return [NodeHealth("http://n1", health), GONE]


def test_a_line_for_each_node_that_changed(capsys: pytest.CaptureFixture[str]) -> None:
    ask, sleep = looks(nodes(FINE), nodes(FINE), nodes(ALONE), nodes(ALONE), nodes(FINE))
    watch(ask, as_json=False, now=lambda: AT, sleep=sleep)
    heading, *lines = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert heading[:3] == ["time", "node", "url"]
    assert {line[0] for line in lines} == {"2025-06-15T15:06:40Z"}
    assert [(line[2], line[3]) for line in lines] == [
        ("http://n1", "ok"),
        ("http://n2", "no answer"),
        ("http://n1", "unavailable"),
        ("http://n1", "ok"),
    ]
    assert lines[2][-1] == "n2 is down: no answer"


def test_an_object_whenever_anything_changed(capsys: pytest.CaptureFixture[str]) -> None:
    ask, sleep = looks(nodes(FINE), nodes(FINE), nodes(ALONE))
    watch(ask, as_json=True, now=lambda: AT, sleep=sleep)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["quorum"], second["quorum"]) == (True, False)
    assert first["time"] == "2025-06-15T15:06:40Z"
    assert [each["url"] for each in first["nodes"]] == ["http://n1", "http://n2"]
    assert second["nodes"][0]["health"]["quorum"] == {"needed": 2, "reachable": 1}
