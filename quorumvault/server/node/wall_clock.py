"""The wall clock, for versions and dates. Durations are measured by the event loop's clock."""

import time
from datetime import UTC, datetime


def wall_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def utc_now() -> datetime:
    return datetime.now(UTC)
