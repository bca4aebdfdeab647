"""Who may see which job, and lists without what the caller may not see. Blocking, for a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import TypeVar

from anyio import to_thread

from console.auth.authorization import Caller
from justenough.adapters.store import Store
from justenough.domain.core.errors import InvalidInput, NotFound, Problem
from justenough.domain.readmodel.views import JobView, Page

T = TypeVar("T")


MAX_PAGES_READ = 20
"""Pages that one call reads through to find something of the caller's."""


class JobOwners:
    """Who launched which job. Never changes, so it is remembered."""

    MAX_ENTRIES = 20_000

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, str] = {}
        self._absent: dict[str, int] = {}
        """Jobs that nobody knew of, and the newest entry that told of none."""
        self._lock = asyncio.Lock()

    def owner_of(self, job: str) -> str | None:
        """Return the entity id of who launched a job, None where there is no such job."""
        if job not in self._known:
            view = self._store.jobs.get(job)
            if view is None:
                return None
            self._remember({job: view.requester_id})
        return self._known[job]

    def preload(self, jobs: Iterable[str]) -> None:
        """Look up at once who launched those of these jobs that are not known yet. Blocking."""
        unknown = frozenset(job for job in jobs if job not in self._known)
        if unknown:
            self._remember(self._store.jobs.requesters(unknown))

    def _remember(self, found: Mapping[str, str]) -> None:
        if len(self._known) + len(found) > self.MAX_ENTRIES:
            self._known = {}
        self._known |= found

    async def owners_of(self, jobs: Iterable[str], *, position: int) -> Mapping[str, str]:
        """Return the entity ids of who launched these jobs, for an event loop; jobs that the ledger did not tell of up to a position are not there.

        Many who listen ask the same at the same time: one of them reads, for all.
        """
        wanted = frozenset(jobs)
        async with self._lock if self._unknown_jobs(wanted, position) else nullcontext():
            found = {job: self._known[job] for job in wanted if job in self._known}
            if unasked := self._unknown_jobs(wanted, position):
                asked = await to_thread.run_sync(self._store.jobs.requesters, unasked)
                self._remember(asked)
                self._absent = {
                    **(self._absent if len(self._absent) < self.MAX_ENTRIES else {}),
                    **dict.fromkeys(unasked - asked.keys(), position),
                }
                found |= asked
        return found

    def _unknown_jobs(self, jobs: frozenset[str], position: int) -> frozenset[str]:
        return frozenset(job for job in jobs if job not in self._known and self._absent.get(job, -1) < position)

    def can_read(self, caller: Caller, job: str) -> bool:
        """Whether the caller may read this job; what belongs to no job is for those who read everything."""
        return caller.can_read_all or caller.can_read_jobs_of(self.owner_of(job) or "")


def job_for(store: Store, caller: Caller, job: str) -> JobView:
    """Return a job that the caller may read; raise NotFound for others, so that nobody learns which ids there are."""
    view = store.jobs.get(job)
    if view is None or not caller.can_read_jobs_of(view.requester_id):
        raise NotFound(f"there is no job {job}")
    return view


def first_visible_page(
    read: Callable[[str | None], Page[T]], is_visible: Callable[[T], bool], *, cursor: str | None, max_pages: int = MAX_PAGES_READ
) -> Page[T]:
    """Return the first page that has something to keep. It may be shorter than asked for; `next` goes on after it."""
    for _ in range(max_pages):
        page = read(cursor)
        kept = tuple(item for item in page.items if is_visible(item))
        cursor = page.next
        if kept or cursor is None:
            return Page(items=kept, next=cursor)
    return Page(items=(), next=cursor)


def parse_position(cursor: str, *, path: str = "query.cursor") -> int:
    """Return the ledger position that a cursor is; raise InvalidInput where it is none."""
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 17):
        raise InvalidInput("request", (Problem(path, "is not a position of this list; start again without one"),))
    return int(cursor)
