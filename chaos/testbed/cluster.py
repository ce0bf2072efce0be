"""A cluster of real node processes on this machine: made, started, killed, frozen, thawed and restarted.

    with Cluster.create(directory, owners=("clinic",)) as cluster:
        cluster.start()
        cluster.wait_ready()
        cluster.api("n1", "clinic").tokenize(["123-45-6789"])
        cluster.kill("n3")

This module signals only processes that it started, by their pid. Leaving the ``with`` block, by an exception too, kills them. If
this process is killed, the kernel kills them (``PR_SET_PDEATHSIG``).
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chaos.testbed.api import Answer, Api, Unanswered

NODES = ("n1", "n2", "n3")
HOST = "127.0.0.1"

#: The ports that ``quorumvault init --base-port P`` takes, relative to P: three for the API, three between nodes.
PORT_OFFSETS = (0, 1, 2, 10, 11, 12)
#: Below the range from which Linux assigns ports to outgoing connections, so that none of these takes a node's port.
PORT_RANGE = range(20_000, 32_000, 16)

#: The contract: ready within 5 s after a start. Twice that, for a machine with other work.
READY_SECONDS = 10.0
#: The contract: SIGTERM drains, which may take as long as the requests under way.
STOP_SECONDS = 20.0
COMMAND_SECONDS = 120.0
_POLL_SECONDS = 0.02
_LOG_TAIL_LINES = 15

# Runs in the new process before the command replaces it: asks for SIGKILL at the parent's end (1 is PR_SET_PDEATHSIG, 9 is
# SIGKILL), and exits if the parent is gone already. Not a preexec_fn, which is unsafe with threads.
_LEASH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]): os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class ClusterError(Exception):
    """A process failed. The message has the end of its log."""


def executable() -> str:
    """Returns the command ``quorumvault`` of the Python environment that runs this module."""
    path = Path(sys.executable).with_name("quorumvault")
    if not path.exists():
        raise ClusterError(f"{path} is missing: run bin/setup")
    return str(path)


def environment(**extra: str) -> dict[str, str]:
    """Returns this process's environment, without the variables that would affect the commands."""
    return {name: value for name, value in os.environ.items() if not name.startswith("QUORUMVAULT_")} | extra


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Polls until the condition holds, or the time is up. Returns whether it held."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def free_base_port(hosts: Sequence[str] = (HOST,)) -> int:
    """Returns a port P such that P plus each of PORT_OFFSETS was free just now, on each of the hosts."""
    for base in random.sample(PORT_RANGE, len(PORT_RANGE)):
        if all(_can_bind(host, base + offset) for host in hosts for offset in PORT_OFFSETS):
            return base
    raise ClusterError(f"no six free ports between {PORT_RANGE.start} and {PORT_RANGE.stop} on {', '.join(hosts)}")


