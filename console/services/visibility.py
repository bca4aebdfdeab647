"""Decides who may read which job, and builds list pages without the items that the caller may not read. Blocking, for a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import TypeVar

from anyio import to_thread

from console.auth.authorization import Caller
from justenough.adapters.store import Store
from justenough.domain.contracts.workflow_messages import SweepReport
from justenough.domain.core.errors import InvalidInput, NotFound, Problem
from justenough.domain.core.ids import JOB_ID
from justenough.domain.readmodel.views import EntryView, JobView, Page, RequestView

T = TypeVar("T")

MAX_PAGES_READ = 20
"""How many pages one call reads to find an item that the caller may read."""


def visible_sweep(report: SweepReport, owners: JobOwners, caller: Caller) -> SweepReport:
    """Return a sweep's report without the jobs that the caller may not read. Blocking."""
    if caller.can_read_all:
        return report

    def readable(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(text for text in texts if all(owners.can_read(caller, found[0]) for found in JOB_ID.finditer(text)))

    parts = {name: readable(getattr(report, name)) for name in ("revoked", "lost", "unknown", "failures")}
    return report.model_copy(update=parts)


class JobOwners:
    """The launchers of jobs. They never change, so they are cached."""

    MAX_ENTRIES = 20_000

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, str] = {}
        self._absent: dict[str, int] = {}
        """Unknown job ids, each with the ledger position up to which no entry names it."""
        self._lock = asyncio.Lock()

    def owner_of(self, job: str) -> str | None:
        """Return the entity id of the person who launched a job; None if there is no such job."""
        self.preload([job])
        return self._known.get(job)

    def preload(self, jobs: Iterable[str]) -> None:
        """Look up the owners of all these jobs that are not cached yet, in one query. Blocking."""
        unknown = frozenset(job for job in jobs if job not in self._known)
        if unknown:
            self._remember(self._store.jobs.requesters(unknown))

    def _remember(self, owners: Mapping[str, str]) -> None:
        if len(self._known) + len(owners) > self.MAX_ENTRIES:
            self._known = {}
        self._known |= owners

    async def owners_of(self, jobs: Iterable[str], *, position: int) -> Mapping[str, str]:
        """Return the entity id of the person who launched each job, without jobs that no ledger entry up to `position` names.

        Use only on the event loop. Many listeners look up the same jobs at the same time, so one listener reads for all.
        """
        job_ids = frozenset(jobs)
        async with self._lock if self._unknown_jobs(job_ids, position) else nullcontext():
            owners = {job: self._known[job] for job in job_ids if job in self._known}
            if unknown := self._unknown_jobs(job_ids, position):
                read = await to_thread.run_sync(self._store.jobs.requesters, unknown)
                self._remember(read)
                self._absent = {
                    **(self._absent if len(self._absent) < self.MAX_ENTRIES else {}),
                    **dict.fromkeys(unknown - read.keys(), position),
                }
                owners |= read
        return owners

    async def readable_entries(self, caller: Caller, entries: Sequence[EntryView]) -> Sequence[EntryView]:
        """Filter consecutive ledger entries by whether the caller may read them. Use only on the event loop."""
        if caller.can_read_all or not entries:
            return entries
        owners = await self.owners_of((entry.job for entry in entries), position=entries[-1].position)
        return [entry for entry in entries if caller.can_read_jobs_of(owners.get(entry.job, ""))]

    def _unknown_jobs(self, jobs: frozenset[str], position: int) -> frozenset[str]:
        return frozenset(job for job in jobs if job not in self._known and self._absent.get(job, -1) < position)

    def can_read(self, caller: Caller, job: str) -> bool:
        """Whether the caller may read this job. Only callers who may read everything can read entries without a job."""
        return caller.can_read_all or caller.can_read_jobs_of(self.owner_of(job) or "")

    def readable(self, caller: Caller, items: Iterable[T], job_of: Callable[[T], str]) -> tuple[T, ...]:
        """Return the items whose jobs the caller may read, with at most one query for all their owners."""
        found = tuple(items)
        if not caller.can_read_all:
            self.preload(map(job_of, found))
        return tuple(item for item in found if self.can_read(caller, job_of(item)))


def visible_request(store: Store, owners: JobOwners, caller: Caller, request: str) -> RequestView:
    """Return a request that the caller may read. Raises NotFound for any other."""
    view = store.requests.get(request)
    if view is None or not owners.can_read(caller, view.job_id):
        raise NotFound(f"there is no request {request} that you may read")
    return view


def visible_answered_requests(store: Store, owners: JobOwners, caller: Caller, person: str, *, limit: int) -> tuple[RequestView, ...]:
    """Return the requests that a person (entity id) answered and that the caller may read, those with the newest answers first."""
    return owners.readable(caller, store.inbox.list_answered_by(person, limit), lambda view: view.job_id)


def job_for(store: Store, caller: Caller, job: str) -> JobView:
    """Return a job that the caller may read. Raises NotFound for any other, so that callers cannot find out which ids exist."""
    view = store.jobs.get(job)
    if view is None or not caller.can_read_jobs_of(view.requester_id):
        raise NotFound(f"there is no job {job} that you may read")
    return view


def first_visible_page(
    read: Callable[[str | None], Page[T]],
    keep: Callable[[Sequence[T]], Iterable[T]],
    *,
    cursor: str | None,
    max_pages: int = MAX_PAGES_READ,
) -> Page[T]:
    """Return the visible items of the first page that has any; `next` continues after that page. Reads at most `max_pages`."""
    for _ in range(max_pages):
        page = read(cursor)
        visible = tuple(keep(page.items))
        cursor = page.next
        if visible or cursor is None:
            return Page(items=visible, next=cursor)
    return Page(items=(), next=cursor)


def parse_position(cursor: str, *, path: str = "query.cursor") -> int:
    """Parse a cursor as a ledger position. Raises InvalidInput."""
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 17):
        raise InvalidInput("request", (Problem(path, "not a cursor from this list; start again without one"),))
    return int(cursor)
