"""The settings of a client: from its arguments, else from the environment, else the defaults."""

import hashlib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from quorumvault.errors import BadArgument, ConfigError

DEFAULT_URL = "http://127.0.0.1:8700"
#: A key has about 50 characters; a much longer file was named by mistake.
_KEY_FILE_BYTES = 4096
_ACCEPT = "application/json, application/problem+json, application/vnd.apache.arrow.stream"


@dataclass(frozen=True, slots=True)
class Settings:
    """The nodes' URLs, and what goes into the headers of every request."""

    urls: tuple[str, ...]
    api_key: str | None = field(repr=False)
    purpose: str | None
    #: A PEM file of CA certificates, for https; None for the system's.
    cacert: Path | None
    #: A PEM file with a certificate and its key, for nodes that ask their clients for a certificate.
    client_cert: Path | None = None

    @property
    def key_id(self) -> str | None:
        """The public part of the API key: its middle, or for a key of another form the start of its hash. None without a key."""
        if self.api_key is None:
            return None
        parts = self.api_key.split("_")
        is_ours = len(parts) == 3 and parts[0] == "qvk"
        return parts[1] if is_ours else hashlib.sha256(self.api_key.encode()).hexdigest()[:12]

    def tls(self) -> ssl.SSLContext:
        """Returns a new context, whose locks no other process has. Raises ConfigError, which names the unusable file."""
        if not any(url.startswith("https:") for url in self.urls):
            # Loading the system's certificates takes longer than a command against a local cluster. This context trusts none.
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context = ssl.create_default_context(cafile=self.cacert)
        except OSError as error:
            raise ConfigError(self.cacert, "", f"expected a file of certificates in PEM: {_words(error)}") from None
        if self.client_cert is not None:
            try:
                context.load_cert_chain(self.client_cert, password=_no_password)
            except (OSError, ValueError) as error:
                words = f"expected a certificate and its key, not encrypted, in one file in PEM: {_words(error)}"
                raise ConfigError(self.client_cert, "", words) from None
        return context

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request. The API key is added where a request needs it."""
        headers = {"Accept": _ACCEPT, "User-Agent": "quorumvault-python"}
        return headers if self.purpose is None else {**headers, "X-Purpose": self.purpose}


def resolve(
    urls: str | Sequence[str] | None,
    api_key: str | None,
    purpose: str | None,
    cacert: Path | str | None,
    environment: Mapping[str, str],
    client_cert: Path | str | None = None,
) -> Settings:
    """Returns the settings. Raises BadArgument, which names the argument at fault, or ConfigError, which names the variable.

    An empty QUORUMVAULT_PURPOSE, QUORUMVAULT_CACERT or QUORUMVAULT_CLIENT_CERT counts as not set.
    """
    try:
        nodes = parse_urls(environment.get("QUORUMVAULT_URL", DEFAULT_URL) if urls is None else urls)
    except ValueError as error:
        raise (ConfigError("QUORUMVAULT_URL", "", str(error)) if urls is None else BadArgument("url", str(error))) from None
    key = environment.get("QUORUMVAULT_API_KEY") if api_key is None else api_key
    if key is not None and not _is_visible(key):
        expected = "expected visible ASCII characters only"
        raise ConfigError("QUORUMVAULT_API_KEY", "", expected) if api_key is None else BadArgument("api_key", expected)
    why = (environment.get("QUORUMVAULT_PURPOSE") or None) if purpose is None else purpose
    if why is not None and not (_is_visible(why) and len(why) <= 128):
        expected = "expected 1 to 128 visible ASCII characters, no spaces"
        raise ConfigError("QUORUMVAULT_PURPOSE", "", expected) if purpose is None else BadArgument("purpose", expected)
    trusted = (environment.get("QUORUMVAULT_CACERT") or None) if cacert is None else cacert
    shown = (environment.get("QUORUMVAULT_CLIENT_CERT") or None) if client_cert is None else client_cert
    return Settings(nodes, key, why, _absolute(trusted), _absolute(shown))


def _absolute(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path).absolute()


def _words(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or "unreadable"


def _no_password() -> str:
    """Raises ValueError for an encrypted key, for which OpenSSL would ask the password on the terminal."""
    raise ValueError("an encrypted key")


def read_key(path: Path | str) -> str:
    """Returns the API key in a file, which may have only white space around it. Raises ConfigError, which names the file."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(path, "", f"the API key cannot be read: {error.strerror}") from None
    key = text.strip().decode("ascii", "replace")
    if len(text) > _KEY_FILE_BYTES or not _is_visible(key):
        raise ConfigError(path, "", "expected one API key and nothing else")
    return key


def _is_visible(text: str) -> bool:
    return bool(text) and all("!" <= character <= "~" for character in text)


def parse_urls(urls: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the nodes' URLs, each once. Raises ValueError, which says what was expected."""
    texts = urls.split(",") if isinstance(urls, str) else list(urls)
    nodes = tuple(dict.fromkeys(_checked_url(text.strip()) for text in texts if text.strip()))
    if not nodes:
        raise ValueError("expected one URL or more, separated by commas")
    return nodes


def _checked_url(text: str) -> str:
    """Returns a node's base URL without a final slash. Errors do not quote the URL, since it may hold a password."""
    try:
        parts = urlsplit(text)
        port = parts.port
        httpx2.URL(text).raw_host.decode("ascii").encode("idna")  # each request does this too, but with a poor message
    except (ValueError, httpx2.InvalidURL):
        raise ValueError("expected http://HOST:PORT or https://HOST:PORT") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("expected http://HOST:PORT or https://HOST:PORT")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("expected no user, query or fragment in a URL: the API key goes into QUORUMVAULT_API_KEY")
    return text.rstrip("/")
