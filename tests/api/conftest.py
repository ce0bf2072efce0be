"""An application over a vault in memory, with the limits that the test's module names in LIMITS, or those by default."""

import pytest

from quorumvault.config.cluster import Limits
from tests.rigs.vault import Rig


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(limits=getattr(request.module, "LIMITS", Limits()))
