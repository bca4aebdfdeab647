"""When what should have happened is overdue: a revocation that fails, a sweep that does not come, a worker that asks for nothing.

No I/O, no clock: whoever asks says what time it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

REVOCATION_GRACE = timedelta(seconds=15)
"""A first failure is a blip: the next attempt comes a second later. One that took this long by itself is none."""
MAX_SWEEP_AGE = timedelta(seconds=60)
"""A sweep begins every 10 s and takes less than a minute."""
MAX_POLL_AGE = timedelta(seconds=75)
"""A worker's question for work is held open for a minute, then asked anew: after this long nobody asks."""


def is_revocation_overdue(*, failed: int, took: timedelta) -> bool:
    """Whether a revocation is overdue after `failed` attempts in a row that left something alive or unseen; the last one `took` so long."""
    return failed > 1 or took >= REVOCATION_GRACE


def is_worth_recording(*, failed: int) -> bool:
    """Whether this attempt is told: the first, second, fourth, eighth …, as it is tried without limit and a chain must not grow with every try."""
    return failed & (failed - 1) == 0


def is_sweep_late(ended: datetime | None, *, since: datetime, now: datetime) -> bool:
    """Whether no sweep has ended for too long; `since`: when somebody began to look, for an installation that just starts."""
    return now - max(ended or since, since) > MAX_SWEEP_AGE


def find_unpolled_queues(last_polls: Mapping[str, datetime | None], *, now: datetime) -> tuple[str, ...]:
    """Return the task queues that no worker asks for work; `last_polls`: when one last did, None where none is known."""
    return tuple(queue for queue, at in last_polls.items() if at is None or now - at > MAX_POLL_AGE)
