"""Three hosts and the desk that runs them, set up and operated with the commands in docs/install.md and docs/operations.md.

Each is a machine of its own, made of namespaces of this one (tests/rigs/machines.py), at the addresses in the pages. Root types
what the pages tell root to type. A user of the desk who is not root types everything else, and nodes run as the user that the
page creates. ssh, scp and systemctl are stand-ins. pip's index is a folder of wheels.

Each test is a chapter: it leaves the cluster as it found it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import quorumvault
from chaos.testbed.cluster import NODES, wait_for
from release.build import build
from tests.rigs import machines, wheels
from tests.rigs.clusters import SECONDS
from tests.rigs.machines import GIVEN, OPERATOR, Machine, Machines
from tests.rigs.typed import blocks

pytestmark = pytest.mark.slow

HOME = f"/home/{OPERATOR}"
ADDRESSES = {"n1": "10.0.0.1", "n2": "10.0.0.2", "n3": "10.0.0.3"}
RELEASE, NEXT_RELEASE = quorumvault.__version__, "0.9.99"
_STEPS = (
    "1. The program, on each host",
    "2. The cluster, on one machine",
    "3. Its part, on each host",
    "4. The service, on each host",
    "5. Does it serve",
)
_PIP = f"[global]\nno-index = true\nfind-links = {GIVEN}\ndisable-pip-version-check = true\n"
#: Counts calls until it is told to stop. None may fail.
_CLIENT = """
import sys, threading
import quorumvault as qv
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
with qv.Client() as vault:
    calls = 0
    while not stop.wait(0.05):
        token, = vault.tokenize([f"call {calls}"])
        assert vault.detokenize([token])[0].value == f"call {calls}"
        calls += 1
