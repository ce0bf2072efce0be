"""Authentication by one API key, in `Authorization: Bearer` or its alias `X-API-Key`.

Missing, malformed, unknown, expired and revoked keys all run through the same code and get the same answer.

Rules kept here: owner isolation; a revoked key stays revoked.
"""

from quorumvault.config.api_keys import ApiKey, KeyTable, Permission
from quorumvault.errors import NotPermitted, Unauthenticated
from quorumvault.server.http.scope import Headers

_UNAUTHENTICATED = "send a valid API key, and only one: Authorization: Bearer <key>, or X-API-Key: <key>"


def authenticate(headers: Headers, table: KeyTable, now: float) -> ApiKey:
    """Return the key that the headers name, unless it has expired by ``now``. Raises Unauthenticated."""
    key = table.authenticate(_presented(headers), now)
    if key is None:
        raise Unauthenticated(_UNAUTHENTICATED)
    return key


def require_in_force(key: ApiKey, table: KeyTable, now: float) -> None:
    """Raises Unauthenticated for a key that was authenticated before, but has expired or was revoked since."""
    if not table.has(key, now):
        raise Unauthenticated(_UNAUTHENTICATED)


def _presented(headers: Headers) -> str:
    """Return the text of the key; empty if there is none, or if two header lines name different ones."""
    keys = {_bearer(line) for line in headers.all(b"authorization")}
    keys.update(headers.all(b"x-api-key"))
    return keys.pop() if len(keys) == 1 else ""


def _bearer(line: str) -> str:
    """Return the credentials (RFC 6750, 2.1); empty for another scheme. A scheme's case does not count (RFC 9110, 11.1)."""
    scheme, _, credentials = line.partition(" ")
    return credentials.strip(" ") if scheme.lower() == "bearer" else ""


def permit(key: ApiKey, operation: Permission) -> None:
    """Raises NotPermitted if the key lacks the operation."""
    if operation not in key.allow:
        allowed = ", ".join(sorted(key.allow))
        raise NotPermitted(f"key {key.id} may {allowed}, not {operation}; `quorumvault keys create --allow` makes one that may")
