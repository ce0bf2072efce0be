"""What other tests have left in memory is collected first: finalizers may need an event loop, and here it is simulated."""

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def _collected() -> None:
    gc.collect()
