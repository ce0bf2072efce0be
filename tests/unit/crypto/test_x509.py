"""Certificates: what our CA signs, and what is read from a name."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from quorumvault.crypto.x509 import CA_DAYS, Authority, Unnamed, node_named, peer_name, revoked_serials, uris, uris_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CLUSTER_IDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)


@given(CLUSTER_IDS, st.sampled_from(["n1", "n2", "n3"]))
def test_a_name_says_which_cluster_and_which_node(cluster_id: str, node: str) -> None:
    assert node_named([peer_name(cluster_id, node)], cluster_id) == node


@given(CLUSTER_IDS, CLUSTER_IDS.filter(lambda text: text != "c/n"))
def test_another_cluster_is_never_taken_for_this_one(one: str, other: str) -> None:
    if one != other:
        with pytest.raises(Unnamed, match="is of cluster"):
            node_named([peer_name(one, "n1")], other)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "no name of a node"),
        (["https://c/n1", "spiffe://c/n1"], "no name of a node"),
        ([peer_name("c", "n1"), peer_name("c", "n2")], "more than one name"),
        ([peer_name("c", "n1"), peer_name("b", "n1")], "more than one name"),
    ],
)
def test_a_certificate_has_one_name_of_a_node(names: list[str], words: str) -> None:
    with pytest.raises(Unnamed, match=words):
        node_named(names, "c")


def test_only_uris_are_names_of_nodes() -> None:
    shown = {"subjectAltName": (("DNS", "quorumvault://c/n1"), ("URI", "quorumvault://c/n2"), ("IP Address", "::1"))}
    assert uris(shown) == ["quorumvault://c/n2"]
    assert uris({}) == []


def test_what_a_ca_signs() -> None:
    ca = Authority.create("c", NOW)
    pem = ca.issue(peer_name("c", "n1"), "n1 of c", ["vault-1.example", "10.0.0.1", "10.0.0.1", "::1"], NOW, 30)
    certificate = x509.load_pem_x509_certificate(pem)
    certificate.verify_directly_issued_by(ca.certificate)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=30)
    assert certificate.not_valid_before_utc < NOW
    assert uris_of(certificate) == ["quorumvault://c/n1"]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["vault-1.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "::1"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert ca.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    other = x509.load_pem_x509_certificate(ca.issue(peer_name("c", "n1"), "n1", [], NOW, 30))
    assert (other.serial_number, other.public_key()) != (certificate.serial_number, certificate.public_key())


def test_nothing_outlives_its_ca() -> None:
    ca = Authority.create("c", NOW)
    late = NOW + timedelta(days=CA_DAYS - 10)
    certificate = x509.load_pem_x509_certificate(ca.issue(peer_name("c", "n1"), "n1", [], late, 365))
    assert certificate.not_valid_after_utc == ca.certificate.not_valid_after_utc


def test_a_list_of_revoked_certificates_reads_back_and_lasts() -> None:
    ca = Authority.create("c", NOW)
    revoked = {7: NOW, 2**150: NOW + timedelta(days=1)}
    pem = ca.revoke(revoked, NOW)
    assert revoked_serials(pem) == revoked
    crl = x509.load_pem_x509_crl(pem)
    assert crl.is_signature_valid(ca.key.public_key())
    assert crl.next_update_utc == ca.certificate.not_valid_after_utc


def test_a_ca_and_its_key_belong_together_and_no_repr_shows_the_key() -> None:
    ca, other = Authority.create("c", NOW), Authority.create("c", NOW)
    assert ca.certificate.subject != other.certificate.subject
    pem = ca.certificate.public_bytes(Encoding.PEM)
    assert Authority.parse(pem, ca.key_pem()).key.private_numbers() == ca.key.private_numbers()
    for key in (other.key_pem(), b"nothing"):
        with pytest.raises(ValueError):
            Authority.parse(pem, key)
    assert "key=" not in repr(ca)
