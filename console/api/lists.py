"""What every list has in common: its bounds, whose things it shows, and how it skips those that are not the caller's. Blocking, for a thread."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Annotated, Any, TypeVar

from anyio import to_thread
from fastapi import Query
from pydantic import AwareDatetime, BeforeValidator

from activities.store import Store
from console.api.rights import Caller
from justenough.errors import NotFound
from justenough.views import JobView, Page

T = TypeVar("T")

WRITTEN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")
POSITION = "^[0-9]{1,16}$"
"""How a position in the ledger is written. It only tells: what is wrong with one is said in words."""
MAX_LOOKS = 20
"""Pages that one call reads through to find something of the caller's."""

Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before")]
PositionCursor = Annotated[
    str | None, Query(max_length=200, description="`next` of the page before", json_schema_extra={"pattern": POSITION})
]
"""Of a list in the ledger's order."""
After = Annotated[int, Query(ge=0, le=2**53, description="The last position seen")]


def _moment(value: Any) -> Any:
    if isinstance(value, str) and not WRITTEN.match(value):
        message = "must be a time as RFC 3339 writes it, with its zone: 2026-11-25T09:30:00Z"
        raise ValueError(message)
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
"""A time that a caller names. A bare number is refused: seconds and milliseconds look alike."""


class Owners:
    """Who launched which job. Never changes, so it is remembered."""

    MAX = 20_000

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, str] = {}
        self._absent: dict[str, int] = {}
        """Jobs that nobody knew of, and the newest entry that told of none."""
        self._asking = asyncio.Lock()

    def of(self, job: str) -> str | None:
        """Return the entity id of who launched a job, None where there is no such job."""
        if job not in self._known:
            view = self._store.job(job)
            if view is None:
                return None
            self._keep({job: view.requester_id})
        return self._known[job]

    def learn(self, jobs: Iterable[str]) -> None:
        """Look up at once who launched those of these jobs that are not known yet. Blocking."""
        unknown = frozenset(job for job in jobs if job not in self._known)
        if unknown:
            self._keep(self._store.requesters(unknown))

    def _keep(self, found: Mapping[str, str]) -> None:
        if len(self._known) + len(found) > self.MAX:
            self._known = {}
        self._known |= found

    async def among(self, jobs: Iterable[str], *, position: int) -> Mapping[str, str]:
        """Return the entity ids of who launched these jobs, for an event loop; jobs that the ledger did not tell of up to a position are not there.

        Many who listen ask the same at the same time: one of them reads, for all.
        """
        wanted = frozenset(jobs)
        async with self._asking if self._unasked(wanted, position) else nullcontext():
            found = {job: self._known[job] for job in wanted if job in self._known}
            if unasked := self._unasked(wanted, position):
                asked = await to_thread.run_sync(self._store.requesters, unasked)
                self._keep(asked)
                self._absent = {**(self._absent if len(self._absent) < self.MAX else {}), **dict.fromkeys(unasked - asked.keys(), position)}
                found |= asked
        return found

    def _unasked(self, jobs: frozenset[str], position: int) -> frozenset[str]:
        return frozenset(job for job in jobs if job not in self._known and self._absent.get(job, -1) < position)

    def readable(self, caller: Caller, job: str) -> bool:
        """Whether the caller may read this job; what belongs to no job is for those who read everything."""
        return caller.reads_all or caller.reads(self.of(job) or "")


def job_for(store: Store, caller: Caller, job: str) -> JobView:
    """Return a job that the caller may read; raise NotFound for others, so that nobody learns which ids there are."""
    view = store.job(job)
    if view is None or not caller.reads(view.requester_id):
        raise NotFound(f"there is no job {job}")
    return view


def narrowed(read: Callable[[str | None], Page[T]], keep: Callable[[T], bool], *, cursor: str | None, looks: int = MAX_LOOKS) -> Page[T]:
    """Return the first page that has something to keep. It may be shorter than asked for; `next` goes on after it."""
    for _ in range(looks):
        page = read(cursor)
        kept = tuple(item for item in page.items if keep(item))
        cursor = page.next
        if kept or cursor is None:
            return Page(items=kept, next=cursor)
    return Page(items=(), next=cursor)
