"""Reload: a running node reads its API keys, its peers' addresses and its certificates again.

    SIGHUP, or the administrative socket --> API keys        --> in force; the event log has the changes
                                         --> peer addresses  --> links move
                                         --> certificates    --> for new connections; connections no longer trusted end

A file is taken whole or not at all. A refused file is a warning in /health until a later reload takes it, because whoever changed
it believes that it is in force. The event log says which keys were added, removed and changed, and when; the node does not know
by whom.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ssl import SSLContext

from quorumvault.config.api_keys import ApiKey, KeyTable, load_keys
from quorumvault.config.certificates import Credentials, load_credentials
from quorumvault.config.cluster import Cluster, load_cluster
from quorumvault.config.tampering import guarded
from quorumvault.errors import ConfigError
from quorumvault.model import Owner
from quorumvault.server.http.admin.schemas import Reloaded
from quorumvault.server.peers.link import Link
from quorumvault.server.telemetry.event_log import Event

logger = logging.getLogger("quorumvault.node")


@dataclass(eq=False)
class Reloads:
    """``keys``, those of the file that are not revoked, and ``credentials`` are in force. ``introduce`` is told the keys' owners,
    ``links`` (by node) their peers' addresses; ``on_credentials`` is called when there are others; ``note`` takes events."""

    cluster: Cluster
    node: str
    now: Callable[[], datetime]
    on_credentials: Callable[[], None]
    links: Callable[[], Mapping[str, Link]]
    introduce: Callable[[Iterable[Owner]], None]
    note: Callable[[Event], None]

    def __post_init__(self) -> None:
        """Raises ConfigError if there are no keys or no certificates to begin with."""
        self._in_file = self.keys = load_keys(self.cluster.api_keys)
        self._revoked: frozenset[str] = frozenset()
        self.credentials = self._load_credentials(self.cluster)
        for problem in self.credentials.problems(self.now()):
            logger.warning("%s", problem)
        self._refused: dict[str, str] = {}
        #: Reloads, by whether all files were taken.
        self.counts = {"ok": 0, "failed": 0}
        #: cluster.yaml as it was last in order: it says where the certificates are.
        self._latest = self.cluster

    @property
    def problem(self) -> str | None:
        """Words for /health, which everybody may read: the files that the last reload refused. None if it refused none."""
        if not self._refused:
            return None
        return f"reload failed: the {' and the '.join(self._refused)} stay as they were; the node's log says why"

    def reload(self, asked_by: str) -> Reloaded:
        """Read all files again. An invalid file is refused as a whole, and the content in force stays. Does not raise."""
        read, self._refused = list[str](), {}
        for what, read_again in (
            ("API keys", self._read_keys),
            ("peer addresses", self._read_addresses),
            ("certificates", self._read_certificates),
        ):
            try:
                read_again()
            except ConfigError as error:
                self._refused[what] = str(error)
                logger.error("the %s stay as they were: %s", what, error)
            else:
                read.append(what)
                logger.info("%s read again", what)
        detail = f"asked for by {asked_by}; read again: {', '.join(read) or 'nothing'}"
        detail += f"; refused: {', '.join(self._refused)}" if self._refused else ""
        outcome = "failed" if self._refused else "ok"
        self.counts[outcome] += 1
        self.note(Event(event="reload", outcome=outcome, detail=detail))
        return Reloaded(read, self._refused)

    @property
    def called_revoked(self) -> frozenset[str]:
        """The ids of the keys that the file calls revoked."""
        return self._in_file.revoked

    @property
    def listed(self) -> frozenset[str]:
        """The ids of all keys in the file, revoked or not."""
        return self._in_file.revoked | self._in_file.by_id().keys()

    def revoke(self, ids: frozenset[str]) -> None:
        """From now on the keys with these ids are not in force, whatever the file says."""
        before, self._revoked = self.keys, ids
        self.keys = self._in_file.without(ids)
        for key in before.by_id().values():
            if key.id in ids:
                self.note(Event(event="key_revoked", owner=key.owner.name, key_id=key.id))

    def api_tls(self) -> Callable[[], SSLContext] | None:
        """What returns the context for the next connection to the API; None for plain HTTP."""
        if self.credentials.api is None:
            return None

        def context() -> SSLContext:
            api = self.credentials.api
            assert api is not None  # no reload takes TLS away
            return api.context

        return context

    def _read_keys(self) -> None:
        before, self._in_file = self.keys, load_keys(guarded(self.cluster.api_keys))
        self.keys = self._in_file.without(self._revoked)
        for event in key_changes(before, self.keys):
            self.note(event)
        self.introduce(self.keys.owners)

    def _read_addresses(self) -> None:
        self._latest = load_cluster(guarded(self.cluster.file))
        for node, link in self.links().items():
            link.move(self._latest.nodes[node].peer)

    def _read_certificates(self) -> None:
        cluster = self._latest
        for _, path in cluster.tls_files(self.node):
            if path.exists():  # else who reads it says what to do
                guarded(path)
        read = self._load_credentials(cluster)
        before = self.credentials.expired(self.now())
        for key, ended in read.expired(self.now()).items():
            if key not in before:
                raise ConfigError(cluster.file, key, f"expected one that is valid, this ended {ended}")
        if (read.api is None) != (self.credentials.api is None):
            raise ConfigError(cluster.file, "api.certificate", "from plain HTTP to TLS, or back, takes a restart of the node")
        self.credentials = read
        self.on_credentials()

    def _load_credentials(self, cluster: Cluster) -> Credentials:
        read = load_credentials(cluster, self.node)
        for key, begins in read.not_yet(self.now()).items():
            raise ConfigError(cluster.file, key, f"expected one that is valid, this begins {begins}: is this host's clock right?")
        return read


def key_changes(before: KeyTable, after: KeyTable) -> Iterator[Event]:
    """Yields one event for each key that is new, is gone, or has other rights than before."""
    old, new = before.by_id(), after.by_id()
    for key_id, key in new.items():
        if key_id not in old:
            yield Event(event="key_added", owner=key.owner.name, key_id=key_id, detail=_rights(key))
        elif key != old[key_id]:
            was = f"before: {old[key_id].owner.name}, {_rights(old[key_id])}"
            yield Event(event="key_changed", owner=key.owner.name, key_id=key_id, detail=f"{_rights(key)}; {was}")
    for key_id, key in old.items():
        if key_id not in new:
            detail = "revoked, or no longer in the key file"
            yield Event(event="key_removed", owner=key.owner.name, key_id=key_id, detail=detail)


def _rights(key: ApiKey) -> str:
    ends = "" if key.expires is None else f"; ends {datetime.fromtimestamp(key.expires, UTC).isoformat(timespec='seconds')}"
    return f"may {', '.join(sorted(key.allow))}; rates: {key.rates if any(key.rates) else 'none'}{ends}"
