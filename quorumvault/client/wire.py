"""Translates between the plans and httpx2, for both shells."""

from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2

from quorumvault.client.plan import REQUEST_ID, Failure, NoReply, Reply, Send
from quorumvault.client.policy import RETRY_AFTER, ClientPolicy


def limits(policy: ClientPolicy) -> httpx2.Limits:
    return httpx2.Limits(
        max_connections=policy.connections, max_keepalive_connections=policy.connections, keepalive_expiry=policy.keep_alive
    )


def no_cookies() -> CookieJar:
    """Returns a cookie jar that accepts no cookies. No node sets one, and a proxy's would go to every port of its host."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def options(send: Send, policy: ClientPolicy, now: float, trace: Callable[..., object]) -> dict[str, Any]:
    """The arguments of a request beside its method and URL. Its timeouts are for each read and write: see deadline.py.

    ``pool`` limits the wait for a connection while other calls of this client use all of them.
    """
    connect = min(policy.connect, send.silence)
    timeout = httpx2.Timeout(connect=connect, read=send.silence, write=send.silence, pool=max(send.until - now, 0.0))
    return {"headers": send.headers, "content": send.body, "timeout": timeout, "extensions": {"trace": trace}}


def not_ours(send: Send, response: httpx2.Response) -> Reply | NoReply | None:
    """Judges a response by its headers. Returns None if it answers this request, else the outcome that it counts as.

    The caller must not read the rest of such a response, so that its connection is closed: later bytes there may be another's
    answer. A proxy's error has no id, and only its status counts. A success without an id is never accepted.
    """
    answered = response.headers.get(REQUEST_ID)
    if answered == send.headers[REQUEST_ID]:
        return None
    return reply(response, b"") if answered is None and response.is_error else FOREIGN


def reply(response: httpx2.Response, body: bytes) -> Reply:
    seconds = response.headers.get("Retry-After", "")
    retry_after = min(float(seconds), RETRY_AFTER) if seconds.isascii() and seconds.isdecimal() else None
    return Reply(response.status_code, retry_after, body)


def no_reply(error: httpx2.HTTPError) -> NoReply:
    """Quotes the library's text only for system errors: the text of a protocol error may quote received bytes."""
    if isinstance(error, httpx2.ConnectError):
        return NoReply(Failure.REFUSED, str(error) or "connecting failed")
    if isinstance(error, httpx2.ConnectTimeout):
        return NoReply(Failure.REFUSED, "connecting took too long")
    if isinstance(error, httpx2.PoolTimeout):
        return NoReply(Failure.BROKEN, "every connection of this client is in use")
    if isinstance(error, httpx2.TimeoutException):
        return SILENT
    return NoReply(Failure.BROKEN, "while sending or receiving")


SILENT = NoReply(Failure.SILENT, "connected")
FOREIGN = NoReply(Failure.FOREIGN, f"its {REQUEST_ID} is not the one that was sent")
OVERLONG = NoReply(Failure.OVERLONG, "more than ClientPolicy.reply_bytes")
