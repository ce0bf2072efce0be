"""Checks what a history may never show of API keys: a node accepts a revoked key, or refuses a key that nobody revoked.

A key is certainly revoked once its revocation was acknowledged, or a node refused the key: a node refuses a key only if the
revocation is on two disks. From two seconds later on no node may accept the key, whatever is broken: a node that is in touch with
no other node accepts no key.
"""

from chaos.testbed.history import Action, Complete, Invoke, Outcome
from chaos.testbed.violation import Violation

#: The answers to the use of a key.
TAKEN, REFUSED = "taken", "refused"
#: The contract: seconds from an acknowledged revocation to the last request for which a node may accept the key.
BOUND = 2.0


class KeyChecker:
    """Checks the events of key actions, in the order of the history."""

    def __init__(self) -> None:
        self._begun: dict[int, Invoke] = {}
        #: The ids of keys with a request to revoke them, and the times from which their revocation is certain.
        self._asked: set[str] = set()
        self._revoked: dict[str, float] = {}

    def begin(self, event: Invoke) -> None:
        self._begun[event.op] = event
        if event.action is Action.REVOKE_KEY:
            self._asked.update(event.given)

    def end(self, event: Complete) -> None:
        """Checks the end of an operation. Raises Violation."""
        invoke = self._begun.pop(event.op)
        if event.outcome is not Outcome.OK:
            if invoke.final:
                raise Violation("unanswered", f"operation {event.op} found no answer though nothing was broken any more")
        elif invoke.action is Action.REVOKE_KEY:
            for key in invoke.given:
                self._revoked.setdefault(key, event.at)
        else:
            for key, answer in zip(invoke.given, event.answers, strict=True):
                self._check_used(invoke, event, key, answer)

    def _check_used(self, invoke: Invoke, event: Complete, key: str, answer: str | None) -> None:
        since = self._revoked.get(key)
        if answer == REFUSED:
            if key not in self._asked:
                raise Violation("key refused", f"operation {event.op}: {key} is refused, and nobody asked to revoke it")
            self._revoked.setdefault(key, event.at)
        elif since is not None and invoke.at > since + BOUND:
            words = f"{key} is taken {invoke.at - since:.1f} s after it was certainly revoked"
            raise Violation("revoked key", f"operation {event.op}, through {invoke.node}: {words}")
