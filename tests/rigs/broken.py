"""Nodes that are broken on purpose, as processes, which the harness has to notice.

python -m tests.rigs.broken --list                      prints the mutants, as JSON
python -m tests.rigs.broken NAME serve --config …       runs the command ``quorumvault`` with one safety undone
"""

import sys
from collections.abc import Sequence

import msgspec

from chaos.mutants import Mutant
from quorumvault.cli import main as quorumvault
from tests.rigs.undone import UNDONE
from tests.rigs.undone.mutant import applied


def main(arguments: Sequence[str]) -> None:
    if arguments[0] == "--list":
        listed = [Mutant(name, mutant.undoes, mutant.faults, mutant.by) for name, mutant in UNDONE.items() if mutant.faults]
        print(msgspec.json.encode(listed).decode())
        return
    with applied(UNDONE[arguments[0]]):
        sys.argv = ["quorumvault", *arguments[1:]]
        quorumvault()


if __name__ == "__main__":
    main(sys.argv[1:])
