"""Sends the same distinct texts in Arrow and in JSON with the package's client, as a batch job and as an application.

Arrow           quorumvault.analytics: columns, several requests at once
JSON            Client: one call, which sends its requests one after the other
JSON, threads   Client: as many threads as Arrow has requests, each with batches of the largest size
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from bench.load import Load
from bench.report import Tell
from bench.work import WrongAnswer
from quorumvault.analytics.arrow import IN_FLIGHT, look_up
from quorumvault.client import Client

WAYS = ("Arrow", "JSON", "JSON, threads")
OPERATIONS = ("tokenize", "detokenize")


@dataclass(frozen=True, slots=True)
class PathSample:
    """One pass over ``texts`` that are in the vault. CPU in seconds: of this process, and of the three nodes."""

    operation: str
    way: str
    texts: int
    seconds: float
    client_cpu: float
    nodes_cpu: float


def compare(vault: Client, load: Load, tokens: Sequence[str], repetitions: int, tell: Tell) -> list[PathSample]:
    """Measures each way in turn, several times. Raises WrongAnswer."""
    column = pa.array(tokens, pa.large_utf8())
    values = pa.concat_arrays([batch.column("result") for batch in look_up(vault, "detokenize", [column])])
    asked: dict[str, tuple[Any, Sequence[str]]] = {"tokenize": (values, values.to_pylist()), "detokenize": (column, tokens)}
    samples = []
    for repetition in range(repetitions):
        for operation in OPERATIONS:
            texts, as_list = asked[operation]
            expected = asked[OPERATIONS[1 - OPERATIONS.index(operation)]][0]
            for way in WAYS:
                tell(f"{operation}, {way}, repetition {repetition + 1}")
                nodes, client, begun = load.nodes_cpu(), time.process_time(), time.perf_counter()
                answers = _asked(vault, operation, way, texts, as_list)
                seconds, client = time.perf_counter() - begun, time.process_time() - client
                samples.append(PathSample(operation, way, len(as_list), seconds, client, load.nodes_cpu() - nodes))
                if not pa.array(answers, pa.large_utf8()).equals(expected):
                    raise WrongAnswer(f"{operation} by {way} did not give what it should")
    return samples


def _asked(vault: Client, operation: str, way: str, column: Any, texts: Sequence[str]) -> Any:
    """Returns the answers to all texts; ``column`` has the texts as Arrow."""
    if way == "Arrow":
        return pa.concat_arrays([batch.column("result") for batch in look_up(vault, operation, [column])])  # type: ignore[arg-type]

    def call(some: Sequence[str]) -> Sequence[Any]:
        return vault.tokenize(some) if operation == "tokenize" else [result.value for result in vault.detokenize(some)]

    if way == "JSON":
        return call(texts)
    size = vault.limits().items
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        batches = pool.map(call, (texts[start : start + size] for start in range(0, len(texts), size)))
        return list(chain.from_iterable(batches))
