"""API keys: who a caller is and what it may do. The file holds hashes only.

    qvk_<id>_<secret>       id: 8 characters, public, in logs and lists; secret: 32 characters of base32, 160 random bits

    owners: [clinic-a]
    keys:
      - id: 3fq7tzd2
        owner: clinic-a
        sha256: 64 hexadecimal digits: SHA-256 of the whole key text
        allow: [tokenize, detokenize]
        note: nightly load
        created: '2025-03-01T09:00:00+00:00'
        revoked: …           present once the key is revoked: from then on it is as good as unknown
        rate: 50             requests a second; without it, no limit of its own
        values_per_second: 1000, values_per_day: 100000    values asked about; likewise

SHA-256 without salt or stretching is right here: a secret of 160 random bits cannot be guessed, so nothing is gained by slowness.
"""

import base64
import fcntl
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

import msgspec
import yaml
from msgspec import Meta

from quorumvault import durable
from quorumvault.config.build import build
from quorumvault.errors import ConfigError, Refused
from quorumvault.formats.yaml import load_yaml, parse_yaml
from quorumvault.model import Owner

Permission = Literal["tokenize", "detokenize", "rotate", "derive"]
PERMISSIONS: tuple[Permission, ...] = get_args(Permission)
DEFAULT_ALLOW: tuple[Permission, ...] = ("tokenize", "detokenize")
#: Of the keys that a new cluster begins with. Not ``derive``: who may derive can try every value that there could be.
FIRST_ALLOW: tuple[Permission, ...] = (*DEFAULT_ALLOW, "rotate")

