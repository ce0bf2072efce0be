"""What a running node reads again: keys that are added, removed or changed are events, and an invalid file changes nothing."""

import dataclasses
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from quorumvault.config.api_keys import KeyTable, Rates
from quorumvault.config.cluster import load_cluster
from quorumvault.crypto.x509 import Authority, peer_name
from quorumvault.errors import ConfigError
from quorumvault.model import Owner
from quorumvault.server.node.reload import Reloads, key_changes
from quorumvault.server.offline import certificates
from quorumvault.server.telemetry.event_log import Event
from tests.rigs.vault import CLINIC, LAB, api_key
from tests.unit.cli.test_keys import keys
from tests.unit.config.test_cluster import GOOD


@dataclass
class Scene:
    """A cluster's files, and the code that reads them again."""

    config: Path
    events: list[Event] = field(default_factory=list)
    owners: list[set[str]] = field(default_factory=list)
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    #: When new certificates were taken.
    taken: list[datetime] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config.write_text(yaml.safe_dump(GOOD))
        (self.config.parent / "api_keys.yaml").write_text("owners: []\nkeys: []\n")
        self.make_key("clinic")
        cluster = load_cluster(self.config)
        (self.config.parent / "secrets").mkdir()
        certificates.create(self.config.parent, cluster.cluster_id, cluster.nodes, self.now)
        self.reloads = Reloads(
            cluster, "n1", lambda: self.now, lambda: self.taken.append(self.now), dict, self._introduce, self.events.append
        )

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
    assert scene.reloads.keys.authenticate(text, 0.0) is None
    scene.reloads.reload("SIGHUP")
    assert scene.reloads.keys.authenticate(text, 0.0) is not None
    came, went, reload = scene.events
    assert (came.event, came.owner, came.key_id) == ("key_added", "lab", text.split("_")[1])
    assert came.detail == "may detokenize, tokenize; rates: none"
    assert (went.event, went.owner, went.key_id) == ("key_removed", "clinic", first)
    assert (reload.event, reload.outcome) == ("reload", "ok")
    assert reload.detail == "asked for by SIGHUP; read again: API keys, peer addresses, certificates"
    assert scene.owners == [{"clinic", "lab"}]
    scene.reloads.reload("SIGHUP")
    assert [event.event for event in scene.events[3:]] == ["reload"]


def test_a_key_that_is_revoked_in_the_cluster_is_in_force_no_more_whatever_the_file_says(scene: Scene) -> None:
    """Proves: a revoked key stays revoked."""
    text = scene.make_key("lab")
    scene.reloads.reload("SIGHUP")
    (first, second), before = scene.reloads.keys.by_id(), scene.reloads.keys.fingerprint
    scene.events.clear()
    scene.reloads.revoke(frozenset({second, "elsewhere"}))
    (event,) = scene.events
    assert (event.event, event.owner, event.key_id) == ("key_revoked", "lab", second)
    for _ in range(2):
        assert list(scene.reloads.keys.by_id()) == [first]
        assert scene.reloads.keys.authenticate(text, 0.0) is None
        assert scene.reloads.keys.fingerprint != before
        scene.reloads.reload("SIGHUP")
    keys(scene.config, "revoke", first)
    scene.reloads.reload("SIGHUP")
    assert scene.reloads.called_revoked == {first} < scene.reloads.listed


def test_a_file_that_is_wrong_is_a_problem_until_it_is_taken(scene: Scene) -> None:
    before = scene.reloads.keys
    good = (scene.config.parent / "api_keys.yaml").read_text()
    (scene.config.parent / "api_keys.yaml").write_text("owners: [secret-of-somebody")
    done = scene.reloads.reload("SIGHUP")
    assert (done.read, list(done.refused)) == (["peer addresses", "certificates"], ["API keys"])
    assert scene.reloads.keys is before
    assert scene.reloads.problem == "reload failed: the API keys stay as they were; the node's log says why"
    (event,) = scene.events
    assert (event.event, event.outcome) == ("reload", "failed")
    assert scene.reloads.counts == {"ok": 0, "failed": 1}
    assert event.detail == "asked for by SIGHUP; read again: peer addresses, certificates; refused: API keys"
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


def renewed(scene: Scene, days: int = 365) -> None:
    certificates.CertificateStore(load_cluster(scene.config), lambda: scene.now).issue(["n1"], days)


