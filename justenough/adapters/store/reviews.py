"""Reviews that are due, or were made, after a break-glass approval. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy import Connection, func, select

from justenough.adapters.store.paging import MAX_PAGE_SIZE, fetch_page, iterate_pages
from justenough.adapters.store.repository import DEFAULT_PAGE_SIZE, Repository, fetch_all, is_own_or_descendant, reads
from justenough.adapters.store.tables import JOBS, REQUESTS, REVIEWS
from justenough.domain.readmodel.views import Page, ReviewView

# The job or the request may not be recorded yet.
_JOINED = {"job_name": JOBS.c.name, **{name: REQUESTS.c[name] for name in ("resource", "action", "digest")}}
_REVIEWS = (
    select(REVIEWS, *(func.coalesce(column, "").label(name) for name, column in _JOINED.items()))
    .outerjoin(JOBS, JOBS.c.id == REVIEWS.c.job_id)
    .outerjoin(REQUESTS, REQUESTS.c.id == REVIEWS.c.request_id)
)


class ReviewRepository(Repository):
    @reads
    def list(
        self, connection: Connection, *, only_open: bool = True, limit: int = DEFAULT_PAGE_SIZE, cursor: str | None = None
    ) -> Page[ReviewView]:
        """Return reviews, newest first. Raises InvalidInput if the cursor is not from this list."""
        statement = _REVIEWS.where(REVIEWS.c.open) if only_open else _REVIEWS
        by = (REVIEWS.c.opened_at, REVIEWS.c.request_id)
        return fetch_page(connection, statement, by=by, limit=limit, cursor=cursor, view=ReviewView)

    @reads
    def count_answerable(self, connection: Connection, person: str, tier: int, *, up_to: int) -> int:
        """Return how many of the newest `up_to` open reviews a person (entity id) who approves at this tier can answer: reviews of other
        people's break-glass approvals, for jobs that neither descend from the person's own nor were run by a schedule for them.
        """
        newest = select(REVIEWS.c.tiers, REVIEWS.c.person_id, is_own_or_descendant(person, REVIEWS).label("barred"))
        rows = connection.execute(newest.where(REVIEWS.c.open).order_by(REVIEWS.c.opened_at.desc()).limit(up_to))
        return sum(max(row.tiers) <= tier and person != row.person_id and not row.barred for row in rows)

    def iterate_open(self) -> Iterator[ReviewView]:
        """Yield each review that is still due, newest first."""
        return iterate_pages(lambda cursor: self.list(limit=MAX_PAGE_SIZE, cursor=cursor))


def reviews_by_request(connection: Connection, requests: Iterable[str]) -> Mapping[str, ReviewView]:
    ids = tuple(requests)
    views = fetch_all(connection, _REVIEWS.where(REVIEWS.c.request_id.in_(ids)), ReviewView) if ids else ()
    return {view.request_id: view for view in views}
