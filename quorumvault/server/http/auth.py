"""Who is calling: one API key, out of `Authorization: Bearer` or its alias `X-API-Key`.

A missing, a malformed and an unknown key take the same way through here and get the same answer.
"""

from __future__ import annotations

from starlette.datastructures import Headers

from quorumvault.config.api_keys import ApiKey, KeyTable, Permission
from quorumvault.errors import NotPermitted, Unauthenticated

_UNAUTHENTICATED = "send a valid API key, and only one: Authorization: Bearer <key>, or X-API-Key: <key>"


def authenticate(headers: Headers, table: KeyTable) -> ApiKey:
    """Raises Unauthenticated."""
    key = table.authenticate(_presented(headers))
    if key is None:
        raise Unauthenticated(_UNAUTHENTICATED)
    return key


def _presented(headers: Headers) -> str:
    """The key that the request names; empty if there is none. Every line that names one has to name the same."""
    keys = {_bearer(line) for line in headers.getlist("authorization")}
    keys.update(headers.getlist("x-api-key"))
    return keys.pop() if len(keys) == 1 else ""


def _bearer(line: str) -> str:
    """The credentials of RFC 6750, section 2.1; empty for another scheme. A scheme's case does not count (RFC 9110, 11.1)."""
    scheme, _, credentials = line.partition(" ")
    return credentials.strip(" ") if scheme.lower() == "bearer" else ""


def permit(key: ApiKey, operation: Permission) -> None:
    """Raises NotPermitted."""
    if operation not in key.allow:
        allowed = ", ".join(sorted(key.allow))
        raise NotPermitted(f"key {key.id} may {allowed}, not {operation}; `quorumvault keys create --allow` makes one that may")
