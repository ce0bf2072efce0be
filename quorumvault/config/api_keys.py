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
        expires: '2025-05-30T09:00:00Z'    if the key expires: from then on it counts as unknown, by each node's own clock
        successor: mb4x2kqa  the key that replaces it, once it was rotated
        revoked: …           present once the key is revoked: it counts as unknown for ever, whatever happens to this file
        rate: 50             requests a second; without it, the key has no limit of its own
        values_per_second: 1000, values_per_day: 100000    values asked about; likewise

SHA-256 without salt or stretching is right here: a secret of 160 random bits cannot be guessed, so a slow hash gains nothing.

Rules kept here: keys end.
"""

import hashlib
import hmac
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

import msgspec
from msgspec import Meta

from quorumvault.config.build import build
from quorumvault.errors import ConfigError
from quorumvault.formats.yaml import load_yaml
from quorumvault.model import Owner

Permission = Literal["tokenize", "detokenize", "rotate", "derive"]
PERMISSIONS: tuple[Permission, ...] = get_args(Permission)
DEFAULT_ALLOW: tuple[Permission, ...] = ("tokenize", "detokenize")
#: The permissions of a new cluster's first keys. Not ``derive``: a caller who may derive can try every possible value.
FIRST_ALLOW: tuple[Permission, ...] = (*DEFAULT_ALLOW, "rotate")

_KEY = re.compile(r"qvk_([a-z2-7]{1,32})_[a-z2-7]{26,64}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ID = r"\A[a-z2-7]{1,32}\Z"
_A_TIME = "a time with its offset from UTC, as quoted text: '2025-05-30T09:00:00Z'"
#: The hash to compare with if there is no such key. No text is known that hashes to it.
_NO_DIGEST = bytes(32)


class Rates(NamedTuple):
    """The limits of a key at each node; None: the key has no limit of its own."""

    requests_per_second: float | None = None
    values_per_second: float | None = None
    values_per_day: float | None = None

    def __str__(self) -> str:
        """For people, as the command line takes it."""
        units = zip(self, ("requests/s", "values/s", "values/d"), strict=True)
        return ", ".join(f"{rate:.15g} {unit}" for rate, unit in units if rate is not None)


NO_LIMIT = Rates()


class KeyEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key, as it is in the file."""

    id: Annotated[str, Meta(pattern=_ID, description="1 to 32 characters out of a-z 2-7")]
    owner: str
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="64 lower-case hexadecimal digits")]
    allow: Annotated[list[Permission], Meta(description=f"a list out of {', '.join(PERMISSIONS)}")]
    note: str = ""
    created: str = ""
    expires: Annotated[Annotated[datetime, Meta(tz=True)] | None, Meta(description=_A_TIME)] = None
    successor: Annotated[str, Meta(pattern=_ID, description="the id of another key")] | None = None
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
    """A key in force, and the rights of a request that presents it."""

    id: str
    owner: Owner
    allow: frozenset[Permission]
    rates: Rates
    digest: bytes = field(repr=False)
    #: When the key expires, in seconds since 1970; None: never.
    expires: float | None = None


class KeyTable:
    """The keys in force. A table never changes; it is replaced as a whole when the file is read again."""

    __slots__ = ("_keys", "fingerprint", "owners", "revoked")

    def __init__(self, owners: Iterable[Owner], keys: Iterable[ApiKey], revoked: Iterable[str] = ()) -> None:
        self.owners = frozenset(owners)
        #: The ids of the keys that the file calls revoked.
        self.revoked = frozenset(revoked)
        self._keys = {key.id: key for key in keys}
        #: 64 bits over the file's meaning: order, notes, dates and revoked keys make no difference.
        self.fingerprint = _fingerprint(self.owners, self._keys.values())

    def by_id(self) -> Mapping[str, ApiKey]:
        return self._keys

    def without(self, revoked: Collection[str]) -> "KeyTable":
        """The same table without the keys that have these ids."""
        return KeyTable(self.owners, [key for key in self._keys.values() if key.id not in revoked], self.revoked)

    def authenticate(self, text: str, now: float) -> ApiKey | None:
        """The key with this text, if it has not expired by ``now``, in seconds since 1970; else None.

        Takes one hash and one comparison, whatever the text is: known, unknown, malformed or empty.
        """
        match = _KEY.fullmatch(text)
        key = self._keys.get(match[1]) if match else None
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        same = hmac.compare_digest(digest, _NO_DIGEST if key is None else key.digest)
        return key if same and key is not None and (key.expires is None or now < key.expires) else None

    def has(self, key: ApiKey, now: float) -> bool:
        """True if a key that was authenticated before is still in force, even if its rights or its expiry have changed."""
        mine = self._keys.get(key.id)
        return mine is not None and mine.digest == key.digest and (mine.expires is None or now < mine.expires)


def _fingerprint(owners: Iterable[Owner], keys: Iterable[ApiKey]) -> str:
    meaning = (sorted(owner.name for owner in owners), sorted(_meaning_of(key) for key in keys))
    return hashlib.sha256(msgspec.msgpack.encode(meaning)).hexdigest()[:16]


def _meaning_of(key: ApiKey) -> tuple[object, ...]:
    """The meaning of a key. Value rates and expiry count only if set, so that older releases get the same fingerprint."""
    numbers = [-1.0 if rate is None else rate for rate in key.rates]
    ends = () if key.expires is None else ("expires", key.expires)
    return key.id, key.owner.name, key.digest, sorted(key.allow), *(numbers if any(key.rates[1:]) else numbers[:1]), *ends


def load_keys(path: Path) -> KeyTable:
    """The keys in force according to ``path``. Raises ConfigError."""
    file = read_keyfile(path)
    keys = [_in_force(entry) for entry in file.keys if entry.revoked is None]
    revoked = [entry.id for entry in file.keys if entry.revoked is not None]
    return KeyTable([Owner(name) for name in file.owners], keys, revoked)


def _in_force(entry: KeyEntry) -> ApiKey:
    expires = None if entry.expires is None else entry.expires.timestamp()
    return ApiKey(entry.id, Owner(entry.owner), frozenset(entry.allow), entry.rates, bytes.fromhex(entry.sha256), expires)


def read_keyfile(path: Path) -> KeyFile:
    """The whole file, including revoked keys, checked. Raises ConfigError naming the file and the key in it."""
    return checked(path, load_yaml(path))


def checked(path: Path, data: object) -> KeyFile:
    """The content of the file, if all of it is valid. Raises ConfigError naming the key in it."""
    outline = build(path, "", data, _Outline)
    keys = [build(path, f"keys[{index}]", entry, KeyEntry) for index, entry in enumerate(outline.keys)]
    file = KeyFile(outline.owners, keys)
    _check_owners(path, file)
    _check_keys(path, file)
    return file


class _Outline(msgspec.Struct, forbid_unknown_fields=True):
    """The file before its keys are checked one by one, so that an error can name the key."""

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
        if _SURROGATE.search(entry.note):  # from an argument that is not UTF-8
            raise ConfigError(path, f"{where}.note", "expected text in UTF-8")
        ids.add(entry.id)
