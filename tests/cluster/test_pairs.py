"""Faults on two disks, on real processes: a cell of the table that ``bin/chaos pairs`` makes of all of them."""

import os
import subprocess

import pytest

from tests import ROOT

#: The second store is salvaged while the first node is still coming back. Two rotten ones are in test_damage.py.
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
