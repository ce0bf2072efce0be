"""A mutant undoes one safety: it replaces functions of the real code, or of the simulator's threads, links and disks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple
from unittest import mock

#: The simulator's plays (tests/simulation/plays.py): requests alone; lost disks; disks that are put back; healing; revoked API
#: keys; two sets of nodes, for a design that is not built; real data directories; real links.
REQUESTS, LOST_DISKS, PUT_BACK, HEALING_NODES, REVOKED = "requests", "lost-disks", "put-back", "healing", "revoked-keys"
TWO_SETS, FILES, LINKS = "two-sets", "files", "links"

#: An object, the name of its attribute, and the replacement.
Patch = tuple[object, str, object]


class Intruder(NamedTuple):
    """A dialler that a node has to refuse, and admits only when the safety is undone.

    ``pem``: makes its certificate and key, for a vault that trusts the CAs of tests/rigs/certificates.py; None: it speaks no TLS.
    ``greets``: the node that it claims to be.
    """

    pem: Callable[[], bytes] | None
    greets: str = "n1"


@dataclass(frozen=True)
class Mutant:
    """One undone safety, and which checks have to notice it.

    ``rules``: names in docs/rules.md. ``how``: what the mutant does instead.
    ``play``: the simulator's play in which some seed shows it. The test suite tries seeds from ``seed`` on, or leaves the mutant
    to bin/simulate --mutants if that is None. ``scopes``: small worlds that notice it (tests/model/). ``faults``: the kinds or
    families of faults under which the harness notices it on real processes (bin/chaos mutants). ``intruder``: gets into a peer
    port (tests/peers/test_undone_checks.py). ``tests``: unit tests that fail with it, where no world reaches the case.
    ``by``: the rules of the checkers that have to notice it, if it is not any of them.
    ``covered``: why no check can notice it: what else keeps what this safety keeps.
    """

    name: str
    rules: tuple[str, ...]
    how: str
    patches: tuple[Patch, ...]
    play: str | None = None
    seed: int | None = None
    scopes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    intruder: Intruder | None = None
    tests: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    covered: str = ""

    @property
    def undoes(self) -> str:
        return f"{', '.join(self.rules)}: {self.how}"


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """A context in which the safety is undone."""
    with ExitStack() as patches:
        for owner, name, replacement in mutant.patches:
            patches.enter_context(mock.patch.object(owner, name, replacement))
        yield
