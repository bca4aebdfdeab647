"""What people say beside their answers: reviews of broken glass, and who answers for whom. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, RowMapping, select

from activities.store.paging import paged
from activities.store.tables import DELEGATIONS, JOBS, REQUESTS, REVIEWS
from justenough.statements import Signed
from justenough.views import DelegationView, Page, ReviewView

_REVIEWS = (
    select(REVIEWS, JOBS.c.name.label("job_name"), REQUESTS.c.resource, REQUESTS.c.action, REQUESTS.c.digest)
    .outerjoin(JOBS, JOBS.c.id == REVIEWS.c.job_id)
    .outerjoin(REQUESTS, REQUESTS.c.id == REVIEWS.c.request_id)
)


def reviews(connection: Connection, *, only_open: bool, limit: int, cursor: str | None) -> Page[ReviewView]:
    """Return reviews, newest first."""
    wanted = _REVIEWS.where(REVIEWS.c.open) if only_open else _REVIEWS
    return paged(connection, wanted, by=(REVIEWS.c.opened_at, REVIEWS.c.request_id), limit=limit, cursor=cursor, views=_reviews)


def reviews_of(connection: Connection, requests: Iterable[str]) -> Mapping[str, ReviewView]:
    """Return the reviews of these requests, by request."""
    wanted = tuple(requests)
    if not wanted:
        return {}
    found = _reviews(connection.execute(_REVIEWS.where(REVIEWS.c.request_id.in_(wanted))).mappings().all())
    return {view.request_id: view for view in found}


def delegations(connection: Connection, *, limit: int, cursor: str | None) -> Page[DelegationView]:
    """Return delegations, newest first."""
    return paged(
        connection, select(DELEGATIONS), by=(DELEGATIONS.c.made_at, DELEGATIONS.c.id), limit=limit, cursor=cursor, views=_delegations
    )


def delegation_view(connection: Connection, name: str) -> DelegationView | None:
    """Return one delegation by its id."""
    return next(iter(_delegations(connection.execute(select(DELEGATIONS).where(DELEGATIONS.c.id == name)).mappings().all())), None)


def delegation(connection: Connection, person: str, delegate: str) -> Signed | None:
    """Return what a person last signed to name this delegate, unless they have ended it."""
    wanted = (
        select(DELEGATIONS.c.signed)
        .where(DELEGATIONS.c.person_id == person, DELEGATIONS.c.delegate_id == delegate, DELEGATIONS.c.ended_at.is_(None))
        .order_by(DELEGATIONS.c.until.desc())
        .limit(1)
    )
    signed = connection.execute(wanted).scalar()
    return Signed(**signed) if signed else None


def _reviews(rows: Sequence[RowMapping]) -> tuple[ReviewView, ...]:
    told = ("job_name", "resource", "action", "digest")
    return tuple(ReviewView(**{**row, **{name: row[name] or "" for name in told}}) for row in rows)


def _delegations(rows: Sequence[RowMapping]) -> tuple[DelegationView, ...]:
    return tuple(DelegationView(**row) for row in rows)
