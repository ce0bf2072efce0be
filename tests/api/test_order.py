"""Of several faults in one request, the one that comes first in the contract's order is told."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from quorumvault.errors import NoQuorum
from tests.rigs.vault import SMALL, Rig, bearer

LIMITS = SMALL


@dataclass
class Draft:
    """A request to tokenize that is right, until something spoils it."""

    rig: Rig
    path: str = "/tokenize"
    method: str = "POST"
    members: list[str] = field(default_factory=lambda: ['"values":["a"]'])
    end: str = "}"
    padding: int = 0
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json", **bearer()})

    def send(self) -> Any:
        content = " " * self.padding + "{" + ",".join(self.members) + self.end
        self.rig.client.headers.pop("authorization", None)
        return self.rig.client.request(self.method, self.path, content=content.encode(), headers=self.headers)


def unknown_path(draft: Draft) -> None:
    draft.path += "/"


def wrong_method(draft: Draft) -> None:
    draft.method = "PUT"


def no_key(draft: Draft) -> None:
    draft.headers.pop("Authorization", None)


def key_without_permission(draft: Draft) -> None:
    draft.headers.update(bearer("reader"))


def draining(draft: Draft) -> None:
    draft.rig.admission.refuse_new()


def wrong_type(draft: Draft) -> None:
    draft.headers["Content-Type"] = "text/plain"


def too_large(draft: Draft) -> None:
    draft.padding = 5000


def no_json(draft: Draft) -> None:
    draft.end = ""


def bad_label(draft: Draft) -> None:
    draft.headers["X-Request-ID"] = "two words"


def bad_purpose(draft: Draft) -> None:
    draft.headers["X-Purpose"] = "two words"


def unknown_member(draft: Draft) -> None:
    draft.members.insert(0, '"owner":"lab"')


def bad_value(draft: Draft) -> None:
    draft.members.remove('"values":["a"]')
    draft.members.append('"values":[1.5]')


def no_quorum(draft: Draft) -> None:
    draft.rig.vault.failure = NoQuorum("fewer than 2 nodes could decide this", outcome="none")


class Fault(NamedTuple):
    """Those of one rank may come out in either order."""

    rank: int
    status: int
    spoil: Callable[[Draft], None]


ORDER = [
    Fault(0, 404, unknown_path),
    Fault(0, 405, wrong_method),
    Fault(1, 401, no_key),
    Fault(2, 403, key_without_permission),
    Fault(3, 503, draining),
    Fault(4, 415, wrong_type),
    Fault(5, 413, too_large),
    Fault(6, 400, no_json),
    Fault(7, 422, bad_label),
    Fault(7, 422, bad_purpose),
    Fault(7, 422, unknown_member),
    Fault(7, 422, bad_value),
    Fault(8, 503, no_quorum),
]


def spoilt(rig: Rig, faults: Sequence[Fault]) -> Draft:
    """A request with all these faults. From the last to the first: the key that lacks a permission is then taken away."""
    draft = Draft(rig)
    for fault in reversed(faults):
        fault.spoil(draft)
    return draft


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(ORDER, 2)), ids=lambda fault: fault.spoil.__name__)
def test_of_two_faults_the_one_that_comes_first_is_told(rig: Rig, one: Fault, other: Fault) -> None:
    told = {fault.status for fault in (one, other) if fault.rank == one.rank}
    assert spoilt(rig, [one, other]).send().status_code in told


def test_all_faults_at_once_come_out_one_by_one() -> None:
    for first in range(2, len(ORDER)):
        assert spoilt(Rig(limits=SMALL), ORDER[first:]).send().status_code == ORDER[first].status


def test_a_request_without_a_fault_goes_through(rig: Rig) -> None:
    assert Draft(rig).send().status_code == 200


def test_busy_comes_before_what_is_wrong_with_the_body(rig: Rig) -> None:
    with rig.admission.enter("one", 0, None), rig.admission.enter("other", 0, None):
        assert rig.post("/tokenize", b"{", {"Content-Type": "text/plain"}).status_code == 429
        assert rig.post("/tokenize", b"{", key="reader").status_code == 403
