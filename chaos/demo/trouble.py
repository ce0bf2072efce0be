"""The demonstration's faults: a node killed in the middle of a request, a node cut off, and the three event logs afterwards."""

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from chaos.demo.partitions import Partitions
from chaos.testbed.api import Answer, Unanswered
from chaos.testbed.cluster import NODES, Cluster, run, wait_for
from chaos.testbed.narration import Narrator

#: A node gives a round 2 s, and counts a peer that is silent for 2 s as down.
_NOTICE_SECONDS = 10.0
_VALUES = [f"in mid-request, {number}" for number in range(50)]
#: The lines of the timeline that fit on a screen.
_LINES_SHOWN = 12
_KIND_SHOWN = 14


def come_to_see(cluster: Cluster, names: Sequence[str], count: int) -> bool:
    """Waits until each of these nodes sees ``count`` replicas, itself included. Returns False if it takes too long."""
    return wait_for(lambda: all(cluster.reachable(name) == count for name in names), _NOTICE_SECONDS)


def kill_in_mid_request(cluster: Cluster, tell: Narrator, owner: str) -> None:
    """Freezes n2 and n3, so that n1 has to wait for them, and kills n1 while it waits."""
    tell.step("n1 is killed with a request in its hands")
    cluster.pause("n2", "n3")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_answer, cluster, owner)
        held = wait_for(lambda: asked.done() or _in_flight(cluster, "n1") == 1, _NOTICE_SECONDS) and not asked.done()
        cluster.kill("n1")
        lost = asked.result() is None
    cluster.resume("n2", "n3")
    tell.claim("its client gets no answer, and cannot know what became of the values", held and lost, "an answer")
    answers: list[Answer] = []

    def answered() -> bool:
        """Returns whether a request succeeds, which it does once n2 and n3 have found each other again."""
        answers.append(cluster.api("n2", owner).tokenize(_VALUES))
        return answers[-1].status == 200

    served = wait_for(answered, _NOTICE_SECONDS)
    tell.claim("the same request, sent to n2, is answered: a repeat harms nothing", served, str(answers[-1].status))
    cluster.start("n1")
    cluster.wait_ready("n1", reachable=3)
    again = cluster.api("n1", owner).tokenize(_VALUES)
    same = again.body == answers[-1].body
    tell.claim("and n1, started again, gives each of the values the same token", same, "other tokens")


def cut_off(cluster: Cluster, links: Partitions, tell: Narrator, owner: str) -> None:
    """Cuts n1 off: it runs on, and hears no other node."""
    tell.step("The network fails: n1 reaches neither n2 nor n3")
    tokens = cluster.api("n2", owner).tokenize(_VALUES).body["tokens"]
    links.cut_off("n1")
    try:
        alone = come_to_see(cluster, ("n1",), 1) and come_to_see(cluster, ("n2",), 2)
        tell.claim("n1 notices that it is alone, n2 and n3 that they are two", alone, "that they have not")
        refused = [cluster.api("n1", owner).detokenize(asked).status for asked in (tokens[:1], ["qv_1_0"])]
        tell.claim("n1 refuses: it says neither a value nor 'not found'", refused == [503, 503], str(refused))
        found = cluster.api("n3", owner).detokenize(tokens).body["found"]
        new = cluster.api("n2", owner).tokenize(["made while n1 was cut off"])
        served = (found, new.status) == (len(_VALUES), 200)
        tell.claim("on the other side values come back, and new ones are taken", served, f"{found} found, {new.status}")
    finally:
        links.mend("n1")
    whole = come_to_see(cluster, NODES, 3)
    tell.claim("the network is mended, and all three see each other", whole, "that they do not")
    answer = cluster.api("n1", owner).detokenize(new.body["tokens"])
    told = answer.status == 200 and answer.body["results"][0].get("value") == "made while n1 was cut off"
    tell.claim("n1 answers for what was made without it", told, f"status {answer.status}, {answer.body.get('code', 'no value')}")


def timeline(cluster: Cluster, tell: Narrator) -> None:
    """Shows the event logs of the three nodes, merged by the operators' command."""
    tell.step("What the three nodes wrote down, as one timeline: quorumvault events")
    done = run("events", "--config", str(cluster.directory / "cluster.yaml"), "-n", "1000000", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    shown = [event for event in events if event["event"] in ("peer_down", "peer_up", "read_repair", "rotate_epoch")]
    for event in shown[-_LINES_SHOWN:]:
        about = event.get("peer") or event.get("owner") or ""
        tell.say(f"{event['ts'][11:23]}  {event['node']}  {event['event']:<{_KIND_SHOWN}}{about}")
    counts = Counter(event["event"] for event in events)
    ordered = [event["ts"] for event in events] == sorted(event["ts"] for event in events)
    nodes = {event["node"] for event in events}
    tell.claim(
        f"{len(events):,} events of all three in the order of time: {counts['tokenize']:,} tokenize, "
        f"{counts['detokenize']:,} detokenize, {counts['rotate_epoch']:,} rotate_epoch, {counts['peer_down']:,} peer_down",
        ordered and nodes == set(NODES) and counts["rotate_epoch"] > 0 and counts["peer_down"] > 0,
        f"events of {', '.join(sorted(nodes)) or 'no node'}, ordered: {ordered}",
    )


def _answer(cluster: Cluster, owner: str) -> Answer | None:
    try:
        return cluster.api("n1", owner).tokenize(_VALUES)
    except Unanswered:
        return None


def _in_flight(cluster: Cluster, name: str) -> int:
    prefix = "quorumvault_in_flight "
    lines = [line for line in cluster.api(name).text("/metrics").splitlines() if line.startswith(prefix)]
    return int(float(lines[0].removeprefix(prefix))) if lines else 0
