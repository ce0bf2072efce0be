"""POST /retokenize: moves tokens of any epoch to the active epoch. The caller sees no value."""

from quorumvault.server.coordinator.vault import Missing
from quorumvault.server.http.dependencies import AdmittedRequest
from quorumvault.server.http.item_errors import require_count
from quorumvault.server.http.memory import cost_of_reading
from quorumvault.server.http.schemas import RetokenizeBody, TokenResult, TokensRetokenized, encode, parse

_NULL_RESULT = TokenResult("null")
_RESULTS = {missing: TokenResult(missing.value) for missing in Missing}


async def retokenize(admitted: AdmittedRequest) -> bytes:
    """Return the answer to a request that moves tokens to the active epoch. Raises RequestError."""
    counts, limits = admitted.counts, admitted.services.limits
    request = await parse(RetokenizeBody, admitted.body, admitted.turns)
    require_count(len(request.tokens), limits.items, "tokens")
    asked = [token for token in request.tokens if token is not None]
    await admitted.pay(cost_of_reading(len(asked), limits))
    async with admitted.turn(len(asked)):
        moved = await admitted.services.vault.retokenize(admitted.owner, asked, admitted.take_read)
    counts.epoch = moved.epoch
    counts.found = sum(isinstance(token, str) for token in moved.tokens)
    counts.not_found = moved.tokens.count(Missing.NOT_FOUND)
    told = iter(moved.tokens)
    results = [_NULL_RESULT if token is None else _result(next(told)) for token in request.tokens]
    return encode(TokensRetokenized(moved.epoch, results))


def _result(token: str | Missing) -> TokenResult:
    return _RESULTS[token] if isinstance(token, Missing) else TokenResult("ok", token)
