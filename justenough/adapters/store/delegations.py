"""Delegations: who decides for whom, and until when. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, RowMapping, or_, select

from justenough.adapters.store.paging import fetch_page
from justenough.adapters.store.repository import DEFAULT_PAGE_SIZE, Repository, reads
from justenough.adapters.store.tables import DELEGATIONS
from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.readmodel.views import DelegationView, Page


class DelegationRepository(Repository):
    """Delegations of approvals."""

    @reads
    def list(self, connection: Connection, *, limit: int = DEFAULT_PAGE_SIZE, cursor: str | None = None) -> Page[DelegationView]:
        """Return delegations, newest first. Raises InvalidInput if the cursor is not one of this list."""
        return fetch_page(
            connection,
            select(DELEGATIONS),
            by=(DELEGATIONS.c.made_at, DELEGATIONS.c.id),
            limit=limit,
            cursor=cursor,
            views=_to_delegation_views,
        )

    @reads
    def get(self, connection: Connection, name: str) -> DelegationView | None:
        """Return a delegation by its id."""
        return next(
            iter(_to_delegation_views(connection.execute(select(DELEGATIONS).where(DELEGATIONS.c.id == name)).mappings().all())), None
        )

    @reads
    def signed(self, connection: Connection, person: str, delegate: str) -> SignedStatement | None:
        """Return the statement that a person last signed to name this delegate; None if there is none or the person ended it."""
        wanted = (
            select(DELEGATIONS.c.signed)
            .where(DELEGATIONS.c.person_id == person, DELEGATIONS.c.delegate_id == delegate, DELEGATIONS.c.ended_at.is_(None))
            .order_by(DELEGATIONS.c.until.desc())
            .limit(1)
        )
        signed = connection.execute(wanted).scalar()
        return SignedStatement(**signed) if signed else None

    @reads
    def current_of(
        self, connection: Connection, person: str, *, now: datetime, limit: int = DEFAULT_PAGE_SIZE
    ) -> tuple[DelegationView, ...]:
        """Return the delegations from or to this person that are valid at `now`, newest first."""
        valid = (DELEGATIONS.c.ended_at.is_(None), DELEGATIONS.c.until > now)
        whose = or_(DELEGATIONS.c.person_id == person, DELEGATIONS.c.delegate_id == person)
        statement = select(DELEGATIONS).where(whose, *valid).order_by(DELEGATIONS.c.made_at.desc(), DELEGATIONS.c.id).limit(limit)
        return _to_delegation_views(connection.execute(statement).mappings().all())


def _to_delegation_views(rows: Sequence[RowMapping]) -> tuple[DelegationView, ...]:
    return tuple(DelegationView(**row) for row in rows)
