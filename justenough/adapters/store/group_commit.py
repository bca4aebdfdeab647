"""Group commit: one thread of a process writes at a time, and the threads that wait share the next transaction. Knows no table.

Each commit costs a flush to disk, however little it contains. Each piece of work returns only after the commit that contains it.
A thread that writes must not be interrupted by an exception from another one: those whose work it commits would wait forever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sqlalchemy import Connection, Engine

from justenough.adapters.store.engine import write_transaction
from justenough.adapters.store.errors import StoreUnavailable

T = TypeVar("T")
MAX_BATCH_SIZE = 64
"""Maximum pieces of work in one transaction: limits how long other processes wait."""


class GroupCommitter:
    """Runs work in transactions of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Lock()
        self._waiting: list[_Work[object]] = []
        self._waiting_lock = threading.Lock()

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` and return its result once committed. Raises what it raises, with nothing committed. It may run more than once."""
        mine: _Work[T] = _Work(work)
        with self._waiting_lock:
            self._waiting.append(mine)  # type: ignore[arg-type] # the list holds work of every kind
        while not mine.done:
            with self._turn:
                if not mine.done:
                    with self._waiting_lock:
                        batch, self._waiting = self._waiting[:MAX_BATCH_SIZE], self._waiting[MAX_BATCH_SIZE:]
                    self._commit(batch)
        if mine.error is not None:
            raise mine.error
        return mine.results[0]

    def _commit(self, batch: list[_Work[object]]) -> None:
        try:
            with write_transaction(self._engine) as connection:
                results = [item.work(connection) for item in batch]
        except BaseException as error:
            if len(batch) > 1 and isinstance(error, Exception) and not isinstance(error, StoreUnavailable):
                # Try each piece of work alone, so that one that fails does not fail the others.
                for item in batch:
                    self._commit([item])
                return
            for item in batch:
                item.error, item.done = error, True
            if not isinstance(error, Exception):
                raise
            return
        for item, result in zip(batch, results, strict=True):
            item.results, item.done = [result], True


@dataclass(slots=True)
class _Work(Generic[T]):
    """One piece of work and its outcome: one result, or an error."""

    work: Callable[[Connection], T]
    done: bool = False
    results: list[T] = field(default_factory=list)
    error: BaseException | None = None
