"""Two hundred owners with the same values: each gets its own back, and nobody another's, while nodes are killed and frozen.

The names are as similar as names may be, the values are the same for all, and every request mixes an owner's tokens with those of
others. Afterwards every owner asks for every token that anybody was given.
"""

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from chaos.testbed.cluster import NODES, Cluster, run
from quorumvault.config.api_keys import load_keys
from quorumvault.config.key_changes import create_key, new_keyfile
from quorumvault.errors import ConfigError
from tests.hostile.tenants import ARROW, JSON, Ghosts, Tenant, Value, cluster_for, columns, epoch_of
from tests.rigs.clusters import goes_on
from tests.rigs.columns import column

SEED = 11
OWNERS, CLIENTS = 200, 6
#: Tokens in one request.
ITEMS = 10_000
#: Turns of owners while a node is away, and after it is back.
_AWAY, _BACK = 40, 20

#: Names that are prefixes of the next one, the shortest and the longest, and names that differ in a separator or look alike.
NAMES = (
    *("a" * length for length in range(1, 65)),
    *("clinic", "clinic-", "clinic-1", "clinic-10", "clinic-100", "clinic-1.", "clinic.1", "clinic_1", "clinic--1", "clinic1"),
    *("0", "00", "1", "l", "i", "o", "rn", "m", "vv", "w", "z" * 63 + "0", "z" * 63 + "1", "0" + "z" * 63),
)
NAMES_ALL = [*NAMES, *(f"owner-{number}" for number in range(OWNERS - len(NAMES)))]

#: The same for all owners. Some differ only in type, Unicode form or white space.
VALUES: Sequence[Value] = (
    *("999-17-5017", "1", "true", "", " ", "Zo\u00eb", "Zoe\u0308", "\u0130stanbul", "Smith\0", "null"),
    *(1, 0, True, False, 9991750170, 10**40),
)


@dataclass
class Work:
    """Clients of all owners, which take turns until the faults are over. ``frozen``: the node that is frozen now."""

    over: bool = False
    frozen: tuple[str, ...] = ()
    done: int = 0
    _published: list[str] = field(default_factory=list)

    def run(self, tenants: Sequence[Tenant]) -> None:
        last = False
        while not last:
            last = self.over
            for tenant in tenants:
                self._turn(tenant, last)
                self.done += 1

    def _turn(self, tenant: Tenant, last: bool) -> None:
        chance = tenant.chance
        chance.choice((tenant.tokenize, tenant.tokenize_records, tenant.tokenize_arrow))(self.frozen)
        while tenant.epoch <= tenant.rotations and (last or chance.random() < 0.3):
            tenant.rotate(self.frozen)
            tenant.tokenize(self.frozen)
        tenant.retokenize(self._foreign(tenant), self.frozen)
        tenant.detokenize(self._foreign(tenant), self.frozen)
        self._published += chance.sample([*tenant.tokens], 3)

    def _foreign(self, tenant: Tenant) -> list[str]:
        drawn = tenant.chance.choices(self._published, k=10) if self._published else []
        return [token for token in dict.fromkeys(drawn) if token not in tenant.tokens]


def break_nodes(cluster: Cluster, chance: random.Random, work: Work, clients: Sequence[Future[None]]) -> None:
    """Kills and freezes each node, in random order, with work before and during each fault."""
    faults = list(itertools.product(NODES, (cluster.kill, cluster.pause)))
    chance.shuffle(faults)
    for node, fault in faults:
        goes_on(lambda: work.done, _BACK, clients)
        fault(node)
        if fault == cluster.pause:
            work.frozen = (node,)
        goes_on(lambda: work.done, _AWAY, clients)
        if fault == cluster.pause:
            cluster.resume(node)
            work.frozen = ()
        else:
            cluster.start(node)
        cluster.wait_ready(node, seconds=60)


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Tenant]]:
    """All owners, after nodes that were killed and frozen have served them. Half of them have rotated, once or twice."""
    chance = random.Random(SEED)
    with cluster_for(tmp_path_factory.mktemp("vault") / "cluster", NAMES_ALL, chance) as cluster:
        cluster.bring_up()
        made = [
            Tenant(name, cluster, random.Random(chance.random()), VALUES, rotations=chance.choice((0, 0, 1, 2)))
            for name in NAMES_ALL
        ]
        work = Work()
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(work.run, made[first::CLIENTS]) for first in range(CLIENTS)]
            try:
                break_nodes(cluster, chance, work, clients)
            finally:
                for node in work.frozen:
                    cluster.resume(node)
                work.over = True
            for client in clients:
                client.result()
        cluster.wait_ready(reachable=3, seconds=60)
        yield made


