"""The CA of a cluster, on the machine where it was made: the certificates that it has issued, and those that it has revoked.

    DIR/secrets/ca.key         the CA's key, on this machine only. No configuration names it, so no pack contains it
    DIR/secrets/ca.pem         the CA's certificate; each host has it
    DIR/secrets/revoked.pem    the list of revoked certificates; each host has it
    DIR/secrets/n1.pem …       certificate and key of a node; that node's host has it
    DIR/secrets/issued.pem     all certificates that the CA has issued, without keys: those that can be revoked

A new file replaces the old file as a whole, and keeps its owner and mode. Nodes take the new file on SIGHUP.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from quorumvault import durable
from quorumvault.config.addresses import Endpoints
from quorumvault.config.certificates import END_OF_LIST
from quorumvault.config.cluster import Cluster
from quorumvault.config.secrets import read_private
from quorumvault.config.tls import NODE_PLACE, OWN_CA, OWN_CERTIFICATE, OWN_REVOKED, same_file
from quorumvault.crypto.x509 import NODE_DAYS, Authority, Unnamed, node_named, peer_name, revoked_serials, uris_of
from quorumvault.errors import ConfigError, Refused

CA_KEY: Final = "secrets/ca.key"
ISSUED: Final = "secrets/issued.pem"
_MOST_BYTES: Final = 1 << 26


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate of the CA. ``node`` is "ca" for the CA's own; ``revoked``: since when it is no longer accepted."""

    node: str
    serial: int
    begins: datetime
    ends: datetime
    revoked: datetime | None = None

    @property
    def shown_serial(self) -> str:
        return f"{self.serial:x}"


def own_certificate(node: str) -> str:
    return OWN_CERTIFICATE.replace(NODE_PLACE, node)


def create(base: Path, cluster_id: str, nodes: Mapping[str, Endpoints], now: datetime) -> None:
    """Make a CA and a certificate for each node. ``base`` has ``secrets``, without a CA; certificates there are replaced.

    The CA's certificate is written last: where it is, all is. Raises Refused if there is a part of another CA.
    """
    parts = [base / name for name in (ISSUED, CA_KEY, OWN_REVOKED)]
    if found := [str(path) for path in parts if path.exists()]:
        raise Refused(
            f"{', '.join(found)}: there is a part of a CA, and not its certificate {base / OWN_CA}. If that was lost, put it "
            "back. If certs issue was interrupted, no node has anything of it yet: remove this part, and run it again"
        )
    authority = Authority.create(cluster_id, now)
    made = {node: _signed(authority, cluster_id, node, at, now, NODE_DAYS) for node, at in nodes.items()}
    # First the record: a certificate that is not on record could not be revoked.
    durable.create(base / ISSUED, b"".join(_pem(x509.load_pem_x509_certificate(pem)) for pem in made.values()))
    durable.create(base / CA_KEY, authority.key_pem())
    durable.create(base / OWN_REVOKED, authority.revoke({}, now))
    durable.sync_directory(base / "secrets")
    for node, pem in made.items():
        _replace_private(base / own_certificate(node), pem)
    durable.create(base / OWN_CA, _pem(authority.certificate))
    durable.sync_directory(base / "secrets")


def check_ours(cluster: Cluster) -> None:
    """Raises Refused unless cluster.yaml leaves the nodes' certificates to our own CA: it would overwrite another CA's keys."""
    base, peers = cluster.file.parent, cluster.peers
    ours = peers.key is None and same_file(base / peers.ca, base / OWN_CA)
    for node in cluster.nodes:
        certificate = dict(cluster.tls_files(node))["peers.certificate"]
        if not ours or not same_file(certificate, base / own_certificate(node)):
            raise Refused(
                f"{cluster.file} has certificates of another CA for the nodes (peers): that CA issues and renews them. To have "
                "our own, take certificate, key, ca and revoked out of peers first, and the files away"
            )


