"""The command line: one module for each command or group of commands. main.py lists them and turns errors into exit codes."""

from quorumvault.cli.main import main

__all__ = ["main"]
