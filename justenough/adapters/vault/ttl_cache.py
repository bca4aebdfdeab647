"""A few values for a few seconds, so that what hardly changes is not asked for each time. Knows nothing of Vault."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

REMEMBERED_SECONDS = 10.0
REMEMBERED_VALUES = 4096

T = TypeVar("T")


class Remembered(Generic[T]):
    """A few values for a few seconds."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[float, T]] = {}

    def get(self, key: str, read: Callable[[], T]) -> T:
        """Return the remembered value, else read it. What is empty is not remembered: it may be there the next moment."""
        at, value = self._values.get(key, (0.0, None))
        if value is not None and time.monotonic() - at < REMEMBERED_SECONDS:
            return value
        fresh = read()
        if len(self._values) >= REMEMBERED_VALUES:
            self._values.clear()
        if fresh:
            self._values[key] = (time.monotonic(), fresh)
        return fresh
