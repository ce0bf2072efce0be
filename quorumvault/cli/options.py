"""Options that commands share: the nodes' URLs, the API key and the purpose, and output for machines.

    @click.command()
    @connection_options
    @json_option
    def status(connection: Connection, as_json: bool) -> None:
        with connection.open() as client: ...

A flag comes before its QUORUMVAULT_* variable, and the variable before the default: the client reads the environment for options
that are not given. The API key comes from a file or the environment, never from an argument, which every process list shows.
"""

from __future__ import annotations

import functools
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from quorumvault.cli.output import say, visible
from quorumvault.errors import ConfigError
from quorumvault.ownership import is_open_to_others

if TYPE_CHECKING:
    from quorumvault.cli.admin_client import AdminClient
    from quorumvault.client import Client


@dataclass(frozen=True, slots=True)
class Connection:
    """The options for reaching the cluster. The API key is read when the client is opened.

    ``batch`` and ``patience`` (seconds) override the client's policy; None keeps the policy's defaults.
    """

    urls: tuple[str, ...]
    key_file: Path | None
    purpose: str | None
    cacert: Path | None
    client_cert: Path | None
    batch: int | None = None
    patience: float | None = None

    def open(self) -> Client:
        """Returns a client for these nodes, a context manager. Raises ConfigError for a bad URL, key or certificate file."""
        from quorumvault.client import Client, ClientPolicy
        from quorumvault.client.settings import read_key

        key = None
        if self.key_file is not None:
            key = read_key(self.key_file)
            _warn_if_open(self.key_file)
        policy = ClientPolicy(batch=self.batch)
        if self.patience is not None:
            policy = ClientPolicy(batch=self.batch, request=self.patience)
        return Client(
            self.urls or None, api_key=key, purpose=self.purpose, cacert=self.cacert, client_cert=self.client_cert, policy=policy
        )


def _warn_if_open(path: Path) -> None:
    found = path.stat()
    if stat.S_ISREG(found.st_mode) and is_open_to_others(found):
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        say(f"Warning: others can read the API key in {visible(str(path))} (mode {mode}): chmod 600 it", err=True)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def all_of(*options: Decorator) -> Decorator:
    """Returns a decorator that adds these options, in this order."""
    return lambda command: functools.reduce(lambda made, option: option(made), reversed(options), command)


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --url, --key-file, --purpose, --cacert and --client-cert; the command gets them as one argument, ``connection``."""

    @functools.wraps(command)
    def with_connection(*args: Any, **given: Any) -> Any:
        connection = Connection(*(given.pop(name) for name in ("url", "key_file", "purpose", "cacert", "client_cert")))
        return command(*args, connection=connection, **given)

    return _CONNECTION(with_connection)


def bulk_connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of ``connection_options``, and --batch and --patience: for commands with many requests."""

    @functools.wraps(command)
    def with_pace(*args: Any, connection: Connection, batch: int | None, patience: timedelta | None, **given: Any) -> Any:
        seconds = None if patience is None else patience.total_seconds()
        return command(*args, connection=replace(connection, batch=batch, patience=seconds), **given)

    return connection_options(_PACE(with_pace))


