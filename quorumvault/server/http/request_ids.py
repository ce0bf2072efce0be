"""The headers X-Request-ID (the caller's id of the request) and X-Purpose (its reason). The event log has both unchanged."""

import itertools
import os
import re
from collections.abc import Callable
from typing import NamedTuple, cast

from starlette.types import Scope

from quorumvault.crypto.tokens import is_token
from quorumvault.errors import Invalid
from quorumvault.server.http.scope import Headers

#: VCHAR of RFC 5234: no space and no control character, so nothing that breaks a line of a log.
VISIBLE_ASCII = re.compile(r"[\x21-\x7e]{1,128}")
#: Both headers go into the event log, which must hold no API key and no token, even if the caller sends one.
_KEY = re.compile(r"qvk_[a-z0-9]+_[a-z0-9]+")
_WORD = re.compile(r"\w+")
_SCOPE_KEY = "quorumvault.id_headers"


class IdHeaders(NamedTuple):
    """``request_id`` is the caller's, or a fresh one. ``malformed`` names the header that is refused (422), None if none is."""

    request_id: str
    purpose: str | None
    malformed: str | None


def read_id_headers(headers: Headers, fresh: Callable[[], str]) -> IdHeaders:
    """Return the two headers of a request. A header that appears twice is malformed, because either could be meant."""
    request_ids, purposes = headers.all(b"x-request-id"), headers.all(b"x-purpose")
    request_id, purpose = _only(request_ids), _only(purposes)
    malformed = None
    if request_ids and request_id is None:
        malformed = "X-Request-ID"
    elif purposes and purpose is None:
        malformed = "X-Purpose"
    return IdHeaders(request_id or fresh(), purpose, malformed)


def _only(values: list[str]) -> str | None:
    if len(values) != 1 or not VISIBLE_ASCII.fullmatch(values[0]) or _KEY.search(values[0]):
        return None
    return None if any(map(is_token, _WORD.findall(values[0]))) else values[0]


def require_well_formed(ids: IdHeaders) -> None:
    """Raises Invalid for a malformed header."""
    if ids.malformed is not None:
        raise Invalid(f"{ids.malformed} has to be one header of 1 to 128 visible ASCII characters, no spaces, no key or token")


def fresh_ids() -> Callable[[], str]:
    """Return a function that makes unique ids, of eight random bytes and a counter. A UUID each would call the kernel."""
    process, numbers = os.urandom(8).hex(), itertools.count(1)
    return lambda: f"{process}{next(numbers):016x}"


def attach(scope: Scope, ids: IdHeaders) -> None:
    """Keep the headers with the request: all that answer it need the same ones."""
    scope[_SCOPE_KEY] = ids


def id_headers_of(scope: Scope) -> IdHeaders:
    return cast("IdHeaders", scope[_SCOPE_KEY])
