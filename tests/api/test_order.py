"""Of several faults in one request, the answer reports the one that comes first in the contract's order."""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from quorumvault.errors import NoQuorum
from tests.rigs.vault import CLINIC, LAB, SMALL, Rig, bearer

LIMITS = SMALL


@dataclass(frozen=True)
class Draft:
    """A correct request to tokenize, until faults change it."""

    path: str = "/tokenize"
    method: str = "POST"
    key: str | None = "clinic"
    content_type: str = "application/json"
    body: str = '{%s"values":[%s]}'
    first_member: str = ""
    value: str = '"a"'
    padding: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    draining: bool = False
    failure: NoQuorum | None = None

    def send(self, rig: Rig) -> Any:
        if self.draining:
            rig.admission.refuse_new()
        rig.vault.failure = self.failure
        rig.client.headers.pop("authorization", None)
        content = " " * self.padding + self.body % (self.first_member, self.value)
        headers = {"Content-Type": self.content_type, **self.labels, **(bearer(self.key) if self.key else {})}
        return rig.client.request(self.method, self.path, content=content.encode(), headers=headers)


class Fault(NamedTuple):
    """Changes to a draft, and the status that reports them. Of faults with the same rank, either may be reported."""

    rank: int
    status: int
    changes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.status}-{'-'.join(self.changes)}"


#: An unknown path; another method; no key, or one without the permission; and so on to a lost quorum.
ORDER = [
    Fault(0, 404, {"path": "/tokenize/"}),
    Fault(0, 405, {"method": "PUT"}),
    Fault(1, 401, {"key": None}),
    Fault(2, 403, {"key": "reader"}),
    Fault(3, 503, {"draining": True}),
    Fault(4, 415, {"content_type": "text/plain"}),
    Fault(5, 413, {"padding": 5000}),
    Fault(6, 400, {"body": '{%s"values":[%s]'}),
    Fault(7, 422, {"labels": {"X-Request-ID": "two words"}}),
    Fault(7, 422, {"labels": {"X-Purpose": "two words"}}),
    Fault(7, 422, {"first_member": '"owner":"lab",'}),
    Fault(7, 422, {"value": "1.5"}),
    Fault(8, 503, {"failure": NoQuorum("fewer than 2 nodes could decide this", outcome="none")}),
]


def spoilt(faults: Sequence[Fault]) -> Draft:
    """A request with all these faults, applied last to first: a missing key then replaces a key without the permission."""
    return Draft(**{name: change for fault in reversed(faults) for name, change in fault.changes.items()})


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(ORDER, 2)), ids=str)
def test_of_two_faults_the_one_that_comes_first_is_told(rig: Rig, one: Fault, other: Fault) -> None:
    told = {fault.status for fault in (one, other) if fault.rank == one.rank}
    assert spoilt([one, other]).send(rig).status_code in told


def test_all_faults_at_once_come_out_one_by_one() -> None:
    for first in range(2, len(ORDER)):
        assert spoilt(ORDER[first:]).send(Rig(limits=SMALL)).status_code == ORDER[first].status


def test_a_request_without_a_fault_goes_through(rig: Rig) -> None:
    assert Draft().send(rig).status_code == 200


def test_busy_comes_before_what_is_wrong_with_the_body(rig: Rig) -> None:
    with closing(rig.admission.enter(CLINIC, 0, None)), closing(rig.admission.enter(LAB, 0, None)):
        assert rig.post("/tokenize", b"{", {"Content-Type": "text/plain"}).status_code == 429
        assert rig.post("/tokenize", b"{", key="reader").status_code == 403
