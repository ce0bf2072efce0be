"""The TLS settings in cluster.yaml: ``api`` for clients, ``peers`` between nodes. certificates.py reads the named files."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quorumvault.config.secrets import FilePath

#: In a path, stands for the name of the node that reads it, because all nodes have the same cluster.yaml.
NODE_PLACE = "{node}"
OWN_CERTIFICATE, OWN_CA, OWN_REVOKED = f"secrets/{NODE_PLACE}.pem", "secrets/ca.pem", "secrets/revoked.pem"


class ApiSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """TLS of the API. Files in PEM, relative to cluster.yaml. If ``key`` is not set, the key is in the certificate's file."""

    certificate: FilePath | None = None
    key: FilePath | None = None
    #: Clients must show a certificate of these CAs, in addition to their API key.
    client_ca: FilePath | None = None
    #: Allows plain HTTP on an address that other machines can reach.
    insecure_http: bool = False

    @property
    def scheme(self) -> str:
        """The scheme of the API's URLs."""
        return "http" if self.certificate is None else "https"


class PeerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """TLS between nodes; files as above. ``ca`` may have several CAs; ``revoked`` has each CA's list of revoked certificates."""

    certificate: FilePath = OWN_CERTIFICATE
    key: FilePath | None = None
    ca: FilePath = OWN_CA
    revoked: FilePath | None = None


def same_file(one: Path, other: Path) -> bool:
    """True if two names mean the same file, which need not exist."""
    return os.path.realpath(one) == os.path.realpath(other)


def named_files(api: ApiSettings, peers: PeerSettings, node: str, base: Path) -> Iterator[tuple[str, str]]:
    """Yield the key and the name, for this node, of each file that is set. The CA's key is not among them: no node has it.

    ``base``: the directory of cluster.yaml.
    """
    # The list beside the cluster's own CA exists if that CA does; a configuration with another CA need not say it has no list.
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
