"""The credentials that secure a node's connections, from files that cluster.yaml names: the cluster's or an organisation's."""

import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from quorumvault.config.certificates import Credentials, load_credentials
from quorumvault.config.cluster import load_cluster
from quorumvault.crypto.x509 import peer_name
from quorumvault.errors import ConfigError
from tests.rigs.certificates import DAY, authority, ca_pem, node_pem, now, serial
from tests.unit.config.test_cluster import GOOD

CLUSTER = GOOD["cluster_id"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Files of an organisation: its CA, and the nodes' certificates, both in one file with their keys and in separate files."""
    put(tmp_path, "org-ca.pem", ca_pem(authority("org")))
    for node in ("n1", "n2"):
        pem = node_pem(node, cluster=CLUSTER, ca="org")
        put(tmp_path, f"{node}.pem", pem)
        put(tmp_path, f"{node}.key", pem[: pem.index(b"-----BEGIN CERTIFICATE")])
        put(tmp_path, f"{node}.crt", pem[pem.index(b"-----BEGIN CERTIFICATE") :], 0o644)
    return tmp_path


def put(home: Path, name: str, content: bytes, mode: int = 0o600) -> Path:
    (home / name).write_bytes(content)
    (home / name).chmod(mode)
    return home / name


#: The two lines of configuration that an organisation's certificates need.
ORG: dict[str, Any] = {"peers": {"certificate": "{node}.pem", "ca": "org-ca.pem"}}


def loaded(home: Path, node: str = "n1", **settings: Any) -> Credentials:
    (home / "cluster.yaml").write_text(yaml.safe_dump({**GOOD, **ORG, **settings}))
    return load_credentials(load_cluster(home / "cluster.yaml"), node)


def test_an_organisation_s_certificates_by_two_lines(home: Path) -> None:
    for node in ("n1", "n2"):
        found = loaded(home, node)
        assert found.ends().keys() == {"peers"}
        assert (found.api, found.exposed, found.peers.revoked) == (None, False, frozenset())
        for context in (found.peers.listening, found.peers.dialling):
            assert context.verify_mode is ssl.CERT_REQUIRED
            assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_3,) * 2
            assert not context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF


def test_a_key_may_have_a_file_of_its_own(home: Path) -> None:
    apart = {"certificate": "{node}.crt", "key": "{node}.key"}
    found = loaded(home, peers={**apart, "ca": "org-ca.pem"}, api=apart)
    assert found.ends()["peers"] == found.ends()["api"]
    assert found.scheme == "https"
    assert found.api is not None
    assert found.api.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert found.api.context.verify_mode is ssl.CERT_NONE


def test_lists_of_several_cas_are_read(home: Path) -> None:
    lists = b"".join(authority(name).revoke({number: now()}, now()) for name, number in (("org", 5), ("other", 6)))
    put(home, "revoked.pem", lists)
    found = loaded(home, peers={**ORG["peers"], "revoked": "revoked.pem"})
    assert found.peers.revoked == {5, 6}
    assert found.peers.listening.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF


@pytest.mark.parametrize("behind", [False, True])
def test_a_list_makes_nobody_a_ca(home: Path, behind: bool) -> None:
    """OpenSSL would trust certificates in the file that it is given for revocation lists."""
    of, other = authority("org").revoke({5: now()}, now()), ca_pem(authority("other"))
    settings = {**ORG["peers"], "revoked": "revoked.pem"}
    for more in (other, b"-----BEGIN TRUSTED CERTIFICATE-----\n", b"words\n"):
        put(home, "revoked.pem", of + more if behind else more + of)
        with pytest.raises(
            ConfigError, match=r"peers\.revoked: .*expected lists of revoked certificates in PEM, and nothing else"
        ):
            loaded(home, peers=settings)
    # A certificate inside the list, where our parser skips it.
    put(home, "revoked.pem", of.replace(b"-----BEGIN X509 CRL-----\n", b"-----BEGIN X509 CRL-----\n" + other))
    with pytest.raises(ConfigError, match=r"peers\.revoked"):
        loaded(home, peers=settings)
    put(home, "revoked.pem", of)
    trusted = loaded(home, peers=settings).peers.listening.get_ca_certs(binary_form=True)
    assert trusted == [authority("org").certificate.public_bytes(Encoding.DER)]


