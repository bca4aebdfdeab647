"""Caches of slow reads: concurrent callers of a key share one read. `SingleFlightCache` is for an event loop, `ThreadCache` for threads."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class _Reads(Generic[V]):
    """The newest results of reading one key. Times are monotonic seconds at which a read ended."""

    last: tuple[float, V] | None = None
    failed: tuple[float, Exception] | None = None
    """Set only if the newest read failed."""
    task: asyncio.Task[None] | None = None


class SingleFlightCache(Generic[K, V]):
    """Values by key; all tasks that wait for a key share one read. Belongs to one event loop.

    `forget_after_s`: how long a value stays in memory; without it the last value of each key stays.
    """

    def __init__(self, read: Callable[[K], Awaitable[V]], *, forget_after_s: float | None = None) -> None:
        self._read = read
        self._forget_after_s = forget_after_s
        self._keys: dict[K, _Reads[V]] = {}

    async def get(self, key: K, *, max_age_s: float, retry_s: float | None = None) -> V:
        """Return a value that was read at most `max_age_s` ago. Raises the error of the read.

        A failed read is repeated at the earliest after `retry_s` (by default `max_age_s`); until then its error is raised again.
        """
        reads = self._keys.setdefault(key, _Reads())
        now = time.monotonic()
        if reads.last is not None and now - reads.last[0] < max_age_s:
            return reads.last[1]
        if reads.task is None:
            if reads.failed is not None and now - reads.failed[0] < (max_age_s if retry_s is None else retry_s):
                raise reads.failed[1]
            reads.task = asyncio.create_task(self._run(key, reads))
        # A caller that is cancelled must not cancel the shared read.
        await asyncio.shield(reads.task)
        if reads.failed is not None:
            raise reads.failed[1]
        assert reads.last is not None, "a read that did not fail has set a value"
        return reads.last[1]

    def last(self, key: K) -> V | None:
        """Return the last value that was read, however old; None if there is none."""
        reads = self._keys.get(key)
        return reads.last[1] if reads is not None and reads.last is not None else None

    def forget(self, key: K) -> None:
        """Drop the value of a key. A read in progress serves only the callers that already wait for it."""
        self._keys.pop(key, None)

    async def _run(self, key: K, reads: _Reads[V]) -> None:
        try:
            value = await self._read(key)
            reads.last, reads.failed = (time.monotonic(), value), None
        except Exception as error:  # noqa: BLE001 - raised again in every caller that waits
            reads.failed = time.monotonic(), error
        finally:
            reads.task = None
        if self._forget_after_s is not None:
            asyncio.get_running_loop().call_later(self._forget_after_s, self._forget_idle, key, reads)

    def _forget_idle(self, key: K, reads: _Reads[V]) -> None:
        # A newer read sets its own timer.
        if reads.task is None and self._keys.get(key) is reads:
            del self._keys[key]


@dataclass(slots=True)
class _Slot(Generic[V]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    read: tuple[float, int, V] | None = None
    """When the read began, at which version, and its value."""


class ThreadCache(Generic[V]):
    """Values by key; threads that wait for a key share one read. Failed reads are not cached."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, max_entries: int = 10_000) -> None:
        """Set the clock, and the number of values after which all are dropped, however old they are."""
        self._clock = clock
        self._max_entries = max_entries
        self._slots: dict[str, _Slot[V]] = {}
        self._guard = threading.Lock()

    def peek(self, key: str, *, max_age_s: float) -> V | None:
        """Return the value if its read began less than `max_age_s` ago, else None. Never reads."""
        slot = self._slots.get(key)
        read = slot.read if slot else None
        return read[2] if read and _is_younger(self._clock() - read[0], max_age_s) else None

    def get(self, key: str, read: Callable[[], V], *, max_age_s: float, version: int = 0) -> V:
        """Return a value whose read began less than `max_age_s` ago, at this `version` or a later one. Raises the errors of `read`."""
        with self._guard:
            if len(self._slots) >= self._max_entries and key not in self._slots:
                self._slots.clear()
            slot = self._slots.setdefault(key, _Slot())
        with slot.lock:
            began = self._clock()
            if slot.read is None or slot.read[1] < version or not _is_younger(began - slot.read[0], max_age_s):
                slot.read = began, version, read()
            return slot.read[2]


def _is_younger(age_s: float, max_age_s: float) -> bool:
    """Whether an age is below a maximum, which may be infinite. A negative age comes from a clock that was set back, and means nothing."""
    return 0.0 <= age_s < max_age_s or max_age_s == math.inf
