"""Mutants that no world reaches: unit tests have to fail with them.

python -m tests.rigs.undone.by_tests NAME    runs the mutant's tests with its safety undone; exits with 0 if each test fails
"""

import subprocess
import sys
from typing import Final

import pytest

from tests import ROOT
from tests.rigs.undone.mutant import Mutant, applied

#: Seconds for a few unit tests, on a machine with other work.
_PATIENCE: Final = 300.0
#: Nobody reads why the tests fail; under CI, pytest's comparison of two long lists would take minutes.
_OPTIONS: Final = ("-q", "--hypothesis-profile", "undone", "-p", "no:cacheprovider", "--assert=plain")


def notice(mutant: Mutant) -> str:
    """Returns the name of the mutant's first test if all its tests fail with it, else "". The tests run in their own process."""
    command = [sys.executable, "-m", "tests.rigs.undone.by_tests", mutant.name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=_PATIENCE, check=False)
    return mutant.tests[0].rpartition("::")[2] if done.returncode == 0 else ""


def lets_in(mutant: Mutant) -> bool:
    """Whether the mutant's intruder gets into a peer port, by the result of its test."""
    only = ("tests/peers/test_undone_checks.py", "-k", f"{mutant.name} and not kept")
    command = [sys.executable, "-m", "pytest", *_OPTIONS, *only]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=_PATIENCE, check=False).returncode == 0


class _Failures:
    """A pytest plugin that keeps what ended each test: a broken rule is an assertion, and any other exception an accident."""

    def __init__(self) -> None:
        self.kinds: set[type[BaseException]] = set()

    def pytest_exception_interact(self, call: pytest.CallInfo[object]) -> None:
        assert call.excinfo is not None
        self.kinds.add(call.excinfo.type)


def all_fail(mutant: Mutant) -> bool:
    """Whether each of the mutant's tests fails with it, by an assertion."""
    failures = _Failures()
    with applied(mutant):
        codes = [pytest.main([*_OPTIONS, test], plugins=[failures]) for test in mutant.tests]
    accidents = {kind for kind in failures.kinds if not issubclass(kind, AssertionError | pytest.fail.Exception)}
    for kind in accidents:
        print(f"{mutant.name}: {kind.__name__} is no assertion")
    return not accidents and all(code == pytest.ExitCode.TESTS_FAILED for code in codes)


if __name__ == "__main__":
    from tests.rigs.undone import UNDONE

    raise SystemExit(not all_fail(UNDONE[sys.argv[1]]))
