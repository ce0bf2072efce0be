"""One request, tried until it is answered for good: which node next, when to wait, when to give up. Pure.

    a *lap* asks every node once, without waiting in between: another node may have room, or the other side of a partition
    after a lap: wait, longer each time, half of it random; and never ask a node before its Retry-After is over
    a node that stays silent is left soon for one that answers, if the budget has a retry; else it is waited for
    over when: answered · the deadline comes before the next try, or before the retry budget has one more

Everything the API does may be repeated, so whatever says ``retryable`` is, and so is silence. What comes out at the end is the
last problem that a node told, since that knows more than a connection that failed.
"""

from dataclasses import dataclass
from random import Random

from quorumvault import errors
from quorumvault.client.failover import Nodes, RetryBudget
from quorumvault.client.plan import REQUEST_ID, Call, Clock, Failure, NoReply, Pause, Plan, Reply, Send, Success, exchange
from quorumvault.client.policy import ClientPolicy
from quorumvault.client.replies import error_of, problem_of
from quorumvault.errors import Asked, QuorumVaultError, RequestError

#: Statuses of a proxy in front of a node while the node is away.
_PROXY_STATUSES = frozenset({502, 503, 504})
#: Failures to answer that no retry can help, in words.
_UNEXPECTED = {
    Failure.OVERLONG: "an answer is longer than any that was asked for",
    Failure.FOREIGN: f"what was answered does not carry the {REQUEST_ID} that was sent, so it is not taken for the answer: "
    "is this the URL of a QuorumVault node, and does a proxy in front of it pass that header on as it is, both ways?",
}
#: Beyond this many any sensible backoff_last is reached.
_DOUBLINGS = 16


@dataclass(slots=True)
class _Tries:
    """The tries of one request, and their outcomes."""

    asked: list[Asked]
    last_told: QuorumVaultError | None = None
    may_have_written: bool = False


