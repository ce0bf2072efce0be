"""``init``: the tree that it makes, that a node can start from it, and that it never touches a cluster that is there."""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import msgspec
import pytest
from click.testing import CliRunner, Result

from quorumvault.cli import main
from quorumvault.config.addresses import MAX_BASE_PORT, NodeAddress, plan_nodes
from quorumvault.config.api_keys import load_keys
from quorumvault.config.build import build
from quorumvault.config.certificates import load_credentials
from quorumvault.config.cluster import ClusterFile, EventLogSettings, load_cluster, load_node
from quorumvault.config.fields import load_fields
from quorumvault.config.limits import Limits, Timeouts
from quorumvault.config.master import MasterSecret
from quorumvault.config.tls import ApiSettings, PeerSettings
from quorumvault.errors import Refused
from quorumvault.formats.yaml import load_yaml
from quorumvault.model import NODE_NAMES, Owner
from quorumvault.protocol.views import NO_DISK, Mode
from quorumvault.server.offline import init as initialise
from quorumvault.server.offline.init import Initialised, cluster_yaml, init
from quorumvault.server.storage.disk_identity import read_identity
from tests import ROOT
from tests.rigs.made import files

NOW = datetime(2025, 6, 15, tzinfo=UTC)


def make(directory: Path, owners: tuple[str, ...] = ("clinic",)) -> Initialised:
    return init(directory, plan_nodes(["127.0.0.1"], 8700), [Owner(name) for name in owners], now=NOW, entropy=os.urandom)


def test_the_tree_and_its_modes(tmp_path: Path) -> None:
    home = tmp_path / "vault"
    make(home)
    assert sorted(os.listdir(home)) == ["api_keys.yaml", "cluster.yaml", "fields.yaml", "n1", "n2", "n3", "secrets"]
    assert sorted(os.listdir(home / "secrets")) == [
        *("ca.key", "ca.pem", "issued.pem", "master-s1.key", "n1.pem", "n2.pem", "n3.pem", "revoked.pem")
    ]
    modes = {path.relative_to(home).as_posix(): path.stat().st_mode & 0o777 for path in home.rglob("*")}
    assert modes["secrets"] == 0o700
    assert {mode for name, mode in modes.items() if name.startswith("secrets/")} == {0o600}
    assert modes["n1"] == modes["n2"] == modes["n3"] == 0o700


@pytest.mark.parametrize("node", NODE_NAMES)
def test_a_node_can_be_configured_from_it(tmp_path: Path, node: str) -> None:
    made = make(tmp_path / "vault")
    config = load_node(made.cluster_file, node)
    assert config.cluster.nodes == made.nodes
    assert load_credentials(config.cluster, node).ends().keys() == {"peers", "revoked"}
    assert "$.ssn" in load_fields(config.cluster.fields).paths
    identity = read_identity(config.data_directory / "disk.json")
    assert identity is not None
    assert identity.cluster_id == config.cluster.cluster_id
    assert (identity.node, identity.mode, identity.incarnation) == (node, Mode.ACTIVE, 0)
    assert identity.view is not None
    assert (identity.view.id, identity.view.disks[node]) == ((1, NO_DISK), identity.disk)
    assert len(set(identity.view.disks.values())) == 3
    assert (config.data_directory / "store").is_dir()


def test_the_first_keys_may_do_everything_and_are_stored_as_hashes(tmp_path: Path) -> None:
    made = make(tmp_path / "vault", ("clinic-a", "clinic-b"))
    table = load_keys(made.cluster_file.parent / "api_keys.yaml")
    for owner, text in made.api_keys.items():
        key = table.authenticate(text, 0.0)
        assert key is not None
        assert (key.owner.name, key.allow) == (owner, frozenset({"tokenize", "detokenize", "rotate"}))
        assert not any(text.encode() in path.read_bytes() for path in made.cluster_file.parent.rglob("*") if path.is_file())
        assert text not in repr(made)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cluster.yaml", r"vault: there is a cluster here already \(cluster.yaml\); nothing was changed"),
        ("cluster.yaml.unfinished", "an earlier init did not end"),  # the state at the last instant before init ends
        ("photo.jpg", "expected an empty directory"),
    ],
)
def test_a_directory_with_anything_in_it_is_refused_and_left_alone(tmp_path: Path, name: str, words: str) -> None:
    home = tmp_path / "vault"
    make(home)
    (home / "cluster.yaml").rename(home / name)
    there = files(home)
    with pytest.raises(Refused, match=words):
        make(home)
    assert files(home) == there


def test_an_init_that_fails_leaves_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialise, "make_disk", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        make(tmp_path / "vault")
    assert os.listdir(tmp_path / "vault") == []
    monkeypatch.undo()
    make(tmp_path / "vault")


