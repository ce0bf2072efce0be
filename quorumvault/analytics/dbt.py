"""A plugin for dbt-duckdb: the SQL functions ``detokenize(token)`` and ``tokenize(value)`` in a project's models.

    # profiles.yml, in an output of type duckdb
    plugins:
      - module: quorumvault.analytics.dbt
        config: {url: "http://n1:8700,http://n2:8700,http://n3:8700", key_file: /run/secrets/quorumvault.key, purpose: reporting}

What ``config`` leaves out comes from the environment (QUORUMVAULT_URL, QUORUMVAULT_API_KEY). The plugin refuses an API key in the
profile itself, since profiles are copied and printed.
"""

import duckdb
from dbt.adapters.duckdb.plugins import BasePlugin

from quorumvault.analytics.duckdb import register
from quorumvault.client import Client
from quorumvault.client.settings import read_key
from quorumvault.errors import ConfigError


class Plugin(BasePlugin):  # type: ignore[misc] # dbt has no types
    """The plugin. dbt-duckdb makes one for each profile that names this module, and calls it for each connection it opens."""

    def initialize(self, plugin_config: dict[str, str]) -> None:
        """Reads the configuration. Ignores unknown entries, since DuckDB's ``settings`` are among them. Raises ConfigError."""
        if "api_key" in plugin_config:
            raise ConfigError("profiles.yml", "api_key", "keys do not go into profiles: use key_file, or QUORUMVAULT_API_KEY")
        key_file = plugin_config.get("key_file")
        self._client = Client(
            plugin_config.get("url"),
            api_key=None if key_file is None else read_key(key_file),
            purpose=plugin_config.get("purpose"),
            cacert=plugin_config.get("cacert"),
            client_cert=plugin_config.get("client_cert"),
        )

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Registers the functions for this connection and its cursors; dbt has a cursor for each of its threads."""
        register(conn, self._client)
