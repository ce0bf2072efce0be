"""The client: exchanges values for tokens and tokens for values with any node, over HTTP.

plan.py        the effects a plan asks of its shell    sync.py, asynchronous.py  the two shells, over httpx2 (shell.py)
retry.py       one request, tried until it is settled  operations.py             the API's operations, split into requests
failover.py    the next node; the retry budget         batches.py, replies.py    request bodies, response bodies
pace.py        how many items go into a request        trouble.py                what keeps a client waiting
settings.py    arguments and environment               results.py, policy.py     what is returned; the limits
processes.py   state that no two processes share       wire.py, arrow.py         between plans and httpx2; Arrow streams
clusters.py    owners on several clusters
"""

from quorumvault.client.asynchronous import AsyncClient
from quorumvault.client.clusters import AsyncClusters, Clusters
from quorumvault.client.policy import ClientPolicy
from quorumvault.client.results import Health, Limits, NodeHealth, Result, Status, TokenizedRecords, TokenResult, Value
from quorumvault.client.sync import Client, tokens_all_epochs
from quorumvault.client.trouble import Trouble

__all__ = [
    "AsyncClient",
    "AsyncClusters",
    "Client",
    "ClientPolicy",
    "Clusters",
    "Health",
    "Limits",
    "NodeHealth",
    "Result",
    "Status",
    "TokenResult",
    "TokenizedRecords",
    "Trouble",
    "Value",
    "tokens_all_epochs",
]
