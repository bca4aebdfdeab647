"""Reviews that are due, or were made, after a break-glass approval. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sqlalchemy import Connection, RowMapping, select

from justenough.adapters.store.paging import MAX_PAGE_SIZE, fetch_page, iterate_pages
from justenough.adapters.store.repository import DEFAULT_PAGE_SIZE, Repository, reads
from justenough.adapters.store.tables import JOBS, REQUESTS, REVIEWS
from justenough.domain.readmodel.views import Page, ReviewView

_REVIEWS = (
    select(REVIEWS, JOBS.c.name.label("job_name"), REQUESTS.c.resource, REQUESTS.c.action, REQUESTS.c.digest)
    .outerjoin(JOBS, JOBS.c.id == REVIEWS.c.job_id)
    .outerjoin(REQUESTS, REQUESTS.c.id == REVIEWS.c.request_id)
)


class ReviewRepository(Repository):
    """Reviews of break-glass approvals."""

    @reads
    def list(
        self, connection: Connection, *, only_open: bool = True, limit: int = DEFAULT_PAGE_SIZE, cursor: str | None = None
    ) -> Page[ReviewView]:
        """Return reviews, newest first. Raises InvalidInput if the cursor is not one of this list."""
        wanted = _REVIEWS.where(REVIEWS.c.open) if only_open else _REVIEWS
        return fetch_page(
            connection, wanted, by=(REVIEWS.c.opened_at, REVIEWS.c.request_id), limit=limit, cursor=cursor, views=_to_review_views
        )

    def iterate_open(self) -> Iterator[ReviewView]:
        """Return each review that is still due, newest first."""
        return iterate_pages(lambda cursor: self.list(limit=MAX_PAGE_SIZE, cursor=cursor))


def reviews_by_request(connection: Connection, requests: Iterable[str]) -> Mapping[str, ReviewView]:
    """Return the reviews of these requests, by request id."""
    ids = tuple(requests)
    if not ids:
        return {}
    rows = connection.execute(_REVIEWS.where(REVIEWS.c.request_id.in_(ids))).mappings().all()
    return {view.request_id: view for view in _to_review_views(rows)}


def _to_review_views(rows: Sequence[RowMapping]) -> tuple[ReviewView, ...]:
    joined = ("job_name", "resource", "action", "digest")
    return tuple(ReviewView(**{**row, **{name: row[name] or "" for name in joined}}) for row in rows)
