"""What cluster.yaml says of TLS: ``api`` for clients, ``peers`` between nodes. certificates.py reads the files that it names."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quorumvault.config.secrets import FilePath

#: In a path: the name of the node that reads it, since all nodes have the same cluster.yaml.
NODE_PLACE = "{node}"
OWN_CERTIFICATE, OWN_CA, OWN_REVOKED = f"secrets/{NODE_PLACE}.pem", "secrets/ca.pem", "secrets/revoked.pem"


class ApiSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """TLS of the API. Files in PEM, relative to cluster.yaml; ``key`` is in the certificate's file if it is not named."""

    certificate: FilePath | None = None
    key: FilePath | None = None
    #: Clients have to show a certificate of these CAs, besides their API key.
    client_ca: FilePath | None = None
    #: Plain HTTP on an address that others than this machine reach.
    insecure_http: bool = False

    @property
    def scheme(self) -> str:
        """The scheme of the API's URLs."""
        return "http" if self.certificate is None else "https"


class PeerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """TLS between nodes; files as above. ``ca`` may have several. ``revoked`` is the list of revoked certificates of each."""

    certificate: FilePath = OWN_CERTIFICATE
    key: FilePath | None = None
    ca: FilePath = OWN_CA
    revoked: FilePath | None = None


def same_file(one: Path, other: Path) -> bool:
    """Whether two names are of one file, which need not be there."""
    return os.path.realpath(one) == os.path.realpath(other)


def named_files(api: ApiSettings, peers: PeerSettings, node: str, base: Path) -> Iterator[tuple[str, str]]:
    """Yield the key and the name, for this node, of each file that is set. The key of the CA is none of them: no node has it.

    ``base``: the directory of cluster.yaml.
    """
    # The list beside our own CA is there if that is: who names another CA need not say that it has none.
    revoked = peers.revoked or (OWN_REVOKED if same_file(base / peers.ca, base / OWN_CA) else None)
    for key, file in (
        ("peers.certificate", peers.certificate),
        ("peers.key", peers.key),
        ("peers.ca", peers.ca),
        ("peers.revoked", revoked),
        ("api.certificate", api.certificate),
        ("api.key", api.key),
        ("api.client_ca", api.client_ca),
    ):
        if file is not None:
            yield key, file.replace(NODE_PLACE, node)
