"""``quorumvault keys``: the cluster's API keys. It works on the key file, which holds hashes; nodes reload it on SIGHUP.

A revocation also goes through the cluster, by a node on this host.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import click
import msgspec

from quorumvault.cli.main import PARTIAL
from quorumvault.cli.options import config_option, duration, json_option
from quorumvault.cli.output import print_json, print_table, say
from quorumvault.config.api_keys import DEFAULT_ALLOW, PERMISSIONS, KeyEntry, Permission, Rates, read_keyfile
from quorumvault.config.cluster import Cluster, load_cluster
from quorumvault.config.key_changes import create_key, entry_of, revoke_key, rotate_key
from quorumvault.errors import ConfigError, NoQuorum, NotRunning, QuorumVaultError, Refused, UnexpectedAnswer
from quorumvault.protocol.messages import KeyId

if TYPE_CHECKING:
    from quorumvault.cli.admin_client import AdminClient


@click.group()
def keys() -> None:
    """Create, list, rotate and revoke API keys.

    \b
    Example:
      quorumvault keys list --config vault/cluster.yaml
    """


def _permissions(ctx: click.Context, param: click.Parameter, value: str) -> tuple[Permission, ...]:
    words = tuple(word.strip() for word in value.split(","))
    for word in words:
        if word not in PERMISSIONS:
            raise click.BadParameter(f"{word!r} is none of {', '.join(PERMISSIONS)}")
    return cast("tuple[Permission, ...]", words)


_LISTED = (
    *("id", "owner", "allow", "rate", "values_per_second", "values_per_day", "note"),
    *("created", "expires", "successor", "revoked"),
)
_RATE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(?:/([sd]))?")


def _per(text: str, units: str) -> tuple[float, str | None]:
    """Returns the number and the time unit in N/s or N/d. The unit is None if there is none. Raises BadParameter."""
    match = _RATE.fullmatch(text)
    if match is None or not float(match[1]) or (match[2] or "s") not in units:
        expected = " or ".join(f"N/{unit}" for unit in units)
        raise click.BadParameter(f"expected {expected} with a number N above 0, not {text!r}")
    return float(match[1]), match[2]


def _life(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """Returns a duration as ``duration`` does, which must be longer than zero."""
    life = duration(ctx, param, value)
    if life == timedelta():
        raise click.BadParameter("a key that ends at once is of no use")
    return life


def _requests(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    return None if value is None else _per(value, "s")[0]


def _values(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, float]:
    rates: dict[str, float] = {}
    for number, unit in (_per(text, "sd") for text in value):
        if unit is None or unit in rates:
            raise click.BadParameter("expected N/s or N/d, each once at most")
        rates[unit] = number
    return rates


@keys.command(
    epilog="""\b
