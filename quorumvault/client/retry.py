"""Tries one request until it has a final answer: which node next, when to wait, when to give up. Pure.

    A *lap* asks every node once, without a pause: another node may have capacity, or be on the other side of a partition.
    After a lap the plan pauses, longer each time, half of it random. It never asks a node before its Retry-After is over.
    The plan soon leaves a silent node for one that answers, if the budget has a retry; else, and after a lap, it waits for it.
    It ends with an answer, or if the deadline comes before the next try or before the retry budget has one more.
    A request of many items without an answer in time is not sent again: smaller requests take its place (pace.py).

Every operation of the API may be repeated, so the plan retries every ``retryable`` problem, and silence. The error raised at the
end is the last problem that a node reported, since a failed connection says less.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from quorumvault import errors
from quorumvault.client.failover import Nodes, RetryBudget
from quorumvault.client.pace import FEWEST, Pace
from quorumvault.client.plan import (
    REQUEST_ID,
    Call,
    Clock,
    FailedTry,
    Failure,
    NoReply,
    Pause,
    Plan,
    Reply,
    Send,
    Success,
    exchange,
)
from quorumvault.client.policy import ClientPolicy
from quorumvault.client.replies import error_of, problem_of
from quorumvault.client.trouble import Troubles
from quorumvault.errors import Asked, QuorumVaultError, RequestError

#: Statuses with which a proxy answers while the node behind it is away.
_PROXY_STATUSES = frozenset({502, 503, 504})
#: Failures that no retry can help, in words.
_UNEXPECTED = {
    Failure.OVERLONG: "an answer is longer than any that was asked for",
    Failure.FOREIGN: f"what was answered does not carry the {REQUEST_ID} that was sent, so it is not taken for the answer: "
    "is this the URL of a QuorumVault node, and does a proxy in front of it pass that header on as it is, both ways?",
}
#: After this many doublings any sensible backoff_last is reached.
_DOUBLINGS = 16


class TooSlow(Exception):
    """There was no answer in time: the caller should ask for fewer items."""


@dataclass(slots=True, eq=False)
class Effort:
    """The tries of one request and of the smaller ones in its place, until the first answer or ``until``; and their outcomes."""

    until: float
    asked: list[Asked] = field(default_factory=list)
    last_told: QuorumVaultError | None = None
    may_have_written: bool = False
    #: The nodes that were asked in this lap, and the number of laps before it.
    tried: set[str] = field(default_factory=set)
    lap: int = 0


class Attempts:
    """Makes the plans of single requests. ``headers`` are those of every request, without the API key's.

    ``failed`` is called after each failed try that a retry may make good.
    """

    def __init__(
        self,
        nodes: Nodes,
        policy: ClientPolicy,
        headers: dict[str, str],
        api_key: str | None,
        clock: Clock,
        rng: Random,
        failed: Callable[[FailedTry], None] = lambda failure: None,
    ) -> None:
        self.nodes = nodes
        self._policy = policy
        self._headers = headers
        self._key_header = None if api_key is None else f"Bearer {api_key}"
        self._clock = clock
        self._rng = rng
        self._failed = failed
        self._budget = RetryBudget(policy, clock())
        self.pace = Pace(policy.batch)
        self.troubles = Troubles(clock)

    def begin(self, deadline: float | None = None) -> Effort:
        """Begins an effort. ``deadline``: a time of the clock, or None."""
        until = self._clock() + self._policy.request
        return Effort(until if deadline is None else min(deadline, until))

    def request(self, call: Call, deadline: float | None = None) -> Plan[Success]:
        """Sends a request of one item, or of none. See ``attempt``."""
        return (yield from self.attempt(call, self.begin(deadline)))

    def attempt(self, call: Call, effort: Effort) -> Plan[Success]:
        """Raises the API's error, Unreachable or UnexpectedAnswer; TooSlow if the effort should go on with fewer items."""
        headers = self.headers_of(call)
        try:
            success = yield from self._try_nodes(call, headers, effort)
        except TooSlow:
            raise
        except BaseException as error:
            self.troubles.over(effort)
            if isinstance(error, QuorumVaultError):
                error.asked, error.request_id = tuple(effort.asked), headers[REQUEST_ID]
                if call.writes and isinstance(error, errors.NoQuorum | errors.Draining):
                    error.outcome = "unknown" if effort.may_have_written else "none"
            raise
        self.troubles.over(effort)
        return success

    def headers_of(self, call: Call) -> dict[str, str]:
        """Returns the headers of a request, with one request id for all tries, so that the nodes' event logs can be joined.

        So an answer to an earlier try would be an answer to the same request, and as true. But none comes, since the connection
        of an abandoned try is closed.
        """
        headers = {**self._headers, REQUEST_ID: f"{self._rng.getrandbits(128):032x}"}
        if call.needs_key:
            if self._key_header is None:
                raise errors.Unauthenticated("there is no API key: set QUORUMVAULT_API_KEY, or name one (--key-file, api_key)")
            headers["Authorization"] = self._key_header
        if call.body is not None:
            headers["Content-Type"] = call.media
        return headers

    def _try_nodes(self, call: Call, headers: dict[str, str], effort: Effort) -> Plan[Success]:
        self._budget.earn()
        while True:
            now = self._clock()
            if now >= effort.until:
                raise self._given_up(effort, "the time is up")
            node = self.nodes.choose(now, effort.tried)
            if node is None:
                yield from self._pause(now, effort)
                continue
            if effort.asked:
                yield from self._afford(effort)
            silence = self._patience(node, call, effort)
            if silence <= 0:
                # Time has passed since the clock was read above, and a socket takes no negative time-out.
                raise self._given_up(effort, "the time is up")
            effort.tried.add(node)
            sent_at = self._clock()
            outcome = yield from exchange(Send(node + call.path, call.method, headers, call.body, silence, effort.until))
            success = self._judge(node, call, headers[REQUEST_ID], outcome, effort)
            if success is not None:
                self.pace.answered(call.items, self._clock() - sent_at, self._failover(call))
                return Success(success.body, tuple(effort.asked), headers[REQUEST_ID])

    def _pause(self, now: float, effort: Effort) -> Plan[None]:
        """Pauses, and ends the lap."""
        longest = min(self._policy.backoff_first * 2.0 ** min(effort.lap, _DOUBLINGS), self._policy.backoff_last)
        wait = max(self.nodes.earliest() - now, 0.0) + longest * self._rng.uniform(0.5, 1.0)
        if now + wait >= effort.until:
            raise self._given_up(effort, "the time is up")
        yield Pause(wait)
        effort.lap += 1
        effort.tried.clear()

    def _afford(self, effort: Effort) -> Plan[None]:
        """Waits until the budget has a retry, and takes it."""
        while (wait := self._budget.wait(self._clock()) * self._rng.uniform(1.0, 1.5)) > 0:
            if self._clock() + wait >= effort.until:
                raise self._given_up(effort, "the retry budget is used up")
            yield Pause(wait)
        self._budget.spend()

    def _patience(self, node: str, call: Call, effort: Effort) -> float:
        """Returns how many seconds this node may stay silent.

        After a lap without an answer, no other node is known to answer sooner.
        """
        now, patience = self._clock(), self._policy.silence
        if not effort.lap and self.nodes.others_answer(node) and not self._budget.wait(now):
            patience = self._failover(call) * (self.pace.patience if call.items > FEWEST else 1.0)
        return min(patience, self._policy.silence, effort.until - now)

    def _failover(self, call: Call) -> float:
        """Returns how many seconds a node may stay silent while another node can be asked."""
        return min(self._policy.silence, self._policy.failover + len(call.body or b"") / self._policy.failover_bytes)

    def _judge(self, node: str, call: Call, request_id: str, outcome: Reply | NoReply, effort: Effort) -> Reply | None:
        """Returns a success, or None if a retry can help. Raises an error that no retry can help, or TooSlow."""
        if isinstance(outcome, NoReply):
            self._note_silence(node, outcome, effort)
            late = outcome.failure is Failure.SILENT
        else:
            self.nodes.answered(node)
            if 200 <= outcome.status < 300:
                effort.asked.append(Asked(node, str(outcome.status)))
                self.troubles.answered(node)
                return outcome
            # NoQuorum also means no answer in time: the node did not hear from its peers in time.
            late = isinstance(self._note_problem(node, outcome, effort), errors.NoQuorum)
        self._failed(FailedTry(call, effort.asked[-1], len(effort.asked), request_id))
        if late and self.pace.late(call.items):
            raise TooSlow
        return None

    def _note_problem(self, node: str, outcome: Reply, effort: Effort) -> QuorumVaultError:
        """Returns the error that a node reported. Raises the error if no retry can help."""
        problem = problem_of(outcome)
        error = error_of(outcome, problem)
        words = f"{outcome.status} {problem.code}" if problem else str(outcome.status)
        effort.asked.append(Asked(node, words))
        if not (problem.retryable if problem else outcome.status in _PROXY_STATUSES):
            self.troubles.answered(node)
            raise error
        self.troubles.failed(effort, effort.until, node, words)
        effort.last_told = error
        effort.may_have_written |= not isinstance(error, RequestError) or error.outcome == "unknown"
        self._heed(node, error, outcome.retry_after)
        return error

    def _note_silence(self, node: str, outcome: NoReply, effort: Effort) -> None:
        effort.asked.append(Asked(node, f"{outcome.failure.value} ({outcome.detail})"))
        if outcome.failure in _UNEXPECTED:
            raise errors.UnexpectedAnswer(_UNEXPECTED[outcome.failure])
        self.troubles.failed(effort, effort.until, node, outcome.failure.value)
        if outcome.failure is not Failure.BROKEN:
            self.nodes.set_back(node, self._clock())
        effort.may_have_written |= outcome.failure is not Failure.REFUSED

    def _heed(self, node: str, error: QuorumVaultError, retry_after: float | None) -> None:
        """Asks the node no more for a while, if its Retry-After wants that or the node is about to stop."""
        now = self._clock()
        if isinstance(error, errors.Draining):
            self.nodes.set_back(node, now)
        if retry_after is None:
            return
        if isinstance(error, errors.RateLimited):
            self.nodes.defer_all(now + retry_after)
        else:
            self.nodes.defer(node, now + retry_after)

    def _given_up(self, effort: Effort, why: str) -> QuorumVaultError:
        error = effort.last_told
        if error is None and effort.asked:
            error = errors.Unreachable()
        elif error is None:
            error = errors.Unreachable("no node could be asked in the time that there was")
        error.gave_up = why
        return error
