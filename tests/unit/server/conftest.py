"""Three nodes for tests that are coroutine functions: those of ``nodes`` heal each other, those of ``three`` do not.

``stores``, ``settings``, ``copy_bytes``, ``digest_bits`` and ``timeouts`` may be parametrized or replaced.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from quorumvault.config.cluster import HealingSettings
from quorumvault.config.limits import Timeouts
from quorumvault.model import NODE_NAMES
from quorumvault.server.storage.memory import MemoryStore
from tests.rigs.faulty_store import FaultyStore
from tests.rigs.healing import SETTINGS, Cluster, cluster
from tests.rigs.links import Run
from tests.rigs.trio import PATIENT, Trio, trio


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One kind of event loop is enough where there are no sockets."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def run(runner: asyncio.Runner) -> Run:
    return runner.run


@pytest.fixture
def stores() -> dict[str, FaultyStore]:
    return {name: FaultyStore(MemoryStore()) for name in NODE_NAMES}


@pytest.fixture
def settings() -> HealingSettings:
    return SETTINGS


@pytest.fixture
def copy_bytes() -> int:
    return 1 << 20


@pytest.fixture
def nodes(
    runner: asyncio.Runner, stores: dict[str, FaultyStore], settings: HealingSettings, copy_bytes: int
) -> Iterator[Cluster]:
    context = AsyncExitStack()
    yield runner.run(context.enter_async_context(cluster(stores, settings, copy_bytes)))
    runner.run(context.aclose())


@pytest.fixture
def digest_bits() -> int:
    return 160


@pytest.fixture
def timeouts() -> Timeouts:
    return PATIENT


@pytest.fixture
def three(runner: asyncio.Runner, digest_bits: int, timeouts: Timeouts) -> Iterator[Trio]:
    context = AsyncExitStack()
    yield runner.run(context.enter_async_context(trio(digest_bits=digest_bits, timeouts=timeouts)))
    runner.run(context.aclose())
