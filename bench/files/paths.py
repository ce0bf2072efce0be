"""Sends the same distinct texts in Arrow and in JSON, by the package's own client, as a batch job and as an application.

Arrow           quorumvault.analytics: columns, several requests at once
JSON            Client: one call, whose requests go one after the other
JSON, threads   Client: as many threads as Arrow has requests, a batch of the largest size each
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
    """One pass over ``texts`` that the vault has. CPU in seconds: of this process, and of the three nodes."""

    operation: str
    way: str
    texts: int
    seconds: float
    client_cpu: float
    nodes_cpu: float


def compare(vault: Client, load: Load, tokens: Sequence[str], repetitions: int, tell: Tell) -> list[PathSample]:
    """Each way in turn, the whole of it several times over. Raises WrongAnswer."""
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
                call = _CALLS[operation, way]
                nodes, client, begun = load.nodes_cpu(), time.process_time(), time.perf_counter()
                answers = call(vault, texts if way == "Arrow" else as_list)
                seconds, client = time.perf_counter() - begun, time.process_time() - client
                samples.append(PathSample(operation, way, len(as_list), seconds, client, load.nodes_cpu() - nodes))
                if not pa.array(answers, pa.large_utf8()).equals(expected):
                    raise WrongAnswer(f"{operation} by {way} did not give what it should")
    return samples


def _arrow(operation: str) -> Callable[[Client, Any], Any]:
    def call(vault: Client, texts: Any) -> Any:
        return pa.concat_arrays([batch.column("result") for batch in look_up(vault, operation, [texts])])  # type: ignore[arg-type]

    return call


def _tokenize(vault: Client, values: Sequence[str]) -> Sequence[str | None]:
    return vault.tokenize(values)


def _detokenize(vault: Client, tokens: Sequence[str]) -> list[Any]:
    return [result.value for result in vault.detokenize(tokens)]


def _threads(call: Callable[[Client, Sequence[str]], Sequence[Any]]) -> Callable[[Client, Any], Any]:
    def threads(vault: Client, texts: Sequence[str]) -> list[Any]:
        size = vault.limits().items
        runs = [texts[start : start + size] for start in range(0, len(texts), size)]
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            return [answer for answers in pool.map(lambda run: call(vault, run), runs) for answer in answers]

    return threads


_CALLS: dict[tuple[str, str], Callable[[Client, Any], Any]] = {
    ("tokenize", "Arrow"): _arrow("tokenize"),
    ("tokenize", "JSON"): _tokenize,
    ("tokenize", "JSON, threads"): _threads(_tokenize),
    ("detokenize", "Arrow"): _arrow("detokenize"),
    ("detokenize", "JSON"): _detokenize,
    ("detokenize", "JSON, threads"): _threads(_detokenize),
}