def _can_bind(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@dataclass(slots=True)
class Node:
    """One node: its addresses, its directory, its log, and its process, if it runs.

    ``config``: the configuration file in that directory. ``within``: a prefix of its command. ``variables``: added to its
    environment.
    """

    name: str
    address: str
    directory: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    config: str = "cluster.yaml"
    within: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.directory / self.name

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def require_process(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.process.poll() is not None:
            raise ClusterError(f"{self.name} is not running; {self.log_tail()}")
        return self.process

    def log_tail(self) -> str:
        """Returns the last lines of the node's log, for an error message."""
        if not self.log.exists():
            return f"{self.log} was not written"
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return "\n    ".join([f"the end of {self.log}:", *lines])


class Cluster:
    """Three nodes in one directory. Methods that take names of nodes mean all three if none is given.

    The kernel ties a node to the *thread* that started it: call ``start`` from a thread that lives as long as the node.
    """

    def __init__(self, directory: Path, addresses: Mapping[str, str], api_keys: Mapping[str, str], *, tls: bool = False) -> None:
        self.directory = directory
        #: The CA certificate that clients have to trust if the API speaks TLS.
        self.cacert = directory / "secrets" / "ca.pem" if tls else None
        logs = directory / "logs"
        logs.mkdir(exist_ok=True)
        self.nodes = {name: Node(name, address, directory, logs / f"{name}.log") for name, address in addresses.items()}
        self._api_keys = dict(api_keys)
        #: The command that runs a node, and its first arguments; ``serve`` and its options follow.
        self.command_line: tuple[str, ...] = (executable(),)

    @classmethod
    def create(
        cls,
        directory: Path,
        owners: Sequence[str],
        base_port: int | None = None,
        hosts: Sequence[str] = (HOST,),
        *,
        tls: bool = False,
    ) -> Self:
        """Runs ``quorumvault init`` for a directory without a cluster; each owner gets an API key.

        ``hosts``: one address of this machine, or three. ``tls``: the API uses TLS too; links between nodes always do.
        """
        port = free_base_port(hosts) if base_port is None else base_port
        naming = [argument for owner in owners for argument in ("--owner", owner)]
        places = ("--base-port", str(port), "--host", ",".join(hosts), *(("--tls",) if tls else ()))
        made = json.loads(check("init", str(directory), "--json", *places, *naming))
        addresses = {name: node["api"].partition("://")[2] for name, node in made["nodes"].items()}
        if not tls and made["nodes"][NODES[0]]["api"].startswith("https:"):
            _make_plain(directory / "cluster.yaml")
        return cls(directory, addresses, made["api_keys"], tls=tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Kills all running nodes, which nodes must survive at any instant. For an orderly end call ``stop``."""
        _kill([node.require_process() for node in self.nodes.values() if node.running])

    # The nodes' addresses, and clients for them.

    def url(self, name: str) -> str:
        return f"{'https' if self.cacert else 'http'}://{self.nodes[name].address}"

    def pid(self, name: str) -> int:
        return self.nodes[name].require_process().pid

    def api_key(self, owner: str) -> str:
        return self._api_keys[owner]

    def make_key(self, owner: str, *allow: str) -> str:
        """Makes another API key of an owner, which the running nodes accept. Returns its text."""
        config = ("--config", str(self.directory / "cluster.yaml"))
        key = check("keys", "create", *config, "--owner", owner, "--allow", ",".join(allow)).decode().strip()
        for node in self.nodes.values():
            if node.running:
                check("admin", "reload", *config, "--node", node.name)
        return key

    def api(self, name: str, owner: str | None = None) -> Api:
        """Returns the HTTP API of a node for an owner; without an owner, only requests that need no key work."""
        return Api(self.nodes[name].address, None if owner is None else self._api_keys[owner], self.cacert)

    def variables(self, owner: str, *via: str) -> dict[str, str]:
        """Returns the environment variables for clients of these nodes with the owner's key."""
        trusting = {"QUORUMVAULT_CACERT": str(self.cacert)} if self.cacert else {}
        urls = ",".join(map(self.url, via or NODES))
        return {"QUORUMVAULT_URL": urls, "QUORUMVAULT_API_KEY": self._api_keys[owner], **trusting}

    def command(self, *arguments: str, via: str, owner: str) -> subprocess.CompletedProcess[bytes]:
        """Runs a client command, such as ``tokenize FILE``, against one node. The exit code is the caller's to judge."""
        return run(*arguments, **self.variables(owner, via))

    # Starting, stopping, killing and freezing nodes.

    def start(self, *names: str) -> None:
        """Starts node processes and returns at once. After a restart, their output is appended to the same log."""
        for node in self._named(names):
            if node.running:
                raise ClusterError(f"{node.name} runs already")
            config = str(node.directory / node.config)
            serve = [*node.within, *self.command_line, "serve", "--config", config, "--node", node.name]
            with node.log.open("ab") as log:
                node.process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *serve],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment(**node.variables),
                    start_new_session=True,  # Ctrl-C in this terminal is for this process to handle
                )

    def bring_up(self, *names: str) -> None:
        """Starts node processes, and waits until all three nodes are ready and see each other."""
        self.start(*names)
        self.wait_ready(reachable=len(NODES))

    def stop(self, *names: str, seconds: float = STOP_SECONDS) -> dict[str, int]:
        """Sends SIGTERM to all, then waits for all. Returns their exit codes."""
        processes = {node.name: node.require_process() for node in self._named(names)}
        for process in processes.values():
            process.terminate()
        for name, process in processes.items():
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise ClusterError(f"{name} runs on {seconds:g} s after SIGTERM; {self.nodes[name].log_tail()}") from None
        return {name: process.returncode for name, process in processes.items()}

    def kill(self, *names: str) -> None:
        """Sends SIGKILL to each node, frozen or not, and waits until all have ended."""
        _kill([node.require_process() for node in self._named(names)])

    def pause(self, *names: str) -> None:
        """Sends SIGSTOP: a node keeps its connections and answers nothing. Returns when the process has stopped."""
        for node in self._named(names):
            process = node.require_process()
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self, *names: str) -> None:
        """Sends SIGCONT, after a pause."""
        for node in self._named(names):
            node.require_process().send_signal(signal.SIGCONT)

    def restart(self, *names: str) -> None:
        """Kills nodes and starts them again."""
        self.kill(*names)
        self.start(*names)

    def replace_disk(self, name: str) -> None:
        """Runs the operator's command for a node that has lost its data directory. The node must not run."""
        check("init", str(self.directory), "--replace", name)

    # The nodes' reports about themselves.

    def health(self, name: str) -> Answer | None:
        """Returns the answer to GET /health; None if the node does not answer."""
        return self._probe(name, "/health")

    def state(self, name: str) -> str | None:
        """Returns the state that a node reports; None if it does not answer."""
        answer = self.health(name)
        return None if answer is None else str(answer.body["state"])

    def reachable(self, name: str) -> int:
        """Returns how many replicas a node sees, itself included; 0 if it does not answer."""
        answer = self.health(name)
        return 0 if answer is None else int(answer.body["quorum"]["reachable"])

    def owed(self, name: str, peer: str) -> int:
        """Returns how many records a node still owes a peer, according to its /health. Raises Unanswered."""
        return int(self.api(name).get("/health").body["peers"][peer].get("owed_records", 0))

    def verify(self, via: str) -> dict[str, dict[str, Any]]:
        """Returns the findings of ``quorumvault verify`` by peer: only the number of records if the peer is identical."""
        done = run("verify", str(self.directory), "--node", via, "--json")
        found: dict[str, dict[str, Any]] = json.loads(done.stdout)["peers"] if done.stdout else {}
        if not found or (done.returncode == 0) != all(list(peer) == ["records"] for peer in found.values()):
            raise ClusterError(f"quorumvault verify: exit code {done.returncode}, {found}, {done.stderr.decode().strip()}")
        return found

    def identity(self, name: str) -> dict[str, Any]:
        """Returns the content of a node's disk.json; empty if there is none."""
        try:
            found: dict[str, Any] = json.loads((self.nodes[name].data / "disk.json").read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def wait_ready(self, *names: str, reachable: int = 2, seconds: float = READY_SECONDS) -> None:
        """Waits until each node's /readyz returns 200 and it sees ``reachable`` replicas.

        Raises ClusterError, at once if a node ends.
        """
        deadline = time.monotonic() + seconds
        for node in self._named(names):
            self._wait_ready(node, reachable, deadline)

    def _wait_ready(self, node: Node, reachable: int, deadline: float) -> None:
        while True:
            process = node.process
            if process is None or process.poll() is not None:
                ending = "was not started" if process is None else f"ended with exit code {process.returncode}"
                raise ClusterError(f"{node.name} {ending} before it was ready; {node.log_tail()}")
            answer = self._probe(node.name, "/readyz")
            if answer is not None and answer.status == 200 and answer.body["quorum"]["reachable"] >= reachable:
                return
            if time.monotonic() > deadline:
                last = "no answer" if answer is None else f"{answer.status} {answer.body}"
                raise ClusterError(f"{node.name} is not ready in time (last: {last}); {node.log_tail()}")
            time.sleep(_POLL_SECONDS)

    def _probe(self, name: str, path: str) -> Answer | None:
        try:
            return self.api(name).get(path, timeout=1.0)
        except Unanswered:
            return None

    def _named(self, names: Sequence[str]) -> list[Node]:
        return [self.nodes[name] for name in names or NODES]


def _make_plain(file: Path) -> None:
    """Lets the API use plain HTTP on addresses other than loopback: the harness tests other things than TLS."""
    text = file.read_text()
    for line, instead in (("  certificate: ", "  certificate: null #"), ("  # insecure_http: false", "  insecure_http: true")):
        if text.count(f"\n{line}") != 1:
            raise ClusterError(f"{file}: expected one line {line!r}")
        text = text.replace(f"\n{line}", f"\n{instead}")
    file.write_text(text)


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Runs one ``quorumvault`` command to its end, with empty standard input."""
    try:
        return subprocess.run(
            [executable(), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment(**variables),
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"quorumvault {arguments[0]} did not end within {COMMAND_SECONDS:g} s") from None


def check(*arguments: str) -> bytes:
    """Runs one command that must succeed, and returns its standard output. Raises ClusterError with the command's output."""
    done = run(*arguments)
    if done.returncode != 0:
        words = done.stderr.decode().strip()
        raise ClusterError(f"quorumvault {arguments[0]} ended with exit code {done.returncode}: {words}")
    return done.stdout


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
