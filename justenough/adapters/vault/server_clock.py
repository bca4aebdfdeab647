"""The time, kept in line with a server's clock, by which the server ends leases and which all its clients share. Asks no server itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from math import inf

import structlog

RESOLUTION_S = 1.0
"""How far the time in an answer may be from the server's time: it is computed from whole seconds."""
TOLERANCE_S = 2.0
"""How much clocks may differ. Corrections vary by up to twice RESOLUTION_S, so a clock that is almost right is left as it is."""

log = structlog.get_logger(__name__)

steady_seconds = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
"""A clock that nobody can set. On Linux it continues while the machine sleeps."""


class ServerClock:
    """The machine's time, corrected if it differs from a server's by more than TOLERANCE_S, as far as the server's answers tell."""

    def __init__(self, *, own: Callable[[], float] = time.time, steady: Callable[[], float] = steady_seconds) -> None:
        self.steady = steady
        self.own = own
        self._bounds = -inf, inf
        """The earliest and the latest time by the server's clock when `steady` was 0, as seconds since 1970."""
        self._was_wrong = False

    def now(self) -> datetime:
        """Return the time in UTC. Before the server's first answer it is this machine's."""
        earliest, latest = self._bounds
        steady = self.steady()
        return datetime.fromtimestamp(min(max(self.own(), steady + earliest), steady + latest), UTC)

    def note(self, at: float, *, sent: float) -> None:
        """Note the server's time, in seconds since 1970, from an answer that has just arrived. `sent`: what `steady()` was before the request."""
        # The server answered between these two moments.
        own, arrived = self.own(), self.steady()
        earliest, latest = self._bounds = at - arrived - RESOLUTION_S - TOLERANCE_S, at - sent + RESOLUTION_S + TOLERANCE_S
        is_wrong = not arrived + earliest <= own <= arrived + latest
        if is_wrong and not self._was_wrong:
            log.warning("this machine's clock is wrong, or Vault's is: Vault's time is used", ahead_s=round(own - at))
        self._was_wrong = is_wrong
