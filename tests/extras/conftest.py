"""dbt and Spark against three real nodes: the tests that bin/test --extras adds. The clusters are those of tests/cluster."""

from pathlib import Path

import pytest

from chaos.testbed.cluster import Cluster
from tests.cluster.conftest import cluster, made, own_cluster

__all__ = ["cluster", "key_file", "made", "own_cluster"]


@pytest.fixture
def key_file(cluster: Cluster, tmp_path: Path) -> Path:
    """The clinic's API key, as an operator would hand it to a job."""
    path = tmp_path / "clinic.key"
    path.write_text(cluster.api_key("clinic") + "\n")
    path.chmod(0o600)
    return path
