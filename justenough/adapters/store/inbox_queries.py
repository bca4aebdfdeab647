"""What an approver's inbox shows: what waits by its clock, what they answered, what was decided before. Reads only; judges nothing.

Every question is bounded, however many jobs there are, and answered by an index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, not_, or_, select, tuple_

from justenough.adapters.store.queries import REQUESTS_WITH_JOBS, to_request_views
from justenough.adapters.store.tables import APPROVALS, DELEGATIONS, JOBS, REQUESTS
from justenough.domain.jobs.states import RequestState
from justenough.domain.readmodel.views import DelegationView, RequestView

MAX_EARLIER_RUNS = 200
"""As many earlier runs of a job name are looked at, at most."""
SETTLED_STATES = tuple(state.value for state in (RequestState.APPROVED, RequestState.DENIED, RequestState.EXPIRED, RequestState.WITHDRAWN))


class InboxItem(NamedTuple):
    """A request that waits, and who launched its job."""

    request: RequestView
    requester_id: str
    agent: str
    """Name and version; empty for nobody in particular."""


class InboxFilter(NamedTuple):
    """Whose inbox it is, which part of it, and what of that; None for whatever."""

    person: str
    tier: int
    """The highest that they answer for."""
    mine: bool | None
    """What they can answer, as far as tier, requester and their own answers tell; False for what they cannot, None for both."""
    resource: str | None = None
    action: str | None = None
    tier_now: int | None = None
    job_name: str | None = None
    only: str | None = None
    """Entity id of who launched them."""


def inbox_items(connection: Connection, criteria: InboxFilter, *, after: tuple[datetime, str] | None, limit: int) -> tuple[InboxItem, ...]:
    """Return what waits, whose clock ends first first, behind the request of this clock and id."""
    by = (REQUESTS.c.expires_at, REQUESTS.c.id)
    wanted = REQUESTS_WITH_JOBS.add_columns(JOBS.c.agent).where(
        REQUESTS.c.state == RequestState.PENDING.value, REQUESTS.c.expires_at.is_not(None), *_conditions(criteria)
    )
    if criteria.mine is not None:
        wanted = wanted.where(_is_answerable(criteria) if criteria.mine else not_(_is_answerable(criteria)))
    if after is not None:
        wanted = wanted.where(tuple_(*by) > tuple_(*after, types=[column.type for column in by]))
    rows = connection.execute(wanted.order_by(*by).limit(limit)).mappings().all()
    return tuple(
        InboxItem(view, row["requester_id"], _agent_text(row["agent"]))
        for view, row in zip(to_request_views(connection, rows), rows, strict=True)
    )


def requests_answered_by(connection: Connection, person: str, *, limit: int) -> tuple[RequestView, ...]:
    """Return the requests that somebody answered, whose answers are the newest first."""
    theirs = select(APPROVALS.c.request_id).where(APPROVALS.c.approver_id == person).order_by(APPROVALS.c.at.desc()).limit(limit)
    found = requests_by_id(connection, connection.execute(theirs).scalars().all())
    return tuple(found.values())


def requests_by_id(connection: Connection, requests: Iterable[str]) -> Mapping[str, RequestView]:
    """Return these requests by id, in this order."""
    wanted = tuple(dict.fromkeys(requests))
    rows = connection.execute(REQUESTS_WITH_JOBS.where(REQUESTS.c.id.in_(wanted))).mappings().all() if wanted else ()
    found = {view.id: view for view in to_request_views(connection, rows)}
    return {name: found[name] for name in wanted if name in found}


def earlier_decisions(connection: Connection, request: RequestView, *, requester_id: str | None, limit: int) -> tuple[RequestView, ...]:
    """Return what became of the same action on the same resource in earlier runs of the same job name, the newest first.

    `requester_id`: of the runs that this person launched; None for everyone's. The same below.
    """
    found = [
        one.id
        for one in _earlier_requests(connection, request, requester_id)
        if one.action == request.action and one.state in SETTLED_STATES and one.tier > 0
    ]
    return tuple(requests_by_id(connection, found[:limit]).values())


def last_approved_request(connection: Connection, request: RequestView, *, requester_id: str | None) -> RequestView | None:
    """Return the newest request for the same resource that people approved in an earlier run of the same job name."""
    found = [one.id for one in _earlier_requests(connection, request, requester_id) if one.state == RequestState.APPROVED.value]
    return next(iter(requests_by_id(connection, found[:1]).values()), None)


def delegations_of(connection: Connection, person: str, *, now: datetime, limit: int) -> tuple[DelegationView, ...]:
    """Return the delegations that somebody made or that name them, which hold at `now`; the newest first."""
    holds = (DELEGATIONS.c.ended_at.is_(None), DELEGATIONS.c.until > now)
    whose = or_(DELEGATIONS.c.person_id == person, DELEGATIONS.c.delegate_id == person)
    wanted = select(DELEGATIONS).where(whose, *holds).order_by(DELEGATIONS.c.made_at.desc(), DELEGATIONS.c.id).limit(limit)
    return tuple(DelegationView(**row) for row in connection.execute(wanted).mappings())


def _agent_text(known: Mapping[str, Any] | None) -> str:
    return " ".join(filter(None, (known.get("name"), known.get("version")))) if known else ""


def _is_answerable(criteria: InboxFilter) -> ColumnElement[bool]:
    given = select(APPROVALS.c.id).where(APPROVALS.c.request_id == REQUESTS.c.id, APPROVALS.c.approver_id == criteria.person)
    return and_(REQUESTS.c.current_tier <= criteria.tier, REQUESTS.c.requester_id != criteria.person, not_(given.exists()))


def _conditions(criteria: InboxFilter) -> list[ColumnElement[bool]]:
    # NUL is in no row, and PostgreSQL refuses to look for it.
    texts = (
        (REQUESTS.c.resource, criteria.resource),
        (REQUESTS.c.action, criteria.action),
        (JOBS.c.name, criteria.job_name),
        (REQUESTS.c.requester_id, criteria.only),
    )
    found = [column == value.replace("\0", "\ufffd") for column, value in texts if value is not None]
    return [*found, REQUESTS.c.current_tier == criteria.tier_now] if criteria.tier_now is not None else found


def _earlier_requests(connection: Connection, request: RequestView, requester_id: str | None) -> list[Any]:
    """Return the requests for the same resource in earlier runs of the same job name, the newest first.

    Narrowed here and not in the question: a database without statistics would rather walk through all that there ever was of a resource.
    """
    name, number = REQUESTS.c.job_id, REQUESTS.c.number
    runs = (
        select(JOBS.c.id)
        .where(JOBS.c.name == request.job_name, JOBS.c.id < request.job_id)
        .order_by(JOBS.c.id.desc())
        .limit(MAX_EARLIER_RUNS)
    )
    wanted = select(REQUESTS.c.id, REQUESTS.c.resource, REQUESTS.c.action, REQUESTS.c.state, REQUESTS.c.tier, REQUESTS.c.requester_id)
    rows = connection.execute(wanted.where(name.in_(runs.scalar_subquery())).order_by(name.desc(), number)).all()
    # A name belongs to nobody: whoever reads their own jobs alone must not read others' by giving one of theirs the same name.
    return [row for row in rows if row.resource == request.resource and requester_id in {None, row.requester_id}]
