"""Hypothesis for all tests: how long an example takes says how busy the machine is, so it makes no test fail.

bin/test --fast takes a tenth of the examples.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from tests.rigs.links import Run

settings.register_profile("quorumvault", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("quorumvault"), max_examples=10)
settings.load_profile("quorumvault")

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    def run(scenario: Coroutine[object, object, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(scenario)

    return run
