"""POST /retokenize: tokens of whatever epoch become those of the active one, and the caller sees no value."""

from __future__ import annotations

from quorumvault.api import faults
from quorumvault.api.bodies import TokenResult, TokensRetokenized, encode, parse_retokenize
from quorumvault.api.guard import Counts
from quorumvault.api.services import Services
from quorumvault.coordinator import Missing
from quorumvault.model import Owner

_NULL_RESULT = TokenResult("null")
_RESULTS = {missing: TokenResult(missing.value) for missing in Missing}


async def retokenize(services: Services, owner: Owner, body: bytes, counts: Counts) -> bytes:
    """The answer to a request with this body. Raises RequestError."""
    request = parse_retokenize(body)
    faults.require_count(len(request.tokens), services.limits.items, "tokens")
    asked = [token for token in request.tokens if token is not None]
    counts.items = len(asked)
    moved = await services.vault.retokenize(owner, asked)
    counts.epoch = moved.epoch
    counts.found = sum(isinstance(token, str) for token in moved.tokens)
    counts.not_found = moved.tokens.count(Missing.NOT_FOUND)
    told = iter(moved.tokens)
    results = [_NULL_RESULT if token is None else _result(next(told)) for token in request.tokens]
    return encode(TokensRetokenized(moved.epoch, results))


def _result(token: str | Missing) -> TokenResult:
    return _RESULTS[token] if isinstance(token, Missing) else TokenResult("ok", token)