def for_each(tenants: Sequence[Tenant], check: Callable[[Tenant, int], None]) -> None:
    """Runs ``check`` for each tenant and its number, on several threads."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(check, tenants, range(len(tenants))))


def test_no_two_owners_share_a_token_and_an_owner_has_one_for_each_value_and_epoch(tenants: list[Tenant]) -> None:
    told = [token for tenant in tenants for token in tenant.tokens]
    assert len(told) == len(set(told)) > OWNERS * len(VALUES)
    assert all(len(tenant.tokens) == len(tenant.given) for tenant in tenants)


def test_nobody_s_rotation_is_another_s(tenants: list[Tenant]) -> None:
    for tenant, node in zip(tenants, itertools.cycle(NODES), strict=False):
        assert tenant.ask_node(node, "/epoch").json() == {"active_epoch": 1 + tenant.rotations}
    assert {tenant.rotations for tenant in tenants} == {0, 1, 2}


def test_each_owner_asks_for_every_token_that_there_is_and_gets_its_own_values_alone(tenants: list[Tenant]) -> None:
    """Proves: owner isolation."""
    everything = [token for tenant in tenants for token in tenant.tokens]

    def check(tenant: Tenant, number: int) -> None:
        asked = tenant.chance.sample(everything, len(everything))
        for part in (asked[first : first + ITEMS] for first in range(0, len(asked), ITEMS)):
            tenant.require_values(part, tenant.ask_node(NODES[number % 3], "/detokenize", {"tokens": part}).json())

    for_each(tenants, check)


def test_through_every_node_and_in_every_form(tenants: list[Tenant]) -> None:
    """In each request: an owner's tokens of every epoch, and one token of every other owner."""
    samples = [tenant.chance.choice([*tenant.tokens]) for tenant in tenants]

    def check(tenant: Tenant, number: int) -> None:
        asked = tenant.mixed([token for token in samples if token not in tenant.tokens])
        statuses = tenant.statuses(asked)
        forms: list[Callable[[str], None]] = [
            lambda node: tenant.require_values(asked, tenant.ask_node(node, "/detokenize", {"tokens": asked}).json()),
            lambda node: tenant.require_values_arrow(asked, tenant.ask_node(node, "/detokenize", column("token", asked), ARROW)),
            lambda node: tenant.require_records(asked, tenant.ask_node(node, "/detokenize", records(asked)).json()),
        ]
        for turn, form in enumerate(forms):
            form(NODES[(number + turn) % 3])
        moved = tenant.ask_node(NODES[number % 3], "/retokenize", {"tokens": asked}).json()
        assert [result["status"] for result in moved["results"]] == statuses
        tenant.learn_moved(asked, moved["epoch"], [result.get("token") for result in moved["results"]])
        reply = tenant.ask_node(NODES[(number + 1) % 3], "/retokenize", column("token", asked), ARROW)
        tokens, words = columns(reply, "token", "status")
        assert words == statuses
        tenant.learn_moved(asked, epoch_of(reply), tokens)

    for_each(tenants, check)


def records(tokens: Sequence[str]) -> object:
    return {"records": [{"ssn": token} for token in tokens]}


#: Requests for tokens: path, body and media type. Only the answer with records repeats tokens that are not found.
FORMS: list[Callable[[list[str]], tuple[str, object, str]]] = [
    lambda tokens: ("/detokenize", {"tokens": tokens}, JSON),
    lambda tokens: ("/detokenize", column("token", tokens), ARROW),
    lambda tokens: ("/retokenize", {"tokens": tokens}, JSON),
    lambda tokens: ("/retokenize", column("token", tokens), ARROW),
    lambda tokens: ("/detokenize", records(tokens), JSON),
]


def test_another_s_token_is_answered_byte_for_byte_like_one_that_was_never_issued(tenants: list[Tenant]) -> None:
    """Asked for alone, and in one request with the owner's own tokens and a token of every other owner."""
    samples = {tenant.name: tenant.chance.choice([*tenant.tokens]) for tenant in tenants}

    def check(tenant: Tenant, number: int) -> None:
        ghosts = Ghosts(tenant.chance)
        others = [token for name, token in samples.items() if name != tenant.name]
        kinds = [others] + [[make() for _ in others] for make in (ghosts.never_issued, ghosts.unknown_epoch, ghosts.malformed)]
        node, form = NODES[number % 3], FORMS[number % len(FORMS)]
        alone = {tenant.ask_node(node, "/detokenize", {"token": kind[number % len(others)]}, status=404) for kind in kinds}
        assert len(alone) == 1
        together = set()
        for kind in kinds:
            reply = tenant.ask_node(node, *form([*tenant.tokens, *kind, *tenant.tokens]))
            together.add(reply._replace(body=without(kind, reply.body)))
        assert len(together) == 1

    for_each(tenants, check)


def without(tokens: Sequence[str], body: bytes) -> bytes:
    """The body with one word in place of each of these tokens: records keep tokens that are not found."""
    absent = {f'"{token}"'.encode() for token in tokens}
    return re.sub(rb'"[^"]*"', lambda quoted: b'"absent"' if quoted[0] in absent else quoted[0], body)


#: Names that a person, a font, a file system or a database might take for "clinic".
UNLIKE = (
    "Clinic", "CLINIC", "cLinic", "clinic ", " clinic", "clinic\t", "clinic\n", "clinic\0", "", "-clinic", ".clinic",
    "cl\u0131nic", "cli\u0301nic", "cl\u00ednic", "\uff43linic", "\u0441linic", "clinic\u200b", "clinic\u00a0", "c/linic",
    "c" * 65,
)  # fmt: skip


@pytest.mark.parametrize("name", UNLIKE, ids=ascii)
def test_an_owner_s_name_has_one_spelling(name: str, tmp_path: Path) -> None:
    """No two names differ only in case, Unicode form or white space, because names have only one kind of letter."""
    file = tmp_path / "api_keys.yaml"
    new_keyfile(file)
    made = create_key(file, "clinic", now=datetime.now(UTC), entropy=random.Random(1).randbytes, new_owner=True)
    with pytest.raises(ConfigError):
        create_key(file, name, now=datetime.now(UTC), entropy=random.Random(2).randbytes, new_owner=True)
    key = load_keys(file).authenticate(made.text, 0.0)
    assert key is not None
    assert key.owner.name == "clinic"
    content = yaml.safe_load(file.read_text())
    content["owners"].append(name)
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError):
        load_keys(file)


def test_a_cluster_is_not_made_for_a_name_of_another_spelling(tmp_path: Path) -> None:
    done = run("init", str(tmp_path / "vault"), "--owner", "clinic", "--owner", "Clinic")
    assert done.returncode == 2
    assert not (tmp_path / "vault").exists()
