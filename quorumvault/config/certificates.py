"""TLS of one node: reads its certificates and CAs from files, checks them, and makes the credentials of its connections.

The files are read at start and again at each reload. A Credentials never changes, and open connections keep theirs.

    peers   TLS 1.3 only, both sides with a certificate. The connection checks names (server/peers/connection.py)
    api     TLS 1.2 or 1.3; clients need a certificate only if api.client_ca is set

Keys are read once, from files that no other user can read. OpenSSL gets these bytes through a file in memory, so no other file
can be swapped in between the check of its mode and its use.

Rules kept here: a node is whom its certificate names.
"""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from quorumvault.config import tls
from quorumvault.config.addresses import is_loopback
from quorumvault.config.cluster import Cluster
from quorumvault.config.secrets import read_private
from quorumvault.crypto.x509 import Unnamed, node_named, uris_of
from quorumvault.errors import ConfigError

#: Most bytes of a file of certificates. A list of 10,000 revoked ones takes 600 KB.
_MOST_BYTES: Final = 1 << 20
#: Days before expiry from which on there is a warning: long enough to ask an organisation's CA. Its lists often last a week.
WARN_DAYS: Final = 30
_WARN_DAYS_LIST: Final = 2

#: SSL_OP_NO_TX_ and _NO_RX_CERTIFICATE_COMPRESSION, which ssl does not name and OpenSSL knows from 3.2 on: otherwise the bytes
#: that are counted before the other end has proved itself could expand to more.
_NO_COMPRESSED_CERTIFICATES: Final = 1 << 32 | 1 << 33
#: X509_V_FLAG_NO_CHECK_TIME, which ssl does not name.
_NO_CHECK_TIME: Final = 0x200000

_Lists = list[x509.CertificateRevocationList]


@dataclass(frozen=True, slots=True)
class PeerCredentials:
    """For connections between nodes: the contexts of both ends; this node's certificate's expiry and serial number; the revoked
    serial numbers, and the expiry of their list; and the CAs, in DER."""

    listening: ssl.SSLContext = field(repr=False)
    dialling: ssl.SSLContext = field(repr=False)
    begins: datetime
    ends: datetime
    serial: int
    revoked: frozenset[int] = frozenset()
    list_begins: datetime | None = None
    list_ends: datetime | None = None
    authorities: frozenset[bytes] = field(default=frozenset(), repr=False)


@dataclass(frozen=True, slots=True)
class ApiCredentials:
    context: ssl.SSLContext = field(repr=False)
    begins: datetime
    ends: datetime


@dataclass(frozen=True, slots=True)
class Credentials:
    """``api`` is None for plain HTTP; ``exposed``: other machines can reach the plain HTTP."""

    peers: PeerCredentials
    api: ApiCredentials | None
    exposed: bool = False

    def ends(self) -> dict[str, datetime]:
        """The expiry of each of this node's certificates, by use; and of the revoked list, without which it accepts no peer."""
        ends = {"peers": self.peers.ends} | ({} if self.api is None else {"api": self.api.ends})
        return ends | ({} if self.peers.list_ends is None else {"revoked": self.peers.list_ends})

    @property
    def scheme(self) -> str:
        """The scheme of the API's URL."""
        return "http" if self.api is None else "https"

    def problems(self, now: datetime) -> Iterator[str]:
        """Problems for /health: certificates that expire soon or have expired, and an API without encryption."""
        for use, ends in self.ends().items():
            left = ends - now
            if left.total_seconds() <= 0:
                yield f"{_USES[use].what} has expired ({ends:%Y-%m-%d}): renew it"
            elif left.days < _USES[use].warn_days:
                yield f"{_USES[use].what} expires in {left.days} days ({ends:%Y-%m-%d}): renew it"
        if self.peers.serial in self.peers.revoked:
            yield "the certificate for other nodes is revoked: they take none of this node's connections; issue another for it"
        if self.exposed:
            yield "the API is plain HTTP on an address that others reach: API keys and values cross the network in clear"

    def expired(self, now: datetime) -> dict[str, datetime]:
        """Everything that has expired, by its key in cluster.yaml, and when."""
        return {_USES[use].key: ends for use, ends in self.ends().items() if ends <= now}

    def not_yet(self, now: datetime) -> dict[str, datetime]:
        """Everything that is not valid yet, by its key in cluster.yaml, and from when on it is valid."""
        begins = {"peers": self.peers.begins} | ({} if self.api is None else {"api": self.api.begins})
        begins |= {} if self.peers.list_begins is None else {"revoked": self.peers.list_begins}
        return {_USES[use].key: begin for use, begin in begins.items() if begin > now}


class _Use(NamedTuple):
    key: str
    what: str
    warn_days: int = WARN_DAYS


