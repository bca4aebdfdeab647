"""What takes long and changes nothing: done once for all who ask at the same time, its outcome kept for those who come later. Knows no work of its own.

Outcomes are this process's memory and no evidence: a console that starts anew has none, and the work is asked for again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Generic, TypeVar

import structlog

from justenough.domain.core.errors import JustEnoughError, RetryLater

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

WORK_FAILED_TEXT = "something went wrong here; the console's log tells more"

log = structlog.get_logger()


class Busy(RetryLater):
    """Somebody asked for more at once than they may."""


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """One piece of work, running or done."""

    began: datetime
    by: str
    """Login name of who asked first."""
    ended: datetime | None = None
    outcome: T | None = None
    error: JustEnoughError | None = None
    """Why it came to nothing."""

    @property
    def runs(self) -> bool:
        """Whether it is not done yet."""
        return self.ended is None

    @property
    def seconds(self) -> float:
        """How long it took; 0 while it runs."""
        return (self.ended - self.began).total_seconds() if self.ended else 0.0


class SingleFlight(Generic[K, T]):
    """Work of one kind, by what it is about. Belongs to one event loop."""

    def __init__(
        self,
        work: Callable[[K], Awaitable[T]],
        *,
        max_concurrency: int = 1,
        max_outcomes: int = 1,
        max_per_person: int = 4,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`max_concurrency`: how many run at the same time, the others wait; `max_outcomes`: how many outcomes are remembered, the newest ones.

        `max_per_person`: how many that are not done yet one person may have asked for: nobody has all the others wait for what is theirs.
        """
        self._work, self._max_outcomes, self._max_per_person, self._now = work, max_outcomes, max_per_person, now
        self._semaphore = asyncio.Semaphore(max_concurrency)
        self._works: OrderedDict[K, Work[T]] = OrderedDict()
        self._tasks: dict[K, asyncio.Task[Work[T]]] = {}

    def start(self, key: K, *, by: str) -> Work[T]:
        """Have it done, unless it is being done already; return how it stands. Raises Busy."""
        if key not in self._tasks:
            if sum(self._works[other].by == by for other in self._tasks) >= self._max_per_person:
                raise Busy(f"{self._max_per_person} that you asked for are not done yet; ask again when one of them is")
            begun = self._works[key] = Work(self._now(), by)
            self._works.move_to_end(key)
            self._tasks[key] = asyncio.create_task(self._run(key, begun))
            self._tasks[key].add_done_callback(lambda _: self._tasks.pop(key, None))
            self._evict_outcomes()
        return self._works[key]

    def get(self, key: K) -> Work[T] | None:
        """Return how it stands; None where nobody asked, or it is long ago."""
        return self._works.get(key)

    def items(self) -> tuple[tuple[K, Work[T]], ...]:
        """Return everything that is remembered, the newest first."""
        # A copy first: pages read it from threads of their own.
        return tuple(reversed(tuple(self._works.items())))

    async def result(self, key: K, *, by: str) -> T:
        """Return the outcome of what is being done, or is done now; raise what it raises."""
        self.start(key, by=by)
        # Who stops waiting takes the work from nobody else.
        done = await asyncio.shield(self._tasks[key])
        if done.error is not None:
            raise done.error
        assert done.outcome is not None, "what is done without an error has an outcome"
        return done.outcome

    async def close(self) -> None:
        """Wait for nothing any more."""
        for task in tuple(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, key: K, begun: Work[T]) -> Work[T]:
        async with self._semaphore:
            try:
                done = replace(begun, outcome=await self._work(key))
            except JustEnoughError as error:
                done = replace(begun, error=error)
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told, and nobody waits for ever
                # Its text may hold what somebody sent; its kind does not.
                log.error("work failed", error=type(error).__name__)  # noqa: TRY400 - as said above
                done = replace(begun, error=JustEnoughError(WORK_FAILED_TEXT))
        done = self._works[key] = replace(done, ended=self._now())
        return done

    def _evict_outcomes(self) -> None:
        """Forget the oldest outcomes; what runs is never forgotten."""
        over = [key for key, work in self._works.items() if not work.runs]
        for key in over[: max(0, len(self._works) - self._max_outcomes)]:
            del self._works[key]
