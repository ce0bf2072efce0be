"""What the vault promises, with real processes that are killed, frozen, wiped and restarted under load."""

import itertools
import random
import resource
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from chaos.testbed.api import Unanswered
from chaos.testbed.cluster import NODES, Cluster, wait_for
from tests.rigs import clusters


def test_nothing_acknowledged_is_lost_when_a_node_is_killed_in_the_middle(own_cluster: Cluster) -> None:
    """Proves: committed."""
    acknowledged = clusters.Acknowledged()
    with clusters.streaming(own_cluster, acknowledged) as progress:
        for victim in NODES:
            clusters.passes(progress)
            own_cluster.kill(victim)
            clusters.passes(progress)
            own_cluster.start(victim)
            own_cluster.wait_ready(victim)
    own_cluster.wait_ready(reachable=3)
    assert len(acknowledged.tokens) > 500
    clusters.through_each_pair(own_cluster, lambda node: clusters.resolves(own_cluster, node, acknowledged.tokens))


def test_nothing_acknowledged_is_lost_when_all_three_are_killed_and_started_again(own_cluster: Cluster) -> None:
    """Proves: durable before acknowledged."""
    acknowledged = clusters.Acknowledged()
    with clusters.streaming(own_cluster, acknowledged) as progress:
        clusters.passes(progress, 30)
        own_cluster.kill()
        own_cluster.start()
        own_cluster.wait_ready()
        clusters.passes(progress)
    for node in NODES:
        clusters.resolves(own_cluster, node, acknowledged.tokens)


def test_thirty_two_clients_with_the_same_values_get_one_token_a_value_and_make_one_record(own_cluster: Cluster) -> None:
    values = [f"patient {n}" for n in range(50)]
    together = threading.Barrier(32)

    def client(number: int) -> list[str]:
        together.wait()
        chosen = random.Random(number).sample(values, len(values))
        answer = own_cluster.api(NODES[number % 3], clusters.OWNER).tokenize(chosen)
        assert answer.status == 200, answer
        by_value = dict(zip(chosen, answer.body["tokens"], strict=True))
        return [by_value[value] for value in values]

    with ThreadPoolExecutor(32) as pool:
        assert len({tuple(tokens) for tokens in pool.map(client, range(32))}) == 1
    assert wait_for(lambda: clusters.identical(own_cluster, len(values)), clusters.SECONDS)


