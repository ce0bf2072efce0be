"""POST /tokens: what tokens values have in every epoch so far, issued or not. Nothing is written, and nothing looked up.

It is how a person is found in data that was not migrated. The tokens are functions of owner, epoch and value
(docs/token-format.md); only which epoch is active has to be asked for.
"""

from __future__ import annotations

from quorumvault.errors import TooManyItems
from quorumvault.server.http import item_errors
from quorumvault.server.http.job import Job
from quorumvault.server.http.memory import cost_of_writing
from quorumvault.server.http.schemas import TokensDerived, encode, parse_tokens
from quorumvault.server.http.values import judge_values


async def tokens(job: Job) -> bytes:
    """The answer to a request for tokens of all epochs. Raises RequestError."""
    services, counts = job.services, job.counts
    request = await parse_tokens(job.body, job.turns)
    values = judge_values(request.values, services.limits)
    item_errors.refuse_any(values.bad, services.limits)
    wanted = [canonical for canonical in values.canonicals if canonical is not None]
    counts.epoch = epoch = await services.vault.epoch(job.owner)
    _require_room(len(wanted), epoch, services.limits.items)
    await job.pay(cost_of_writing(len(wanted) * epoch))
    job.ask(len(wanted), cost=len(wanted) * epoch)
    derived = iter(await services.vault.derive(job.owner, wanted, epoch))
    return encode(TokensDerived(epoch, [None if canonical is None else next(derived) for canonical in values.canonicals]))


def _require_room(values: int, epochs: int, most: int) -> None:
    """An answer has no more items than a request. Raises TooManyItems."""
    if values * epochs <= most:
        return
    fitting = most // epochs
    advice = f"send up to {fitting} values at once" if fitting else "raise limits.items in the nodes' cluster.yaml"
    raise TooManyItems(f"an answer has at most {most} tokens here (GET /limits), and each value has {epochs}; {advice}")
