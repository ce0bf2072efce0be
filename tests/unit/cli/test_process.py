"""What a node's process asks of the kernel before it serves."""

import resource

import pytest

from quorumvault.cli import process
from quorumvault.config.cluster import load_cluster
from quorumvault.errors import ConfigError
from tests import ROOT

CLUSTER = load_cluster(ROOT / "conf" / "cluster.yaml")


@pytest.mark.parametrize("hard", [resource.RLIM_INFINITY, 1024 + 256, 20_000])
def test_it_takes_all_descriptors_that_it_may_have(monkeypatch: pytest.MonkeyPatch, hard: int) -> None:
    taken: list[object] = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (512, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: taken.append((what, limits)))
    process.take_descriptors(CLUSTER)
    assert taken == [(resource.RLIMIT_NOFILE, (hard, hard))]


def test_it_does_not_start_with_too_few_for_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (512, 1024))
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: None)
    with pytest.raises(ConfigError, match=r"limits\.connections: expected at most 768: .* 1024 open files"):
        process.take_descriptors(CLUSTER)
