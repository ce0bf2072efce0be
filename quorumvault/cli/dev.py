"""``quorumvault dev``: a cluster of three nodes in one terminal."""

import asyncio
import os
import secrets
import shlex
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from quorumvault import durable
from quorumvault.cli.dev_nodes import NodeProcesses
from quorumvault.cli.health import is_ready
from quorumvault.cli.main import ERROR
from quorumvault.cli.options import json_option
from quorumvault.cli.output import print_json, say
from quorumvault.client import AsyncClient
from quorumvault.config.addresses import MAX_BASE_PORT, Endpoints, is_loopback, plan_nodes
from quorumvault.config.api_keys import FIRST_ALLOW
from quorumvault.config.cluster import LOG_LEVELS, Cluster, load_cluster
from quorumvault.config.key_changes import create_key
from quorumvault.config.tls import OWN_CERTIFICATE
from quorumvault.errors import ConfigError
from quorumvault.model import QUORUM, Owner
from quorumvault.server.storage.disk_identity import lock_data_directory

_OWNER = "dev"
_POLL_SECONDS = 0.1


class RunningNode(msgspec.Struct, frozen=True):
    """A running node: the URL of its API, its process id, its data directory."""

    api: str
    pid: int
    data: str


@click.command(short_help="Run three nodes on this machine, for development.", epilog="\b\nExample:\n  quorumvault dev")
@click.argument("directory", metavar="[DIR]", default="quorumvault-dev", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--base-port",
    metavar="P",
    type=click.IntRange(1, MAX_BASE_PORT),
    default=8700,
    show_default=True,
    help="The first API port of a new cluster. An existing cluster keeps its ports.",
)
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    envvar="QUORUMVAULT_LOG_LEVEL",
    default="error",
    show_default=True,
    help="Level of the nodes' logs, which go to stderr.",
)
@click.option("--tls", is_flag=True, help="Use TLS, with a CA of its own, for the API of a new cluster, instead of plain HTTP.")
@json_option
@click.option("--parent", type=int, hidden=True, help="Stop when this process ends.")
def dev(directory: Path, base_port: int, log_level: str, tls: bool, as_json: bool, parent: int | None) -> int:
    """Run three nodes on this machine, for development; Ctrl-C stops them all.

    DIR (quorumvault-dev by default) is created if it is missing, and used again the next time, with the same API key.
    """
    cluster, key = prepare(directory, base_port, tls=tls)
    return asyncio.run(run(cluster, key, log_level, as_json, parent))


def prepare(directory: Path, base_port: int, *, tls: bool = False) -> tuple[Cluster, str]:
    """Returns the cluster in ``directory``, made if there is none, and an API key for it, kept in secrets/dev.key."""
    from quorumvault.server.offline.init import init

    file = directory.absolute() / "cluster.yaml"
    kept = file.parent / "secrets" / "dev.key"
    now, entropy = datetime.now(UTC), secrets.token_bytes
    if not file.exists():
        planned = plan_nodes(["127.0.0.1"], base_port)
        _require_ports(planned.values(), file.parent, "say --base-port P for others")
        made = init(directory, planned, [Owner(_OWNER)], now=now, entropy=entropy, tls=tls)
        durable.create(kept, f"{made.api_keys[_OWNER]}\n".encode())
    cluster = load_cluster(file)
    if not all(is_loopback(endpoints.listen_api) for endpoints in cluster.nodes.values()):
        raise ConfigError(file, "nodes", "expected loopback addresses: dev runs all three nodes on this machine; see serve")
    if tls and cluster.api.certificate is None:
        raise ConfigError(file, "api.certificate", f"expected {OWN_CERTIFICATE} for --tls; this cluster is of plain HTTP")
    for node in cluster.nodes:
        if cluster.data_directory(node).exists():
            with lock_data_directory(cluster.data_directory(node)):
                pass  # a node that already runs would answer in place of one that could not start
    _require_ports(cluster.nodes.values(), file, "end what listens there, or change the ports in this file")
    if not kept.exists():
        key = create_key(
            cluster.api_keys, _OWNER, now=now, entropy=entropy, allow=FIRST_ALLOW, note="made by dev", new_owner=True
        )
        durable.create(kept, f"{key.text}\n".encode())
    return cluster, kept.read_text(encoding="ascii").strip()


def _require_ports(nodes: Iterable[Endpoints], where: Path, advice: str) -> None:
    """Raises ConfigError for a port that is taken: another vault probably has it, and would answer in place of this one."""
    for address in (each for node in nodes for each in (node.listen_api, node.listen_peer)):
        with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((address.host, address.port))
            except OSError as error:
                taken = f"cannot listen on {address}: {error.strerror}: does another vault run there? {advice}"
                raise ConfigError(where, "", taken) from None


