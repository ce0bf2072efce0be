"""Changes the file of API keys: creates, rotates and revokes keys. One process at a time; the file is replaced as a whole.

Rules kept here: keys end.
"""

import base64
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import yaml

from quorumvault import durable
from quorumvault.config.api_keys import DEFAULT_ALLOW, NO_LIMIT, KeyEntry, KeyFile, Permission, Rates, checked, read_keyfile
from quorumvault.errors import Refused
from quorumvault.formats.yaml import parse_yaml

_PREFIX = "qvk_"
_ID_BYTES = 5
_SECRET_BYTES = 20
#: How long to wait for another process that changes the file, which takes milliseconds. Any user who may read the directory can
#: hold the lock for any length of time.
_LOCK_SECONDS = 5.0
_LOCK_PAUSE = 0.05
#: Where Linux lists the holders of locks.
_LOCKS = Path("/proc/locks")

_HEADER = """\
# API keys: hashes only; a key itself was shown once, when it was made.
# Written by `quorumvault keys create`, `keys rotate` and `keys revoke`, which keep no comments: use `note`.
# Running nodes read this file again on SIGHUP.
"""


class KeyUnknown(Refused):
    """The key file has no key with this id."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key. ``text`` is the key itself: shown once, stored nowhere."""

    id: str
    text: str = field(repr=False)


def new_keyfile(path: Path) -> None:
    """Make a key file without owners or keys. Raises FileExistsError if there is one."""
    durable.create(path, _render(KeyFile()).encode())


def create_key(
    path: Path,
    owner: str,
    *,
    now: datetime,
    entropy: Callable[[int], bytes],
    allow: Sequence[Permission] = DEFAULT_ALLOW,
    note: str = "",
    rates: Rates = NO_LIMIT,
    expires: datetime | None = None,
    new_owner: bool = False,
) -> NewKey:
    """Make a key and add its hash to the file. ``entropy`` is ``secrets.token_bytes``, or a test's substitute.

    Raises ConfigError if the file, or its new content, is not valid; Refused for an owner that the file does not know. A typo in
    the name would make tokens that the right owner cannot read, so ``new_owner`` must say that an owner is new.
    """
    path = path.resolve()
    with _changing(path) as file:
        known = owner in file.owners
        if not known and not new_owner:
            raise Refused(
                f"{path}: no owner {owner!r} among {', '.join(file.owners) or 'none'}; if it is to be a new one, say --new-owner"
            )
        key = new_key({entry.id for entry in file.keys}, entropy)
        entry = KeyEntry(
            id=key.id,
            owner=owner,
            sha256=hashlib.sha256(key.text.encode()).hexdigest(),
            allow=list(dict.fromkeys(allow)),
            note=note,
            created=now.isoformat(timespec="seconds"),
            expires=expires,
            rate=rates.requests_per_second,
            values_per_second=rates.values_per_second,
            values_per_day=rates.values_per_day,
        )
        _replace(path, KeyFile(file.owners if known else [*file.owners, owner], [*file.keys, entry]))
    return key


def new_key(taken: Collection[str], entropy: Callable[[int], bytes]) -> NewKey:
    """Make a key whose id is not among those ``taken``."""
    key_id = _base32(entropy(_ID_BYTES))
    while key_id in taken:
        key_id = _base32(entropy(_ID_BYTES))
    return NewKey(key_id, f"{_PREFIX}{key_id}_{_base32(entropy(_SECRET_BYTES))}")


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().lower()


def revoke_key(path: Path, key_id: str, *, now: datetime) -> KeyEntry:
    """Note in the file that a key is revoked. Idempotent. Raises KeyUnknown; Refused if the file is locked.

    Nodes that read the file spread the revocation to the whole cluster (protocol/revocations.py).
    """
    path = path.resolve()
    with _changing(path) as file:
        entry = entry_of(path, file, key_id)
        if entry.revoked is not None:
            return entry
        revoked = msgspec.structs.replace(entry, revoked=now.isoformat(timespec="seconds"))
        _replace(path, KeyFile(file.owners, [revoked if each is entry else each for each in file.keys]))
    return revoked


@dataclass(frozen=True, slots=True)
class Rotated:
    """``key`` replaces ``former``, which expires at ``former.expires``."""

    former: KeyEntry
    key: NewKey
    entry: KeyEntry


