"""Object stores and web servers, through fsspec: lists objects, reads them, makes new ones. Needs the extra ``cloud``.

Each store's library finds its credentials and addresses itself: in the environment and in its own files. Messages quote only the
names of an error's classes, since the text of some errors has the whole URL in it.
"""

import contextlib
import functools
import glob
import importlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Final, TypeVar

from quorumvault.errors import QuorumVaultError
from quorumvault.files.urls import RemoteObject, Url

AnswerT = TypeVar("AnswerT")
#: The bytes to read or send at once.
BLOCK_BYTES: Final = 16 << 20
#: How many objects are read or written at once, and how many are asked about at once. Reading or writing one takes up to three
#: blocks of memory.
AT_ONCE: Final = 4
_ASKED_AT_ONCE: Final = 16
#: Seconds without a byte after which a run gives up on a web server.
_SILENCE: Final = 60.0


async def _http_client(**given: Any) -> Any:
    """Makes a session whose downloads may take hours, as long as bytes arrive. It uses the environment's proxies."""
    aiohttp = importlib.import_module("aiohttp")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
    return aiohttp.ClientSession(timeout=timeout, trust_env=True, **given)


#: The class of each kind of store, and its arguments. Listings are not cached, since others write to the stores too.
_CLASSES: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "s3": ("s3fs", "S3FileSystem", {}),
    "gs": ("gcsfs.core", "GCSFileSystem", {}),
    "az": ("adlfs", "AzureBlobFileSystem", {}),
    # The URL keeps its spelling, since it may be signed. No compression on the way, so that lengths are those of the objects.
    "https": (
        "fsspec.implementations.http",
        "HTTPFileSystem",
        {"encoded": True, "headers": {"Accept-Encoding": "identity"}, "get_client": _http_client},
    ),
}
#: The stores' names for a stamp that changes with an object.
_STAMPS: Final = ("ETag", "etag", "generation", "Content-MD5", "Last-Modified")
#: The statuses of a web server for a file that it does not have, and for a file that it does not show.
_GONE: Final = {"404", "410"}
_FORBIDDEN: Final = {"401", "403"}
_NO_CREDENTIALS: Final = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError")


class StoreError(QuorumVaultError):
    """A store, or the connection to it, failed."""


def filesystem(url: Url) -> Any:
    """Returns the fsspec file system of a URL. Raises ModuleNotFoundError without the extra ``cloud``."""
    module, name, _ = _CLASSES[url.scheme]
    kind = getattr(importlib.import_module(module), name)
    account = kind._get_kwargs_from_urls(url.text) if url.scheme == "az" else {}
    return _filesystem(url.scheme, account.get("account_name"))


@functools.cache
def _filesystem(scheme: str, account: str | None) -> Any:
    module, name, options = _CLASSES[scheme]
    more = {} if account is None else {"account_name": account}
    kind = getattr(importlib.import_module(module), name)
    return kind(use_listings_cache=False, skip_instance_cache=True, **options, **more)


def forget() -> None:
    """Clears the cached file systems, so that new ones look for addresses and credentials again."""
    _filesystem.cache_clear()


def path_in(store: Any, url: Url) -> str:
    """Returns the object's name in its file system."""
    match url.scheme:
        case "az":
            return str(store._strip_protocol(url.text))
        case "https":
            return url.text
        case _:
            return url.rest