class CertificateStore:
    """The CA of an existing cluster, and its files. Raises Refused if the CA's key is not on this machine."""

    def __init__(self, cluster: Cluster, now: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._base = cluster.file.parent
        self._now = now
        key = self._base / CA_KEY
        if not key.exists():
            raise Refused(
                f"{key}: the key of the CA is not here: run this where the cluster was made. With certificates of another CA "
                "(peers.certificate, peers.ca), that CA issues and revokes them"
            )
        try:
            self._authority = Authority.parse(
                (self._base / OWN_CA).read_bytes(), read_private(cluster.file, "", key, _MOST_BYTES)
            )
        except ValueError as error:
            raise ConfigError(key, "", f"expected the key of the CA in {OWN_CA}: {error}") from None

    def issue(self, nodes: Iterable[str], days: int = NODE_DAYS) -> list[Issued]:
        """Make a new certificate, with a new key, for each of these nodes. The previous one stays valid. Raises Refused."""
        check_ours(self._cluster)
        made = []
        for node in nodes:
            pem = _signed(self._authority, self._cluster.cluster_id, node, self._cluster.nodes[node], self._now(), days)
            certificate = x509.load_pem_x509_certificate(pem)
            # First the record: a certificate that is not on record could not be revoked.
            _replace(self._base / ISSUED, _read(self._base / ISSUED) + _pem(certificate))
            _replace_private(self._base / own_certificate(node), pem)
            made.append(self._shown(certificate, {}))
        return made

    def revoke(self, wanted: Callable[[Issued], bool]) -> list[Issued]:
        """Revoke all certificates of nodes that are wanted and were not. Returns them; the list on disk has them then.

        Raises Refused if the nodes read another list: it would look as if these were revoked.
        """
        for node in self._cluster.nodes:
            read = dict(self._cluster.tls_files(node)).get("peers.revoked")
            if read is None or not same_file(read, self._base / OWN_REVOKED):
                raise Refused(
                    f"{node} reads {read or 'no list'} (peers.revoked in cluster.yaml), and not {self._base / OWN_REVOKED}: "
                    "it would take what is revoked here. Name that file there, or revoke by the CA of peers.ca"
                )
        revoked, now = self._revoked(), self._now().replace(microsecond=0)
        found = [issued for issued in self.listed() if issued.node != "ca" and issued.revoked is None and wanted(issued)]
        if found:
            revoked |= {issued.serial: now for issued in found}
            # The lists of earlier CAs follow it, while these are trusted.
            earlier = _read(self._base / OWN_REVOKED).partition(END_OF_LIST)[2]
            _replace(self._base / OWN_REVOKED, self._authority.revoke(revoked, now) + earlier.lstrip())
        return found

    def listed(self) -> list[Issued]:
        """The CA's certificate and all that it has issued, oldest first."""
        revoked = self._revoked()
        issued = x509.load_pem_x509_certificates(_read(self._base / ISSUED)) if _read(self._base / ISSUED) else []
        return [self._shown(certificate, revoked) for certificate in (self._authority.certificate, *issued)]

    def _revoked(self) -> dict[int, datetime]:
        pem = _read(self._base / OWN_REVOKED)
        return revoked_serials(pem) if pem else {}

    def _shown(self, certificate: x509.Certificate, revoked: Mapping[int, datetime]) -> Issued:
        try:
            node = node_named(uris_of(certificate), self._cluster.cluster_id)
        except Unnamed:
            node = "ca"
        serial = certificate.serial_number
        return Issued(node, serial, certificate.not_valid_before_utc, certificate.not_valid_after_utc, revoked.get(serial))


def configured(cluster: Cluster, nodes: Iterable[str]) -> Iterator[tuple[str, str, Path, x509.Certificate]]:
    """Yield the certificates that cluster.yaml names and that are on this machine: node, key of the file, path, certificate."""
    for node in nodes:
        for key, path in cluster.tls_files(node):
            if key.endswith(".certificate") and path.exists():
                try:
                    yield node, key, path, x509.load_pem_x509_certificates(path.read_bytes())[0]
                except ValueError:
                    raise ConfigError(cluster.file, key, f"{path}: expected a certificate in PEM") from None


def _signed(authority: Authority, cluster_id: str, node: str, at: Endpoints, now: datetime, days: int) -> bytes:
    hosts = [at.api.host, at.peer.host]
    # A client beside the node may ask by either name.
    hosts += ["localhost", "127.0.0.1", "::1"]
    return authority.issue(peer_name(cluster_id, node), f"{node} of {cluster_id}", hosts, now, days)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _read(path: Path) -> bytes:
    """The content of the file; empty if there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _replace(path: Path, content: bytes, widest: int = 0o777) -> None:
    path = path.resolve()
    if not path.exists():
        durable.create(path, content)
        durable.sync_directory(path.parent)
        return
    with durable.replacing(path, widest=widest) as file:
        file.write(content)


def _replace_private(path: Path, content: bytes) -> None:
    """Replace the file of a key. The old file may have been readable by everyone."""
    _replace(path, content, widest=0o640)