def rotate_key(
    path: Path, key_id: str, *, now: datetime, entropy: Callable[[int], bytes], grace: timedelta, life: timedelta | None = None
) -> Rotated:
    """Make a new key with the rights of this key, which then expires after ``grace``, or at its own expiry if that is earlier.

    ``life`` is the life of the new key; None: the same as the former key's from its creation to its expiry, if it had one. Raises
    KeyUnknown; Refused for a key that has expired, was revoked, or was rotated before.
    """
    path = path.resolve()
    with _changing(path) as file:
        former = entry_of(path, file, key_id)
        if former.successor is not None:
            raise Refused(f"{path}: key {key_id} was rotated already, to {former.successor}")
        if former.revoked is not None or (former.expires is not None and former.expires <= now):
            raise Refused(f"{path}: key {key_id} is in force no more; `quorumvault keys create` makes another one")
        if life is None and former.expires is not None:
            life = _life_of(path, former, former.expires)
        key = new_key({entry.id for entry in file.keys}, entropy)
        entry = msgspec.structs.replace(
            former,
            id=key.id,
            sha256=hashlib.sha256(key.text.encode()).hexdigest(),
            created=now.isoformat(timespec="seconds"),
            expires=None if life is None else now + life,
        )
        ends = min(now + grace, former.expires or now + grace)
        former = msgspec.structs.replace(former, expires=ends, successor=key.id)
        _replace(path, KeyFile(file.owners, [*(former if each.id == key_id else each for each in file.keys), entry]))
    return Rotated(former, key, entry)


def _life_of(path: Path, entry: KeyEntry, expires: datetime) -> timedelta:
    try:
        return expires - datetime.fromisoformat(entry.created)
    except (ValueError, TypeError):  # the file may have any text there, or a time without its offset
        raise Refused(f"{path}: it does not say when key {entry.id} was created: give the new one's life (--expires)") from None


def entry_of(path: Path, file: KeyFile, key_id: str) -> KeyEntry:
    """The entry of the key with this id in ``file``, as read from ``path``. Raises KeyUnknown."""
    for entry in file.keys:
        if entry.id == key_id:
            return entry
    raise KeyUnknown(f"{path}: no key has this id; `quorumvault keys list` shows the ids (a whole key is not one)")


@contextmanager
def _changing(path: Path) -> Iterator[KeyFile]:
    """The file's content, while no other process can change it: no change, and above all no revocation, is lost to another.

    ``path`` must be resolved, so that the file is replaced, not a link to it. Raises Refused if another process keeps the lock.
    """
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(directory, path)
        yield read_keyfile(path)
    finally:
        os.close(directory)


def _lock(directory: int, path: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Refused(
                    f"{path}: {_holders(directory)} has its directory locked, for {_LOCK_SECONDS:g} s by now: nothing was changed"
                ) from None
            time.sleep(_LOCK_PAUSE)
        else:
            return


def _holders(directory: int) -> str:
    """The holders of a lock on the directory, as far as Linux shows them: only processes that this process can see."""
    status, locks = os.fstat(directory), ""
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        locks = _LOCKS.read_text()
    # For a process that waits for a lock, the second word is an arrow: 1: FLOCK ADVISORY WRITE 4711 fd:01:262149 0 EOF
    pids = [words[4] for words in map(str.split, locks.splitlines()) if words[1] == "FLOCK" and words[5] == inode]
    return f"process {' or '.join(pids)}" if pids else "another process"


def _replace(path: Path, file: KeyFile) -> None:
    """Replace the file, after checking the new content and its YAML text."""
    checked(path, msgspec.to_builtins(file))
    text = _render(file)
    if checked(path, parse_yaml(path, text)) != file:
        raise Refused(f"{path}: what would be written would be read as something else; nothing was changed")
    with durable.replacing(path, alone=True) as draft:
        draft.write(text.encode())


def _render(file: KeyFile) -> str:
    return _HEADER + yaml.dump(
        msgspec.to_builtins(file), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper, except where its output would be read back differently: a number with an exponent, which is text to
    strictyaml, and line ends other than a line feed, which strictyaml takes for one."""


def _number(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:float", format(Decimal(repr(number)), "f"))


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(float, _number)
_Dumper.add_representer(str, _text)
