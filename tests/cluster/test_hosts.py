"""A cluster on three hosts (addresses of this machine): each node is packed, unpacked in its own directory, and run there."""

import json
import re
import shutil
import signal
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from chaos.testbed.api import Api, Unanswered
from chaos.testbed.cluster import NODES, READY_SECONDS, Cluster, check, environment, executable, run, wait_for
from quorumvault.cli.admin_client import AdminClient
from quorumvault.server.http.admin.schemas import Reloaded, ViewStatus

OWNER = "clinic"
HOSTS = ("127.0.0.11", "127.0.0.12", "127.0.0.13")
ELSEWHERE = "127.0.0.21"
ELSEWHERE_LINE = (
    r"^quorumvault: n1 runs elsewhere already: its disk [0-9a-f]{8} is live at 127\.0\.0\.(11|21), "
    r"seen by n[23]; stop one of them\n\Z"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, each served from a directory into which its tar was unpacked."""
    place = tmp_path_factory.mktemp("hosts")
    with Cluster.create(place / "origin", (OWNER,), hosts=HOSTS) as made:
        (made.directory / "secrets" / "dev.key").write_text("not for hosts\n")
        (made.directory / "n1" / "events.jsonl").write_text("{}\n")
        for name, node in made.nodes.items():
            tar = place / f"{name}.tar"
            check("pack", str(made.directory), "--node", name, "-o", str(tar))
            node.directory = place / f"host of {name}"
            with tarfile.open(tar) as packed:
                packed.extractall(node.directory, filter="tar")
        made.bring_up()
        yield made


def admin(cluster: Cluster, node: str) -> AdminClient:
    return AdminClient(cluster.nodes[node].directory / node)


def test_a_host_has_what_its_node_needs_and_nothing_else(cluster: Cluster) -> None:
    for name, node in cluster.nodes.items():
        with tarfile.open(node.directory.parent / f"{name}.tar") as packed:
            members = {member.name: member.mode for member in packed}
        store = {member for member in members if member.startswith(f"{name}/store/")}
        assert members.keys() - store == {
            "cluster.yaml",
            "fields.yaml",
            "api_keys.yaml",
            "secrets",
            "secrets/ca.pem",
            "secrets/master-s1.key",
            "secrets/revoked.pem",
            f"secrets/{name}.pem",
            name,
            f"{name}/disk.json",
            f"{name}/store",
        }
        assert not {Path(member).name for member in store} & {"LOG", "LOG.old", "LOCK"}
        assert [members[private] for private in ("secrets", name, "secrets/master-s1.key")] == [0o700, 0o700, 0o600]
        assert stat.S_IMODE((node.directory / "secrets" / f"{name}.pem").stat().st_mode) == 0o600
        assert stat.S_IMODE((node.directory.parent / f"{name}.tar").stat().st_mode) == 0o600


def test_each_host_serves_its_own_address_and_all_resolve_all(cluster: Cluster) -> None:
    tokens = {name: cluster.api(name, OWNER).tokenize([f"made at {name}"]).body["tokens"][0] for name in NODES}
    for name in NODES:
        assert cluster.nodes[name].address.startswith(HOSTS[NODES.index(name)])
        answer = cluster.api(name, OWNER).detokenize(tokens.values())
        assert [result["value"] for result in answer.body["results"]] == [f"made at {other}" for other in NODES]


def test_a_node_that_runs_is_not_packed(cluster: Cluster, tmp_path: Path) -> None:
    done = run("pack", str(cluster.nodes["n2"].directory), "--node", "n2", "-o", str(tmp_path / "n2.tar"))
    assert done.returncode == 1
    assert b"n2 runs, and its store changes meanwhile; stop it first: quorumvault admin stop --config" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_status_of_a_node_in_depth(cluster: Cluster) -> None:
    cluster.api("n1", OWNER).tokenize(["something to write"])
    found = {name: admin(cluster, name).status() for name in NODES}
    disks = {name: status.facts.disk for name, status in found.items()}
    for name, status in found.items():
        assert (status.node, status.pid) == (name, cluster.pid(name))
        assert status.sequence  # differs between nodes: two acks complete a write, and the third replica may still apply it
        assert status.facts.established
        assert status.facts.view == ViewStatus(1, None, disks)
        assert msgspec.to_builtins(status.health) == cluster.api(name).get("/health").body
        for other, peer in status.peers.items():
            assert (peer.up, peer.connected, peer.error) == (True, True, None)
            assert peer.facts == found[other].facts
    text = run("admin", "status", "--config", str(cluster.nodes["n1"].directory / "cluster.yaml"), "--node", "n1").stdout.decode()
    assert f"disk\t{disks['n1']}, start 1, write " in text
    assert re.search(
        rf"^n2\t127\.0\.0\.12:\d+\tup\tup\t[\d.]+\tactive\t{disks['n2'][:8]}\t1\tsame\tsame\tsame\t$", text, re.MULTILINE
    )
    assert found["n1"].facts.secrets.keys() == {"s1"}
    secret = (cluster.directory / "secrets" / "master-s1.key").read_text().strip()
    assert secret not in msgspec.json.encode(found).decode()


def keys_warnings(cluster: Cluster, name: str) -> list[str]:
    return [warning for warning in cluster.api(name).get("/health").body["warnings"] if "API keys" in warning]


def status_lines(cluster: Cluster) -> str:
    urls = [argument for name in NODES for argument in ("--url", cluster.url(name))]
    return run("status", *urls).stdout.decode()


def test_key_files_that_differ_are_shown_until_all_hosts_have_the_same(cluster: Cluster) -> None:
    configs = {name: str(node.directory / "cluster.yaml") for name, node in cluster.nodes.items()}
    made = check("keys", "create", "--config", configs["n1"], "--owner", OWNER, "--allow", "tokenize", "--json")
    key = json.loads(made)["key"]
    api = {name: Api(node.address, key) for name, node in cluster.nodes.items()}
    assert {name: one.tokenize(["a"]).status for name, one in api.items()} == dict.fromkeys(NODES, 401)

    cluster.nodes["n1"].require_process().send_signal(signal.SIGHUP)
    assert wait_for(lambda: keys_warnings(cluster, "n2") == ["n1 has other API keys"], READY_SECONDS)
    assert wait_for(lambda: keys_warnings(cluster, "n3") == ["n1 has other API keys"], READY_SECONDS)
    assert keys_warnings(cluster, "n1") == ["n2 has other API keys", "n3 has other API keys"]
    assert {name: one.tokenize(["a"]).status for name, one in api.items()} == {"n1": 200, "n2": 401, "n3": 401}
    shown = status_lines(cluster)
    assert "n1 has other API keys" in shown
    assert "n3 has other API keys" in shown
    told = {name: peer.facts.keys for name, peer in admin(cluster, "n2").status().peers.items() if peer.facts}
    assert told["n1"] != told["n3"] == admin(cluster, "n2").status().facts.keys

    for name in ("n2", "n3"):
        shutil.copy(cluster.nodes["n1"].directory / "api_keys.yaml", cluster.nodes[name].directory)
        assert admin(cluster, name).reload() == Reloaded(["API keys", "peer addresses", "certificates"], {})
    assert wait_for(lambda: not any(keys_warnings(cluster, name) for name in NODES), READY_SECONDS)
    assert {name: one.tokenize(["a"]).status for name, one in api.items()} == dict.fromkeys(NODES, 200)
    assert "API keys" not in status_lines(cluster)


def copy_of_n1(cluster: Cluster, place: Path) -> list[str]:
    """Copies n1's directory, at another address of this machine. Returns the command that serves the copy."""
    shutil.copytree(cluster.nodes["n1"].directory, place, ignore=shutil.ignore_patterns("admin.sock"))
    settings = yaml.safe_load((place / "cluster.yaml").read_text())
    n1 = settings["nodes"]["n1"]
    for name in ("api", "peer"):
        n1[f"listen_{name}"] = f"{ELSEWHERE}:{n1[name].rpartition(':')[2]}"
    (place / "cluster.yaml").write_text(yaml.safe_dump(settings))
    return [executable(), "serve", "--config", str(place / "cluster.yaml"), "--node", "n1"]


def reaches_all(api: Api) -> bool:
    try:
        answer = api.get("/readyz", timeout=1)
    except Unanswered:
        return False
    return answer.status == 200 and answer.body["quorum"]["reachable"] == len(NODES)


def test_a_copy_of_a_node_that_runs_stops_and_says_where_that_one_is(cluster: Cluster, tmp_path: Path) -> None:
    serve = copy_of_n1(cluster, tmp_path / "copy")
    done = subprocess.run(serve, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert re.search(ELSEWHERE_LINE, done.stderr, re.MULTILINE), done.stderr
    assert not (tmp_path / "copy" / "n1" / "admin.sock").exists()
    assert cluster.nodes["n1"].running
    cluster.wait_ready(reachable=3)
    cluster.kill("n2")
    cluster.wait_ready("n1", "n3")
    assert cluster.api("n1", OWNER).tokenize(["n1 votes on"]).status == 200
    cluster.bring_up("n2")


def test_a_frozen_node_that_was_replaced_meanwhile_stops_when_it_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    serve = copy_of_n1(cluster, tmp_path / "copy")
    original = cluster.nodes["n1"]
    elsewhere = Api(f"{ELSEWHERE}:{original.address.rpartition(':')[2]}", cluster.api_key(OWNER))
    cluster.pause("n1")
    with subprocess.Popen(serve, stderr=subprocess.DEVNULL, env=environment()) as copy:
        try:
            assert wait_for(lambda: reaches_all(elsewhere), READY_SECONDS)
            token = elsewhere.tokenize(["by the copy"]).body["tokens"][0]
            cluster.resume("n1")
            assert original.require_process().wait(READY_SECONDS) == 1
            assert re.search(ELSEWHERE_LINE, original.log.read_text(), re.MULTILINE)
            assert elsewhere.detokenize([token]).body["found"] == 1
        finally:
            copy.terminate()
    assert copy.returncode == 0
    shutil.rmtree(original.directory / "n1")
    shutil.copytree(tmp_path / "copy" / "n1", original.directory / "n1")
    cluster.bring_up("n1")
