"""Options that commands share: where the nodes are, who is asking and why, and output for machines.

    @click.command()
    @connection_options
    @json_option
    def status(connection: Connection, as_json: bool) -> None:
        with connection.open() as client: ...

Flag, then QUORUMVAULT_* variable, then default: what is not given here is left to the client, which reads the environment.
The API key comes from a file or from the environment, never from an argument: those are in every process list.
"""

from __future__ import annotations

import functools
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from quorumvault.cli.output import say, visible
from quorumvault.errors import ConfigError
from quorumvault.ownership import is_open_to_others

if TYPE_CHECKING:
    from quorumvault.client import Client


@dataclass(frozen=True, slots=True)
class Connection:
    """What the command line says about reaching the cluster; the API key is read when the client is opened."""

    urls: tuple[str, ...]
    key_file: Path | None
    purpose: str | None
    cacert: Path | None

    def open(self) -> Client:
        """A client for these nodes: a context manager. Raises ConfigError for a bad URL, key file or certificate file."""
        from quorumvault.client import Client
        from quorumvault.client.settings import read_key

        key = None
        if self.key_file is not None:
            key = read_key(self.key_file)
            _warn_if_open(self.key_file)
        return Client(self.urls or None, api_key=key, purpose=self.purpose, cacert=self.cacert)


def _warn_if_open(path: Path) -> None:
    found = path.stat()
    if stat.S_ISREG(found.st_mode) and is_open_to_others(found):
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        say(f"Warning: others can read the API key in {visible(str(path))} (mode {mode}): chmod 600 it", err=True)


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --url, --key-file, --purpose and --cacert; the command gets them as one argument, ``connection``."""

    @functools.wraps(command)
    def with_connection(
        *args: Any, url: tuple[str, ...], key_file: Path | None, purpose: str | None, cacert: Path | None, **kwargs: Any
    ) -> Any:
        return command(*args, connection=Connection(url, key_file, purpose, cacert), **kwargs)

    decorated: Callable[..., Any] = with_connection
    for option in reversed(_CONNECTION):
        decorated = option(decorated)
    return decorated


_FILE = click.Path(dir_okay=False, path_type=Path)
_CONNECTION = (
    click.option(
        "--url",
        multiple=True,
        metavar="URL",
        help="A node's address; repeat it for several. Default: QUORUMVAULT_URL (comma-separated), then http://127.0.0.1:8700.",
    ),
    click.option("--key-file", type=_FILE, help="A file with the API key in it. Default: the key in QUORUMVAULT_API_KEY."),
    click.option("--purpose", help="Why: kept in the event log of the node that answers. Default: QUORUMVAULT_PURPOSE."),
    click.option(
        "--cacert",
        type=_FILE,
        help="Certificates (PEM) to trust for https. Default: QUORUMVAULT_CACERT, then the system's.",
    ),
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for machines.")


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --config; the command gets it as ``config``."""

    @functools.wraps(command)
    def with_config(*args: Any, config: Path, **kwargs: Any) -> Any:
        source = click.get_current_context().get_parameter_source("config")
        if source is ParameterSource.DEFAULT and not config.exists():  # who named no file may not know that one was looked for
            raise ConfigError(
                config.absolute(), "", "there is no such file; name the cluster's with --config or QUORUMVAULT_CONFIG"
            )
        return command(*args, config=config, **kwargs)

    return _CONFIG(with_config)


_CONFIG = click.option(
    "--config",
    type=_FILE,
    envvar="QUORUMVAULT_CONFIG",
    default=Path("cluster.yaml"),
    help="The cluster's configuration. Default: QUORUMVAULT_CONFIG, then cluster.yaml in this directory.",
)
