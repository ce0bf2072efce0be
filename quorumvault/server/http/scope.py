"""The parts of a request's ASGI scope: the header fields, read once, and the connection that carried the request."""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from starlette.types import Scope

#: The HTTP server puts its connection into the scope of each request, under this name. Without a server there is none.
CONNECTION: Final = "quorumvault.connection"
_HEADERS: Final = "quorumvault.headers"


class Headers:
    """The header fields of a request, by name. ASGI has the names in lower case. What nobody asks for is not decoded."""

    __slots__ = ("_values",)

    def __init__(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in fields:
            if name in self._values:
                self._values[name].append(value)
            else:
                self._values[name] = [value]

    def all(self, name: bytes) -> list[str]:
        """Return the values of the lines with this name, in order."""
        values = self._values.get(name)
        return [] if values is None else [value.decode("latin-1") for value in values]


def headers_of(scope: Scope) -> Headers:
    """Return the header fields of a request. The first call reads them."""
    headers: Headers | None = scope.get(_HEADERS)
    if headers is None:
        headers = scope[_HEADERS] = Headers(scope["headers"])
    return headers


class Connection(Protocol):
    """The part of a connection that answering a request needs."""

    @property
    def received(self) -> bool:
        """True once all of the request is here."""

    @property
    def ended(self) -> bool:
        """True once nobody is there to read any more."""

    def when_sent(self, callback: Callable[[], None]) -> None:
        """Call back once all that was written so far has left this process, or the connection is gone."""


def connection_of(scope: Scope) -> Connection | None:
    connection: Connection | None = scope.get(CONNECTION)
    return connection
