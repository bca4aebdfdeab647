"""The threads in which the console waits for Vault. There are few, and they serve nothing else.

If Vault hangs, each call to it keeps its thread for some seconds. Because such calls have their own threads, work that does not need Vault
(the store, stopping jobs) still has threads. A call that finds too many others waiting fails at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from justenough.domain.core.errors import RetryLater

MAX_THREADS = 32
MAX_CALLS = 128
"""Maximum number of calls that run or wait for a thread."""

T = TypeVar("T")


class VaultBusy(RetryLater):
    """Too many calls wait for Vault."""


class VaultThreads:
    """A pool of threads, with a limit on the calls that run or wait."""

    def __init__(self, *, threads: int = MAX_THREADS, calls: int = MAX_CALLS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="vault")
        self._free = threading.BoundedSemaphore(calls)

    async def run(self, call: Callable[[], T]) -> T:
        """Run a blocking call in a thread, to its end even if the caller is cancelled. Raises VaultBusy and the call's errors."""
        if not self._free.acquire(blocking=False):
            raise VaultBusy("Vault does not answer fast enough: too many calls wait for it; try again later")
        # The log's context goes with it.
        future = self._pool.submit(copy_context().run, call)
        # Also of one that is cancelled before it runs.
        future.add_done_callback(lambda _: self._free.release())
        return await asyncio.wrap_future(future)


VAULT_THREADS = VaultThreads()
"""The threads for authenticated people."""
LOGIN_THREADS = VaultThreads(threads=8, calls=32)
"""The threads for logins, which anybody can send."""