_USES: Final = {
    "peers": _Use("peers.certificate", "the certificate for other nodes"),
    "api": _Use("api.certificate", "the certificate for the API"),
    "revoked": _Use("peers.revoked", "the list of revoked certificates", _WARN_DAYS_LIST),
}


class Unusable(Exception):
    """A TLS file cannot be used; says what was expected. ``part``: its key in cluster.yaml, without ``peers`` or ``api``."""

    def __init__(self, part: str, expected: str) -> None:
        super().__init__(expected)
        self.part = part


def peer_credentials(own: bytes, authorities: bytes, revoked: bytes | None) -> PeerCredentials:
    """Make the credentials of a node: its certificate and key, CAs, and their lists of revoked ones, in PEM. Raises Unusable."""
    certificate = _first(own)
    lists = None if revoked is None else _lists(revoked)
    listening = _peer_context(ssl.PROTOCOL_TLS_SERVER, own, authorities, lists)
    # A peer that resumes a session would not be asked for its certificate again, which may have been revoked.
    listening.num_tickets = 0
    dialling = _peer_context(ssl.PROTOCOL_TLS_CLIENT, own, authorities, lists)
    gone = frozenset(entry.serial_number for one in lists or () for entry in one)
    # Parsed here: OpenSSL trusts every self-signed certificate, but does not list those that say that they are not a CA.
    trusted = frozenset(ca.public_bytes(Encoding.DER) for ca in _parsed("ca", authorities, _CAS))
    return PeerCredentials(
        listening,
        dialling,
        begins=certificate.not_valid_before_utc,
        ends=certificate.not_valid_after_utc,
        serial=certificate.serial_number,
        revoked=gone,
        list_begins=max((one.last_update_utc for one in lists or ()), default=None),
        list_ends=min((one.next_update_utc for one in lists or () if one.next_update_utc is not None), default=None),
        authorities=trusted,
    )


def _peer_context(side: int, own: bytes, authorities: bytes, lists: _Lists | None) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= _NO_COMPRESSED_CERTIFICATES
    context.check_hostname = False  # the connection checks which node it is
    context.verify_mode = ssl.CERT_REQUIRED
    _show(context, own)
    _trust(context, "ca", authorities)
    if lists is not None:
        try:
            # Encoded again from the lists only, because OpenSSL would trust a certificate in this file as a CA.
            with _in_memory(b"".join(one.public_bytes(Encoding.PEM) for one in lists)) as file:
                context.load_verify_locations(cafile=file)
        except (ssl.SSLError, ValueError):
            raise Unusable("revoked", _LIST) from None
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def api_credentials(own: bytes, client_authorities: bytes | None) -> ApiCredentials:
    """Make the credentials of the API, from PEM likewise. Raises Unusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # One handshake for each connection: otherwise a client could ask for another, again and again.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | _NO_COMPRESSED_CERTIFICATES
    context.set_alpn_protocols(["http/1.1"])
    _show(context, own)
    if client_authorities is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, "client_ca", client_authorities)
    certificate = _first(own)
    return ApiCredentials(context, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _check_own(own: bytes, authorities: bytes) -> None:
    """Raises Unusable if a peer with the same CAs would refuse this certificate, at either end. Dates and lists are not checked.

    The check is a handshake of the node with itself, since nothing else judges a chain exactly as the peers' OpenSSL does.
    """
    dialling = _peer_context(ssl.PROTOCOL_TLS_CLIENT, own, authorities, None)
    listening = _peer_context(ssl.PROTOCOL_TLS_SERVER, own, authorities, None)
    dialling.verify_flags |= _NO_CHECK_TIME
    listening.verify_flags |= _NO_CHECK_TIME
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = dialling.wrap_bio(back, there), listening.wrap_bio(there, back, server_side=True)
    for end in ends * 2:  # hello; answer; the dialler's certificate; the listener's verdict on it
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason
            raise Unusable("certificate", f"one that the CAs of peers.ca have signed, for both ends of TLS ({why})") from None


def load_credentials(cluster: Cluster, node: str) -> Credentials:
    """Read the credentials of this node's connections. Raises ConfigError, whose text has no part of a key."""
    files = _Files(cluster, dict(cluster.tls_files(node)))
    peers = _load_peers(cluster, node, files)
    if "api.certificate" in files.paths:
        own, client_ca = files.read_pair("api"), files.read("api.client_ca")
        with files.named("api"):
            return Credentials(peers, api_credentials(own, client_ca))
    listen = cluster.nodes[node].listen_api
    if not is_loopback(listen) and not cluster.api.insecure_http:
        raise ConfigError(
            cluster.file,
            "api.certificate",
            f"expected a certificate: the API of {node} listens on {listen}, where plain HTTP would show API keys and values to "
            f"the network. Name one (init and certs issue make {tls.OWN_CERTIFICATE}), or say api.insecure_http: true, as behind "
            "a proxy that ends TLS",
        )
    return Credentials(peers, None, exposed=not is_loopback(listen))


