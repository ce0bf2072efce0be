"""cluster.yaml: what a valid file means, and that each error is one line with the file, the key and what was expected."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from quorumvault.config.addresses import Address
from quorumvault.config.cluster import load_cluster, load_node
from quorumvault.config.limits import Limits, Timeouts
from quorumvault.config.secrets import read_secret, write_secret
from quorumvault.errors import ConfigError

GOOD: dict[str, Any] = {
    "cluster_id": "c1",
    "nodes": {
        "n1": {"api": "127.0.0.1:8700", "peer": "127.0.0.1:8710"},
        "n2": {"api": "127.0.0.1:8701", "peer": "127.0.0.1:8711"},
        "n3": {"api": "127.0.0.1:8702", "peer": "127.0.0.1:8712"},
    },
    "secrets": {"master": {"id": "s1", "file": "secrets/master.key"}},
}
MASTER_SECRET = bytes(range(32, 64))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "secrets").mkdir()
    write_secret(tmp_path / "secrets" / "master.key", MASTER_SECRET)
    return tmp_path


def cluster_file(home: Path, settings: object) -> Path:
    path = home / "cluster.yaml"
    path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings, sort_keys=False))
    return path


def changed(key: str, value: object) -> dict[str, Any]:
    """GOOD with one key set, or with the key removed if the value is ``...``."""
    settings = copy.deepcopy(GOOD)
    *parents, last = key.split(".")
    at = settings
    for parent in parents:
        at = at.setdefault(parent, {})
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return settings


def refusal(path: Path, node: str = "n1") -> str:
    with pytest.raises(ConfigError) as caught:
        load_node(path, node)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_good_file_with_defaults(home: Path) -> None:
    config = load_node(cluster_file(home, GOOD), "n2")
    assert (config.node, config.cluster.cluster_id, config.cluster.log_level) == ("n2", "c1", "info")
    assert config.endpoints.api == config.endpoints.listen_api == Address("127.0.0.1", 8701)
    assert config.endpoints.source == "127.0.0.1"
    assert list(config.peers) == ["n1", "n3"]
    assert config.data_directory == home / "n2"
    assert (config.cluster.fields, config.cluster.api_keys) == (home / "fields.yaml", home / "api_keys.yaml")
    assert config.master_secret == MASTER_SECRET
    assert [key for key, _ in config.cluster.tls_files("n2")] == ["peers.certificate", "peers.ca", "peers.revoked"]
    assert (config.cluster.limits, config.cluster.timeouts) == (Limits(), Timeouts())


def test_the_secret_that_version_0_1_had_is_read_over(home: Path) -> None:
    load_node(cluster_file(home, changed("secrets.cluster", "secrets/cluster.key")), "n1")


def test_paths_are_absolute_and_relative_to_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    settings = {**GOOD, "data": "/var/lib/qv", "fields": "conf/f.yaml"}
    cluster_file(home, settings)
    cluster = load_cluster(Path("cluster.yaml"))
    assert cluster.file == home / "cluster.yaml"
    assert (cluster.data_directory("n3"), cluster.fields) == (Path("/var/lib/qv/n3"), home / "conf" / "f.yaml")


def test_a_node_may_listen_elsewhere_than_it_is_reached(home: Path) -> None:
    node = {"api": "vault-1.example:8700", "peer": "[2001:db8::1]:8710", "listen_api": "0.0.0.0:80", "listen_peer": "[::]:81"}
    endpoints = load_cluster(cluster_file(home, changed("nodes.n1", node))).nodes["n1"]
    assert endpoints.peer == Address("2001:db8::1", 8710)
    assert str(endpoints.peer) == "[2001:db8::1]:8710"
    assert (endpoints.listen_api, endpoints.listen_peer) == (Address("0.0.0.0", 80), Address("::", 81))
    assert endpoints.source is None


def test_nothing_secret_in_a_repr(home: Path) -> None:
    text = repr(load_node(cluster_file(home, GOOD), "n1"))
    assert MASTER_SECRET.hex() not in text
    assert repr(MASTER_SECRET) not in text


BAD_VALUES = [
    ("cluster_id", ..., "cluster_id: is missing"),
    ("cluster_id", "two words", "cluster_id: expected 1 to 64 visible ASCII characters"),
    ("nodes", ["n1"], "nodes: expected a mapping of names to values"),
    ("nodes.n3", ..., "nodes: expected exactly n1, n2, n3, not n1, n2"),
    ("nodes.n4", GOOD["nodes"]["n1"], "nodes: expected exactly n1, n2, n3, not n1, n2, n3, n4"),
    ("nodes.n2.api", ..., "nodes.n2.api: is missing"),
    *(
        ("nodes.n2.api", value, "nodes.n2.api: expected HOST:PORT")
        for value in (8700, "http://127.0.0.1:1", ":8700", "[host]:8700", "a@b:8700", "a:٣")
    ),
    ("nodes.n2.api", "127.0.0.1", "nodes.n2.api: expected HOST:PORT, as in 127.0.0.1:8700"),
    ("nodes.n2.api", "::1:8700", "nodes.n2.api: expected HOST:PORT, as in 127.0.0.1:8700 or [::1]:8700"),
    *(("nodes.n2.peer", f"127.0.0.1:{port}", "nodes.n2.peer: expected a port from 1 to 65535") for port in (0, 65536)),
    ("nodes.n2.peer", "0.0.0.0:9", "nodes.n2.peer: expected an address that others can reach; put this one in listen_peer"),
    ("nodes.n2.peer", "127.0.0.1:8700", "nodes.n2.peer: expected an address of its own: nodes.n1.api has 127.0.0.1:8700 too"),
    ("nodes.n2.peer", "127.0.0.1:8701", "nodes.n2: expected two ports: API and peer port would both listen on 8701"),
    ("nodes.n2.listen_peer", "0.0.0.0:8701", "nodes.n2: expected two ports: API and peer port would both listen on 8701"),
    ("nodes.n2.pear", "127.0.0.1:1", "nodes.n2.pear: unknown key; did you mean peer?"),
    ("limits.itmes", 1, "limits.itmes: unknown key; did you mean items?"),
    ("zzz", 1, "zzz: unknown key; expected one of cluster_id, nodes, secrets, "),
    ("limits", None, "limits: expected a mapping of names to values"),
    *(("limits.items", value, "limits.items: expected a whole number from 10000 to 2147483647") for value in (9_999, 1e5, True)),
    ("limits.body_bytes", (16 << 20) - 1, "limits.body_bytes: expected a whole number from 16777216 to 2147483647"),
    ("limits.value_bytes", 1024, "limits.value_bytes: expected a whole number from 65536 to 2147483647"),
    ("limits.frame_bytes", 1 << 31, "limits.frame_bytes: expected a whole number from 1 to 2147483647"),
    ("limits.in_flight", 0, "limits.in_flight: expected a whole number from 1 to 2147483647"),
    ("limits.reply_bytes", 1024, "limits.reply_bytes: expected more than limits.value_bytes, which is 65536; it is 1024"),
    ("limits.frame_bytes", 1 << 20, "limits.frame_bytes: expected more than limits.reply_bytes"),
    ("limits.memory_bytes", 64 << 20, "limits.memory_bytes: expected more than limits.answer_bytes"),
    ("timeouts.request", -1, "timeouts.request: expected a number of seconds, more than 0 and at most 3600"),
    ("timeouts.request", "5s", "timeouts.request: expected a number of seconds"),
    ("timeouts.drain", -0.5, "timeouts.drain: expected a number of seconds, from 0 to 3600"),
    ("timeouts.silence", 0.5, "timeouts.silence: expected more than timeouts.ping, which is 0.5; it is 0.5"),
    ("timeouts.round", 9, "timeouts.request: expected at least timeouts.round, which is 9; it is 5"),
    ("events.keep", 0, "events.keep: expected a whole number from 1 to 2147483647"),
    ("log_level", "loud", "log_level: expected one of debug, info, warning, error"),
    ("secrets.master.id", "S 1", "secrets.master.id: expected 1 to 16 lower case letters and digits"),
    ("secrets.master", "master.key", "secrets.master: expected a mapping"),
    *(("fields", value, "fields: expected the path of a file, without a NUL in it") for value in (3, "a\0b")),
    ("data", "a\0b", "data: expected the path of a file, without a NUL in it"),
    ("secrets.master.file", "secrets/none.key", "secrets/none.key: expected a readable secret file: No such file or directory"),
    ("secrets.master.file", "secrets", "secrets: expected a readable secret file: Is a directory"),
    ("api.insecure_http", "yes please", "api.insecure_http: expected"),
    ("peers.ca", 5, "peers.ca: expected the path of a file"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD_VALUES)
def test_a_bad_value_is_one_line(home: Path, key: str, value: object, message: str) -> None:
    path = cluster_file(home, changed(key, value))
    said = refusal(path)
    assert said.startswith(f"{path}: ")
    assert message in said


@pytest.mark.parametrize("text", ["nodes: [", "a: 1\na: 2\n", "- n1\n", "", "\x00"])
def test_what_is_no_mapping_in_yaml_is_refused(home: Path, text: str) -> None:
    path = cluster_file(home, text)
    assert refusal(path).startswith(f"{path}: ")


def test_a_missing_file_and_an_unknown_node(home: Path) -> None:
    path = home / "cluster.yaml"
    assert str(path) in refusal(path)
    assert "no node 'n4' in this cluster; expected one of n1, n2, n3" in refusal(cluster_file(home, GOOD), "n4")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700 | 0o010])
def test_a_secret_that_others_can_read_is_refused(home: Path, mode: int) -> None:
    os.chmod(home / "secrets" / "master.key", mode)
    said = refusal(cluster_file(home, GOOD))
    assert f"secrets/master.key: expected mode 0600, not {mode:04o}" in said
    assert MASTER_SECRET.hex()[:8] not in said


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31, "ab" * 33, "ab" * 4000, "é" * 32, "ab" * 31 + "a"])
def test_a_secret_of_another_form_is_refused_without_showing_it(home: Path, text: str) -> None:
    path = home / "secrets" / "master.key"
    path.write_text(text)
    said = refusal(cluster_file(home, GOOD))
    assert "secrets/master.key: expected 64 hexadecimal digits (32 bytes) and nothing else" in said
    assert not text or text[:6] not in said


def test_a_written_secret_reads_back(tmp_path: Path) -> None:
    write_secret(tmp_path / "secret", MASTER_SECRET)
    assert read_secret(tmp_path / "cluster.yaml", "key", tmp_path / "secret") == MASTER_SECRET
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_secret(tmp_path / "secret", MASTER_SECRET)
