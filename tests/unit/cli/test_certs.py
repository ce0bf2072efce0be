"""``quorumvault certs``: what it makes, lists and revokes, and where; and a cluster of version 0.1, which has no certificates."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography import x509

from quorumvault import durable
from quorumvault.cli import main
from quorumvault.config.certificates import load_credentials
from quorumvault.config.cluster import load_cluster
from quorumvault.errors import ConfigError
from tests.rigs.certificates import authority


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    made = CliRunner().invoke(main, ["init", str(tmp_path / "vault")])
    assert made.exit_code == 0, made.output
    return tmp_path / "vault"


def certs(vault: Path, command: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["certs", command, str(vault), *arguments])


def listed(vault: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(certs(vault, "list", "--json").stdout)["certificates"]
    return found


def serial(vault: Path, node: str) -> str:
    return f"{x509.load_pem_x509_certificate((vault / 'secrets' / f'{node}.pem').read_bytes()).serial_number:x}"


def revoked(vault: Path) -> frozenset[int]:
    return load_credentials(load_cluster(vault / "cluster.yaml"), "n1").peers.revoked


def test_what_init_has_made_is_listed(vault: Path) -> None:
    rows = listed(vault)
    assert [row["node"] for row in rows] == ["ca", "n1", "n2", "n3"]
    assert [row["serial"] for row in rows[1:]] == [serial(vault, node) for node in ("n1", "n2", "n3")]
    assert {row["state"] for row in rows[1:]} == {"364 days left"}
    table = certs(vault, "list").stdout
    assert "PRIVATE" not in table
    assert serial(vault, "n2") in table


def test_renewed_certificates_are_new_and_the_old_ones_stay_on_record(vault: Path) -> None:
    before = {node: (vault / "secrets" / f"{node}.pem").read_bytes() for node in ("n1", "n2", "n3")}
    made = json.loads(certs(vault, "renew", "--node", "n2", "--days", "90", "--json").stdout)["certificates"]
    assert [(row["node"], row["file"]) for row in made] == [("n2", str(vault / "secrets" / "n2.pem"))]
    assert (vault / "secrets" / "n1.pem").read_bytes() == before["n1"]
    assert (vault / "secrets" / "n2.pem").read_bytes() != before["n2"]
    assert (vault / "secrets" / "n2.pem").stat().st_mode & 0o777 == 0o600
    assert [row["node"] for row in listed(vault)] == ["ca", "n1", "n2", "n3", "n2"]
    assert listed(vault)[-1]["state"] == "89 days left"
    done = certs(vault, "renew")
    assert done.exit_code == 0
    assert "SIGHUP" in done.stderr
    assert len(listed(vault)) == 8


def test_all_certificates_of_a_node_are_revoked_and_it_gets_another(vault: Path) -> None:
    certs(vault, "renew", "--node", "n3")
    assert revoked(vault) == frozenset()
    done = certs(vault, "revoke", "--node", "n3")
    assert done.exit_code == 0
    assert done.stdout.count("of n3 is revoked") == 2
    assert [row["state"].partition(" ")[0] for row in listed(vault) if row["node"] == "n3"] == ["revoked", "revoked"]
    assert len(revoked(vault)) == 2
    assert certs(vault, "revoke", "--node", "n3").exit_code == 1
    assert certs(vault, "issue", "--node", "n3").exit_code == 0
    assert int(serial(vault, "n3"), 16) not in revoked(vault)
    assert int(serial(vault, "n1"), 16) not in revoked(vault)


def say_of_peers(vault: Path, **settings: str) -> None:
    said = yaml.safe_load((vault / "cluster.yaml").read_text())
    (vault / "cluster.yaml").write_text(yaml.safe_dump({**said, "peers": settings}))


def test_our_own_ca_by_another_name_still_has_its_list(vault: Path) -> None:
    (vault / "here").symlink_to(vault)
    certs(vault, "revoke", "--node", "n3")
    for name in ("./secrets/ca.pem", "secrets/../secrets/ca.pem", str(vault / "secrets/ca.pem"), "here/secrets/ca.pem"):
        say_of_peers(vault, ca=name)
        assert len(revoked(vault)) == 1


def test_nothing_is_revoked_in_a_list_that_the_nodes_do_not_read(vault: Path) -> None:
    (vault / "secrets" / "both.pem").write_bytes((vault / "secrets" / "ca.pem").read_bytes())
    before = (vault / "secrets" / "revoked.pem").read_bytes()
    for settings in ({"ca": "secrets/both.pem"}, {"revoked": "secrets/other.pem"}):
        say_of_peers(vault, **settings)
        done = certs(vault, "revoke", "--node", "n3")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "it would take what is revoked here" in done.stderr
        assert (vault / "secrets" / "revoked.pem").read_bytes() == before
    say_of_peers(vault, ca="secrets/both.pem", revoked="./secrets/revoked.pem")
    assert certs(vault, "revoke", "--node", "n3").exit_code == 0
    assert len(revoked(vault)) == 1


def test_one_certificate_is_revoked_by_its_serial_number(vault: Path) -> None:
    old, lists, empty = serial(vault, "n2"), vault / "secrets" / "revoked.pem", authority("other").revoke({}, datetime.now(UTC))
    lists.write_bytes(lists.read_bytes() + empty)
    certs(vault, "renew", "--node", "n2")
    assert json.loads(certs(vault, "revoke", "--serial", old.upper(), "--json").stdout)["revoked"][0]["serial"] == old
    assert revoked(vault) == {int(old, 16)}
    assert lists.read_bytes().endswith(empty)  # another CA's list stays
    for arguments in ([], ["--node", "n1", "--serial", old]):
        assert certs(vault, "revoke", *arguments).exit_code == 2


def test_issue_makes_what_is_missing_and_nothing_else(vault: Path) -> None:
    before = (vault / "secrets" / "n1.pem").read_bytes()
    assert "All nodes have a certificate" in certs(vault, "issue").stdout
    (vault / "secrets" / "n2.pem").unlink()
    with pytest.raises(ConfigError, match="certs issue"):
        load_credentials(load_cluster(vault / "cluster.yaml"), "n2")
    assert certs(vault, "issue").exit_code == 0
    load_credentials(load_cluster(vault / "cluster.yaml"), "n2")
    assert (vault / "secrets" / "n1.pem").read_bytes() == before


def files(vault: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (vault / "secrets").iterdir()}


@pytest.mark.parametrize("has_ca", [False, True])
@pytest.mark.parametrize(
    "settings",
    [{"ca": "secrets/org.pem"}, {"certificate": "secrets/org-{node}.pem"}, {"key": "secrets/{node}.key"}],
    ids=["ca", "certificate", "key"],
)
def test_an_organisation_s_keys_are_never_overwritten(vault: Path, settings: dict[str, str], has_ca: bool) -> None:
    if not has_ca:
        for name in ("ca.key", "ca.pem", "issued.pem", "revoked.pem"):
            (vault / "secrets" / name).unlink()
    say_of_peers(vault, **settings)
    before = files(vault)
    for command in (["issue"], ["issue", "--node", "n1"], ["renew"]):
        done = certs(vault, *command)
        assert done.exit_code == 1
        assert (command == ["renew"] and not has_ca) or "has certificates of another CA for the nodes" in done.stderr
        assert files(vault) == before


@pytest.mark.parametrize("writes", range(7))
def test_a_ca_whose_making_was_interrupted_is_begun_anew_by_what_the_error_says(
    vault: Path, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ca.key", "ca.pem", "issued.pem", "revoked.pem", "n1.pem", "n2.pem", "n3.pem"):
        (vault / "secrets" / name).unlink()
    left, create = [writes], durable.create

    def until_the_power_goes(path: Path, content: bytes, mode: int = 0o600) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        create(path, content, mode)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "create", until_the_power_goes)
        assert certs(vault, "issue").exit_code == 130
    # Every certificate is on record.
    known = x509.load_pem_x509_certificates((vault / "secrets" / "issued.pem").read_bytes()) if writes else []
    for node in ("n1", "n2", "n3"):
        if (vault / "secrets" / f"{node}.pem").exists():
            assert int(serial(vault, node), 16) in {one.serial_number for one in known}
    done = certs(vault, "issue")
    if writes:
        assert done.exit_code == 1
        assert "remove this part, and run it again" in done.stderr
        for path in re.findall(r"/\S+(?=[,:])", done.stderr.partition(": there is a part")[0] + ":"):
            Path(path).unlink()
        done = certs(vault, "issue")
    assert done.exit_code == 0, done.output
    for node in ("n1", "n2", "n3"):
        load_credentials(load_cluster(vault / "cluster.yaml"), node)
    assert certs(vault, "revoke", "--node", "n2").exit_code == 0


def test_a_new_key_is_nobody_else_s_though_the_old_file_was_open(vault: Path) -> None:
    for mode, left in ((0o644, 0o640), (0o666, 0o640), (0o600, 0o600)):
        (vault / "secrets" / "n2.pem").chmod(mode)
        assert certs(vault, "renew", "--node", "n2").exit_code == 0
        assert (vault / "secrets" / "n2.pem").stat().st_mode & 0o777 & ~left == 0


def test_without_the_key_of_the_ca_nothing_is_made_and_what_is_here_is_listed(vault: Path) -> None:
    (vault / "secrets" / "ca.key").unlink()
    for command in (["renew"], ["revoke", "--node", "n1"], ["issue", "--node", "n1"]):
        done = certs(vault, *command)
        assert done.exit_code == 1
        assert "the key of the CA is not here" in done.stderr
    rows = json.loads(certs(vault, "list", "--json").stdout)["certificates"]
    assert [(row["node"], row["use"]) for row in rows] == [("n1", "peers"), ("n2", "peers"), ("n3", "peers")]


def test_a_cluster_of_version_0_1_gets_a_ca(vault: Path) -> None:
    secrets = vault / "secrets"
    for path in secrets.iterdir():
        if path.name != "master-s1.key":
            path.unlink()
    (secrets / "cluster.key").write_text("00" * 32)
    text = (vault / "cluster.yaml").read_text().replace("\nsecrets:\n", "\nsecrets:\n  cluster: secrets/cluster.key\n")
    (vault / "cluster.yaml").write_text(text[: text.index("# TLS of the API")] + text[text.index("# Which fields") :])
    with pytest.raises(ConfigError, match=r"peers\.certificate: .*n1\.pem: .*certs issue"):
        load_credentials(load_cluster(vault / "cluster.yaml"), "n1")
    assert certs(vault, "issue").exit_code == 0
    for node in ("n1", "n2", "n3"):
        assert load_credentials(load_cluster(vault / "cluster.yaml"), node).ends().keys() == {"peers", "revoked"}
