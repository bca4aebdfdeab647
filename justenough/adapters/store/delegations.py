"""Delegations: who decides for whom, and until when. Reads only."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, or_, select

from justenough.adapters.store.paging import fetch_page
from justenough.adapters.store.repository import DEFAULT_PAGE_SIZE, Repository, fetch_all, fetch_first, reads
from justenough.adapters.store.tables import DELEGATIONS
from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.readmodel.views import DelegationView, Page


class DelegationRepository(Repository):
    @reads
    def list(self, connection: Connection, *, limit: int = DEFAULT_PAGE_SIZE, cursor: str | None = None) -> Page[DelegationView]:
        """Return delegations, newest first. Raises InvalidInput if the cursor is not from this list."""
        by = (DELEGATIONS.c.made_at, DELEGATIONS.c.id)
        return fetch_page(connection, select(DELEGATIONS), by=by, limit=limit, cursor=cursor, view=DelegationView)

    @reads
    def get(self, connection: Connection, name: str) -> DelegationView | None:
        return fetch_first(connection, select(DELEGATIONS).where(DELEGATIONS.c.id == name), DelegationView)

    @reads
    def current_statement(self, connection: Connection, person: str, delegate: str, *, at: datetime) -> SignedStatement | None:
        """Return the statement that a person last signed to name this delegate; None if there is none or the person had ended it by `at`."""
        not_ended = or_(DELEGATIONS.c.ended_at.is_(None), DELEGATIONS.c.ended_at > at)
        delegation = (DELEGATIONS.c.person_id == person, DELEGATIONS.c.delegate_id == delegate, not_ended)
        statement = select(DELEGATIONS.c.signed).where(*delegation).order_by(DELEGATIONS.c.until.desc()).limit(1)
        signed = connection.execute(statement).scalar()
        return SignedStatement(**signed) if signed else None

    @reads
    def current_of(
        self, connection: Connection, person: str, *, now: datetime, limit: int = DEFAULT_PAGE_SIZE
    ) -> tuple[DelegationView, ...]:
        """Return the delegations from or to this person that are valid at `now`, newest first."""
        valid = (DELEGATIONS.c.ended_at.is_(None), DELEGATIONS.c.until > now)
        whose = or_(DELEGATIONS.c.person_id == person, DELEGATIONS.c.delegate_id == person)
        statement = select(DELEGATIONS).where(whose, *valid).order_by(DELEGATIONS.c.made_at.desc(), DELEGATIONS.c.id).limit(limit)
        return fetch_all(connection, statement, DelegationView)
