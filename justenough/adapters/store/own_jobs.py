"""Finds the jobs that a person may not decide about, because they launched them or an ancestor. The worker decides by the ledger, not by this."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Table, and_, or_, select

from justenough.adapters.store.tables import JOBS, ORDERS

_PARENTS = JOBS.alias("parents")


def is_own_or_descendant(person: str, part: Table) -> ColumnElement[bool]:
    """Return the condition that a row of `part` (a table with `job_id`) belongs to a job that a person launched, or had the console order, or to
    a descendant of such a job.
    """
    chain = select(JOBS.c.id, JOBS.c.parent).where(JOBS.c.id == part.c.job_id).correlate(part).cte("chain", recursive=True, nesting=True)
    chain = chain.union(select(_PARENTS.c.id, _PARENTS.c.parent).join(chain, _PARENTS.c.id == chain.c.parent))
    order = select(ORDERS.c.signed["statement"]["asked_by"].as_string()).where(ORDERS.c.job == JOBS.c.id).correlate(JOBS).scalar_subquery()
    by_console = and_(JOBS.c.requester.startswith("schedule:"), order == person)
    theirs = select(JOBS.c.id).join(chain, JOBS.c.id == chain.c.id).where(or_(JOBS.c.requester_id == person, by_console))
    return theirs.exists()