async def run(cluster: Cluster, key: str, log_level: str, as_json: bool, parent: int | None = None) -> int:
    """Runs the nodes until a signal stops them, process ``parent`` ends, or all nodes have ended."""
    stop = asyncio.Event()
    if parent is not None:
        _call_at_end(parent, stop.set)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    nodes = NodeProcesses(cluster, log_level, lambda node, process: _tell_end(cluster, node, process, nodes))
    try:
        await nodes.start()
        if not as_json:
            _describe(cluster, key, nodes)
        ends = [asyncio.create_task(event.wait()) for event in (stop, nodes.all_ended)]
        announcing = asyncio.create_task(_announce(cluster, key, nodes, as_json))
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in (*ends, announcing):
            task.cancel()
        await asyncio.wait((*ends, announcing))
    finally:
        say("Stopping ...", err=True)
        await nodes.stop()
    return 0 if stop.is_set() else ERROR


def _call_at_end(process: int, ended: Callable[[], None]) -> None:
    """Calls ``ended`` when the process ends. Raises ProcessLookupError if it has ended already."""
    loop, handle = asyncio.get_running_loop(), os.pidfd_open(process)

    def told() -> None:
        loop.remove_reader(handle)
        os.close(handle)
        ended()

    loop.add_reader(handle, told)


async def _announce(cluster: Cluster, key: str, nodes: NodeProcesses, as_json: bool) -> None:
    """Waits until every running node is ready, then says so."""
    urls = cluster.api_urls()
    async with AsyncClient(list(urls.values()), cacert=cluster.api_ca) as client:
        while True:
            ready = {health.url for health in await client.health() if is_ready(health)}
            if len(nodes.running) >= QUORUM and all(urls[node] in ready for node in nodes.running):
                break
            await asyncio.sleep(_POLL_SECONDS)
    if as_json:
        trusting = {} if cluster.api_ca is None else {"cacert": str(cluster.api_ca)}
        running = msgspec.to_builtins(_running(cluster, nodes))
        print_json({"cluster": str(cluster.file), "api_key": key, **trusting, "nodes": running})
    else:
        say(f"Ready: {', '.join(nodes.running)}. Ctrl-C stops all.")


def _running(cluster: Cluster, nodes: NodeProcesses) -> dict[str, RunningNode]:
    return {
        node: RunningNode(url, nodes.running[node].pid, str(cluster.data_directory(node)))
        for node, url in cluster.api_urls().items()
        if node in nodes.running
    }


def _describe(cluster: Cluster, key: str, nodes: NodeProcesses) -> None:
    running = _running(cluster, nodes)
    tls = cluster.api.certificate is not None
    api = "and the API has a CA of its own" if tls else "and the API is plain HTTP"
    say(f"Three nodes on this machine, for development: one disk holds all copies, {api}.\n")
    for name, node in running.items():
        say(f"  {name}  {node.api}  pid {node.pid}  data {node.data}")
    url = shlex.quote(f"{next(iter(running.values())).api}/tokenize")
    last = list(running)[-1]
    ca = "" if cluster.api_ca is None else shlex.quote(str(cluster.api_ca))
    trusting = f"\n  export QUORUMVAULT_CACERT={ca}" if ca else ""
    curl = f"curl -s --cacert {ca}" if ca else "curl -s"
    say(
        f"""
In another terminal:
  export QUORUMVAULT_API_KEY={shlex.quote(key)}
  export QUORUMVAULT_URL={shlex.quote(",".join(node.api for node in running.values()))}{trusting}
  {curl} {url} -H "Authorization: Bearer $QUORUMVAULT_API_KEY" -H 'Content-Type: application/json' \
-d '{{"values": ["Ada Lovelace", 42]}}'
  kill -9 {running[last].pid}   # {last} dies, and the other two go on
"""
    )


def _tell_end(cluster: Cluster, node: str, process: Process, nodes: NodeProcesses) -> None:
    code = process.returncode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    say(f"{node} (pid {process.pid}) {how}; {_who_goes_on(list(nodes.running))}. To start it again:", err=True)
    say(f"  quorumvault serve --config {shlex.quote(str(cluster.file))} --node {node}", err=True)


def _who_goes_on(left: list[str]) -> str:
    if not left:
        return "none is left"
    return f"{', '.join(left)} {'goes' if len(left) == 1 else 'go'} on"
