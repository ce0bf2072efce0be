"""The command line: one module a command, or a group of them. main.py has the list of them and what errors become."""

from quorumvault.cli.main import main

__all__ = ["main"]
