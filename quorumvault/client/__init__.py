"""The client: tokens for values and values for tokens, from any node, over HTTP.

steps.py       what a plan asks of its shell          sync.py, asynchronous.py   the two shells, over httpx2
attempts.py    one request, tried until it is settled operations.py              the API's operations, in as many requests
nodes.py       which node next; the retry budget      batches.py, answers.py     bodies out, bodies in
settings.py    arguments and environment              results.py, policy.py      what is handed back; the limits
processes.py   what no two processes may share        wire.py, arrow.py          between plans and httpx2; Arrow streams
"""

from quorumvault.client.asynchronous import AsyncClient
from quorumvault.client.policy import ClientPolicy
from quorumvault.client.results import Health, Limits, NodeHealth, Result, TokenizedRecords, TokenResult, Value
from quorumvault.client.sync import Client, tokens_all_epochs

__all__ = [
    "AsyncClient",
    "Client",
    "ClientPolicy",
    "Health",
    "Limits",
    "NodeHealth",
    "Result",
    "TokenResult",
    "TokenizedRecords",
    "Value",
    "tokens_all_epochs",
]
