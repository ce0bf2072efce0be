"""Certificates of a running cluster: renewed under load, revoked, expired, foreign; and what the wire shows."""

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import quorumvault as qv
from chaos.testbed.api import trusting
from chaos.testbed.cluster import NODES, Cluster, check, wait_for
from quorumvault.config.cluster import load_cluster
from quorumvault.crypto.x509 import peer_name
from quorumvault.server.offline.certificates import CertificateStore
from tests.rigs.certificates import authority
from tests.rigs.clusters import OWNER, SECONDS, sample_becomes


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose API speaks TLS too; it runs."""
    with Cluster.create(tmp_path / "vault", (OWNER,), tls=True) as cluster:
        cluster.bring_up()
        yield cluster


def client(cluster: Cluster, *nodes: str) -> qv.Client:
    urls = [cluster.url(node) for node in nodes or NODES]
    return qv.Client(urls, api_key=cluster.api_key(OWNER), cacert=cluster.cacert)


def events(cluster: Cluster, node: str, name: str) -> list[dict[str, Any]]:
    lines = (cluster.directory / node / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def reload(cluster: Cluster, *nodes: str) -> None:
    """SIGHUP, as an operator sends it, and waits until it was read."""
    for node in nodes or NODES:
        before = len(events(cluster, node, "reload"))
        cluster.nodes[node].require_process().send_signal(signal.SIGHUP)
        assert wait_for(lambda node=node, before=before: len(events(cluster, node, "reload")) > before, SECONDS)  # type: ignore[misc]
        assert events(cluster, node, "reload")[-1]["outcome"] == "ok"


def own(cluster: Cluster, node: str) -> Path:
    return cluster.directory / "secrets" / f"{node}.pem"


@contextmanager
def asking(cluster: Cluster) -> Iterator[Callable[[], int]]:
    """A client that asks all the time, and never retries. Yields what counts its requests; raises if one of them failed."""
    stop, failed, count = threading.Event(), list[BaseException](), 0

    def ask() -> None:
        nonlocal count
        try:
            while not stop.is_set():
                for node in NODES:
                    answer = cluster.api(node, OWNER).tokenize([f"value {count}", "again"])
                    assert answer.status == 200, answer
                    back = cluster.api(node, OWNER).detokenize(answer.body["tokens"])
                    assert [result["status"] for result in back.body["results"]] == ["ok", "ok"]
                    count += 1
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield lambda: count
    finally:
        stop.set()
        thread.join()
        if failed:  # whatever the block says: this is why
            raise failed[0]


def goes_on(count: Callable[[], int]) -> bool:
    before = count()
    return wait_for(lambda: count() > before + 5, SECONDS)


def test_all_certificates_are_renewed_under_load_and_no_request_fails(secured: Cluster) -> None:
    with asking(secured) as count, client(secured) as vault:
        vault.tokenize(["before"])
        for _ in range(3):
            assert goes_on(count)
            check("certs", "renew", str(secured.directory))
            reload(secured)
            vault.tokenize(["after"])
        assert goes_on(count)
    assert all(not events(secured, node, "peer_down") for node in NODES)
    assert all(not events(secured, node, "peer_refused") for node in NODES)
    # What was renewed is what new connections are shown.
    secured.kill("n3")
    secured.start("n3")
    secured.wait_ready(reachable=3)


def test_a_changed_ca_under_load_and_no_request_fails(secured: Cluster) -> None:
    """As docs/operations.md says: first both CAs everywhere, then the new certificates, then the new CA alone."""
    secrets = secured.directory / "secrets"
    old = {name: (secrets / name).read_bytes() for name in ("ca.pem", "revoked.pem", "n1.pem", "n2.pem", "n3.pem")}
    for name in ("ca.key", "ca.pem", "issued.pem", "revoked.pem"):
        (secrets / name).rename(secured.directory / f"old-{name}")
    check("certs", "issue", str(secured.directory))
    new = {name: (secrets / name).read_bytes() for name in old}
    assert all(new[name] != old[name] for name in old)
    both = {name: new[name] + old[name] for name in ("ca.pem", "revoked.pem")}

    def put(files: dict[str, bytes]) -> None:
        for name, content in files.items():
            draft = secrets / f"{name}.new"
            draft.write_bytes(content)
            draft.chmod(0o600)
            draft.rename(secrets / name)  # the client reads it at any time
        trusting.cache_clear()

    def take(files: dict[str, bytes]) -> None:
        put(files)
        reload(secured)

    take(old)
    with asking(secured) as count:
        for files in ({**old, **both}, {**new, **both}):
            take(files)
            assert goes_on(count)
    # New connections by either CA, and a list that goes on: what is revoked by the new CA leaves the old one's.
    secured.stop("n3")
    check("certs", "revoke", str(secured.directory), "--node", "n3")
    check("certs", "issue", str(secured.directory), "--node", "n3")
    new |= {"n3.pem": own(secured, "n3").read_bytes()}
    assert (secrets / "revoked.pem").read_bytes().endswith(old["revoked.pem"])
    new["revoked.pem"] = (secrets / "revoked.pem").read_bytes().removesuffix(old["revoked.pem"])
    secured.start("n3")
    secured.wait_ready(reachable=3)
    put(new)
    with asking(secured) as count:
        for node in NODES:
            before = len(events(secured, node, "peer_up"))
            reload(secured, node)
            assert wait_for(lambda node=node, before=before: len(events(secured, node, "peer_up")) == before + 2, SECONDS)  # type: ignore[misc]
            secured.wait_ready(reachable=3)
        assert goes_on(count)


def test_a_revoked_node_is_cut_off_by_both_others_and_comes_back_with_another_certificate(secured: Cluster) -> None:
    """Proves: a node is whom its certificate names."""
    check("certs", "revoke", str(secured.directory), "--node", "n3")
    reload(secured, "n1", "n2")
    for node in ("n1", "n2"):
        assert wait_for(lambda node=node: secured.reachable(node) == 2, SECONDS)  # type: ignore[misc]
        assert wait_for(lambda node=node: bool(events(secured, node, "peer_refused")), SECONDS)  # type: ignore[misc]
    told = " ".join(event["detail"] for event in events(secured, "n1", "peer_refused"))
    assert "its certificate is revoked: if it is to come back, issue another for it" in told
    assert secured.reachable("n3") < 2
    assert secured.api("n3", OWNER).tokenize(["x"]).status == 503
    with client(secured, "n1") as vault:
        assert vault.detokenize(vault.tokenize(["y"]))[0].value == "y"
    check("certs", "issue", str(secured.directory), "--node", "n3")
    reload(secured, "n3")
    secured.wait_ready(reachable=3)


def test_a_leaked_node_gets_another_certificate_and_another_disk(secured: Cluster) -> None:
    """The runbook of docs/operations.md: who has the old host's files is no node any more, whatever the names and the disk."""
    with client(secured, "n1", "n2") as vault:
        tokens = vault.tokenize(["before the leak"])
        secured.stop("n3")
        leaked = own(secured, "n3").read_bytes()
        check("certs", "revoke", str(secured.directory), "--node", "n3")
        reload(secured, "n1", "n2")
        secured.replace_disk("n3")
        check("certs", "issue", str(secured.directory), "--node", "n3")
        secured.start("n3")
        secured.wait_ready(reachable=3)
        secured.stop("n3")
        fresh = own(secured, "n3").read_bytes()
        own(secured, "n3").write_bytes(leaked)
        secured.start("n3")
        assert wait_for(lambda: bool(events(secured, "n1", "peer_refused")), SECONDS)
        assert "its certificate is revoked" in events(secured, "n1", "peer_refused")[-1]["detail"]
        own(secured, "n3").write_bytes(fresh)
        reload(secured, "n3")
        secured.wait_ready(reachable=3)
        assert vault.detokenize(tokens)[0].value == "before the leak"


