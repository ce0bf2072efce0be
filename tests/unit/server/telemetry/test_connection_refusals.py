"""Refused connections are counted one by one, and share a line of the log each second."""

from collections import Counter

import pytest

from quorumvault.server.telemetry import connection_refusals
from quorumvault.server.telemetry.connection_refusals import HttpRefusals, Refusal
from tests.rigs.links import eventually


async def test_the_first_has_a_line_at_once_and_those_after_it_share_the_next(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection_refusals, "SECONDS", 0.01)
    counted: Counter[Refusal] = Counter()
    refusals = HttpRefusals(lambda refusal: counted.update([refusal]))
    refusals.add(Refusal.LATE)
    assert len(caplog.records) == 1
    for _ in range(500):
        refusals.add(Refusal.MALFORMED)
    refusals.add(Refusal.LATE)
    assert len(caplog.records) == 1
    await eventually(lambda: refusals._timer is None)
    assert [record.getMessage() for record in caplog.records] == [
        "HTTP connections refused or ended: 1 http-late",
        "HTTP connections refused or ended: 500 http-malformed, 1 http-late",
    ]
    assert counted == {Refusal.LATE: 2, Refusal.MALFORMED: 500}
