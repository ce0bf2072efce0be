"""What ``dev`` prepares. tests/cluster/test_dev.py tests the nodes that it runs."""

from pathlib import Path

import pytest

from chaos.testbed.cluster import free_base_port
from quorumvault.cli.dev import prepare
from quorumvault.config.api_keys import load_keys
from quorumvault.errors import ConfigError, DirectoryInUse
from quorumvault.server.storage.disk_identity import lock_data_directory


@pytest.fixture
def base() -> int:
    """The first of a range of ports that nobody listens on."""
    return free_base_port()


def test_the_second_start_has_the_same_cluster_and_key(tmp_path: Path, base: int) -> None:
    cluster, key = prepare(tmp_path / "dev", base)
    assert cluster.api_urls()["n3"] == f"http://127.0.0.1:{base + 2}"
    assert (tmp_path / "dev" / "secrets" / "dev.key").stat().st_mode & 0o777 == 0o600
    again, same_key = prepare(tmp_path / "dev", 8700)
    assert (again, same_key) == (cluster, key)
    found = load_keys(cluster.api_keys).authenticate(key, 0.0)
    assert found is not None
    assert (found.owner.name, found.allow) == ("dev", frozenset({"tokenize", "detokenize", "rotate"}))


def test_a_cluster_without_a_key_of_its_own_gets_one(tmp_path: Path, base: int) -> None:
    cluster, lost = prepare(tmp_path, base)
    (tmp_path / "secrets" / "dev.key").unlink()
    _, key = prepare(tmp_path, base)
    assert key != lost
    assert load_keys(cluster.api_keys).authenticate(key, 0.0) is not None


def test_a_cluster_that_runs_is_not_started_twice(tmp_path: Path, base: int) -> None:
    cluster, _ = prepare(tmp_path, base)
    with lock_data_directory(cluster.data_directory("n2")), pytest.raises(DirectoryInUse, match="n2: expected to be the only"):
        prepare(tmp_path, base)


def test_a_cluster_on_other_machines_is_refused(tmp_path: Path, base: int) -> None:
    prepare(tmp_path, base)
    file = tmp_path / "cluster.yaml"
    file.write_text(file.read_text().replace(f"127.0.0.1:{base + 2}", "10.0.0.3:9002"))
    with pytest.raises(ConfigError, match="expected loopback addresses"):
        prepare(tmp_path, base)


def test_a_cluster_that_is_there_keeps_its_plain_api_and_says_so(tmp_path: Path, base: int) -> None:
    prepare(tmp_path / "dev", base)
    with pytest.raises(ConfigError, match="for --tls; this cluster is of plain HTTP"):
        prepare(tmp_path / "dev", base, tls=True)
    cluster, _ = prepare(tmp_path / "tls", base, tls=True)
    assert cluster.api_urls()["n3"] == f"https://127.0.0.1:{base + 2}"
    assert cluster.api_ca == tmp_path / "tls" / "secrets" / "ca.pem"