def test_when_all_certificates_have_expired_new_ones_are_taken_without_a_restart(secured: Cluster) -> None:
    secured.stop()
    past = datetime.now(UTC) - timedelta(days=3)
    CertificateStore(load_cluster(secured.directory / "cluster.yaml"), lambda: past).issue(NODES, days=1)
    secured.start()
    for node in NODES:
        assert wait_for(lambda node=node: bool(events(secured, node, "peer_refused")), SECONDS)  # type: ignore[misc]
        log = secured.nodes[node].log.read_text()
        assert "has expired: renew it, or set the clocks right" in log
        assert "WARNING" in log.partition("the certificate for other nodes has expired")[0].splitlines()[-1]
    check("certs", "renew", str(secured.directory))
    reload(secured)
    secured.wait_ready(reachable=3, seconds=SECONDS)


@pytest.mark.parametrize("kind", ["foreign", "expired", "other name"])
def test_a_bad_certificate_keeps_a_node_out_and_says_so(secured: Cluster, kind: str) -> None:
    cluster = load_cluster(secured.directory / "cluster.yaml")
    secured.stop("n3")
    good = own(secured, "n3").read_bytes()
    if kind == "foreign":
        other = authority("other")
        own(secured, "n3").write_bytes(other.issue(peer_name(cluster.cluster_id, "n3"), "n3", [], datetime.now(UTC)))
        words = f"{own(secured, 'n3')}: expected one that the CAs of peers.ca have signed"
    elif kind == "expired":
        past = datetime.now(UTC) - timedelta(days=3)
        CertificateStore(cluster, lambda: past).issue(["n3"], days=1)
        words = "its certificate has expired: renew it, or set the clocks right"
    else:
        own(secured, "n3").write_bytes(own(secured, "n2").read_bytes())
        words = f"{own(secured, 'n3')}: expected the certificate of n3, this is n2's"
    secured.start("n3")
    if kind != "expired":
        assert secured.nodes["n3"].process is not None
        assert secured.nodes["n3"].process.wait(SECONDS) == 1
        assert words in secured.nodes["n3"].log_tail()
    else:
        for node in ("n1", "n2"):
            assert wait_for(
                lambda node=node: any(words in event["detail"] for event in events(secured, node, "peer_refused")),  # type: ignore[misc]
                SECONDS,
            )
            assert secured.reachable(node) == 2
        answer = secured.health("n3")
        assert answer is None or any("has expired" in warning for warning in answer.body["warnings"])
        secured.stop("n3")
    own(secured, "n3").write_bytes(good)
    secured.start("n3")
    secured.wait_ready(reachable=3)


