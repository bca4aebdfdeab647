"""A synchronous cache for values that rarely change. Does not know Vault."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

CACHE_TTL_S = 10.0
MAX_CACHED_VALUES = 4096

T = TypeVar("T")


class TtlCache(Generic[T]):
    """Caches up to MAX_CACHED_VALUES values for CACHE_TTL_S. Two threads may both read a missing value."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[float, T]] = {}

    def get(self, key: str, read: Callable[[], T]) -> T:
        """Return the cached value, or read it. Empty values are not cached, because they may exist a moment later."""
        at, value = self._values.get(key, (0.0, None))
        if value is not None and time.monotonic() - at < CACHE_TTL_S:
            return value
        fresh = read()
        if len(self._values) >= MAX_CACHED_VALUES:
            self._values.clear()
        if fresh:
            self._values[key] = (time.monotonic(), fresh)
        return fresh