def encrypted(pem: bytes) -> bytes:
    key = load_pem_private_key(pem, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def _mode(home: Path) -> None:
    (home / "n1.pem").chmod(0o644)


def _encrypt(home: Path) -> None:
    put(home, "n1.pem", encrypted((home / "n1.key").read_bytes()) + (home / "n1.crt").read_bytes())


def _other_key(home: Path) -> None:
    put(home, "n1.pem", (home / "n2.key").read_bytes() + (home / "n1.crt").read_bytes())


def _other_cluster(home: Path) -> None:
    put(home, "n1.pem", node_pem("n1", cluster="elsewhere", ca="org"))


def _foreign(home: Path) -> None:
    put(home, "n1.pem", node_pem("n1", cluster=CLUSTER, ca="other"))


def _for_one_end(home: Path) -> None:
    """Give n1 a certificate for server authentication alone, as web servers have."""
    of, key = authority("org"), ec.generate_private_key(ec.SECP256R1())
    name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(peer_name(CLUSTER, "n1"))])
    built = x509.CertificateBuilder(of.certificate.subject, x509.Name([]), key.public_key(), 5, now() - DAY, now() + DAY)
    built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    own = built.add_extension(name, critical=True).sign(of.key, SHA256()).public_bytes(Encoding.PEM)
    put(home, "n1.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + own)


def _key_as_ca(home: Path) -> None:
    put(home, "org-ca.pem", (home / "n1.key").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_mode, r"peers\.certificate: .*n1\.pem: expected mode 0600, not 0644"),
        (_encrypt, r"peers\.certificate: .*expected a certificate and its own private key, not encrypted, in PEM"),
        (_other_key, r"peers\.certificate: .*expected a certificate and its own private key"),
        (
            _other_cluster,
            r"peers\.certificate: .*n1\.pem: its certificate is of cluster 'elsewhere', and this node of cluster 'c1'",
        ),
        (_foreign, r"peers\.certificate: .*n1\.pem: expected one that the CAs of peers\.ca have signed, for both ends"),
        (_for_one_end, r"peers\.certificate: .*n1\.pem: expected .* for both ends of TLS \(un.* certificate purpose\)"),
        (_key_as_ca, r"peers\.ca: .*org-ca\.pem: expected certificates of CAs in PEM"),
    ],
)
def test_what_cannot_be_used_is_a_line_that_names_it_and_shows_no_key(home: Path, spoil: Any, words: str) -> None:
    spoil(home)
    with pytest.raises(ConfigError, match=words) as refused:
        loaded(home)
    line = str(refused.value)
    assert "\n" not in line
    assert "PRIVATE" not in line
    assert (home / "n1.key").read_text().splitlines()[1] not in line


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.12", "localhost", "[::1]"])
def test_plain_http_is_for_this_machine(home: Path, host: str) -> None:
    nodes = {**GOOD["nodes"], "n1": {**GOOD["nodes"]["n1"], "listen_api": f"{host}:1"}}
    assert not loaded(home, nodes=nodes).exposed


@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0", "[::]", "vault-1", "127.evil.example", "localhost.example"])
def test_plain_http_elsewhere_takes_a_word(home: Path, host: str) -> None:
    nodes = {**GOOD["nodes"], "n1": {**GOOD["nodes"]["n1"], "listen_api": f"{host}:1"}}
    with pytest.raises(ConfigError, match=r"api\.certificate: expected a certificate: the API of n1 listens on"):
        loaded(home, nodes=nodes)
    found = loaded(home, nodes=nodes, api={"insecure_http": True})
    assert found.exposed
    assert list(found.problems(found.peers.ends - 31 * DAY)) == [
        "the API is plain HTTP on an address that others reach: API keys and values cross the network in clear"
    ]
    assert not loaded(home, nodes=nodes, api={"certificate": "{node}.pem"}).exposed


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (31 * DAY, None),
        (30 * DAY - timedelta(seconds=1), "expires in 29 days"),
        (timedelta(hours=1), "expires in 0 days"),
        (timedelta(0), "has expired"),
        (-DAY, "has expired"),
    ],
)
def test_a_month_before_the_end_it_is_said(home: Path, left: timedelta, words: str | None) -> None:
    found = loaded(home)
    said = list(found.problems(found.peers.ends - left))
    assert len(said) == (words is not None)
    assert words is None or f"the certificate for other nodes {words}" in said[0]
    assert bool(found.expired(found.peers.ends - left)) == (words == "has expired")


def test_a_list_that_ends_is_said(home: Path) -> None:
    settings = {**ORG["peers"], "revoked": "revoked.pem"}
    put(home, "revoked.pem", crl("org", timedelta(days=7)) + crl("other", timedelta(days=3)))
    found = loaded(home, peers=settings)
    assert found.ends().keys() == {"peers", "revoked"}
    ends = found.ends()["revoked"]
    assert abs(ends - now() - timedelta(days=3)) < timedelta(minutes=1)
    for left, words in ((2 * DAY, None), (2 * DAY - timedelta(seconds=1), "expires in 1 days"), (-DAY, "has expired")):
        said = [problem for problem in found.problems(ends - left) if "list of revoked" in problem]
        assert [f"the list of revoked certificates {words}" in problem for problem in said] == ([True] if words else [])
        assert found.expired(ends - left) == ({"peers.revoked": ends} if words == "has expired" else {})


def crl(ca: str, lasts: timedelta) -> bytes:
    """An empty list of revoked certificates, with a nextUpdate after ``lasts``."""
    of = authority(ca)
    built = x509.CertificateRevocationListBuilder(of.certificate.subject, now() - DAY, now() + lasts)
    return built.sign(of.key, SHA256()).public_bytes(Encoding.PEM)


def test_a_serial_number_is_that_of_the_certificate(home: Path) -> None:
    of = authority("org")
    put(home, "revoked.pem", of.revoke({serial((home / "n2.pem").read_bytes()): now()}, now()))
    assert loaded(home, peers={**ORG["peers"], "revoked": "revoked.pem"}).peers.revoked == {
        serial((home / "n2.crt").read_bytes())
    }


def test_a_node_whose_own_certificate_is_revoked_says_so(home: Path) -> None:
    settings = {**ORG["peers"], "revoked": "revoked.pem"}
    for node, said in (("n2", False), ("n1", True)):
        of = authority("org")
        put(home, "revoked.pem", of.revoke({serial((home / f"{node}.pem").read_bytes()): now()}, now()))
        found = loaded(home, peers=settings)
        problems = list(found.problems(found.peers.ends - 31 * DAY))
        assert any("is revoked: they take none of this node's connections" in problem for problem in problems) == said
