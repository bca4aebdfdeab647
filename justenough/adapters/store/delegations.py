"""Who decides for whom until when. Queries only."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, select

from justenough.adapters.store.paging import fetch_page
from justenough.adapters.store.tables import DELEGATIONS
from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.readmodel.views import DelegationView, Page


def delegations(connection: Connection, *, limit: int, cursor: str | None) -> Page[DelegationView]:
    """Return delegations, newest first."""
    return fetch_page(
        connection,
        select(DELEGATIONS),
        by=(DELEGATIONS.c.made_at, DELEGATIONS.c.id),
        limit=limit,
        cursor=cursor,
        views=_to_delegation_views,
    )


def delegation_view(connection: Connection, name: str) -> DelegationView | None:
    """Return one delegation by its id."""
    return next(iter(_to_delegation_views(connection.execute(select(DELEGATIONS).where(DELEGATIONS.c.id == name)).mappings().all())), None)


def signed_delegation(connection: Connection, person: str, delegate: str) -> SignedStatement | None:
    """Return what a person last signed to name this delegate, unless they have ended it."""
    wanted = (
        select(DELEGATIONS.c.signed)
        .where(DELEGATIONS.c.person_id == person, DELEGATIONS.c.delegate_id == delegate, DELEGATIONS.c.ended_at.is_(None))
        .order_by(DELEGATIONS.c.until.desc())
        .limit(1)
    )
    signed = connection.execute(wanted).scalar()
    return SignedStatement(**signed) if signed else None


def _to_delegation_views(rows: Sequence[RowMapping]) -> tuple[DelegationView, ...]:
    return tuple(DelegationView(**row) for row in rows)
