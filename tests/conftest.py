"""Shared by all tests: profiles of Hypothesis, markers for the tests of a folder, and event loops.

No test fails because an example of Hypothesis takes long: that only shows that the machine is busy. bin/test --fast runs a tenth
of the examples.
"""

import asyncio
import inspect
import signal
import socket
from collections.abc import Coroutine, Iterator
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, settings

from tests.rigs.links import Run

TESTS = Path(__file__).parent

settings.register_profile("quorumvault", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("quorumvault"), max_examples=10)
#: For tests that have to fail: the first failing example is enough.
settings.register_profile("undone", settings.get_profile("quorumvault"), phases=(Phase.explicit, Phase.generate))
settings.load_profile("quorumvault")

# A run in the background of a shell inherits an ignored Ctrl-C, and so would each command that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: Folders whose tests get the marker of the same name.
MARKED_FOLDERS = ("cluster", "hostile")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)
    _spread(items)


def _spread(items: list[pytest.Item]) -> None:
    """Spreads files whose tests start clusters evenly among the others, which use the cores while nodes wait for each other."""
    places: dict[Path, float] = {}
    files = dict.fromkeys(item.path for item in items)
    for starts_clusters in (True, False):
        some = [path for path in files if (path.relative_to(TESTS).parts[0] in MARKED_FOLDERS) is starts_clusters]
        places |= {path: (number + 0.5) / len(some) for number, path in enumerate(some)}
    items.sort(key=lambda item: places[item.path])


@pytest.fixture(autouse=True)
def _same_signals() -> Iterator[None]:
    """Restores signal handlers: a command run in this process may leave its own, and a pool forked later would ignore SIGTERM."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    def run(scenario: Coroutine[object, object, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(scenario)

    return run


@pytest.fixture
def nobody() -> Iterator[str]:
    """A URL at which nobody listens: its port is taken, and connecting to it is refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a coroutine test under its folder's fixture ``run``: once, or once for each kind of event loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    run: Run = pyfuncitem._request.getfixturevalue("run")
    run(pyfuncitem.obj(**arguments))
    return True
