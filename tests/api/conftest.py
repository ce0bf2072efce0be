"""An application over an in-memory vault, with the limits that the test module sets as LIMITS, or the default ones."""

import pytest

from quorumvault.config.limits import Limits
from tests.rigs.vault import Rig


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(limits=getattr(request.module, "LIMITS", Limits()))