def test_addresses_on_one_host_and_on_three() -> None:
    one = plan_nodes(["127.0.0.1"], 9000)
    assert [(str(node.api), str(node.peer)) for node in one.values()] == [
        ("127.0.0.1:9000", "127.0.0.1:9010"),
        ("127.0.0.1:9001", "127.0.0.1:9011"),
        ("127.0.0.1:9002", "127.0.0.1:9012"),
    ]
    three = plan_nodes(["a.example", "::1", "10.0.0.3"], MAX_BASE_PORT)
    assert [str(node.peer) for node in three.values()] == ["a.example:65533", "[::1]:65533", "10.0.0.3:65533"]


@pytest.mark.parametrize(
    ("hosts", "port", "words"),
    [
        (["a", "b"], 8700, "one host for all nodes, or 3 different ones"),
        (["a", "b", "a"], 8700, "one host for all nodes, or 3 different ones"),
        ([], 8700, "one host for all nodes"),
        (["a b"], 8700, "'a b' is neither an IP address nor a host name"),
        (["-a"], 8700, "neither"),
        (["::g"], 8700, "::g"),
        (["0.0.0.0"], 8700, "no address that others can reach"),
        (["a"], MAX_BASE_PORT + 1, "base port"),
    ],
)
def test_bad_hosts_and_ports(hosts: list[str], port: int, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        plan_nodes(hosts, port)


def test_a_new_cluster_s_files_are_the_samples_but_for_what_is_its_own(tmp_path: Path) -> None:
    assert run(str(tmp_path)).exit_code == 0
    made, samples = ((folder / "cluster.yaml").read_text().splitlines() for folder in (tmp_path, ROOT / "conf"))
    assert (tmp_path / "fields.yaml").read_bytes() == (ROOT / "conf" / "fields.yaml").read_bytes()
    lines = zip(made, samples, strict=True)
    assert [line.partition(":")[0] for line, sample in lines if line != sample] == ["cluster_id"]


def test_every_key_is_in_the_sample_with_its_default(tmp_path: Path) -> None:
    text = cluster_yaml("c1", plan_nodes(["127.0.0.1"], 8700))
    for kind in (ClusterFile, NodeAddress, MasterSecret, ApiSettings, PeerSettings, Limits, Timeouts, EventLogSettings):
        for name in kind.__struct_fields__:
            assert re.search(rf"^ *(# *)?{name}: ?", text, re.MULTILINE), name
    as_written = tmp_path / "as-written.yaml"
    as_written.write_text(text)
    uncommented = tmp_path / "uncommented.yaml"
    uncommented.write_text(re.sub(r"^# (?=( {2})?[a-z_]+: *[^ ]*( +#.*)?$)", "", text, flags=re.MULTILINE))
    assert "\nlimits:\n  items: 10000 " in uncommented.read_text()
    defaults, shown = (msgspec.to_builtins(build(path, "", load_yaml(path), ClusterFile)) for path in (as_written, uncommented))
    for section in ("limits", "timeouts", "events"):
        assert shown[section] == defaults[section]
    assert shown == defaults


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", *arguments])


def test_the_command_for_machines(tmp_path: Path) -> None:
    home = tmp_path / "vault"
    result = run(str(home), "--base-port", "9100", "--owner", "a", "--owner", "b", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["cluster"] == str(home / "cluster.yaml")
    assert answer["nodes"]["n3"] == {"api": "http://127.0.0.1:9102", "peer": "127.0.0.1:9112"}
    assert (list(answer), list(answer["api_keys"])) == (["cluster", "nodes", "api_keys"], ["a", "b"])


def test_the_command_for_people_shows_each_key_once(tmp_path: Path) -> None:
    result = run(str(tmp_path / "vault"), "--host", "10.0.0.1, 10.0.0.2, 10.0.0.3")
    assert (result.exit_code, len(re.findall(r"qvk_\w+", result.stdout))) == (0, 1)
    assert "default  qvk_" in result.stdout
    assert f"quorumvault serve --config {tmp_path}/vault/cluster.yaml --node n2" in result.stdout
    assert "https://10.0.0.1:8700,https://10.0.0.2:8700,https://10.0.0.3:8700" in result.stdout
    assert f"export QUORUMVAULT_CACERT={tmp_path}/vault/secrets/ca.pem" in result.stdout


def test_tls_on_loopback_is_asked_for(tmp_path: Path) -> None:
    answer = json.loads(run(str(tmp_path / "vault"), "--tls", "--json").stdout)
    assert answer["nodes"]["n1"] == {"api": "https://127.0.0.1:8700", "peer": "127.0.0.1:8710"}
    assert answer["cacert"] == str(tmp_path / "vault" / "secrets" / "ca.pem")
    credentials = load_credentials(load_cluster(tmp_path / "vault" / "cluster.yaml"), "n1")
    assert credentials.ends().keys() == {"peers", "api", "revoked"}


@pytest.mark.parametrize("arguments", [["--host", "a,b"], ["--owner", "No Name"], ["--base-port", "0"], ["--base-port", "65535"]])
def test_bad_options_are_usage_errors_and_make_nothing(tmp_path: Path, arguments: list[str]) -> None:
    result = run(str(tmp_path / "vault"), *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr
    assert not (tmp_path / "vault").exists()
