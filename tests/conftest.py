"""Hypothesis for all tests: how long an example takes says how busy the machine is, so it makes no test fail."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("quorumvault", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quorumvault")
