"""Runbooks of docs/operations.md and docs/security.md, typed as written, against a cluster of three hosts.
test_three_hosts.py types the other runbooks.

The nodes get the master secret from a command, which stands in for a KMS.

A host is a folder and an address of this machine. ``ssh`` and ``scp`` are stand-ins that work on these folders, without the
network and with an empty environment. Everything else is typed as the pages print it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chaos.testbed.api import Api, trusting
from chaos.testbed.cluster import NODES, Cluster, environment, wait_for
from quorumvault.config.cluster import load_cluster
from quorumvault.server.offline.certificates import CertificateStore
from tests.rigs.clusters import SECONDS, events
from tests.rigs.typed import blocks

OWNER = "clinic-a"
HOSTS = ("127.0.0.14", "127.0.0.15", "127.0.0.16")
#: The key id in docs/security.md.
SOME_KEY = "3fq7tzd2"

_SSH = """\
#!/bin/bash
host=$1; shift
cd "$HOSTS/$host" && exec env -i PATH="$PATH" HOSTS="$HOSTS" bash -c "$*"
"""
_SCP = """\
#!/bin/bash
place() { case $1 in n[123]:*) echo "$HOSTS/${1%%:*}/${1#*:}" ;; *) echo "$1" ;; esac; }
exec cp "$(place "$1")" "$(place "$2")"
"""


@dataclass
class Desk:
    """Where an operator types: a directory with ``vault/`` and the hosts' folders."""

    cluster: Cluster
    place: Path
    cacert: Path

    def trust(self, cacert: Path) -> None:
        """From now on clients trust these CAs."""
        self.cacert = self.cluster.cacert = cacert
        trusting.cache_clear()

    @property
    def vault(self) -> Path:
        return self.place / "vault"

    def host(self, node: str) -> Path:
        return self.place / "hosts" / node

    def type(self, block: str, **instead: str) -> str:
        """Types one block of a page. Returns what it printed. Raises if one of its lines fails."""
        for shown, real in instead.items():
            assert shown in block
            block = block.replace(shown, real)
        urls = ",".join(map(self.cluster.url, NODES))
        variables = environment(
            PATH=os.pathsep.join([str(self.place / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
            HOSTS=str(self.place / "hosts"),
            QUORUMVAULT_URL=urls,
            QUORUMVAULT_CACERT=str(self.cacert),
        )
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=self.place,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def api(self, node: str, key: str) -> Api:
        return Api(self.cluster.nodes[node].address, key, self.cacert)

    def recovers(self, tokens: list[str]) -> bool:
        """Whether all nodes serve, and return what was stored before."""
        key = self.cluster.api_key(OWNER)
        answers = [self.api(node, key).detokenize(tokens) for node in NODES]
        return all([result["value"] for result in answer.body["results"]] == ["before"] for answer in answers)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One cluster for all tests: each runbook leaves it as it found it."""
    place = tmp_path_factory.mktemp("desk")
    (place / "bin").mkdir()
    for name, script in (("ssh", _SSH), ("scp", _SCP)):
        (place / "bin" / name).write_text(script)
        (place / "bin" / name).chmod(0o755)
    with Cluster.create(place / "vault", (OWNER,), hosts=HOSTS, tls=True) as cluster:
        assert cluster.cacert is not None
        desk = Desk(cluster, place, cluster.cacert)
        _ask_a_kms(desk)
        for node in NODES:
            (place / "hosts" / node / "vault").mkdir(parents=True)
            desk.type(f"quorumvault pack vault --node {node} -o - | ssh {node} tar -x -C vault")
            cluster.nodes[node].directory = desk.host(node) / "vault"
        cluster.bring_up()
        yield desk


def _ask_a_kms(desk: Desk) -> None:
    """Moves the secret out of the vault's files: from here on ``kms`` prints it."""
    (desk.vault / "secrets" / "master-s1.key").rename(desk.place / "kept")
    kms, file = desk.place / "bin" / "kms", desk.vault / "cluster.yaml"
    kms.write_text(f"#!/bin/sh\necho decrypting >&2\nexec cat '{desk.place / 'kept'}'\n")
    kms.chmod(0o755)
    file.write_text(file.read_text().replace('    file: "secrets/master-s1.key"', f"    command: ['{kms}']"))


@pytest.fixture
def tokens(desk: Desk) -> list[str]:
    """Tokens of the value "before"."""
    answer = desk.api("n1", desk.cluster.api_key(OWNER)).tokenize(["before"])
    assert answer.status == 200, answer
    return list(answer.body["tokens"])


def test_a_secret_that_a_kms_gives_shows_nowhere(desk: Desk, tokens: list[str]) -> None:
    """The secret is in no process listing or environment, in nothing that nodes write, and on no host's disk."""
    secret = bytes.fromhex((desk.place / "kept").read_text())
    assert desk.recovers(tokens)
    for node in NODES:
        process = Path("/proc", str(desk.cluster.pid(node)))
        seen = [(process / "cmdline").read_bytes()]
        with suppress(PermissionError):  # just as good: then only root can read it
            seen.append((process / "environ").read_bytes())
        seen += [path.read_bytes() for path in desk.host(node).rglob("*") if path.is_file()]
        seen.append(desk.cluster.nodes[node].log.read_bytes())
        assert len(seen) > 5
        assert not any(text in content for content in seen for text in (secret, secret.hex().encode()))


def test_a_leaked_api_key(desk: Desk, tokens: list[str]) -> None:
    revoke, look, another = blocks("security.md", "### A leaked API key")
    leaked = desk.type(another).splitlines()[0]
    key_id = leaked.split("_")[1]
    assert [desk.api(node, leaked).detokenize(tokens).status for node in NODES] == [200] * 3
    assert "two disks have noted it" in desk.type(revoke, **{SOME_KEY: key_id})
    assert wait_for(lambda: {desk.api(node, leaked).detokenize(tokens).status for node in NODES} == {401}, SECONDS)
    assert desk.type(look).count(f"key_id={key_id}") >= 3
    fresh = desk.type(another).splitlines()[0]
    assert [desk.api(node, fresh).detokenize(tokens).status for node in NODES] == [200] * 3
    assert desk.recovers(tokens)


def test_expired_certificates(desk: Desk, tokens: list[str]) -> None:
    (renew,) = blocks("operations.md", "### Expired certificates")
    past = datetime.now(UTC) - timedelta(days=3)
    CertificateStore(load_cluster(desk.vault / "cluster.yaml"), lambda: past).issue(NODES, days=1)
    desk.cluster.stop()
    for node in NODES:
        (desk.host(node) / "vault" / "secrets" / f"{node}.pem").write_bytes((desk.vault / "secrets" / f"{node}.pem").read_bytes())
    began = {node: len(events(desk.cluster, node)) for node in NODES}
    desk.cluster.start()
    for node in NODES:
        assert wait_for(lambda node=node: _refuses(desk, node, began[node]), SECONDS)  # type: ignore[misc]
        assert "WARNING" in desk.cluster.nodes[node].log.read_text().partition("certificate for other nodes has expired")[0]
    assert "expired" in desk.type(renew)
    desk.cluster.wait_ready(reachable=3, seconds=SECONDS)
    assert desk.recovers(tokens)


def _refuses(desk: Desk, node: str, began: int) -> bool:
    """Whether the node has logged that it refuses a peer whose certificate has expired."""
    told = [event["detail"] for event in events(desk.cluster, node)[began:] if event["event"] == "peer_refused"]
    return any("has expired: renew it, or set the clocks right" in detail for detail in told)


def test_a_changed_ca(desk: Desk, tokens: list[str]) -> None:
    make, both, new, alone = blocks("operations.md", "### A changed CA")
    old = (desk.vault / "secrets" / "ca.pem").read_bytes()
    desk.type(make)
    desk.trust(desk.place / "old" / "ca.pem")
    desk.type(both)
    assert desk.recovers(tokens)  # clients may still trust the old CA alone
    desk.trust(desk.place / "both-ca.pem")
    desk.type(new)
    assert desk.recovers(tokens)
    desk.type(alone)
    desk.trust(desk.vault / "secrets" / "ca.pem")
    assert old not in desk.cacert.read_bytes()
    desk.cluster.wait_ready(reachable=3, seconds=SECONDS)
    assert desk.recovers(tokens)
    for node in NODES:
        assert (desk.host(node) / "vault" / "secrets" / "ca.pem").read_bytes() == desk.cacert.read_bytes()
    # No node accepts the old CA's certificates: n3 would not start with one.
    desk.cluster.restart("n3")
    desk.cluster.wait_ready(reachable=3, seconds=SECONDS)
