"""Runs steps independently of each other, and collects why some of them failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from justenough.domain.core.errors import JustEnoughError

T = TypeVar("T")


class FailureCollector:
    """Collects one sentence for each step that failed, in order."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def attempt(self, what: str, call: Callable[[], T], otherwise: T) -> T:
        """Return the call's result, or `otherwise` if it raised anything."""
        try:
            return call()
        except JustEnoughError as error:
            self.failures.append(f"{what}: {error}")
        except Exception as error:  # noqa: BLE001 - no failure of one step may keep the next from running
            self.failures.append(f"{what}: {type(error).__name__}")
        return otherwise

    def succeeds(self, what: str, call: Callable[[], object]) -> bool:
        """Return whether the call returned without raising."""
        before = len(self.failures)
        self.attempt(what, call, otherwise=None)
        return len(self.failures) == before
