"""The risk of giving a node a new disk, judged by what the two other nodes report."""

from __future__ import annotations

from typing import NamedTuple

from quorumvault.config.cluster import Cluster

#: Seconds to wait for each node. One on a busy host answers in that time; one whose host is gone never does.
_PATIENCE = 3.0


class Survivors(NamedTuple):
    """The problems by node, in words. ``damaged`` nodes cannot read all they have; ``unsure`` nodes do not say, or wait too."""

    damaged: dict[str, str]
    unsure: dict[str, str]


def ask_survivors(cluster: Cluster, replaced: str) -> Survivors:
    """Asks the nodes from which the new disk of ``replaced`` would copy whether they can read all that they have."""
    from quorumvault.client import Client, ClientPolicy

    urls = {node: url for node, url in cluster.api_urls().items() if node != replaced and replaced in cluster.nodes}
    if not urls:
        return Survivors({}, {})
    with Client(list(urls.values()), cacert=cluster.api_ca, policy=ClientPolicy(health_silence=_PATIENCE)) as client:
        reports = {answer.url: answer.report for answer in client.health()}
    damaged: dict[str, str] = {}
    unsure: dict[str, str] = {}
    for node, url in urls.items():
        report = reports.get(url)
        if report is None:
            unsure[node] = "does not answer"
        elif report.damaged:
            damaged[node] = "cannot read all that it has"
        elif report.state not in ("active", "full"):
            unsure[node] = f"is {report.state}"
    return Survivors(damaged, unsure)


def refusal(survivors: Survivors, node: str) -> str:
    """Returns a message for an operator about to give up a disk that may have records that other disks cannot read."""
    what = " and ".join(f"{other} {why}" for other, why in survivors.damaged.items())
    return (
        f"{what}: what is in the damaged blocks may be on the disk of {node} and nowhere else. Put that disk back if there is "
        f"any way: {node} serves with it, damaged or not. If it is gone, say --accept-loss: the new disk then waits until all "
        f"that the others hold can be read, or until you say what may be lost"
    )


def doubts(survivors: Survivors, node: str) -> str | None:
    """Returns a message for when that is unknown, else None. The new disk asks again before anything is given up."""
    if not survivors.unsure:
        return None
    what = " and ".join(f"{other} {why}" for other, why in survivors.unsure.items())
    return (
        f"{what}: it is not known whether all that is there can be read. The new disk asks that before it takes the place of the "
        f"old one: keep that until {node} is active again."
    )
