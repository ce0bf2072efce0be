#!/usr/bin/env -S python3 -ISB
"""A stand-in for systemctl and systemd: runs what the unit says, as the unit's user.

It never restarts a service by itself, and confines nothing. It refuses whatever it does not know.
"""

import configparser
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from string import Template
from typing import Any

UNITS = Path("/etc/systemd/system")
RUNNING = Path("/run/quorumvault.pid")
JOURNAL = Path("/var/log/quorumvault.log")


class Service:
    """The section [Service] of a unit."""

    def __init__(self, unit: str) -> None:
        file = configparser.RawConfigParser(strict=False, delimiters=("=",))
        file.optionxform = str  # type: ignore[assignment, method-assign]
        file.read_string((UNITS / f"{unit.removesuffix('.service')}.service").read_text())
        self._section = file["Service"]
        lines = Path(self._section["EnvironmentFile"]).read_text().splitlines()
        self._environment = dict(line.split("=", 1) for line in lines if line and line[0] != "#")

    def command(self, key: str) -> dict[str, Any]:
        """The arguments of subprocess for one of the unit's commands."""
        words = [Template(word).substitute(self._environment) for word in shlex.split(self._section[key])]
        user = ["setpriv", "--reuid", self._section["User"], "--regid", self._section["Group"], "--init-groups", "--"]
        return {
            "args": [*user, *words],
            "cwd": self._section["WorkingDirectory"],
            "env": {"PATH": os.environ["PATH"], **self._environment},
            "umask": int(self._section["UMask"], 8),
        }

    def start(self) -> None:
        if _runs():
            return
        with JOURNAL.open("ab") as journal:
            node = subprocess.Popen(
                **self.command("ExecStart"), stdin=subprocess.DEVNULL, stdout=journal, stderr=journal, start_new_session=True
            )
        RUNNING.write_text(str(node.pid))

    def stop(self) -> None:
        if not _runs():
            return
        os.kill(int(RUNNING.read_text()), signal.SIGTERM)
        deadline = time.monotonic() + int(self._section["TimeoutStopSec"])
        while _runs():
            if time.monotonic() > deadline:
                sys.exit("the service does not end")
            time.sleep(0.02)

    def reload(self) -> None:
        subprocess.run(**self.command("ExecReload"), check=True)


def _runs() -> bool:
    try:
        return Path("/proc", RUNNING.read_text(), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def main() -> None:
    match sys.argv[1:]:
        case ["daemon-reload"]:
            pass
        case ["start", unit] | ["enable", "--now", unit]:
            Service(unit).start()
        case ["stop", unit]:
            Service(unit).stop()
        case ["restart", unit]:
            Service(unit).stop()
            Service(unit).start()
        case ["reload", unit]:
            Service(unit).reload()
        case unknown:
            sys.exit(f"systemctl: {unknown}")


if __name__ == "__main__":
    main()