@contextlib.contextmanager
def asking(url: Url) -> Iterator[None]:
    """Turns any error of a store or its library in the block into StoreError, with a message without secrets."""
    try:
        yield
    except (StoreError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise StoreError(f"{url}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    told_codes = codes(error)
    told = f" ({', '.join(sorted(told_codes))})" if told_codes else ""
    kinds = {type(each).__name__ for each in _causes(error)}
    if kinds & set(_NO_CREDENTIALS):
        return "no credentials were found: set them as for the store's own command, such as AWS_PROFILE"
    if isinstance(error, PermissionError) or told_codes & _FORBIDDEN:
        return f"access was refused{told}"
    match error:
        case FileNotFoundError():
            return f"there is no such object, or no such bucket{told}"
        case TimeoutError():
            return "no answer in time"
        case _ if any("Connect" in kind for kind in kinds):
            return f"the server cannot be reached: {type(error).__name__}"
        case _:
            return f"the store cannot be read or written: {type(error).__name__}{told}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def codes(error: BaseException) -> set[str]:
    return {code for each in _causes(error) if (code := _code(each))}


def _code(error: BaseException) -> str | None:
    """Returns the store's error code: S3's, or an HTTP status."""
    answer = getattr(error, "response", None)
    code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
    if isinstance(code, str):
        return code
    statuses = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((str(status) for status in statuses if isinstance(status, int)), None)


def find(url: Url) -> RemoteObject | None:
    """Returns an object, None if it does not exist. Raises StoreError."""
    store = filesystem(url)
    with asking(url):
        try:
            found = store.info(path_in(store, url))
        except FileNotFoundError as error:
            if url.scheme == "https" and not codes(error) & _GONE:
                # fsspec reports any failure as a missing file.
                raise StoreError(f"{url}: {_reason(error.__cause__ or error)}") from None
            return None
    return None if found["type"] != "file" else _object(url, found)


def find_all(urls: Sequence[Url]) -> list[RemoteObject | None]:
    return ask_at_once(find, urls)


def ask_at_once(question: Callable[[Url], AnswerT], urls: Sequence[Url]) -> list[AnswerT]:
    """Returns the answers to one question about each URL. Asks several at once."""
    if not urls:
        return []
    with ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="quorumvault") as pool:
        return list(pool.map(question, urls))


def has_folder(url: Url) -> bool:
    """Returns whether there are objects below a URL. Raises StoreError."""
    store = filesystem(url)
    with asking(url):
        return bool(store.isdir(path_in(store, url)))


def in_folder(folder: Url) -> list[RemoteObject]:
    """Returns all objects below a folder, sorted by name. Raises StoreError."""
    store = filesystem(folder)
    with asking(folder):
        try:
            found = store.find(path_in(store, folder).rstrip("/"), detail=True)
        except FileNotFoundError:
            return []
    return _objects(store, folder, found)


def matching(pattern: Url) -> list[RemoteObject]:
    """Returns the objects that match a glob, sorted by name. Raises StoreError."""
    store = filesystem(pattern)
    with asking(pattern):
        found = store.glob(path_in(store, pattern), detail=True)
    return _objects(store, root_of_glob(pattern), found)


def root_of_glob(pattern: Url) -> Url:
    """Returns the folder before the first part with a wildcard."""
    parts = pattern.rest.split("/")
    first = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    return Url(pattern.scheme, "/".join(parts[:first]))


def _objects(store: Any, root: Url, found: dict[str, dict[str, Any]]) -> list[RemoteObject]:
    start = path_in(store, root).rstrip("/") + "/"
    files = {name: each for name, each in found.items() if each["type"] == "file" and name[-1:] != "/" and name.startswith(start)}
    return [_object(root.below(name.removeprefix(start)), files[name]) for name in sorted(files)]


def _object(url: Url, found: dict[str, Any]) -> RemoteObject:
    stamp = next((str(found[name]).strip('"') for name in _STAMPS if found.get(name)), "")
    return RemoteObject(url, found.get("size"), stamp)


class _Reader(io.RawIOBase):
    """A file of fsspec, whose errors are StoreError."""

    def __init__(self, url: Url, file: Any) -> None:
        self._url = url
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with asking(self._url):
            read = self._file.read(len(buffer))
        buffer[: len(read)] = read
        return len(read)


@contextlib.contextmanager
def reading(url: Url) -> Iterator[BinaryIO]:
    """Yields a reader of an object's bytes, from the beginning, one block at a time."""
    store = filesystem(url)
    # A web server may not support ranges, so its file is read in one request.
    block = 0 if url.scheme == "https" else BLOCK_BYTES
    with asking(url):
        file = store.open(path_in(store, url), "rb", block_size=block, cache_type="none")
    try:
        yield io.BufferedReader(_Reader(url, file), BLOCK_BYTES)
    finally:
        file.close()
