"""Hypothesis for all tests: how long an example takes says how busy the machine is, so it makes no test fail.

bin/test --fast takes a tenth of the examples.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("quorumvault", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("quorumvault"), max_examples=10)
settings.load_profile("quorumvault")
