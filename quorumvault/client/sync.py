"""The blocking client: a shell that carries out the plans."""

from __future__ import annotations

import os
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx2

from quorumvault.client import wire
from quorumvault.client.deadline import Deadline
from quorumvault.client.operations import ArrowOperation, Operations
from quorumvault.client.plan import Clock, EffectResult, NoReply, Pause, Plan, Reply, ResultT, Send
from quorumvault.client.policy import ClientPolicy
from quorumvault.client.results import Limits, NodeHealth, Result, TokenizedRecords, TokenResult, Value
from quorumvault.client.settings import resolve
from quorumvault.client.shell import Shell
from quorumvault.client.transport import BoundTransport, bounded
from quorumvault.errors import QuorumVaultError


class Client(Shell[httpx2.Client]):
    """A client of a QuorumVault cluster. Use it as a context manager, from as many threads as you like.

        import quorumvault as qv

        with qv.Client("http://n1:8700,http://n2:8700,http://n3:8700", api_key=key) as vault:
            tokens = vault.tokenize(["123-45-6789", "42", None])
            values = [result.value for result in vault.detokenize(tokens)]

    ``urls``: the nodes, as one string with commas or as a sequence; default ``QUORUMVAULT_URL``, or http://127.0.0.1:8700. Any
    one node is enough. With several, requests rotate over the nodes, and fail over from a node that fails.
    ``api_key``: default ``QUORUMVAULT_API_KEY``. ``purpose``: the reason that the nodes' event logs keep; default
    ``QUORUMVAULT_PURPOSE``. ``cacert``: a PEM file for https; default ``QUORUMVAULT_CACERT``, or the system's certificates.
    ``client_cert``: a PEM file with a certificate and its key, for nodes that ask for one; default ``QUORUMVAULT_CLIENT_CERT``.
    ``policy``: patience and limits. ``transport``, ``clock``, ``sleep`` and ``rng`` are for tests.

    Every method may raise: NoQuorum (or its subclass Unreachable) if no retry helped in time; NotPermitted, Unauthenticated and
    the other classes of ``quorumvault.errors`` where no retry can help; UnexpectedAnswer for an answer that no node gives. Each
    error has the nodes that were asked (``asked``), the id in their event logs (``request_id``), and whether calling again can
    help (``retryable``). Every operation may be repeated. ``deadline`` is in seconds and bounds the whole call; without it each
    request of the call has ``policy.request`` seconds.

    Threads: one client serves all threads. Forked processes (``os.fork``, gunicorn's preload, a pool with the context "fork"): a
    client made before the fork works in each process. There it makes its own connections, reads its files again, and starts with
    no knowledge of the nodes; no process reads another's answers. Spawned processes: make a client in each process, for instance
    in the initializer of a pool; pickling or copying a client raises TypeError. The client accepts an answer only if it carries
    the X-Request-ID that was sent; for any other it raises UnexpectedAnswer.

    The client ignores the environment's proxies and .netrc: values go to the named nodes, and nowhere else.
    """

    @staticmethod
    def _connect(
        *, verify: ssl.SSLContext, limits: httpx2.Limits, transport: httpx2.BaseTransport | None, **options: Any
    ) -> httpx2.Client:
        return httpx2.Client(transport=transport or BoundTransport(verify, limits), **options)

    def __init__(
        self,
        urls: str | Sequence[str] | None = None,
        *,
        api_key: str | None = None,
        purpose: str | None = None,
        cacert: Path | str | None = None,
        client_cert: Path | str | None = None,
        policy: ClientPolicy | None = None,
        transport: httpx2.BaseTransport | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        settings = resolve(urls, api_key, purpose, cacert, os.environ, client_cert)
        super().__init__(settings, policy or ClientPolicy(), clock, rng, transport)
        self._sleep = sleep
        #: The public part of the API key, as in event logs and ``quorumvault keys list``; None without a key.
        self.key_id = settings.key_id
        #: The last error that a SQL function of ``quorumvault.register`` raised: DuckDB passes on only the error's text.
        self.last_error: QuorumVaultError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections of this process. Calls under way in other threads fail."""
        own = self._own.end()
        if own is not None:
            own.http.close()

    def tokenize(self, values: Sequence[Value], *, deadline: float | None = None) -> list[str | None]:
        """Returns a token for each value, in order, all of one epoch; None for None.

        Types are kept: "1", 1 and True are different values. Files, DuckDB, frames and Spark tokenize text, so pass
        ``str(number)`` for an id that you will join with theirs. NaN, NA and NaT count as None; scalars of numpy and pyarrow
        count as the Python values they hold. For a DataFrame, use ``quorumvault.tokenize(frame, columns=...)``.

            >>> vault.tokenize(["123-45-6789", "42", None])
            ['qv_1_...', 'qv_1_...', None]

        Takes any number of values. Each distinct value is sent once, in as many requests as the nodes' limits require. When this
        returns, every mapping is durable on at least two nodes. Raises NotTokenizable, AlreadyTokenized or ValueTooLarge, whose
        ``errors`` list the refused values by index. Tokens are deterministic: calling again is always safe.
        """
        return self._run(self._plans.tokenize(values, deadline=deadline))

    def tokenize_records(self, records: Sequence[Mapping[str, Any]], *, deadline: float | None = None) -> TokenizedRecords:
        """Returns copies of records with tokens at the configured fields (``fields()``), all of one epoch.

        >>> done = vault.tokenize_records([{"ssn": "123-45-6789", "age": 41}])
        >>> done.records
        [{'ssn': 'qv_1_...', 'age': 41}]
        >>> done.replaced
        {'$.ssn': 1}
        """
        return self._run(self._plans.tokenize_records(records, deadline=deadline))

    def detokenize(
        self, tokens: Sequence[str | None], *, missing: Literal["null", "error"] = "null", deadline: float | None = None
    ) -> list[Result]:
        """Returns a Result for each token, in order. Tokens may be of any epochs. None has the status ``null``.

            >>> token, = vault.tokenize(["123-45-6789"])
            >>> for result in vault.detokenize([token, None, "no token"]):
            ...     print(result.status, result.value)
            ok 123-45-6789
            null None
            not_found None

        Malformed tokens, unknown tokens and those of other owners are all ``not_found``, with the value None. With
        ``missing="error"`` they raise TokensNotFound. Without a quorum this raises NoQuorum, and nothing is ``not_found``.
        """
        return self._run(self._plans.detokenize(tokens, missing=missing, deadline=deadline))

    def exchange_arrow(
        self, operation: ArrowOperation, encode: Callable[[slice], bytes], count: int, *, deadline: float | None = None
    ) -> list[tuple[slice, bytes]]:
        """Asks about ``count`` texts, which ``encode`` turns into Arrow streams. Returns the streams of the answers, in order.

        The texts must be within the nodes' limits for one request; the client sends several while answers are late.
        client/arrow.py makes and reads the streams; ``quorumvault.analytics`` takes columns of any length.
        """
        return self._run(self._plans.exchange_arrow(operation, encode, count, deadline=deadline))

    def retokenize(self, tokens: Sequence[str | None], *, deadline: float | None = None) -> list[TokenResult]:
        """Returns a TokenResult for each token, in order: the token of the same value in the active epoch. Shows no value.

            >>> old, = vault.tokenize(["123-45-6789"])
            >>> vault.rotate(1)
            2
            >>> [result.token for result in vault.retokenize([old, None, "no token"])]
            ['qv_2_...', None, None]

        A token of the active epoch comes back unchanged. The statuses are those of ``detokenize``. The key must be allowed to
        tokenize.
        """
        return self._run(self._plans.retokenize(tokens, deadline=deadline))

    def tokens_all_epochs(self, values: Sequence[Value], *, deadline: float | None = None) -> list[list[str] | None]:
        """Returns, for each value, its tokens of every epoch so far, oldest first; None for None. Stores nothing.

            >>> vault.rotate(1)
            2
            >>> vault.tokens_all_epochs(["123-45-6789", None])
            [['qv_1_...', 'qv_2_...'], None]

        Use it to find values in data of earlier epochs. The tokens are derived, so they need not have been issued. The key must
        have the operation ``derive``, which no key has by default. Errors of single values are those of ``tokenize``.
        """
        return self._run(self._plans.tokens_all_epochs(values, deadline=deadline))

    def rotate(self, from_epoch: int, *, deadline: float | None = None) -> int:
        """Begins the epoch after ``from_epoch``, unless it has begun. Returns the active epoch. Raises EpochAhead.

        >>> vault.rotate(vault.epoch())
        2
        """
        return self._run(self._plans.rotate(from_epoch, deadline=deadline))

    def epoch(self, *, deadline: float | None = None) -> int:
        """Returns the active epoch of the key's owner, read from a quorum.

        >>> vault.epoch()
        1
        """
        return self._run(self._plans.epoch(deadline=deadline))

    def fields(self, *, deadline: float | None = None) -> list[str]:
        """Returns the configured fields: JSONPath expressions.

        >>> vault.fields()
        ['$.ssn']
        """
        return self._run(self._plans.fields(deadline=deadline))

    def limits(self, *, deadline: float | None = None) -> Limits:
        """Returns a node's limits for one request. They are asked for once, then cached. Longer calls make several requests.

        >>> vault.limits().items
        10000
        """
        return self._run(self._plans.limits(deadline=deadline))

    def health(self) -> list[NodeHealth]:
        """Returns each node's report about itself, in the order of ``urls``. Needs no key. A node that is away raises nothing.

        >>> for node in vault.health():
        ...     print(node.report.status if node.report else node.problem)
        ok
        """
        return self._run(self._plans.health())

    @property
    def _plans(self) -> Operations:
        return self._own.get().plans

    def _run(self, plan: Plan[ResultT]) -> ResultT:
        outcome: EffectResult = None
        while True:
            try:
                effect = plan.send(outcome)
            except StopIteration as stop:
                result: ResultT = stop.value
                return result
            outcome = self._sleep(effect.seconds) if isinstance(effect, Pause) else self._send(effect)

    def _send(self, send: Send) -> Reply | NoReply:
        now, http, body = self._clock(), self._own.get().http, bytearray()
        deadline = Deadline(send, self._policy, send.until - now, time.monotonic)
        options = wire.options(send, self._policy, now, deadline.trace)
        try:
            with bounded(deadline), http.stream(send.method, send.url, **options) as response:
                stray = wire.not_ours(send, response)
                if stray is not None:
                    return stray
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > self._policy.reply_bytes:
                        return wire.OVERLONG
                    if self._clock() > send.until:
                        return wire.SILENT
        except httpx2.HTTPError as error:
            return wire.no_reply(error)
        return wire.reply(response, bytes(body))


def tokens_all_epochs(value: Value, client: Client | None = None) -> list[str]:
    """Returns the tokens of one value in every epoch so far, oldest first: to look it up in data that was not migrated.

        con.execute("from 'claims/*.parquet' where list_contains(?, patient)", [qv.tokens_all_epochs("123-45-6789")])

    Returns an empty list for None. Without ``client`` it makes one from the environment (QUORUMVAULT_URL, QUORUMVAULT_API_KEY,
    …) and closes it. For several values at once, and for errors, see Client.tokens_all_epochs.
    """
    with client_or_own(client) as vault:
        (tokens,) = vault.tokens_all_epochs([value])
    return tokens or []


@contextmanager
def client_or_own(client: Client | None) -> Iterator[Client]:
    """Yields the given client, or one from the environment, which is closed at the end."""
    if client is not None:
        yield client
        return
    with Client() as own:
        yield own
