"""What a caller calls its request, X-Request-ID, and why it makes it, X-Purpose. The event log has both as they came."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, cast

from starlette.datastructures import Headers
from starlette.types import Scope

from quorumvault.errors import Invalid

#: VCHAR of RFC 5234: no space, no control character, so nothing that could break a line of a log.
LABEL = re.compile(r"[\x21-\x7e]{1,128}")
_SCOPE_KEY = "quorumvault.labels"


class Labels(NamedTuple):
    """``request_id`` is the caller's, or a fresh one. ``malformed`` names the header that is not as it should be (422)."""

    request_id: str
    purpose: str | None
    malformed: str | None


def read_labels(headers: Headers, fresh: Callable[[], str]) -> Labels:
    """A header sent twice is malformed: which of the two is meant, nobody knows."""
    request_ids, purposes = headers.getlist("x-request-id"), headers.getlist("x-purpose")
    request_id, purpose = _only(request_ids), _only(purposes)
    malformed = None
    if request_ids and request_id is None:
        malformed = "X-Request-ID"
    elif purposes and purpose is None:
        malformed = "X-Purpose"
    return Labels(request_id or fresh(), purpose, malformed)


def _only(values: list[str]) -> str | None:
    return values[0] if len(values) == 1 and LABEL.fullmatch(values[0]) else None


def require_well_formed(labels: Labels) -> None:
    """Raises Invalid."""
    if labels.malformed is not None:
        raise Invalid(f"{labels.malformed} has to be one header of 1 to 128 visible ASCII characters, without spaces")


def attach(scope: Scope, labels: Labels) -> None:
    """Keep the labels with the request: everything that answers it needs the same ones."""
    scope[_SCOPE_KEY] = labels


def labels_of(scope: Scope) -> Labels:
    return cast("Labels", scope[_SCOPE_KEY])
