"""Certificates for tests of TLS on this machine."""

import functools
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from quorumvault.config.certificates import PeerCredentials, api_credentials, peer_credentials
from quorumvault.crypto.x509 import Authority, peer_name

#: The cluster of the rigs.
CLUSTER = "c"
DAY = timedelta(days=1)


def now() -> datetime:
    return datetime.now(UTC)


@functools.cache
def authority(name: str) -> Authority:
    """The CA of this name, the same one throughout a test run."""
    return Authority.create(name, now() - DAY)


def ca_pem(of: Authority) -> bytes:
    return of.certificate.public_bytes(Encoding.PEM)


@functools.cache
def node_pem(node: str, cluster: str = CLUSTER, ca: str = CLUSTER, begins: timedelta = -DAY / 2, days: int = 30) -> bytes:
    """The certificate and key of a node. ``begins``: relative to now; ``days``: the validity from then on."""
    return authority(ca).issue(peer_name(cluster, node), node, ["localhost", "127.0.0.1"], now() + begins, days)


def serial(pem: bytes) -> int:
    return x509.load_pem_x509_certificate(pem).serial_number


@functools.cache
def credentials(own: bytes, *cas: str, revoked: tuple[int, ...] = ()) -> PeerCredentials:
    """The credentials of a node with this certificate. They trust ``cas``, except for certificates with these serial numbers."""
    trusted = [authority(ca) for ca in cas or (CLUSTER,)]
    lists = b"".join(of.revoke(dict.fromkeys(revoked, now()), now()) for of in trusted)
    return peer_credentials(own, b"".join(map(ca_pem, trusted)), lists)


def certificate(path: Path) -> Path:
    """Writes a certificate for localhost and 127.0.0.1, its key, and the CA that signed it, into one file. Returns the file."""
    path.write_bytes(node_pem("n1") + ca_pem(authority(CLUSTER)))
    return path


@functools.cache
def api_context() -> ssl.SSLContext:
    """The TLS context of a server on this machine."""
    return api_credentials(node_pem("n1"), None).context


def trusting() -> ssl.SSLContext:
    """The TLS context of the server's clients."""
    return ssl.create_default_context(cadata=ca_pem(authority(CLUSTER)).decode())
