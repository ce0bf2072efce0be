"""Bugs that the fuzzer found stay fixed: each kept input is fed to its target again."""

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, made

KEPT = Path(__file__).with_name("regressions")
NAMES = sorted(folder.name for folder in KEPT.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_what_failed_once_fails_no_more(name: str) -> None:
    files = sorted((KEPT / name).iterdir())
    assert name in TARGETS
    assert files
    with made(name) as target:
        for file in files:
            assert len(target.check([file.read_bytes()])) == 1
