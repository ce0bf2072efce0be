"""What a running node reads again: keys that came, went and changed are events, and a file that is wrong changes nothing."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from quorumvault.config.api_keys import KeyTable, Rates
from quorumvault.config.cluster import load_cluster
from quorumvault.model import Owner
from quorumvault.server.node.reload import Reloads, key_changes
from quorumvault.server.telemetry.event_log import Event
from tests.rigs.vault import CLINIC, LAB, api_key
from tests.unit.cli.test_keys import keys
from tests.unit.config.test_cluster import GOOD


@dataclass
class Scene:
    """A cluster's files, and what reads them again."""

    config: Path
    events: list[Event] = field(default_factory=list)
    owners: list[set[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config.write_text(yaml.safe_dump(GOOD))
        (self.config.parent / "api_keys.yaml").write_text("owners: []\nkeys: []\n")
        self.make_key("clinic")
        self.reloads = Reloads(load_cluster(self.config), dict, self._introduce, self.events.append)

    def _introduce(self, owners: object) -> None:
        assert isinstance(owners, frozenset)
        self.owners.append({owner.name for owner in owners if isinstance(owner, Owner)})

    def make_key(self, owner: str) -> str:
        return keys(self.config, "create", "--owner", owner, "--new-owner").stdout.strip()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "cluster.yaml")


def test_a_key_that_came_and_one_that_went_are_events(scene: Scene) -> None:
    (first,) = scene.reloads.keys.by_id()
    text = scene.make_key("lab")
    keys(scene.config, "revoke", first)
    assert scene.reloads.keys.authenticate(text) is None
    scene.reloads.reload("SIGHUP")
    assert scene.reloads.keys.authenticate(text) is not None
    came, went, reload = scene.events
    assert (came.event, came.owner, came.key_id) == ("key_added", "lab", text.split("_")[1])
    assert came.detail == "may detokenize, tokenize; rates: none"
    assert (went.event, went.owner, went.key_id) == ("key_removed", "clinic", first)
    assert (reload.event, reload.outcome) == ("reload", "ok")
    assert reload.detail == "asked for by SIGHUP; read again: API keys, peer addresses"
    assert scene.owners == [{"clinic", "lab"}]
    scene.reloads.reload("SIGHUP")
    assert [event.event for event in scene.events[3:]] == ["reload"]


def test_a_file_that_is_wrong_is_a_problem_until_it_is_taken(scene: Scene) -> None:
    before = scene.reloads.keys
    good = (scene.config.parent / "api_keys.yaml").read_text()
    (scene.config.parent / "api_keys.yaml").write_text("owners: [secret-of-somebody")
    done = scene.reloads.reload("SIGHUP")
    assert (done.read, list(done.refused)) == (["peer addresses"], ["API keys"])
    assert scene.reloads.keys is before
    assert scene.reloads.problem == "reload failed: the API keys stay as they were; the node's log says why"
    (event,) = scene.events
    assert (event.event, event.outcome) == ("reload", "failed")
    assert event.detail == "asked for by SIGHUP; read again: peer addresses; refused: API keys"
    scene.config.write_text("nodes: 5")
    scene.reloads.reload("SIGHUP")
    assert scene.reloads.problem is not None
    assert "the API keys and the peer addresses stay" in scene.reloads.problem
    (scene.config.parent / "api_keys.yaml").write_text(good)
    scene.reloads.reload("SIGHUP")
    assert scene.reloads.problem is not None
    scene.config.write_text(yaml.safe_dump(GOOD))
    scene.reloads.reload("SIGHUP")
    assert scene.reloads.problem is None


def test_a_key_that_may_do_something_else_has_changed() -> None:
    before = KeyTable([CLINIC, LAB], [api_key("same", CLINIC), api_key("one", CLINIC), api_key("two", CLINIC, rates=Rates(5))])
    others = [api_key("one", CLINIC, ["derive"]), api_key("two", LAB, rates=Rates(5, 6, 7)), api_key("same", CLINIC)]
    changed = list(key_changes(before, KeyTable([CLINIC, LAB], others)))
    assert [(event.event, event.key_id, event.owner) for event in changed] == [
        ("key_changed", "one", "clinic"),
        ("key_changed", "two", "lab"),
    ]
    assert changed[0].detail == "may derive; rates: none; before: clinic, may detokenize, tokenize; rates: none"
    assert changed[1].detail is not None
    assert "rates: 5 requests/s, 6 values/s, 7 values/d; before: clinic" in changed[1].detail
