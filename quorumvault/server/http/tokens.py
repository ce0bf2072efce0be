"""POST /tokens: derives the tokens of values in every epoch so far, issued or not. It writes nothing and looks nothing up.

With these tokens a caller can find a person in data that was not migrated. A token is a function of owner, epoch and value
(docs/token-format.md), so the other nodes are asked only for the active epoch.
"""

from quorumvault.errors import TooManyItems
from quorumvault.server.http.dependencies import AdmittedRequest
from quorumvault.server.http.item_errors import ItemErrors, judge_values
from quorumvault.server.http.memory import cost_of_writing
from quorumvault.server.http.schemas import TokensBody, TokensDerived, encode, parse


async def tokens(admitted: AdmittedRequest) -> bytes:
    """Return the answer to a request for tokens of all epochs. Raises RequestError."""
    services, counts = admitted.services, admitted.counts
    request = await parse(TokensBody, admitted.body, admitted.turns)
    canonicals = judge_values(request.values, ItemErrors(services.limits))
    wanted = [canonical for canonical in canonicals if canonical is not None]
    counts.epoch = epoch = await admitted.vault().epoch(admitted.owner)
    _require_room(len(wanted), epoch, services.limits.items)
    await admitted.pay(cost_of_writing(len(wanted) * epoch))
    admitted.charge(len(wanted), cost=len(wanted) * epoch)
    derived = iter(await services.vault.derive(admitted.owner, wanted, epoch))
    return encode(TokensDerived(epoch, [None if canonical is None else next(derived) for canonical in canonicals]))


def _require_room(values: int, epochs: int, most: int) -> None:
    """Raises TooManyItems for an answer of more items than a request may have."""
    if values * epochs <= most:
        return
    fitting = most // epochs
    advice = f"send up to {fitting} values at once" if fitting else "raise limits.items in the nodes' cluster.yaml"
    raise TooManyItems(f"an answer has at most {most} tokens here (GET /limits), and each value has {epochs}; {advice}")
