"""What contract tests share: a scenario is run on each event loop that the product may run on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest
import uvloop

from tests.linkrig import Run

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    def run(scenario: Coroutine[object, object, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(scenario)

    return run