def _load_peers(cluster: Cluster, node: str, files: "_Files") -> PeerCredentials:
    own, authorities, revoked = files.read_pair("peers"), files.read("peers.ca"), files.read("peers.revoked")
    path = files.paths["peers.certificate"]
    with files.named("peers"):
        credentials = peer_credentials(own, authorities or b"", revoked)
        _check_own(own, authorities or b"")
    try:
        named = node_named(uris_of(_first(own)), cluster.cluster_id)
    except (Unnamed, ValueError) as error:
        raise ConfigError(cluster.file, "peers.certificate", f"{path}: {error}") from None
    if named != node:
        raise ConfigError(cluster.file, "peers.certificate", f"{path}: expected the certificate of {node}, this is {named}'s")
    return credentials


@dataclass(frozen=True, slots=True)
class _Files:
    """TLS files by their keys in cluster.yaml, and the messages for files that cannot be used."""

    cluster: Cluster
    paths: Mapping[str, Path]

    def read(self, key: str) -> bytes | None:
        """The content of the file; None if the key is not set. Raises ConfigError."""
        if key not in self.paths:
            return None
        try:
            with self.paths[key].open("rb") as file:
                return file.read(_MOST_BYTES)
        except OSError as error:
            raise self._bad(key, f"a file that can be read: {error.strerror}") from None

    def read_pair(self, use: str) -> bytes:
        """The certificate and the key for this use, from one file or from two."""
        key = f"{use}.certificate"
        if f"{use}.key" in self.paths:
            private = read_private(self.cluster.file, f"{use}.key", self.paths[f"{use}.key"], _MOST_BYTES)
            return private + b"\n" + (self.read(key) or b"")
        if not self.paths[key].exists():
            raise self._bad(
                key,
                "the certificate of this node and its key; there is no such file. For a cluster that has none yet: quorumvault "
                "certs issue, in the directory where it was made; then carry each host its own",
            )
        return read_private(self.cluster.file, key, self.paths[key], _MOST_BYTES)

    @contextmanager
    def named(self, use: str) -> Iterator[None]:
        try:
            yield
        except Unusable as error:
            raise self._bad(f"{use}.{error.part}", str(error)) from None

    def _bad(self, key: str, expected: str) -> ConfigError:
        return ConfigError(self.cluster.file, key, f"{self.paths[key]}: expected {expected}")


def _first(pem: bytes) -> x509.Certificate:
    return _parsed("certificate", pem, "a certificate in PEM")[0]


def _parsed(part: str, pem: bytes, expected: str) -> list[x509.Certificate]:
    """Parse at least one certificate. Raises Unusable."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise Unusable(part, expected) from None


def _show(context: ssl.SSLContext, own: bytes) -> None:
    try:
        with _in_memory(own) as file:
            context.load_cert_chain(file, password=_no_password)
    except (ssl.SSLError, ValueError):  # its message could only name the file in memory
        raise Unusable("certificate", "a certificate and its own private key, not encrypted, in PEM") from None


def _trust(context: ssl.SSLContext, part: str, authorities: bytes) -> None:
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii"))
    except (ssl.SSLError, ValueError):  # UnicodeDecodeError too
        raise Unusable(part, _CAS) from None


_CAS: Final = "certificates of CAs in PEM"
_LIST: Final = "lists of revoked certificates in PEM, and nothing else"


#: The first and the last line of a list of revoked certificates; a file has one for each CA.
_BEGIN_OF_LIST: Final = b"-----BEGIN X509 CRL-----"
END_OF_LIST: Final = b"-----END X509 CRL-----"


def _lists(revoked: bytes) -> _Lists:
    """The lists in a file, which may have nothing else. Raises Unusable."""
    *pieces, rest = (piece.strip() for piece in revoked.split(END_OF_LIST))
    if not pieces or rest or not all(piece.startswith(_BEGIN_OF_LIST) for piece in pieces):
        raise Unusable("revoked", _LIST)
    try:
        return [x509.load_pem_x509_crl(piece + b"\n" + END_OF_LIST) for piece in pieces]
    except ValueError:
        raise Unusable("revoked", _LIST) from None


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A file in memory, for OpenSSL functions that accept only file names."""
    descriptor = os.memfd_create("quorumvault", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _no_password() -> str:
    """OpenSSL would ask on the terminal."""
    raise ValueError("an encrypted key")