_PREFIX = "qvk_"
_KEY = re.compile(r"qvk_([a-z2-7]{1,32})_[a-z2-7]{26,64}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ID_BYTES = 5
_SECRET_BYTES = 20
#: What the hash of a key that is not there is compared with; no text is known that hashes to it.
_NO_DIGEST = bytes(32)

_HEADER = """\
# API keys: hashes only; a key itself was shown once, when it was made.
# Written by `quorumvault keys create` and `quorumvault keys revoke`, which keep no comments: use `note`.
# Running nodes read this file again on SIGHUP.
"""


class Rates(NamedTuple):
    """Limits of a key at each node; None: no limit of its own."""

    requests_per_second: float | None = None
    values_per_second: float | None = None
    values_per_day: float | None = None

    def __str__(self) -> str:
        """For people, as the command line takes it."""
        units = zip(self, ("requests/s", "values/s", "values/d"), strict=True)
        return ", ".join(f"{rate:.15g} {unit}" for rate, unit in units if rate is not None)


NO_LIMIT = Rates()


class KeyEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key, as the file has it."""

    id: Annotated[str, Meta(pattern=r"\A[a-z2-7]{1,32}\Z", description="1 to 32 characters out of a-z 2-7")]
    owner: str
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="64 lower-case hexadecimal digits")]
    allow: Annotated[list[Permission], Meta(description=f"a list out of {', '.join(PERMISSIONS)}")]
    note: str = ""
    created: str = ""
    revoked: Annotated[str, Meta(min_length=1, description="when it was revoked, as quoted text")] | None = None
    rate: Annotated[float, Meta(gt=0, le=1e6, description="requests a second, more than 0")] | None = None
    values_per_second: Annotated[float, Meta(gt=0, le=1e9, description="values a second, more than 0")] | None = None
    values_per_day: Annotated[float, Meta(ge=1, le=1e12, description="values a day, 1 or more")] | None = None

    @property
    def rates(self) -> Rates:
        return Rates(self.rate, self.values_per_second, self.values_per_day)


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """api_keys.yaml, as it is written."""

    owners: list[str] = []
    keys: list[KeyEntry] = []


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that is in force: what a request that presents it is allowed."""

    id: str
    owner: Owner
    allow: frozenset[Permission]
    rates: Rates
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. ``text`` is the key itself: shown once, stored nowhere."""

    id: str
    text: str = field(repr=False)


class KeyTable:
    """The keys in force; never changed, replaced as a whole when the file is read again."""

    __slots__ = ("_keys", "fingerprint", "owners")

    def __init__(self, owners: Iterable[Owner], keys: Iterable[ApiKey]) -> None:
        self.owners = frozenset(owners)
        self._keys = {key.id: key for key in keys}
        #: 64 bits over what the file means: order, notes, dates and revoked keys make no difference.
        self.fingerprint = _fingerprint(self.owners, self._keys.values())

    def by_id(self) -> Mapping[str, ApiKey]:
        return self._keys

    def authenticate(self, text: str) -> ApiKey | None:
        """The key with this text. One hash and one comparison, whatever the text is: known, unknown, malformed or empty."""
        match = _KEY.fullmatch(text)
        key = self._keys.get(match[1]) if match else None
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        same = hmac.compare_digest(digest, _NO_DIGEST if key is None else key.digest)
        return key if same else None


def _fingerprint(owners: Iterable[Owner], keys: Iterable[ApiKey]) -> str:
    meaning = (sorted(owner.name for owner in owners), sorted(_meaning_of(key) for key in keys))
    return hashlib.sha256(msgspec.msgpack.encode(meaning)).hexdigest()[:16]


def _meaning_of(key: ApiKey) -> tuple[object, ...]:
    """The rates in values only if there are any: releases that know of none have to come to the same fingerprint."""
    numbers = [-1.0 if rate is None else rate for rate in key.rates]
    return key.id, key.owner.name, key.digest, sorted(key.allow), *(numbers if any(key.rates[1:]) else numbers[:1])


def load_keys(path: Path) -> KeyTable:
    """The keys in force according to ``path``. Raises ConfigError."""
    file = read_keyfile(path)
    keys = [
        ApiKey(entry.id, Owner(entry.owner), frozenset(entry.allow), entry.rates, bytes.fromhex(entry.sha256))
        for entry in file.keys
        if entry.revoked is None
    ]
    return KeyTable([Owner(name) for name in file.owners], keys)


def read_keyfile(path: Path) -> KeyFile:
    """The file, revoked keys too, and checked as a whole. Raises ConfigError naming the file and the key in it."""
    return _checked(path, load_yaml(path))


def _checked(path: Path, data: object) -> KeyFile:
    outline = build(path, "", data, _Outline)
    keys = [build(path, f"keys[{index}]", entry, KeyEntry) for index, entry in enumerate(outline.keys)]
    file = KeyFile(outline.owners, keys)
    _check_owners(path, file)
    _check_keys(path, file)
    return file


class _Outline(msgspec.Struct, forbid_unknown_fields=True):
    """The file before its keys are looked at one by one, so that an error can say which one it is."""

    owners: list[str]
    keys: list[object]


def _check_owners(path: Path, file: KeyFile) -> None:
    for index, name in enumerate(file.owners):
        if name in file.owners[:index]:
            raise ConfigError(path, f"owners[{index}]", "this owner is listed twice")
        try:
            Owner(name)
        except ValueError as error:
            raise ConfigError(path, f"owners[{index}]", str(error)) from None


def _check_keys(path: Path, file: KeyFile) -> None:
    ids: set[str] = set()
    for index, entry in enumerate(file.keys):
        where = f"keys[{index}]"
        if entry.id in ids:
            raise ConfigError(path, f"{where}.id", "another key has this id")
        if entry.owner not in file.owners:
            raise ConfigError(path, f"{where}.owner", f"expected one of the owners listed above, not {entry.owner!r}")
        if not entry.allow or len(set(entry.allow)) < len(entry.allow):
            raise ConfigError(path, f"{where}.allow", f"expected one or more of {', '.join(PERMISSIONS)}, each once")
        if _SURROGATE.search(entry.note):  # of an argument that is not UTF-8
            raise ConfigError(path, f"{where}.note", "expected text in UTF-8")
        ids.add(entry.id)


def new_keyfile(path: Path) -> None:
    """A key file without owners or keys. FileExistsError if there is one."""
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
    new_owner: bool = False,
) -> NewKey:
    """Make a key and add its hash to the file. ``entropy`` is ``secrets.token_bytes``, or what a test puts in its place.

    Raises ConfigError if the file, or what would become of it, is not in order; Refused for an owner that it does not
    know: a slip in the name would make tokens that the right owner cannot read, so a new one has to be called new.
    """
    path = path.resolve()
    with _changing(path) as file:
        known = owner in file.owners
        if not known and not new_owner:
            raise Refused(
                f"{path}: no owner {owner!r} among {', '.join(file.owners) or 'none'}; if it is to be a new one, say --new-owner"
            )
        key = _new_key({entry.id for entry in file.keys}, entropy)
        entry = KeyEntry(
            id=key.id,
            owner=owner,
            sha256=hashlib.sha256(key.text.encode()).hexdigest(),
            allow=list(dict.fromkeys(allow)),
            note=note,
            created=now.isoformat(timespec="seconds"),
            rate=rates.requests_per_second,
            values_per_second=rates.values_per_second,
            values_per_day=rates.values_per_day,
        )
        _replace(path, KeyFile(file.owners if known else [*file.owners, owner], [*file.keys, entry]))
    return key


def _new_key(taken: set[str], entropy: Callable[[int], bytes]) -> NewKey:
    key_id = _base32(entropy(_ID_BYTES))
    while key_id in taken:
        key_id = _base32(entropy(_ID_BYTES))
    return NewKey(key_id, f"{_PREFIX}{key_id}_{_base32(entropy(_SECRET_BYTES))}")


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().lower()


def revoke_key(path: Path, key_id: str, *, now: datetime) -> KeyEntry:
    """Revoke a key; running nodes refuse it from their next SIGHUP on. Doing it twice changes nothing. Raises Refused."""
    path = path.resolve()
    with _changing(path) as file:
        entry = next((entry for entry in file.keys if entry.id == key_id), None)
        if entry is None:
            raise Refused(f"{path}: no key has this id; `quorumvault keys list` shows the ids (a whole key is not one)")
        if entry.revoked is not None:
            return entry
        revoked = msgspec.structs.replace(entry, revoked=now.isoformat(timespec="seconds"))
        _replace(path, KeyFile(file.owners, [revoked if each is entry else each for each in file.keys]))
    return revoked


@contextmanager
def _changing(path: Path) -> Iterator[KeyFile]:
    """The file's content, while no other process can change it: of two changes at once none is lost, a revocation least.

    ``path`` is resolved: a link to the file is not what is replaced.
    """
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield read_keyfile(path)
    finally:
        os.close(directory)


def _replace(path: Path, file: KeyFile) -> None:
    """Check the new content, and the text that it is written as, before the file is replaced."""
    _checked(path, msgspec.to_builtins(file))
    text = _render(file)
    if _checked(path, parse_yaml(path, text)) != file:
        raise Refused(f"{path}: what would be written would be read as something else; nothing was changed")
    with durable.replacing(path, alone=True) as draft:
        draft.write(text.encode())


def _render(file: KeyFile) -> str:
    return _HEADER + yaml.dump(
        msgspec.to_builtins(file), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )


class _Dumper(yaml.SafeDumper):
    """PyYAML's, where that would write what is read as something else: a number with an exponent, which is text to strictyaml,
    and line ends that are not a line feed, which it takes for one."""


def _number(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:float", format(Decimal(repr(number)), "f"))


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(float, _number)
_Dumper.add_representer(str, _text)