class Attempts:
    """Makes the plans of single requests; ``headers`` are those of every request, the API key's apart."""

    def __init__(
        self, nodes: Nodes, policy: ClientPolicy, headers: dict[str, str], api_key: str | None, clock: Clock, rng: Random
    ) -> None:
        self.nodes = nodes
        self._policy = policy
        self._headers = headers
        self._key_header = None if api_key is None else f"Bearer {api_key}"
        self._clock = clock
        self._rng = rng
        self._budget = RetryBudget(policy, clock())

    def request(self, call: Call, deadline: float | None = None) -> Plan[Success]:
        """Raises the error that the API told, Unreachable, or UnexpectedAnswer. ``deadline`` by the clock, if any is set."""
        now = self._clock()
        until = now + self._policy.request if deadline is None else min(deadline, now + self._policy.request)
        headers = self.headers_of(call)
        tries = _Tries([])
        try:
            return (yield from self._try_nodes(call, headers, until, tries))
        except QuorumVaultError as error:
            error.asked, error.request_id = tuple(tries.asked), headers[REQUEST_ID]
            if call.writes and isinstance(error, errors.NoQuorum | errors.Draining):
                error.outcome = "unknown" if tries.may_have_written else "none"
            raise

    def headers_of(self, call: Call) -> dict[str, str]:
        """One request id for all tries, so that the nodes' event logs can be joined.

        An answer to an earlier try would be one to the same request therefore, and as true; but none comes, since the connection
        of a try that is given up is closed.
        """
        headers = {**self._headers, REQUEST_ID: f"{self._rng.getrandbits(128):032x}"}
        if call.needs_key:
            if self._key_header is None:
                raise errors.Unauthenticated("there is no API key: set QUORUMVAULT_API_KEY, or name one (--key-file, api_key)")
            headers["Authorization"] = self._key_header
        if call.body is not None:
            headers["Content-Type"] = call.media
        return headers

    def _try_nodes(self, call: Call, headers: dict[str, str], until: float, tries: _Tries) -> Plan[Success]:
        self._budget.earn()
        lap, tried = 0, set[str]()
        while True:
            now = self._clock()
            if now >= until:
                raise self._given_up(tries, "the time is up")
            node = self.nodes.choose(now, tried)
            if node is None:
                yield from self._pause(lap, now, until, tries)
                lap, tried = lap + 1, set()
                continue
            if tries.asked:
                yield from self._afford(until, tries)
            silence = self._patience(node, call, until)
            if silence <= 0:
                # The clock went on since it was read above: a socket takes no time-out below zero.
                raise self._given_up(tries, "the time is up")
            tried.add(node)
            outcome = yield from exchange(Send(node + call.path, call.method, headers, call.body, silence, until))
            success = self._judge(node, outcome, tries)
            if success is not None:
                return Success(success.body, tuple(tries.asked), headers[REQUEST_ID])

    def _pause(self, lap: int, now: float, until: float, tries: _Tries) -> Plan[None]:
        longest = min(self._policy.backoff_first * 2.0 ** min(lap, _DOUBLINGS), self._policy.backoff_last)
        wait = max(self.nodes.earliest() - now, 0.0) + longest * self._rng.uniform(0.5, 1.0)
        if now + wait >= until:
            raise self._given_up(tries, "the time is up")
        yield Pause(wait)

    def _afford(self, until: float, tries: _Tries) -> Plan[None]:
        """Takes a retry out of the budget, once there is one."""
        while (wait := self._budget.wait(self._clock()) * self._rng.uniform(1.0, 1.5)) > 0:
            if self._clock() + wait >= until:
                raise self._given_up(tries, "the retry budget is used up")
            yield Pause(wait)
        self._budget.spend()

    def _patience(self, node: str, call: Call, until: float) -> float:
        """Returns how many seconds this node may stay silent."""
        now, patience = self._clock(), self._policy.silence
        if self.nodes.others_answer(node) and not self._budget.wait(now):
            patience = min(patience, self._policy.failover + len(call.body or b"") / self._policy.failover_bytes)
        return min(patience, until - now)

    def _judge(self, node: str, outcome: Reply | NoReply, tries: _Tries) -> Reply | None:
        """A success, or None if a retry can help; raises what no retry can help."""
        if isinstance(outcome, NoReply):
            self._note_silence(node, outcome, tries)
            return None
        self.nodes.answered(node)
        if 200 <= outcome.status < 300:
            tries.asked.append(Asked(node, str(outcome.status)))
            return outcome
        problem = problem_of(outcome)
        error = error_of(outcome, problem)
        tries.asked.append(Asked(node, f"{outcome.status} {problem.code}" if problem else str(outcome.status)))
        if not (problem.retryable if problem else outcome.status in _PROXY_STATUSES):
            raise error
        tries.last_told = error
        tries.may_have_written |= not isinstance(error, RequestError) or error.outcome == "unknown"
        self._heed(node, error, outcome.retry_after)
        return None

    def _note_silence(self, node: str, outcome: NoReply, tries: _Tries) -> None:
        tries.asked.append(Asked(node, f"{outcome.failure.value} ({outcome.detail})"))
        if outcome.failure in _UNEXPECTED:
            raise errors.UnexpectedAnswer(_UNEXPECTED[outcome.failure])
        if outcome.failure is not Failure.BROKEN:
            self.nodes.set_back(node, self._clock())
        tries.may_have_written |= outcome.failure is not Failure.REFUSED

    def _heed(self, node: str, error: QuorumVaultError, retry_after: float | None) -> None:
        """Does as the node asks: leaves it alone for a while (Retry-After), or because it is about to stop."""
        now = self._clock()
        if isinstance(error, errors.Draining):
            self.nodes.set_back(node, now)
        if retry_after is None:
            return
        if isinstance(error, errors.RateLimited):
            self.nodes.defer_all(now + retry_after)
        else:
            self.nodes.defer(node, now + retry_after)

    def _given_up(self, tries: _Tries, why: str) -> QuorumVaultError:
        error = tries.last_told
        if error is None and tries.asked:
            error = errors.Unreachable("no node answered: do they run, and are these their URLs?")
        elif error is None:
            error = errors.Unreachable("no node could be asked in the time that there was")
        error.gave_up = why
        return error
