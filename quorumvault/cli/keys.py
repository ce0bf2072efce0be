"""``quorumvault keys``: who may ask. Works on the key file, which holds hashes; nodes read it again on SIGHUP."""

import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import click

from quorumvault.cli.options import config_option, json_option
from quorumvault.cli.output import print_json, print_table, say
from quorumvault.config.api_keys import DEFAULT_ALLOW, PERMISSIONS, Permission, Rates, create_key, read_keyfile, revoke_key
from quorumvault.config.cluster import load_cluster


@click.group()
def keys() -> None:
    """Create, list and revoke API keys.

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


_LISTED = ("id", "owner", "allow", "rate", "values_per_second", "values_per_day", "note", "created", "revoked")
_RATE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(?:/([sd]))?")


def _per(text: str, units: str) -> tuple[float, str | None]:
    """The number and the unit of time in N/s or N/d. The unit is None if there is none. Raises BadParameter."""
    match = _RATE.fullmatch(text)
    if match is None or not float(match[1]) or (match[2] or "s") not in units:
        expected = " or ".join(f"N/{unit}" for unit in units)
        raise click.BadParameter(f"expected {expected} with a number N above 0, not {text!r}")
    return float(match[1]), match[2]


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
  quorumvault keys create --config vault/cluster.yaml --owner clinic-a --allow derive --rate 5/s --values 10000/d"""
)
@config_option
@click.option("--owner", required=True, metavar="NAME", help="Whose tokens the key gives access to.")
@click.option("--new-owner", is_flag=True, help="NAME has no key yet, and that is not a slip of the pen.")
@click.option(
    "--allow",
    callback=_permissions,
    metavar="PERMISSION,…",
    default=",".join(DEFAULT_ALLOW),
    show_default=True,
    help=f"What the key may do, separated by commas, out of {', '.join(PERMISSIONS)}.",
)
@click.option("--note", default="", help="What the key is for; kept in the file.")
@click.option("--rate", callback=_requests, metavar="N/s", help="At most N requests a second on each node.")
@click.option(
    "--values",
    callback=_values,
    multiple=True,
    metavar="N/s|N/d",
    help="At most N values a second, or a day, on each node; may be given once for each.",
)
@json_option
def create(
    config: Path,
    owner: str,
    new_owner: bool,
    allow: tuple[Permission, ...],
    note: str,
    rate: float | None,
    values: dict[str, float],
    as_json: bool,
) -> None:
    """Make an API key and print it, this once.

    A value counts when it is asked about, found or not; of POST /tokens (derive) for each epoch. Each node counts by itself.
    """
    key = create_key(
        load_cluster(config).api_keys,
        owner,
        now=datetime.now(UTC),
        entropy=secrets.token_bytes,
        allow=allow,
        note=note,
        rates=Rates(rate, values.get("s"), values.get("d")),
        new_owner=new_owner,
    )
    if as_json:
        print_json({"id": key.id, "key": key.text, "owner": owner, "allow": allow})
        return
    say(key.text)
    say(f"Key {key.id} of {owner} may {', '.join(allow)}. It is not shown again.", err=True)
    _tell_nodes()


@keys.command("list", epilog="\b\nExample:\n  quorumvault keys list --config vault/cluster.yaml")
@config_option
@json_option
def list_(config: Path, as_json: bool) -> None:
    """Show all API keys by their ids, revoked ones too."""
    file = read_keyfile(load_cluster(config).api_keys)
    if as_json:
        print_json({"keys": [{name: getattr(entry, name) for name in _LISTED} for entry in file.keys]})
        return
    print_table(
        ["id", "owner", "allow", "rates", "created", "revoked", "note"],
        [[e.id, e.owner, ",".join(e.allow), str(e.rates), e.created, e.revoked or "", e.note] for e in file.keys],
    )


@keys.command(epilog="\b\nExample:\n  quorumvault keys revoke --config vault/cluster.yaml 3fq7tzd2")
@config_option
@click.argument("key_id", metavar="ID")
@json_option
def revoke(config: Path, key_id: str, as_json: bool) -> None:
    """Revoke the API key with this ID. Nodes refuse it once they have read the file again."""
    entry = revoke_key(load_cluster(config).api_keys, key_id, now=datetime.now(UTC))
    if as_json:
        print_json({"id": entry.id, "owner": entry.owner, "revoked": entry.revoked})
        return
    say(f"Key {entry.id} of {entry.owner} is revoked since {entry.revoked}.")
    _tell_nodes()


def _tell_nodes() -> None:
    say("Running nodes take it on SIGHUP (kill -HUP PID), or at their next start; each host needs the new file.", err=True)
