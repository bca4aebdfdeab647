"""Group commit: one thread of a process writes at a time, and the threads that wait share the next transaction. Knows no table.

Each commit costs a flush to disk, however little it contains. Each piece of work returns only after the commit that contains it.
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
        """Run `work` and return its result once it is committed. If `work` raises, raise that, with nothing of it committed.

        `work` may run more than once, each time in a new transaction.
        """
        mine: _Work[T] = _Work(work)
        with self._waiting_lock:
            self._waiting.append(mine)  # type: ignore[arg-type] # the list holds work of every kind
        while not mine.done:
            with self._turn:
                if not mine.done:
                    with self._waiting_lock:
                        batch, self._waiting = self._waiting[:MAX_BATCH_SIZE], self._waiting[MAX_BATCH_SIZE:]
                    self._commit(batch)
        return mine.result()

    def _commit(self, batch: list[_Work[object]]) -> None:
        try:
            with write_transaction(self._engine) as connection:
                results = [item.work(connection) for item in batch]
        except Exception as error:  # noqa: BLE001 - the caller whose work raised it gets it
            self._fail_or_retry_singly(batch, error)
            return
        except BaseException as error:
            for item in batch:
                item.set_error(error)
            raise
        for item, result in zip(batch, results, strict=True):
            item.set_result(result)

    def _fail_or_retry_singly(self, batch: list[_Work[object]], error: Exception) -> None:
        """Try each piece of work alone, so that one that fails does not fail the others. If the database failed, all of them fail."""
        if len(batch) == 1 or isinstance(error, StoreUnavailable):
            for item in batch:
                item.set_error(error)
            return
        for item in batch:
            self._commit([item])


class _Work(Generic[T]):
    """One piece of work and its outcome."""

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
        """Return the result of the work, or raise its error."""
        if self._error is not None:
            raise self._error
        return self._result[0]
