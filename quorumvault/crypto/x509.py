"""Certificates: a cluster's own CA, the certificates that it signs, and the names by which nodes know each other (RFC 5280).

    CA            P-256, ten years; signs the nodes' certificates and the list of revoked ones; nothing below it may sign
    certificate   P-256, one year, for both ends of TLS. subjectAltName: URI:quorumvault://CLUSTER/NODE, which peers check, and
                  the hosts at which the node is reached, which clients of its API check
    revoked list  the serial numbers of certificates that are no longer accepted; valid for as long as the CA

Everything here is a function of its arguments, except for keys and serial numbers, which OpenSSL draws.

Rules kept here: a node is whom its certificate names.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS: Final = 3650
NODE_DAYS: Final = 365
#: A certificate is valid from this long before it is made, because hosts' clocks differ.
_BACKDATED: Final = timedelta(hours=1)
_SCHEME: Final = "quorumvault://"


class Unnamed(Exception):
    """A certificate that names no node of this cluster. The text says what the certificate names, for a log."""


def peer_name(cluster_id: str, node: str) -> str:
    """Return the name of a node in its certificate."""
    return f"{_SCHEME}{quote(cluster_id, safe='')}/{quote(node, safe='')}"


def node_named(names: Iterable[str], cluster_id: str) -> str:
    """Return the node of this cluster that a certificate with these URIs names. Raises Unnamed."""
    ours = [name for name in names if name.startswith(_SCHEME)]
    if len(ours) != 1:
        what = "more than one name" if ours else "no name"
        raise Unnamed(f"its certificate has {what} of a node (subjectAltName URI:{peer_name(cluster_id, 'NODE')}): issue another")
    cluster, _, node = ours[0].removeprefix(_SCHEME).partition("/")
    if unquote(cluster) != cluster_id:
        raise Unnamed(
            f"its certificate is of cluster {unquote(cluster)[:64]!r}, and this node of cluster {cluster_id!r}: "
            f"check the peer addresses in cluster.yaml, and the certificates, on both"
        )
    return unquote(node)


def uris(shown: Mapping[str, Any]) -> list[str]:
    """Return the URIs among the names of a certificate, as returned by ssl.SSLObject.getpeercert."""
    return [value for kind, value in shown.get("subjectAltName", ()) if kind == "URI"]


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(cls, cluster_id: str, now: datetime) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        serial = x509.random_serial_number()
        # A later CA of the same cluster has another name, so that lists of revoked certificates can be told apart by it.
        called = f"QuorumVault CA {serial % 2**32:08x} of {cluster_id}"
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, called[:64])])
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        built = (
            x509.CertificateBuilder(name, name, key.public_key(), serial)
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(built.sign(key, SHA256()), key)

    @classmethod
    def parse(cls, certificate: bytes, key: bytes) -> "Authority":
        """Parse a CA. Raises ValueError unless these are a certificate and its own key, in PEM."""
        try:
            private, ca = load_pem_private_key(key, None), x509.load_pem_x509_certificate(certificate)
        except TypeError:
            raise ValueError("the key is encrypted") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != ca.public_key():
            raise ValueError("the key is another certificate's")
        return cls(ca, private)

    def key_pem(self) -> bytes:
        return _key_pem(self.key)

    def issue(self, name: str, common_name: str, hosts: Iterable[str], now: datetime, days: int = NODE_DAYS) -> bytes:
        """Return a new certificate with this URI and these hosts, and its key, in PEM. It expires no later than the CA."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
        names = [x509.UniformResourceIdentifier(name), *map(_host_name, dict.fromkeys(hosts))]
        end = min(now + timedelta(days=days), self.certificate.not_valid_after_utc)
        built = (
            x509.CertificateBuilder(self.certificate.subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return _key_pem(key) + built.sign(self.key, SHA256()).public_bytes(Encoding.PEM)

    def revoke(self, serials: Mapping[int, datetime], now: datetime) -> bytes:
        """Return the list of revoked certificates, in PEM: the serial numbers, and when each was revoked."""
        builder = x509.CertificateRevocationListBuilder(
            self.certificate.subject, now - _BACKDATED, self.certificate.not_valid_after_utc
        ).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        for serial, when in sorted(serials.items()):
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when).build()
            )
        return builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM)


def revoked_serials(pem: bytes) -> dict[int, datetime]:
    """Return the serial numbers of a list of revoked certificates, with their dates. Raises ValueError."""
    return {entry.serial_number: entry.revocation_date_utc for entry in x509.load_pem_x509_crl(pem)}


def uris_of(certificate: x509.Certificate) -> list[str]:
    """Return the URIs among the names of a certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
