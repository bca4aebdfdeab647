"""Group commit: one writer per process at a time; those who wait meanwhile share its next transaction. Knows no table.

A commit costs a flush to disk, whatever is in it. Each piece of work returns only after the commit that holds it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from sqlalchemy import Connection, Engine

from justenough.adapters.store.engine import write_transaction
from justenough.adapters.store.errors import StoreUnavailable

T = TypeVar("T")
MAX_BATCH_SIZE = 64
"""Pieces of work in one transaction: bounds how long other processes wait."""


class GroupCommitter:
    """Runs work in transactions of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Lock()
        self._waiting: list[_Work[object]] = []
        self._waiting_lock = threading.Lock()

    def run(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns, once it is committed; raise what it raises, with nothing of it committed.

        `work` may be run more than once, each time on a transaction that knows nothing of the time before.
        """
        mine: _Work[T] = _Work(work)
        with self._waiting_lock:
            self._waiting.append(mine)  # type: ignore[arg-type] # the list holds work of every kind
        while not mine.done:
            with self._turn:
                if not mine.done:
                    self._commit(self._next_batch())
        return mine.result()

    def _next_batch(self) -> list[_Work[object]]:
        with self._waiting_lock:
            batch, self._waiting = self._waiting[:MAX_BATCH_SIZE], self._waiting[MAX_BATCH_SIZE:]
        return batch

    def _commit(self, batch: list[_Work[object]]) -> None:
        try:
            with write_transaction(self._engine) as connection:
                results = [item.work(connection) for item in batch]
        except Exception as error:  # noqa: BLE001 - each kind belongs to whoever's work raised it
            self._fail_or_retry_singly(batch, error)
            return
        except BaseException as error:
            for item in batch:
                item.set_error(error)
            raise
        for item, result in zip(batch, results, strict=True):
            item.set_result(result)

    def _fail_or_retry_singly(self, batch: list[_Work[object]], error: Exception) -> None:
        """Let one piece not take the others along: each is tried by itself, unless the database was what failed."""
        if len(batch) == 1 or isinstance(error, StoreUnavailable):
            for item in batch:
                item.set_error(error)
            return
        for item in batch:
            self._commit([item])


class _Work(Generic[T]):
    """One piece of work and what became of it."""

    def __init__(self, work: Callable[[Connection], T]) -> None:
        self.work = work
        self.done = False
        self._result: list[T] = []
        self._error: BaseException | None = None

    def set_result(self, result: T) -> None:
        self._result, self.done = [result], True

    def set_error(self, error: BaseException) -> None:
        self._error, self.done = error, True

    def result(self) -> T:
        """Return or raise what came of it."""
        if self._error is not None:
            raise self._error
        return self._result[0]