Examples:
  quorumvault keys create --config vault/cluster.yaml --owner clinic-a --allow tokenize --note 'nightly load'
  quorumvault keys create --config vault/cluster.yaml --owner clinic-a --allow detokenize --values 100/s --values 50000/d
  quorumvault keys create --config vault/cluster.yaml --owner clinic-a --allow derive --rate 5/s --values 10000/d
  quorumvault keys create --config vault/cluster.yaml --owner clinic-a --expires 90d"""
)
@config_option
@click.option("--owner", required=True, metavar="NAME", help="Owner of the tokens to which the key gives access.")
@click.option("--new-owner", is_flag=True, help="Confirm that NAME is a new owner without a key, not a typing error.")
@click.option(
    "--allow",
    callback=_permissions,
    metavar="PERMISSION,…",
    default=",".join(DEFAULT_ALLOW),
    show_default=True,
    help=f"Permissions of the key, separated by commas: {', '.join(PERMISSIONS)}.",
)
@click.option("--note", default="", help="Purpose of the key, stored in the key file.")
@click.option("--expires", "life", callback=_life, metavar="TIME", help="Lifetime of the key, from now on: 90d, 24h, 30m or 45s.")
@click.option("--rate", callback=_requests, metavar="N/s", help="At most N requests per second on each node.")
@click.option(
    "--values",
    callback=_values,
    multiple=True,
    metavar="N/s|N/d",
    help="At most N values per second (/s) or per day (/d) on each node. Each may be given once.",
)
@json_option
def create(
    config: Path,
    owner: str,
    new_owner: bool,
    allow: tuple[Permission, ...],
    note: str,
    life: timedelta | None,
    rate: float | None,
    values: dict[str, float],
    as_json: bool,
) -> None:
    """Create an API key and print it, only this once.

    For --values each requested value counts, found or not; in POST /tokens (derive) it counts for each epoch. Each node counts
    separately.
    """
    now = _now()
    expires = None if life is None else now + life
    key = create_key(
        load_cluster(config).api_keys,
        owner,
        now=now,
        entropy=secrets.token_bytes,
        allow=allow,
        note=note,
        rates=Rates(rate, values.get("s"), values.get("d")),
        expires=expires,
        new_owner=new_owner,
    )
    if as_json:
        print_json({"id": key.id, "key": key.text, "owner": owner, "allow": allow, "expires": expires})
        return
    say(key.text)
    say(f"Key {key.id} of {owner} may {', '.join(allow)}{_until(expires)}. It is not shown again.", err=True)
    _tell_nodes()


@keys.command("list", epilog="\b\nExample:\n  quorumvault keys list --config vault/cluster.yaml")
@config_option
@json_option
def list_(config: Path, as_json: bool) -> None:
    """List all API keys by id, including expired and revoked keys.

    The command asks a node on this host which keys are revoked in the cluster but not in this host's key file.
    """
    cluster = load_cluster(config)
    file, known = read_keyfile(cluster.api_keys), _known_revoked(cluster)
    if as_json:
        listed = [
            {name: getattr(entry, name) for name in _LISTED}
            | {"revoked_in_cluster": entry.id in known.ids or (False if known.current else None)}
            for entry in file.keys
        ]
        print_json({"keys": listed})
        return
    print_table(
        ["id", "owner", "allow", "rates", "created", "expires", "revoked", "note"],
        [
            [e.id, e.owner, ",".join(e.allow), str(e.rates), e.created, _end_of(e), _revocation_of(e, known.ids), e.note]
            for e in file.keys
        ],
    )


def _end_of(entry: KeyEntry) -> str:
    end = "" if entry.expires is None else entry.expires.isoformat(timespec="seconds")
    return end if entry.successor is None else f"{end}, then {entry.successor}"


def _revocation_of(entry: KeyEntry, revoked: Collection[str]) -> str:
    return entry.revoked or ("in the cluster" if entry.id in revoked else "")


class _Known(NamedTuple):
    """The ids of keys revoked in the cluster. ``current``: a moment ago the list was complete."""

    ids: Collection[str]
    current: bool


def _known_revoked(cluster: Cluster) -> _Known:
    """Asks the nodes on this host. Perhaps none runs, or none has a release that can report revocations."""
    ids = set[str]()
    for client in _nodes_here(cluster):
        with suppress(NotRunning, UnexpectedAnswer):
            answer = client.revoked()
            ids.update(answer.ids)
            if answer.current:
                return _Known(ids, current=True)
    return _Known(ids, current=False)


@keys.command(
    epilog="""\b
