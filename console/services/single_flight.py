"""Long read-only work: concurrent callers share one run, and pages show its progress and outcome. Kept in memory only, so not evidence."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, TypeVar

import structlog

from justenough.domain.core.errors import JustEnoughError, RetryLater

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

WORK_FAILED_TEXT = "unexpected error; the console's log has the details"

log = structlog.get_logger()


class Busy(RetryLater):
    """A person has too much work that is still running."""


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """One piece of work, running or done."""

    began: datetime
    by: str
    """Login name of the person who started it."""
    ended: datetime | None = None
    outcome: T | None = None
    error: JustEnoughError | None = None

    @property
    def runs(self) -> bool:
        """Whether it is still running."""
        return self.ended is None

    @property
    def seconds(self) -> float:
        """The duration of the work in seconds; 0 while it runs."""
        return (self.ended - self.began).total_seconds() if self.ended else 0.0


class SingleFlight(Generic[K, T]):
    """Work of one kind, by key. Belongs to one event loop."""

    def __init__(
        self,
        work: Callable[[K], Awaitable[T]],
        *,
        now: Callable[[], datetime],
        max_concurrency: int = 1,
        max_outcomes: int = 1,
        max_per_person: int = 4,
    ) -> None:
        """Set the clock and the limits: how many runs at the same time, how many outcomes to keep, and how many unfinished runs per person, so
        that one person cannot block the others.
        """
        self._work, self._now, self._max_outcomes, self._max_per_person = work, now, max_outcomes, max_per_person
        self._semaphore = asyncio.Semaphore(max_concurrency)
        self._works: OrderedDict[K, Work[T]] = OrderedDict()
        self._tasks: dict[K, asyncio.Task[Work[T]]] = {}

    def start(self, key: K, *, by: str) -> Work[T]:
        """Start the work unless it is running; return it. Raises Busy."""
        if key not in self._tasks:
            if sum(self._works[other].by == by for other in self._tasks) >= self._max_per_person:
                raise Busy(
                    f"{self._max_per_person} checks or reports that you started are still running, which is the maximum; "
                    "try again when one has ended"
                )
            begun = self._works[key] = Work(self._now(), by)
            self._works.move_to_end(key)
            self._tasks[key] = asyncio.create_task(self._run(key, begun))
            self._tasks[key].add_done_callback(lambda _: self._tasks.pop(key, None))
            # Drop the oldest outcomes; work that is running stays.
            ended = [other for other, work in self._works.items() if not work.runs]
            for other in ended[: max(0, len(self._works) - self._max_outcomes)]:
                del self._works[other]
        return self._works[key]

    def get(self, key: K) -> Work[T] | None:
        """Return the work of a key, running or done; None if it was never started or its outcome has been dropped."""
        return self._works.get(key)

    def items(self) -> tuple[tuple[K, Work[T]], ...]:
        """Return all work that is running, and the outcomes that are still kept, newest first."""
        # Copy the values first: pages call this from other threads.
        return tuple(reversed(tuple(self._works.items())))

    async def result(self, key: K, *, by: str) -> T:
        """Start the work unless it is running, and return its outcome. Raises the error of the work, Busy."""
        self.start(key, by=by)
        # A caller that is cancelled must not cancel the work for the others.
        done = await asyncio.shield(self._tasks[key])
        if done.error is not None:
            raise done.error
        assert done.outcome is not None, "work without an error has an outcome"
        return done.outcome

    async def close(self) -> None:
        """Cancel everything that is still running."""
        for task in tuple(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, key: K, begun: Work[T]) -> Work[T]:
        async with self._semaphore:
            try:
                done = replace(begun, outcome=await self._work(key))
            except JustEnoughError as error:
                done = replace(begun, error=error)
            except Exception as error:  # noqa: BLE001 - every caller must get an outcome
                # The error's text may contain input of a caller; its type does not.
                log.error("work failed", error=type(error).__name__)  # noqa: TRY400 - the traceback would contain that text
                done = replace(begun, error=JustEnoughError(WORK_FAILED_TEXT))
        done = self._works[key] = replace(done, ended=self._now())
        return done
