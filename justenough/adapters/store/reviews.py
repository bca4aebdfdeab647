"""What people say beside their answers: reviews of broken glass, and who answers for whom. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, RowMapping, select

from justenough.adapters.store.paging import fetch_page
from justenough.adapters.store.tables import JOBS, REQUESTS, REVIEWS
from justenough.domain.readmodel.views import Page, ReviewView

_REVIEWS = (
    select(REVIEWS, JOBS.c.name.label("job_name"), REQUESTS.c.resource, REQUESTS.c.action, REQUESTS.c.digest)
    .outerjoin(JOBS, JOBS.c.id == REVIEWS.c.job_id)
    .outerjoin(REQUESTS, REQUESTS.c.id == REVIEWS.c.request_id)
)


def reviews(connection: Connection, *, only_open: bool, limit: int, cursor: str | None) -> Page[ReviewView]:
    """Return reviews, newest first."""
    wanted = _REVIEWS.where(REVIEWS.c.open) if only_open else _REVIEWS
    return fetch_page(
        connection, wanted, by=(REVIEWS.c.opened_at, REVIEWS.c.request_id), limit=limit, cursor=cursor, views=_to_review_views
    )


def reviews_by_request(connection: Connection, requests: Iterable[str]) -> Mapping[str, ReviewView]:
    """Return the reviews of these requests, by request."""
    wanted = tuple(requests)
    if not wanted:
        return {}
    found = _to_review_views(connection.execute(_REVIEWS.where(REVIEWS.c.request_id.in_(wanted))).mappings().all())
    return {view.request_id: view for view in found}


def _to_review_views(rows: Sequence[RowMapping]) -> tuple[ReviewView, ...]:
    told = ("job_name", "resource", "action", "digest")
    return tuple(ReviewView(**{**row, **{name: row[name] or "" for name in told}}) for row in rows)