class Race:
    """Clients that rotate and clients that tokenize, each through a random node, until told to stop."""

    def __init__(self, cluster: Cluster) -> None:
        #: The largest epoch that any answered rotate has shown. It is raised before a client can start its next request.
        self.shown = 1
        #: Tokenize requests answered so far.
        self.done = 0
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.frozen: str | None = None
        self._cluster = cluster

    def _ask(self, chance: random.Random, path: str, body: object) -> Any:
        """None if nobody answered. A frozen node costs a second, so it is asked now and then rather than every third time."""
        node = chance.choice(NODES)
        if node == self.frozen and chance.random() < 0.9:
            node = NODES[NODES.index(node) - 1]
        try:
            answer = self._cluster.api(node, clusters.OWNER).post(path, body, timeout=1.0)
        except Unanswered:
            return None
        assert answer.status in (200, 503), answer
        return answer.body if answer.status == 200 else None

    def rotate(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.stop.is_set():
            answer = self._ask(chance, "/rotate-epoch", {"from_epoch": self.shown})
            if answer is not None:
                with self.lock:
                    self.shown = max(self.shown, answer["active_epoch"])

    def tokenize(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.stop.is_set():
            floor = self.shown
            values = [] if chance.random() < 0.1 else [f"v{chance.randrange(20)}"]
            answer = self._ask(chance, "/tokenize", {"values": values})
            if answer is not None:
                assert answer["epoch"] >= floor, "an epoch that a finished rotate had left behind"
                assert all(token.startswith(f"qv_{answer['epoch']}_") for token in answer["tokens"])
                with self.lock:
                    self.done += 1


def test_rotation_races_tokenization_for_thousands_of_rounds(own_cluster: Cluster) -> None:
    """Proves: the fence."""
    race = Race(own_cluster)
    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(race.rotate if seed < 2 else race.tokenize, seed) for seed in range(8)]
        try:
            for victim in itertools.islice(itertools.cycle(NODES), 6):
                own_cluster.pause(victim)
                race.frozen = victim
                clusters.goes_on(lambda: race.done, 150, clients)
                own_cluster.resume(victim)
                race.frozen = None
                clusters.goes_on(lambda: race.done, 250, clients)
        finally:
            race.stop.set()
    assert race.done > 2_000
    assert race.shown > 100


def test_a_wiped_node_beside_a_stale_one_is_no_quorum_and_never_not_found(own_cluster: Cluster) -> None:
    """Proves: not found needs two."""
    own_cluster.kill("n1")
    own_cluster.wait_ready("n2", "n3")
    acknowledged = clusters.Acknowledged()
    acknowledged.tokenize(own_cluster, "n2", [f"written while n1 was away {n}" for n in range(20)])
    own_cluster.kill("n2", "n3")
    shutil.rmtree(own_cluster.directory / "n3")
    own_cluster.start("n1", "n3")
    assert wait_for(lambda: (own_cluster.health("n1") or (0,))[0] == 503 and own_cluster.state("n3") == "joining", 20)
    assert wait_for(lambda: clusters.health(own_cluster, "n1").body["peers"]["n3"]["status"] == "up", 20)
    for node in ("n1", "n3"):
        for asked in (list(acknowledged.tokens.values()), ["no token"]):
            answer = own_cluster.api(node, clusters.OWNER).detokenize(asked)
            assert (answer.status, answer.body["code"]) == (503, "no-quorum")
    assert "n3 has no disk" in "\n".join(clusters.health(own_cluster, "n3").body["warnings"])
    own_cluster.start("n2")
    own_cluster.wait_ready("n1", "n2", "n3")
    for node in NODES:
        clusters.resolves(own_cluster, node, acknowledged.tokens)
    assert own_cluster.state("n3") == "joining"
    assert not (own_cluster.directory / "n3" / "store").exists()


def test_a_disk_that_cannot_be_written_ends_the_node_with_exit_code_3(own_cluster: Cluster) -> None:
    """A limit on file sizes makes the next append to the log fail half-way, as on a full disk.

    Proves: a distrusted store stops.
    """
    acknowledged = clusters.Acknowledged()
    acknowledged.tokenize(own_cluster, "n1", ["before"])
    process = own_cluster.nodes["n3"].require_process()
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4_096, 4_096))
    acknowledged.tokenize(own_cluster, "n1", [f"{n} " + "x" * 1_000 for n in range(20)])
    assert process.wait(20) == 3
    own_cluster.wait_ready("n1", "n2")
    clusters.resolves(own_cluster, "n2", acknowledged.tokens)


def test_no_plaintext_and_no_key_in_anything_that_the_nodes_write(own_cluster: Cluster) -> None:
    marked = [f"MARKED-{n}-Zoë-patient" for n in range(5)]
    api = own_cluster.api("n1", clusters.OWNER)
    tokens = api.tokenize(marked).body["tokens"]
    clusters.resolves(own_cluster, "n2", dict(zip(marked, tokens, strict=True)))
    for body in (
        {"values": [marked[0], 1.5]},
        {"values": [{"MARKED-6": marked[0]}]},
        {"records": [{"ssn": [marked[0]]}]},
        {"record": {"ssn": marked[1], "name": marked[2]}, marked[3]: 1},
        {"values": [marked[0] + "x" * 70_000]},
        {"values": [tokens[0]]},
    ):
        answer = api.post("/tokenize", body)
        assert answer.status == 422
        assert "MARKED" not in str(answer.body)
    assert api.post("/detokenize", {"token": marked[4]}).status == 404
    own_cluster.kill("n3")
    own_cluster.wait_ready("n1", "n2")
    own_cluster.kill("n2")
    assert api.tokenize(marked).status == 503
    own_cluster.bring_up("n2", "n3")
    own_cluster.stop()
    forbidden = [text.encode(coding) for text in ("MARKED", "Zoë-patient") for coding in ("utf-8", "utf-16-le")]
    forbidden += [own_cluster.api_key(clusters.OWNER).encode(), *(token.encode() for token in tokens)]
    found = []
    for file in own_cluster.directory.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            found += [f"{file.name} has {text[:6]!r}…" for text in forbidden if text in content or text.hex().encode() in content]
    assert found == []
