"""The steps of a revocation: each runs even if others failed, and none waits long for the store, so that access does not stay alive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from justenough.adapters.store import StoreUnavailable
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.ledger.events import Event
from justenough.services.dependencies import Deps

STORE_TIMEOUT_S = 2.0
"""Seconds that a revocation waits for the store before it continues without it."""
LATE_ANSWER_TIMEOUT_S = 10.0
"""Seconds that it then waits for the same answer, once it has revoked everything that it can find without it. Both together are shorter than
REVOCATION_GRACE.
"""

MAX_CONCURRENT_CALLS = 32
"""Leases that are revoked, or credentials that are checked, at once: one that hangs must not delay the others."""

T = TypeVar("T")
Item = TypeVar("Item")


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


class StoreAnswer(Generic[T]):
    """The answer to one call of the store. The call has its own thread, so its caller can go on without the answer and ask for it again later."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._answer: Future[T] = Future()

        def run() -> None:
            try:
                self._answer.set_result(call())
            except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
                self._answer.set_exception(error)

        threading.Thread(target=run, name="revocation-store", daemon=True).start()

    def get(self, timeout: float = STORE_TIMEOUT_S) -> T:
        """Return the answer or raise the call's error; raise StoreUnavailable if neither comes within `timeout` seconds."""
        try:
            return self._answer.result(timeout)
        except TimeoutError as error:
            raise StoreUnavailable(f"did not answer within {timeout:.0f} s") from error


def with_store_timeout(call: Callable[[], T]) -> T:
    """Return the store's answer; raise StoreUnavailable if it takes longer than STORE_TIMEOUT_S."""
    return StoreAnswer(call).get()


def try_record(deps: Deps, facts: list[Event]) -> tuple[Event, ...]:
    """Record the events and return those that could not be recorded."""
    try:
        with_store_timeout(lambda: deps.store.ledger.append(facts))
    except Exception:  # noqa: BLE001 - revocation never waits for the ledger; the caller keeps the events
        return tuple(facts)
    return ()


def map_at_once(call: Callable[[Item], T], items: Sequence[Item]) -> list[T]:
    """Call with each item, with several at once, and return the results in order."""
    if len(items) < 2:
        return [call(item) for item in items]
    with ThreadPoolExecutor(min(MAX_CONCURRENT_CALLS, len(items))) as pool:
        return list(pool.map(call, items))