def test_a_new_certificate_is_taken(scene: Scene) -> None:
    before = scene.reloads.credentials
    assert list(before.problems(scene.now)) == []
    scene.now += timedelta(days=340)
    assert list(before.problems(scene.now)) == ["the certificate for other nodes expires in 25 days (2031-01-01): renew it"]
    renewed(scene)
    assert scene.reloads.reload("SIGHUP").refused == {}
    assert scene.taken == [scene.now]
    assert scene.reloads.credentials.ends()["peers"] == before.ends()["peers"] + timedelta(days=340)
    assert list(scene.reloads.credentials.problems(scene.now)) == []


def test_a_certificate_that_has_ended_does_not_take_the_place_of_a_good_one(scene: Scene) -> None:
    before = scene.reloads.credentials
    renewed(scene, days=1)
    scene.now += timedelta(days=2)
    done = scene.reloads.reload("SIGHUP")
    assert "peers.certificate: expected one that is valid, this ended 2030-01-02" in done.refused["certificates"]
    assert (scene.reloads.credentials, scene.taken) == (before, [])
    # Once the old certificate has expired too, it is no better than the new one.
    scene.now += timedelta(days=400)
    assert list(before.problems(scene.now)) == ["the certificate for other nodes has expired (2031-01-01): renew it"]
    assert scene.reloads.reload("SIGHUP").refused == {}


def test_what_is_not_valid_yet_is_not_taken_and_begins_no_node(scene: Scene) -> None:
    before, now = scene.reloads.credentials, scene.now
    scene.now += timedelta(days=2)
    renewed(scene)
    scene.now = now
    words = r"peers\.certificate: expected one that is valid, this begins 2030-01-02 23:00:00"
    (line,) = scene.reloads.reload("SIGHUP").refused.values()
    assert re.search(words, line)
    assert (scene.reloads.credentials, scene.taken) == (before, [])
    with pytest.raises(ConfigError, match=words):
        dataclasses.replace(scene.reloads)


def test_a_certificate_of_another_ca_is_not_taken(scene: Scene) -> None:
    before, own = scene.reloads.credentials, scene.config.parent / "secrets" / "n1.pem"
    own.write_bytes(Authority.create("c1", scene.now).issue(peer_name("c1", "n1"), "n1", [], scene.now))
    (line,) = scene.reloads.reload("SIGHUP").refused.values()
    assert "peers.certificate" in line
    assert "expected one that the CAs of peers.ca have signed" in line
    assert scene.reloads.credentials is before


def test_a_list_that_has_ended_does_not_take_the_place_of_a_good_one(scene: Scene) -> None:
    before, secrets = scene.reloads.credentials, scene.config.parent / "secrets"
    of = Authority.parse((secrets / "ca.pem").read_bytes(), (secrets / "ca.key").read_bytes())
    built = x509.CertificateRevocationListBuilder(of.certificate.subject, scene.now, scene.now + timedelta(days=7))
    (secrets / "revoked.pem").write_bytes(built.sign(of.key, SHA256()).public_bytes(Encoding.PEM))
    scene.now += timedelta(days=8)
    done = scene.reloads.reload("SIGHUP")
    assert "peers.revoked: expected one that is valid, this ended 2030-01-08" in done.refused["certificates"]
    assert scene.reloads.credentials is before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("n1.pem", None, "peers.certificate: .*: expected the certificate of this node and its key; there is no such file"),
        ("n1.pem", "nothing", "peers.certificate: .*: expected a certificate in PEM"),
        ("n1.pem", "n2.pem", "peers.certificate: .*: expected the certificate of n1, this is n2's"),
        ("n1.pem", "ca.pem", "peers.certificate: .*: expected a certificate and its own private key"),
        ("ca.pem", "nothing", "peers.ca: .*: expected certificates of CAs in PEM"),
        ("revoked.pem", "nothing", "peers.revoked: .*: expected lists of revoked certificates in PEM"),
        ("revoked.pem", None, "peers.revoked: .*|.*revoked.pem: expected a file that can be read"),
    ],
)
def test_files_that_cannot_be_used_are_named_and_change_nothing(scene: Scene, name: str, content: str | None, words: str) -> None:
    secrets = scene.config.parent / "secrets"
    before = scene.reloads.credentials
    if content is None:
        (secrets / name).unlink()
    else:
        (secrets / name).write_bytes((secrets / content).read_bytes() if "." in content else content.encode())
    (line,) = scene.reloads.reload("SIGHUP").refused.values()
    assert re.search(words, line)
    assert "PRIVATE" not in line
    assert scene.reloads.credentials is before


def test_from_plain_to_tls_takes_a_restart(scene: Scene) -> None:
    scene.config.write_text(yaml.safe_dump({**GOOD, "api": {"certificate": "secrets/{node}.pem"}}))
    (line,) = scene.reloads.reload("SIGHUP").refused.values()
    assert "takes a restart" in line
