"""Reading back what a command has written, as the node that is to start from it will.

A file that nobody can read is found out by the command that wrote it, and not by the node that does not start.
"""

from __future__ import annotations

from quorumvault.config.api_keys import load_keys
from quorumvault.config.cluster import NodeConfig
from quorumvault.config.fields import load_fields
from quorumvault.errors import ConfigError
from quorumvault.server.storage.data_directory import IDENTITY_FILE, identity_of


def read_back(config: NodeConfig) -> None:
    """What a node reads at its start beside its configuration and its store: fields, API keys, and its disk's identity.

    ``config`` was loaded, so cluster.yaml and the secrets are in order. Raises ConfigError, naming the file that is not.
    """
    load_fields(config.cluster.fields)
    load_keys(config.cluster.api_keys)
    if identity_of(config) is None:
        raise ConfigError(config.data_directory / IDENTITY_FILE, "", "expected a disk identity; there is none")