Examples:
  quorumvault keys rotate --config vault/cluster.yaml 3fq7tzd2 --grace 24h
  quorumvault keys rotate --config vault/cluster.yaml 3fq7tzd2 --grace 7d --expires 365d"""
)
@config_option
@click.argument("key_id", metavar="ID")
@click.option(
    "--grace",
    required=True,
    callback=duration,
    metavar="TIME",
    help="How long the key with this ID stays valid: 24h, 7d, 30m or 45s.",
)
@click.option(
    "--expires",
    "life",
    callback=_life,
    metavar="TIME",
    help="Lifetime of the new key, from now on. Default: the lifetime of the former key, if it had an end.",
)
@json_option
def rotate(config: Path, key_id: str, grace: timedelta, life: timedelta | None, as_json: bool) -> None:
    """Create an API key that replaces the one with this ID, and print it, only this once.

    The new key has the same permissions and rates. The former key expires after the grace time, by each node's clock, once the
    node has read the file again. Revoke a key that may be in the wrong hands instead. The command asks a node on this host
    whether the former key is already revoked in the cluster; if no node can tell, it prints a warning.
    """
    cluster = load_cluster(config)
    known = _known_revoked(cluster)
    if key_id in known.ids:
        raise Refused(
            f"key {key_id} is revoked in the cluster: it is in force no more; `quorumvault keys create` makes another one"
        )
    rotated = rotate_key(cluster.api_keys, key_id, now=_now(), entropy=secrets.token_bytes, grace=grace, life=life)
    former, key, entry = rotated.former, rotated.key, rotated.entry
    if not known.current:
        say(
            f"Warning: no node here can tell whether key {former.id} is revoked in the cluster. If it is, it has no grace.",
            err=True,
        )
    if as_json:
        replaced = {"id": former.id, "expires": former.expires}
        print_json({"id": key.id, "key": key.text, "owner": entry.owner, "expires": entry.expires, "replaces": replaced})
        return
    say(key.text)
    say(
        f"Key {key.id} of {entry.owner}{_until(entry.expires)} replaces {former.id}, which is good{_until(former.expires)}.",
        err=True,
    )
    say("It is not shown again.", err=True)
    _tell_nodes()


@keys.command(epilog="\b\nExample:\n  quorumvault keys revoke --config vault/cluster.yaml 3fq7tzd2")
@config_option
@click.argument("key_id", metavar="ID")
@click.option(
    "--elsewhere",
    is_flag=True,
    help="Do not change this host's key file: the key is in another host's file, and ID is not a typing error.",
)
@json_option
def revoke(config: Path, key_id: str, elsewhere: bool, as_json: bool) -> int | None:
    """Revoke the API key with this ID for good, from one host for the whole cluster.

    When the command returns, two disks have stored the revocation. Within two seconds no node that is connected to another node
    accepts the key. A node without a connection accepts no key at all, and learns of the revocation before it accepts any again.
    If no node on this host could revoke the key, the exit code is 1, or 3 without a quorum. This host's key file then has the
    revocation, and a node that reads the file spreads it. If the key is revoked everywhere, but this host's key file could not be
    marked, the exit code is 4.
    """
    cluster = load_cluster(config)
    if elsewhere:
        _require_id(key_id)
    entry = None if elsewhere else _listed(cluster.api_keys, key_id)
    try:
        node = _revoke_in(cluster, key_id)
    except QuorumVaultError as refused:
        if entry is None:
            raise
        _, unmarked = _mark(cluster.api_keys, entry)
        more = "The key file says it" if unmarked is None else f"The key file could not be marked either: {unmarked}"
        raise type(refused)(f"{refused}. {more}") from None
    entry, unmarked = (None, None) if entry is None else _mark(cluster.api_keys, entry)
    whose = "" if entry is None else f" of {entry.owner}"
    if as_json:
        of, since = (None, None) if entry is None else (entry.owner, entry.revoked)
        print_json({"id": key_id, "owner": of, "revoked": since, "node": node})
    else:
        say(f"Key {key_id}{whose} is revoked: {node} has seen to it that two disks have noted it.")
    if unmarked is None:
        return None
    say(
        f"quorumvault: revoked in the cluster; the key file could not be marked: {unmarked} (--elsewhere leaves it alone)",
        err=True,
    )
    return PARTIAL


def _require_id(key_id: str) -> None:
    """Raises BadParameter if ``key_id`` is not an id: it may be a whole key, which no node and no error may show."""
    try:
        msgspec.convert(key_id, KeyId)
    except msgspec.ValidationError:
        raise click.BadParameter("expected an id; `quorumvault keys list` shows the ids (a whole key is not one)") from None


def _listed(path: Path, key_id: str) -> KeyEntry:
    """Returns the key's entry in this host's key file. Raises KeyUnknown for a missing entry, most likely a typing error;
    Refused if the file cannot tell."""
    try:
        return entry_of(path, read_keyfile(path), key_id)
    except ConfigError as error:
        raise Refused(
            f"{error}: so nobody can tell whether the file has this key, and nothing was done. If the id is right say "
            f"`--elsewhere`, which revokes it in the cluster and leaves the file alone"
        ) from None


def _mark(path: Path, entry: KeyEntry) -> tuple[KeyEntry, str | None]:
    """Marks the key's entry in the file. Returns the entry as it is now in the file, and the reason if marking failed."""
    try:
        return revoke_key(path, entry.id, now=_now()), None
    except QuorumVaultError as error:
        return entry, str(error)
    except OSError as error:
        return entry, f"{path}: {error.strerror or error}"


def _revoke_in(cluster: Cluster, key_id: str) -> str:
    """Revokes the key in the cluster through the first node on this host that can do so. Returns the node's name.

    Raises NoQuorum if a running node has no quorum, NotRunning if none runs, UnexpectedAnswer if a node's release cannot revoke.
    """
    refusals: list[QuorumVaultError] = []
    for client in _nodes_here(cluster):
        try:
            return client.revoke(key_id).node
        except (NotRunning, NoQuorum, UnexpectedAnswer) as error:
            refusals.append(error)
    kinds = (kind for kind in (NoQuorum, UnexpectedAnswer) if any(isinstance(each, kind) for each in refusals))
    reasons = "; ".join(map(str, refusals)) or "no node of this cluster is here"
    raise next(kinds, NotRunning)(
        f"key {key_id} is not known to be revoked in the cluster yet: {reasons}. "
        f"Say it again, here or on another host, until it is"
    )


def _nodes_here(cluster: Cluster) -> Iterator[AdminClient]:
    """Yields the nodes whose data is on this host."""
    from quorumvault.cli.admin_client import AdminClient

    for node in cluster.nodes:
        if cluster.data_directory(node).is_dir():
            yield AdminClient(cluster.data_directory(node))


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _until(end: datetime | None) -> str:
    return "" if end is None else f" until {end.isoformat(timespec='seconds')}"


def _tell_nodes() -> None:
    say("Running nodes take it on SIGHUP (kill -HUP PID), or at their next start; each host needs the new file.", err=True)