def test_metrics_and_health_say_when_certificates_end(secured: Cluster) -> None:
    def left(use: str) -> float:
        name = f'quorumvault_certificate_expiry_seconds{{use="{use}"}} '
        (line,) = [line for line in secured.api("n1").text("/metrics").splitlines() if line.startswith(name)]
        return float(line.split()[-1])

    assert 364 * 86_400 < left("api") <= 365 * 86_400
    assert left("peers") == pytest.approx(left("api"), abs=60)
    check("certs", "renew", str(secured.directory), "--node", "n1", "--days", "20")
    reload(secured, "n1")
    assert left("peers") < 20 * 86_400
    answer = secured.health("n1")
    assert answer is not None
    assert [warning.partition(" (")[0] for warning in answer.body["warnings"]] == [
        "the certificate for other nodes expires in 19 days",
        "the certificate for the API expires in 19 days",
    ]


def test_plain_http_on_an_address_of_others_takes_a_word_and_is_a_warning(tmp_path: Path) -> None:
    with Cluster.create(tmp_path / "vault", (OWNER,)) as cluster:
        file = cluster.directory / "cluster.yaml"
        at = cluster.nodes["n1"].address
        text = file.read_text().replace(
            f'    api: "{at}"\n', f'    api: "{at}"\n    listen_api: "0.0.0.0:{at.partition(":")[2]}"\n'
        )
        file.write_text(text)
        cluster.start("n1")
        assert cluster.nodes["n1"].process is not None
        assert cluster.nodes["n1"].process.wait(SECONDS) == 1
        assert "api.certificate: expected a certificate: the API of n1 listens on 0.0.0.0" in cluster.nodes["n1"].log_tail()
        file.write_text(text.replace("  # insecure_http: false ", "  insecure_http: true "))
        cluster.bring_up()
        answer = cluster.health("n1")
        assert answer is not None
        assert any("plain HTTP on an address that others reach" in warning for warning in answer.body["warnings"])
        assert sample_becomes(cluster, "n1", "quorumvault_quorum_reachable", 3)


def test_a_plain_peer_is_refused_with_a_line(secured: Cluster) -> None:
    peer = load_cluster(secured.directory / "cluster.yaml").nodes["n1"].peer
    with socket.create_connection(peer) as stranger:
        stranger.sendall(b"QVPEER\x00\x01" + bytes(48))
        assert len(stranger.recv(100)) in (0, 7)  # an alert, at most
    assert wait_for(lambda: bool(events(secured, "n1", "peer_refused")), SECONDS)
    (line,) = events(secured, "n1", "peer_refused")
    assert "127.0.0.1 came to nothing: what it sends is not TLS" in line["detail"]
