"""Owners on several clusters: which cluster each owner lives on, and a client for each owner.

Owners share nothing, so clusters need not agree on anything. A map names each owner's cluster and its API key there.
"""

import os
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from quorumvault.client.asynchronous import AsyncClient
from quorumvault.client.policy import ClientPolicy
from quorumvault.client.settings import Settings, parse_urls, read_key, resolve
from quorumvault.client.sync import Client
from quorumvault.errors import BadArgument, ConfigError

ClientT = TypeVar("ClientT", Client, AsyncClient)
PartT = TypeVar("PartT")

#: Enough for a hundred thousand owners; a much longer file was named by mistake.
_FILE_BYTES = 16 << 20
#: The most owners of the map that an error names.
_SHOWN = 10


class _Cluster(msgspec.Struct, forbid_unknown_fields=True):
    urls: list[str]
    cacert: str | None = None
    client_cert: str | None = None


class _Owner(msgspec.Struct, forbid_unknown_fields=True):
    cluster: str
    key_file: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    clusters: dict[str, Any]
    owners: dict[str, Any]


class _Map(Generic[ClientT]):
    """The base of both classes. It makes the client of an owner at the first request for it, and keeps the client."""

    _make: Callable[..., ClientT]

    def __init__(self, path: Path | str, *, purpose: str | None = None, policy: ClientPolicy | None = None) -> None:
        self._path = Path(path).absolute()
        self._settings = _read(self._path, purpose)
        self._policy = policy
        self._clients: dict[str, ClientT] = {}

    @property
    def owners(self) -> list[str]:
        """All owners of the map, in order."""
        return sorted(self._settings)

    def of(self, owner: str) -> ClientT:
        """Returns the client of an owner on the owner's cluster: the same client each time; closing the map closes it.

        Raises BadArgument for an owner that the map does not have.
        """
        found = self._settings.get(owner)
        if found is None:
            raise BadArgument("owner", f"{owner!r} lives on no cluster of {self._path}, which has {_listed(self._settings)}")
        client = self._clients.get(owner)
        if client is None:
            files = {"cacert": found.cacert, "client_cert": found.client_cert}
            made = self._make(found.urls, api_key=found.api_key, purpose=found.purpose, policy=self._policy, **files)
            # Another thread may have made one meanwhile. Neither client has connected yet.
            client = self._clients.setdefault(owner, made)
        return client

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r})"


class Clusters(_Map[Client]):
    """Owners on several clusters. Use it as a context manager, from as many threads as you like.

        with qv.Clusters("clusters.toml") as clusters:
            tokens = clusters.of("clinic-a").tokenize(["123-45-6789"])

    ``path``: a TOML file with the addresses of clusters, and the cluster on which each owner lives:

        [clusters.north]
        urls = ["https://10.0.0.1:8700", "https://10.0.0.2:8700", "https://10.0.0.3:8700"]
        cacert = "north/ca.pem"

        [owners.clinic-a]
        cluster = "north"
        key_file = "keys/clinic-a"

    ``cacert`` and ``client_cert`` are those of ``Client``, with its defaults. Paths are relative to the file's directory.
    ``key_file`` contains only the owner's API key on that cluster; this key decides whose values and tokens they are.
    ``purpose`` and ``policy`` are those of ``Client``, for all clients.

    Raises ConfigError, which names the file and the place in it, or the key file. No cluster is asked: whether a cluster is
    reachable and accepts the key shows only when its client is used.
    """

    _make = Client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the clients of all owners. Calls under way in other threads fail."""
        for client in list(self._clients.values()):
            client.close()


class AsyncClusters(_Map[AsyncClient]):
    """See Clusters; its clients are AsyncClient."""

    _make = AsyncClient

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """See Clusters.close."""
        for client in list(self._clients.values()):
            await client.close()


def _read(path: Path, purpose: str | None) -> dict[str, Settings]:
    """Returns the settings of each owner's client, by owner. Raises ConfigError."""
    content = _as(path, "", _parsed(path), _File)
    clusters = {name: _as(path, f"clusters.{name}", part, _Cluster) for name, part in content.clusters.items()}
    for name, cluster in clusters.items():
        try:
            parse_urls(cluster.urls)
        except ValueError as error:
            raise ConfigError(path, f"clusters.{name}.urls", str(error)) from None
    made: dict[str, Settings] = {}
    opened: dict[str, str] = {}
    for owner, part in content.owners.items():
        place = f"owners.{owner}"
        says = _as(path, place, part, _Owner)
        home = clusters.get(says.cluster)
        if home is None:
            words = f"there is no [clusters.{says.cluster}]; the file has {_listed(clusters)}"
            raise ConfigError(path, f"{place}.cluster", words)
        key = read_key(path.parent / says.key_file)
        other = opened.setdefault(key, owner)
        if other != owner:
            raise ConfigError(path, f"{place}.key_file", f"has the API key of {other}: a key is of one owner")
        cacert, client_cert = (None if file is None else path.parent / file for file in (home.cacert, home.client_cert))
        made[owner] = resolve(home.urls, key, purpose, cacert, os.environ, client_cert)
    return made


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(path, "", f"cannot be read: {error.strerror}") from None
    if len(text) > _FILE_BYTES:
        raise ConfigError(path, "", f"expected at most {_FILE_BYTES} bytes")
    try:
        return tomllib.loads(text.decode())
    except ValueError as error:  # the error names line and column, or the file is not UTF-8
        raise ConfigError(path, "", f"expected TOML: {error}") from None


def _as(path: Path, place: str, content: object, kind: type[PartT]) -> PartT:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(path, place, str(error)) from None


def _listed(names: Iterable[str]) -> str:
    every = sorted(names)
    more = f" and {len(every) - _SHOWN} others" if len(every) > _SHOWN else ""
    return (", ".join(every[:_SHOWN]) or "none") + more
