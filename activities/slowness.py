"""Tells of a revocation while it still hangs: what waits for a server that does not answer must not look as if nothing were the matter."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import structlog

from activities.deps import Deps
from justenough.errors import JustEnoughError
from justenough.events import Event, EventType, event
from justenough.lateness import GRACE

log = structlog.get_logger()


@contextmanager
def told_if_slow(deps: Deps, job: str, facts: Sequence[Event], failures: Sequence[str], *, by: str, started: datetime) -> Iterator[None]:
    """Record the beginning of a revocation (`facts`), and that it is overdue, where the block takes too long.

    `failures`: what has failed by then; may grow meanwhile. Waits for nothing: the block ends when it ends.
    """
    begun, so_far = tuple(facts), f"it has not come back for {GRACE.total_seconds():.0f} s"

    def tell() -> None:
        # As of when it became slow: whatever the block saw at its end is newer, also where this is recorded late.
        about, slow = f"{begun[-1].id.rpartition('/')[2]}-slow", started + GRACE
        told = {"by": by, "failures": [*failures, so_far], "attempt": deps.looks.attempt(job, now=started), "seen_from": slow.isoformat()}
        late = event(EventType.REVOCATION_OVERDUE, job, at=slow, about=about, **told)
        try:
            deps.store.record([*begun, late])
        except JustEnoughError as error:
            # The attempt's own events are carried on until they are written; this was only to be early.
            log.warning("revocation hangs", job=job, error=type(error).__name__)

    telling = threading.Timer(GRACE.total_seconds(), tell)
    telling.daemon = True
    telling.start()
    try:
        yield
    finally:
        telling.cancel()