print(calls)
"""


def _step(heading: str) -> list[str]:
    return blocks("install.md", f"## {heading}")


@dataclass
class Site:
    """``desk`` is where the cluster was created. Its nodes run on ``hosts``."""

    machines: Machines
    desk: Machine
    hosts: dict[str, Machine]

    def type(self, block: str, **instead: str) -> str:
        """Types a block at the desk. ``instead`` maps text in the block to what is typed in its place."""
        for shown, real in instead.items():
            assert shown in block, shown
            block = block.replace(shown, real)
        return self.desk.type(block, OPERATOR, home=HOME)

    def sets_up(self, node: str) -> None:
        """Types what a host needs once the program is installed."""
        (part,), (service,) = map(_step, _STEPS[2:4])
        self.hosts[node].type(part.replace("n1", node))
        self.hosts[node].type(service)

    def leads_to(self, addresses: dict[str, str]) -> None:
        """Makes ``ssh n1`` reach these addresses."""
        lines = "".join(f"{address} {node}\\n" for node, address in addresses.items())
        self.desk.type(f"printf '127.0.0.1 localhost\\n{lines}' > /etc/hosts")

    def all_ok(self) -> bool:
        """Whether all nodes are active, and see each other as active."""
        shown = json.loads(self.desk.type("quorumvault status --json || true", OPERATOR, home=HOME))
        reports = [node["health"] for node in shown["nodes"]]
        return all(each and each["status"] == "ok" and each["state"] == "active" for each in reports)

    def becomes_ok(self) -> None:
        assert wait_for(self.all_ok, SECONDS), self.type("quorumvault status || true")

    def tokenizes(self, value: str) -> str:
        """Returns the token of ``value``."""
        return self._asks(f"print(*qv.Client().tokenize([{value!r}]))").strip()

    def recovers(self, token: str, value: str) -> bool:
        """Whether each of the nodes returns ``value`` for ``token``."""
        urls = "os.environ['QUORUMVAULT_URL'].split(',')"
        return self._asks(f"print([qv.Client(url).detokenize([{token!r}])[0].value for url in {urls}])") == f"{[value] * 3}\n"

    def asks_alone(self, node: str) -> str:
        """Returns the error of a client that knows one node only, has a new value, and waits for a second."""
        url = f"https://{ADDRESSES[node]}:8700"
        return self._asks(f"qv.Client({url!r}).tokenize(['x'], deadline=1)", "2>&1 || true")

    def refused(self) -> bool:
        """Whether the desk's API key is rejected."""
        return "Unauthenticated" in self._asks("qv.Client().epoch()", "2>&1 || true")

    def _asks(self, line: str, more: str = "") -> str:
        return self.type(f'/opt/quorumvault/bin/python -c "import os, quorumvault as qv; {line}" {more}')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A cluster set up step by step as docs/install.md says."""
    if (why := machines.missing()) is not None:
        pytest.skip(why)
    place = tmp_path_factory.mktemp("three-hosts")
    given = place / "given"
    given.mkdir()
    wheels.of_this_environment(given)
    wheel = build(place / "dist").wheel
    (given / wheel.name).write_bytes(wheel.read_bytes())
    wheels.released_after(given / wheel.name, RELEASE, NEXT_RELEASE)
    with machines.prepared(given) as made:
        program, cluster, _, _, serves = map(_step, _STEPS)
        base = made.base
        base.type(f"printf '{_PIP}' > /etc/pip.conf; cp {GIVEN}/quorumvault-{RELEASE}-*.whl .")
        base.type(*program)
        made.end(base)
        desk = made.boot("desk", "10.0.0.254")
        site = Site(made, desk, {node: made.boot(node, address) for node, address in ADDRESSES.items()})
        site.leads_to(ADDRESSES)
        printed = site.type(*cluster)
        key = next(line.split()[1] for line in printed.splitlines() if line.startswith("  clinic-a "))
        for node in NODES:
            site.sets_up(node)
        site.type(*serves)
        site.type(f"export QUORUMVAULT_API_KEY={key}")
        yield site


@pytest.fixture(scope="module")
def token(site: Site) -> str:
    """The token of "before"."""
    return site.tokenizes("before")


def test_what_the_page_sets_up_serves(site: Site, token: str) -> None:
    site.becomes_ok()
    assert site.recovers(token, "before")
    assert site.desk.type("id -u", OPERATOR, home=HOME).strip() != "0"
    for host in site.hosts.values():
        assert host.type("stat -c %U /proc/$(cat /run/quorumvault.pid)").strip() == "quorumvault"
        assert host.type("find /var/lib/quorumvault ! -user quorumvault; ls /root").split() == ["vault"]


def test_a_lost_disk(site: Site, token: str) -> None:
    (replaced,) = blocks("operations.md", "### A lost disk")
    disk = site.hosts["n2"].type("kill -9 $(cat /run/quorumvault.pid); cat vault/n2/disk.json; rm -r vault/n2")
    site.type(replaced)
    site.becomes_ok()
    assert site.hosts["n2"].type("cat vault/n2/disk.json") != disk
    assert site.recovers(token, "before")


def test_a_moved_host(site: Site, token: str) -> None:
    before, after = blocks("operations.md", "### A moved host")
    disk = site.hosts["n2"].type("cat vault/n2/disk.json")
    site.type(before)
    site.machines.readdress("n2", "10.0.0.4")
    site.leads_to(ADDRESSES | {"n2": "10.0.0.4"})
    site.type(after)
    site.becomes_ok()
    assert site.recovers(token, "before")
    assert json.loads(site.hosts["n2"].type("cat vault/n2/disk.json"))["disk"] == json.loads(disk)["disk"]


def test_a_leaked_key(site: Site, token: str) -> None:
    revoke, look, another = blocks("security.md", "### A leaked API key")
    leaked = site.type(another).splitlines()[0]
    key_id = leaked.split("_")[1]
    kept = site.type("echo $QUORUMVAULT_API_KEY").strip()
    site.type(f"export QUORUMVAULT_API_KEY={leaked}")
    assert site.recovers(token, "before")
    assert "two disks have noted it" in site.type(revoke, **{"3fq7tzd2": key_id})
    assert wait_for(site.refused, SECONDS)
    assert f"key_id={key_id}" in site.type(look)
    site.type(f"export QUORUMVAULT_API_KEY={kept}")
    assert site.recovers(token, "before")


def test_a_leaked_node(site: Site, token: str) -> None:
    """Whoever holds the old host has a node that its peers reject, whatever it does. A new host takes its place."""
    revoke, again, ready = blocks("security.md", "### A leaked node")
    assert "certificate is revoked" in site.type(revoke)
    assert wait_for(lambda: "NoQuorum" in site.asks_alone("n3"), SECONDS)
    disk = site.hosts["n3"].type("cat vault/n3/disk.json")
    site.machines.end(site.hosts["n3"])
    site.hosts["n3"] = site.machines.boot("n3-again", ADDRESSES["n3"])
    site.type(again)
    site.sets_up("n3")
    site.type(ready)
    site.becomes_ok()
    assert site.hosts["n3"].type("cat vault/n3/disk.json") != disk
    assert site.recovers(token, "before")


def test_renewed_certificates(site: Site, token: str) -> None:
    (renew,) = blocks("operations.md", "### Expired certificates")
    shown = {node: host.type(f"cat vault/secrets/{node}.pem") for node, host in site.hosts.items()}
    site.type(renew)
    site.becomes_ok()
    assert all(host.type(f"cat vault/secrets/{node}.pem") != shown[node] for node, host in site.hosts.items())
    assert site.recovers(token, "before")


def test_an_upgrade_that_fails_no_call(site: Site, token: str) -> None:
    carry, one = blocks("operations.md", "### An upgrade")
    site.type(f"cp {GIVEN}/quorumvault-{NEXT_RELEASE}-*.whl .")
    site.type(carry, **{RELEASE: NEXT_RELEASE})
    site.type(f"cat > client.py <<'END'\n{_CLIENT}\nEND")
    client = site.desk.starts("/opt/quorumvault/bin/python client.py", OPERATOR, HOME)
    for node in NODES:
        site.becomes_ok()
        site.type(one.replace("n1", node), **{RELEASE: NEXT_RELEASE})
    calls, _ = client.communicate("stop", timeout=SECONDS)
    assert client.returncode == 0
    assert int(calls) > len(NODES)
    site.becomes_ok()
    shown = json.loads(site.type("quorumvault status --json"))
    assert {node["health"]["version"] for node in shown["nodes"]} == {NEXT_RELEASE}
    assert site.recovers(token, "before")


def test_a_backup_and_all_from_it(site: Site, token: str) -> None:
    backup, restore, instead = blocks("operations.md", "### A backup, and all from it")
    site.type(backup)
    site.type(restore, **{"10.0.0.2": "10.0.0.4"})
    site.type(instead)
    site.becomes_ok()
    assert site.recovers(token, "before")
    assert site.tokenizes("before") == token
