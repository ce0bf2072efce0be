"""The benchmark of one small request: each kind goes through the application that nodes serve, and has to be answered 200."""

import asyncio
import itertools
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from bench.report import today
from bench.requests import _REQUESTS, Requests, RequestsPlan, Row, cost, run
from bench.work import WrongAnswer


def test_every_kind_of_request_is_answered_and_has_its_line(tmp_path: Path) -> None:
    plan = RequestsPlan(inputs=20, repetitions=2, at_once=(4, 1))
    report = run(plan, tmp_path, lambda doing, done=0.0: None)
    cells = [(request.name, at_once) for request, at_once in itertools.product(_REQUESTS, (4, 1))]
    assert [(row.request, row.at_once) for row in report.rows] == cells
    with_a_key = [request for request in _REQUESTS if request.body]
    assert (tmp_path / "events.jsonl").read_bytes().count(b'"outcome":"ok"') == len(with_a_key) * 2 * 20 * 2


def test_another_status_than_200_ends_the_run() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})

    with pytest.raises(WrongAnswer, match="404"):
        asyncio.run(cost(app, _REQUESTS[:1], 1))


def test_the_table_has_what_was_measured() -> None:
    report = Requests(*today(), "requests", [Row("GET /livez", 16, 4.21, 4.0)])
    (table,) = report.account().tables
    assert table.rows == [("GET /livez", "16", "4.2", "4.0")]
