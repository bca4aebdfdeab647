"""How commands wait: tolerating an outage of a server, and falling back from event streams to polling."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from console.cli.errors import Unreachable
from console.cli.render.output import note

POLL_INTERVAL_S = 0.5
MAX_OUTAGE_S = 60.0
"""Seconds that the console or Vault may be unreachable before a command gives up."""
MAX_SILENT_STREAMS = 2
"""After this many event streams in a row without any data, poll instead. The console sends data at once, so silence means a buffering proxy."""

T = TypeVar("T")


class OutageTolerance:
    """Tolerates an outage of a server for MAX_OUTAGE_S. Each answer restarts the time."""

    def __init__(self) -> None:
        self._down_since: float | None = None

    def retry(self, call: Callable[[], T]) -> T:
        """Call until the server answers; return its answer. Raises Unreachable after MAX_OUTAGE_S."""
        while True:
            try:
                answer = call()
            except Unreachable:
                now = time.monotonic()
                self._down_since = self._down_since or now
                if now - self._down_since > MAX_OUTAGE_S:
                    raise
                time.sleep(POLL_INTERVAL_S)
            else:
                self._down_since = None
                return answer


@dataclass(slots=True)
class StreamHealth:
    """Tracks whether event streams reach this machine."""

    poll_interval_s: float
    """How often the command polls instead."""
    is_usable: bool = True
    _silent_streams: int = 0

    def record_data(self) -> None:
        self._silent_streams = 0

    def record_silence(self) -> None:
        """Count a stream that carried no data; after MAX_SILENT_STREAMS of them in a row, fall back to polling."""
        self._silent_streams += 1
        if self._silent_streams >= MAX_SILENT_STREAMS:
            self.fall_back("a proxy may be buffering them")

    def fall_back(self, why: str) -> None:
        self.is_usable = False
        note(f"Events do not arrive ({why}); polling every {self.poll_interval_s:g} s instead.")

    def reset(self) -> None:
        self.is_usable, self._silent_streams = True, 0
