"""Names of objects: ``s3://``, ``gs://``, ``az://`` and ``https://``. A URL keeps every slash, which a path would not.

The text of a URL may be a credential: anyone who has a presigned URL's signature can read the object. So a URL is shown, logged
and kept without its query and user; only requests use the whole URL.
"""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple, TypeAlias

from quorumvault.errors import QuorumVaultError

_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
#: Other names of the schemes.
_ALIASES: Final = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
_SCHEMES: Final = ("s3", "gs", "az", "https")


class UrlError(QuorumVaultError):
    """A name looks like a URL but is unusable: a mistake in the command."""


@dataclass(frozen=True, slots=True)
class Url:
    """An object, or a folder of objects. Two names of one object are equal: ``s3a://b/k`` and ``s3://b/k``."""

    scheme: str
    #: The text after ``://``.
    rest: str = field(repr=False)

    @property
    def text(self) -> str:
        """The whole URL, only for requests."""
        return f"{self.scheme}://{self.rest}"

    def __str__(self) -> str:
        """The URL without secrets, for people, logs, reports and manifests."""
        if self.scheme != "https":
            return self.text
        shown = re.split(r"[?#]", self.rest, maxsplit=1)[0]
        host, slash, path = shown.partition("/")
        return f"https://{host.rpartition('@')[2]}{slash}{path}"

    @property
    def name(self) -> str:
        """The text after the last slash, with the suffix that tells the format."""
        return str(self).rpartition("/")[2] if "/" in self.rest else ""

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def is_folder(self) -> bool:
        """Returns whether the URL cannot be one object: it is a bucket, or ends with a slash."""
        return not self.name

    @property
    def is_written_to(self) -> bool:
        return self.scheme != "https"

    def below(self, *names: str) -> "Url":
        """Returns the object of this name in this folder."""
        return Url(self.scheme, f"{self.rest}{'' if self.rest.endswith('/') else '/'}{'/'.join(names)}")

    def folders(self) -> "list[Url]":
        """Returns the folders around the object, including the bucket. A web server has none."""
        parts = [] if self.scheme == "https" else self.rest.split("/")[:-1]
        return [Url(self.scheme, "/".join(parts[:count])) for count in range(1, len(parts) + 1)]

    @property
    def digest(self) -> str:
        """A digest that tells two objects of the same name apart in a file name."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:12]


#: The place of an input or an output.
Place: TypeAlias = Path | Url


class RemoteObject(NamedTuple):
    """An object as its store reports it. ``stamp`` changes with the object: its ETag, or the store's equivalent.

    If a web server reports neither, ``size`` is None and ``stamp`` is empty.
    """

    url: Url
    size: int | None
    stamp: str


def url_of(name: str) -> Url | None:
    """Returns the URL of a name, None for the name of a file. Raises UrlError for an unusable URL."""
    found = _URL.fullmatch(name)
    if found is None:
        return None
    try:
        found = _URL.fullmatch(os.fsencode(name).decode()) or found
    except UnicodeError:
        raise UrlError(f"{found[1].lower()}:// has a name that is no UTF-8, and names of objects are") from None
    scheme, rest = found[1].lower(), found[2]
    url = Url(_ALIASES.get(scheme, scheme), rest)
    if url.scheme not in _SCHEMES:
        raise UrlError(f"{scheme}:// is not known: name a file, or s3://, gs://, az:// or https://")
    host = rest.partition("/")[0]
    if not host:
        raise UrlError(f"{scheme}:// names no {'host' if url.scheme == 'https' else 'bucket'}: {scheme}://NAME/…")
    if url.scheme != "https":
        if ":" in host or ("@" in host and url.scheme != "az"):
            raise UrlError(f"{scheme}:// names a bucket and has no credentials in it: they come from the environment")
        if re.search(r"\?versionid=", rest, re.IGNORECASE):
            raise UrlError(f"{url} names a version: the newest one is read, name the object alone")
    elif url.is_folder:
        raise UrlError(f"{url} names no file: https:// has no folders")
    return url


def name_of(place: Place) -> PurePosixPath:
    """Returns the last part of a name, as a path with the same suffixes."""
    return PurePosixPath(place.name)


def is_plain(relative: str) -> bool:
    """Returns whether an object's name below a folder is also a file's name that stays below its folder."""
    return all(part not in ("", ".", "..") and "\0" not in part for part in relative.split("/"))
