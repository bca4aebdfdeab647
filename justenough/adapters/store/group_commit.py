"""Group commit: one thread of a process writes at a time, and the threads that wait share the next transaction, because each commit costs a
flush to disk.

A thread that writes must not be interrupted by an exception from another one: those whose work it commits would wait forever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from justenough.adapters.store.engine import write_transaction
from justenough.adapters.store.errors import StoreUnavailable

MAX_BATCH_SIZE = 64
"""Maximum pieces of work in one transaction: limits how long other processes wait."""

T = TypeVar("T")
_Work = tuple[Callable[[Connection], Any], Future[Any]]
"""A piece of work, and its outcome."""


class GroupCommitter:
    """Runs work in transactions of one engine. Each piece of work returns only after the commit that contains it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Lock()
        self._waiting: list[_Work] = []
        self._waiting_lock = threading.Lock()

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` and return its result once committed. Raises what it raises, with nothing committed. It may run more than once."""
        outcome = Future[T]()
        with self._waiting_lock:
            self._waiting.append((work, outcome))
        while not outcome.done():
            with self._turn:
                if not outcome.done():
                    with self._waiting_lock:
                        batch, self._waiting = self._waiting[:MAX_BATCH_SIZE], self._waiting[MAX_BATCH_SIZE:]
                    self._commit(batch)
        return outcome.result()

    def _commit(self, batch: list[_Work]) -> None:
        try:
            with write_transaction(self._engine) as connection:
                results = [work(connection) for work, _ in batch]
        except BaseException as error:  # noqa: BLE001 - an interrupt, too, must reach whoever waits
            if len(batch) > 1 and isinstance(error, Exception) and not isinstance(error, StoreUnavailable):
                # Try each piece of work alone, so that one that fails does not fail the others.
                for item in batch:
                    self._commit([item])
                return
            # Not raised here: other pieces of work may wait for this thread to try them. The outcome raises it in the thread that waits for it.
            for _, outcome in batch:
                outcome.set_exception(error)
            return
        for (_, outcome), result in zip(batch, results, strict=True):
            outcome.set_result(result)
