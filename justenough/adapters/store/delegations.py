"""Who decides for whom until when. Queries only."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, RowMapping, select

from justenough.adapters.store.paging import paged
from justenough.adapters.store.tables import DELEGATIONS
from justenough.domain.approvals.statements import Signed
from justenough.domain.readmodel.views import DelegationView, Page


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


def _delegations(rows: Sequence[RowMapping]) -> tuple[DelegationView, ...]:
    return tuple(DelegationView(**row) for row in rows)
