"""Limits how long a revocation waits for the store: one that hangs must not keep access alive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from justenough.adapters.store import StoreUnavailable

STORE_TIMEOUT_S = 2.0
"""Seconds that a revocation waits for the store before it continues without it."""

T = TypeVar("T")


def with_store_timeout(call: Callable[[], T]) -> T:
    """Return the store's answer; raise StoreUnavailable if it takes longer than STORE_TIMEOUT_S."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            answer.set_exception(error)

    threading.Thread(target=run, name="revocation-store", daemon=True).start()
    try:
        return answer.result(timeout=STORE_TIMEOUT_S)
    except TimeoutError as error:
        raise StoreUnavailable(f"did not answer within {STORE_TIMEOUT_S:.0f} s") from error
