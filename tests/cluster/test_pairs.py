"""Faults on two disks, with real processes: one cell of the table in which ``bin/chaos pairs`` combines all faults."""

import os
import subprocess

import pytest

from tests import ROOT

#: The second store is salvaged while the first node is still rejoining. test_damage.py has two rotten stores.
CELLS = ("torn, rotten, then",)


def test_nothing_is_lost_that_a_disk_still_has() -> None:
    done = subprocess.run(
        [str(ROOT / "bin" / "chaos"), "pairs", "--records", "3000", *CELLS],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") == len(CELLS) + 1


@pytest.mark.parametrize("cell", ["rotten, torn", "rotten, burnt, at once", "rotten, torn, never"])
def test_a_cell_that_there_is_not_is_a_slip(cell: str) -> None:
    done = subprocess.run([str(ROOT / "bin" / "chaos"), "pairs", cell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "a cell is FAULT, FAULT, ORDER" in done.stderr
