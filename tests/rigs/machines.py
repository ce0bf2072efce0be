"""Isolated machines on this one: namespaces of network, mounts, processes and name, joined by a bridge. Needs root.

A machine sees the file system of this machine under a layer of its own (overlayfs, in memory), so whatever root types there
stays there: users, /opt, /etc. It cannot reach beyond the bridge or see root's home here, and it has its own ssh
and systemctl (tests/rigs/machine). Everything ends with this process, however it ends: nothing of a machine has a name here.
"""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests import ROOT

#: The operator's user, who is not root.
OPERATOR = "ops"
#: Where a machine sees the folder that all machines are given.
GIVEN = "/media"
#: The machine whose disk all others start from.
_BASE = "base"
_TOOLS = {"sshd": "remote.py", "ssh": "remote.py", "scp": "remote.py", "systemctl": "systemctl.py"}
_PATH = f"/usr/local/sbin:/usr/local/bin:{sys.base_prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT = """
set -eu
site=$1 name=$2 below=$3 given=$4 python=$5 path=$6
root=$site/$name/root
mkdir -p "$root" "$site/$name/upper" "$site/$name/work"
mount -t overlay overlay -o "lowerdir=$below/,upperdir=$site/$name/upper,workdir=$site/$name/work" "$root"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=0711 tmpfs "$root/root"
mkdir -p "$root$python" "$root/media"
mount --bind "$python" "$root$python"
mount --bind "$given" "$root/media"
hostname "$name"
ip link set lo up
serve='if [ -x /usr/local/sbin/sshd ]; then sshd; else echo up; sleep infinity; fi & wait'
exec env -i "PATH=$path" HOME=/root chroot "$root" bash -c "$serve"
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """``process`` holds the namespaces; ``pid`` is the first process in them."""

    name: str
    process: subprocess.Popen[str]
    pid: int

    def type(self, lines: str, user: str = "root", *, home: str = "/root") -> str:
        """Types these lines in a shell of this user. Exports of one block hold in the next. Returns what the lines printed.

        Raises AssertionError with this output if a line fails.
        """
        script = f"if [ -e .exported ]; then . ./.exported; fi\n{lines}\nexport -p > .exported"
        done = subprocess.run(
            [*self._within(user, home), "bash", "-euo", "pipefail", "-c", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{self.name}, {user}:\n{lines}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def starts(self, line: str, user: str, home: str) -> subprocess.Popen[str]:
        """Starts a command line with all earlier exports. Its input and output are pipes."""
        script = f". ./.exported\nexec {line}"
        pipe = subprocess.PIPE
        return subprocess.Popen([*self._within(user, home), "bash", "-c", script], stdin=pipe, stdout=pipe, text=True)

    def _within(self, user: str, home: str) -> list[str]:
        entered = ["nsenter", "--target", str(self.pid), "--mount", "--net", "--uts", "--pid", "--root", f"--wdns={home}"]
        cleared = ["env", "-i", f"PATH={_PATH}", f"HOME={home}", "LC_ALL=C.UTF-8"]
        return [*entered, "setpriv", "--reuid", user, "--regid", user, "--init-groups", "--", *cleared]


class Machines:
    """All machines of one network. The memory that holds their layers goes when the process ``_site`` ends."""

    def __init__(self, given: Path) -> None:
        self._given = given
        self._running: dict[str, Machine] = {}
        self._place = given.parent / "site"
        self._place.mkdir()
        mounted = f"mount -t tmpfs tmpfs {self._place} && ip link add bridge type bridge && ip link set bridge up && echo up"
        self._site = _held(["unshare", "--mount", "--net", "bash", "-c", f"{mounted} && exec sleep infinity"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self._running.values():
            _end(machine.process)
        _end(self._site)

    @property
    def base(self) -> Machine:
        return self._running[_BASE]

    def boot(self, name: str, address: str | None = None) -> Machine:
        """Boots a machine. Its disk starts with the content of the base's disk; the base has to be ended first."""
        layers = f"{self._place}/{_BASE}/upper:" if name != _BASE else ""
        boot = ["bash", "-c", _BOOT, "boot", self._place, name, layers, self._given, sys.base_prefix, _PATH]
        inside = ["nsenter", "--target", str(self._site.pid), "--mount", "--net"]
        own = ["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--kill-child"]
        process = _held([*inside, *own, *map(str, boot)])
        pid = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        machine = self._running[name] = Machine(name, process, pid)
        if address is not None:
            self._site_runs("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
            self._site_runs("link", "set", name, "master", "bridge", "up")
            self.readdress(name, address)
        return machine

    def end(self, machine: Machine) -> None:
        del self._running[machine.name]
        _end(machine.process)

    def readdress(self, name: str, address: str) -> None:
        """Gives the machine this address, and no other."""
        inside = ["nsenter", "--target", str(self._running[name].pid), "--net", "ip"]
        # Others cache the hardware address of an IP address for seconds, so another machine at the address gets the same one.
        hardware = "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))
        set_it, up = f"link set eth0 address {hardware}", "link set eth0 up"
        for words in ("addr flush dev eth0", set_it, f"addr add {address}/24 dev eth0", up):
            subprocess.run([*inside, *words.split()], check=True, capture_output=True)

    def _site_runs(self, *arguments: str) -> None:
        subprocess.run(["nsenter", "--target", str(self._site.pid), "--net", "ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def prepared(given: Path) -> Iterator[Machines]:
    """Runs the base of all machines, with the stand-ins and an operator. All machines see the folder ``given``."""
    for name, file in _TOOLS.items():
        shutil.copy(ROOT / "tests" / "rigs" / "machine" / file, given / name)
        (given / name).chmod(0o755)
    given.chmod(0o755)
    with Machines(given) as machines:
        machines.boot(_BASE).type(
            f"useradd --create-home --user-group --home-dir /home/{OPERATOR} {OPERATOR}\n"
            f"mkdir -p /etc/systemd/system\n"
            f"for tool in {' '.join(_TOOLS)}; do install -m 0755 {GIVEN}/$tool /usr/local/sbin/$tool; done"
        )
        yield machines


def missing() -> str | None:
    """Why this machine cannot host others; None if it can."""
    tools = ("unshare", "nsenter", "setpriv", "ip", "useradd")
    if lacking := [tool for tool in tools if shutil.which(tool) is None]:
        return f"{', '.join(lacking)} not found"
    tried = (
        "set -e; d=$(mktemp -d); trap 'umount $d; rmdir $d' EXIT; mount -t tmpfs tmpfs $d; mkdir $d/upper $d/work $d/root;"
        "mount -t overlay overlay -o lowerdir=/,upperdir=$d/upper,workdir=$d/work $d/root; umount $d/root;"
        "ip link add bridge type bridge; ip link add a0 type veth peer name b0"
    )
    done = subprocess.run(["unshare", "--mount", "--net", "bash", "-c", tried], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"namespaces take root and overlayfs: {done.stderr.strip()}"


def _held(command: list[str]) -> subprocess.Popen[str]:
    """Starts a process that ends with this one, and waits until it reports that it is up."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if process.stdout.readline() != "up\n":
        _end(process)
        raise AssertionError(f"did not come up: {command[:12]}")
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