def _patience(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """Parses a duration; a number alone is in seconds."""
    found = duration(ctx, param, f"{value}s" if value and value.isdecimal() else value)
    if found == timedelta():
        raise click.BadParameter("a node needs some time to answer: expected a time like 90s or 10m")
    return found


_PACE = all_of(
    click.option(
        "--batch",
        type=click.IntRange(min=1),
        metavar="N",
        help="Send at most N values in a request. Default: as many as a node accepts, and fewer while nodes are slow.",
    ),
    click.option(
        "--patience",
        callback=_patience,
        metavar="TIME",
        help="How long to keep trying when no node answers: 90s, 10m. Default: 30s.",
    ),
)
_FILE = click.Path(dir_okay=False, path_type=Path)
_CONNECTION = all_of(
    click.option(
        "--url",
        multiple=True,
        metavar="URL",
        help="Address of a node. Repeatable. Default: QUORUMVAULT_URL (comma-separated), then http://127.0.0.1:8700.",
    ),
    click.option("--key-file", type=_FILE, help="File with the API key. Default: the key in QUORUMVAULT_API_KEY."),
    click.option("--purpose", help="Purpose of the access, logged by the node that answers. Default: QUORUMVAULT_PURPOSE."),
    click.option(
        "--cacert", type=_FILE, help="Certificates (PEM) to trust for https. Default: QUORUMVAULT_CACERT, then the system's."
    ),
    click.option(
        "--client-cert",
        type=_FILE,
        help="Client certificate and its key (PEM), if the API requires one. Default: QUORUMVAULT_CLIENT_CERT.",
    ),
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for machines.")


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --config; the command gets the path of the cluster file as ``config``."""

    @functools.wraps(command)
    def with_config(*args: Any, config: Path, **kwargs: Any) -> Any:
        return command(*args, config=_named(config), **kwargs)

    return _CONFIG(with_config)


def node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds DIR or --config, which names the cluster, and --node; the command gets ``config``, a file, and ``node``."""
    return cluster_options(node_option(command))


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds DIR or --config, which names the cluster; the command gets ``config``, a file."""

    @functools.wraps(command)
    def with_cluster(*args: Any, directory: Path | None, config: Path, **kwargs: Any) -> Any:
        if directory is None:
            file = _named(config)
        elif _source() is ParameterSource.COMMANDLINE:
            raise click.UsageError("name the cluster once: by DIR, or by --config")
        else:
            file = directory / "cluster.yaml"
        return command(*args, config=file, **kwargs)

    directory = click.argument(
        "directory", metavar="[DIR]", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path)
    )
    return directory(_CONFIG(with_cluster))


def _named(config: Path) -> Path:
    """Returns the cluster file. Raises ConfigError if a default file is missing: the user may not know about the default."""
    if _source() is ParameterSource.DEFAULT and not config.exists():
        raise ConfigError(config.absolute(), "", "there is no such file; name the cluster's with --config or QUORUMVAULT_CONFIG")
    context = click.get_current_context()
    file: Path = _FILE.convert(config, next(each for each in context.command.params if each.name == "config"), context)
    return file


def _source() -> ParameterSource | None:
    return click.get_current_context().get_parameter_source("config")


def admin_client(config: Path, node: str) -> AdminClient:
    """Returns a client for the admin socket of a node of the cluster in ``config``. Raises ConfigError for an unknown node."""
    from quorumvault.cli.admin_client import AdminClient
    from quorumvault.config.cluster import load_cluster

    cluster = load_cluster(config)
    if node not in cluster.nodes:
        raise ConfigError(cluster.file, "nodes", f"no node {node!r} in this cluster; expected one of {', '.join(cluster.nodes)}")
    return AdminClient(cluster.data_directory(node))


node_option = click.option("--node", required=True, envvar="QUORUMVAULT_NODE", metavar="NAME", help="Which node: n1, n2 or n3.")
_CONFIG = click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),  # checked at its use: DIR may override a variable with an invalid path
    envvar="QUORUMVAULT_CONFIG",
    default=Path("cluster.yaml"),
    help="The cluster's configuration. Default: QUORUMVAULT_CONFIG, then cluster.yaml in this directory.",
)


_DURATION = re.compile(r"([0-9]{1,7})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
#: The longest duration. A key meant to live longer should have no end.
_LONGEST = timedelta(days=36_500)


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """Parses a duration such as 90d, 24h, 30m or 45s. Raises BadParameter."""
    if value is None:
        return None
    match = _DURATION.fullmatch(value)
    duration = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
    if duration is None or duration > _LONGEST:
        raise click.BadParameter(f"expected a time like 90d, 24h, 30m or 45s, not {value!r}")
    return duration
