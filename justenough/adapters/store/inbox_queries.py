"""What an approver's inbox shows: what waits by its clock, what they answered, what was decided before. Reads only; judges nothing.

Every question is bounded, however many jobs there are, and answered by an index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, not_, or_, select, tuple_

from justenough.adapters.store.queries import ASKED, request_views
from justenough.adapters.store.tables import APPROVALS, DELEGATIONS, JOBS, REQUESTS
from justenough.domain.jobs.states import RequestState
from justenough.domain.readmodel.views import DelegationView, RequestView

RUNS = 200
"""As many earlier runs of a job name are looked at, at most."""
SETTLED = tuple(state.value for state in (RequestState.APPROVED, RequestState.DENIED, RequestState.EXPIRED, RequestState.WITHDRAWN))


class Waiting(NamedTuple):
    """A request that waits, and who launched its job."""

    request: RequestView
    requester_id: str
    agent: str
    """Name and version; empty for nobody in particular."""


class WaitingFilter(NamedTuple):
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


def waiting(connection: Connection, which: WaitingFilter, *, after: tuple[datetime, str] | None, limit: int) -> tuple[Waiting, ...]:
    """Return what waits, whose clock ends first first, behind the request of this clock and id."""
    by = (REQUESTS.c.expires_at, REQUESTS.c.id)
    wanted = ASKED.add_columns(JOBS.c.agent).where(
        REQUESTS.c.state == RequestState.PENDING.value, REQUESTS.c.expires_at.is_not(None), *_asked(which)
    )
    if which.mine is not None:
        wanted = wanted.where(_theirs(which) if which.mine else not_(_theirs(which)))
    if after is not None:
        wanted = wanted.where(tuple_(*by) > tuple_(*after, types=[column.type for column in by]))
    rows = connection.execute(wanted.order_by(*by).limit(limit)).mappings().all()
    return tuple(
        Waiting(view, row["requester_id"], _agent(row["agent"])) for view, row in zip(request_views(connection, rows), rows, strict=True)
    )


def answered_by(connection: Connection, person: str, *, limit: int) -> tuple[RequestView, ...]:
    """Return the requests that somebody answered, whose answers are the newest first."""
    theirs = select(APPROVALS.c.request_id).where(APPROVALS.c.approver_id == person).order_by(APPROVALS.c.at.desc()).limit(limit)
    found = requests_of(connection, connection.execute(theirs).scalars().all())
    return tuple(found.values())


def requests_of(connection: Connection, requests: Iterable[str]) -> Mapping[str, RequestView]:
    """Return these requests by id, in this order."""
    wanted = tuple(dict.fromkeys(requests))
    rows = connection.execute(ASKED.where(REQUESTS.c.id.in_(wanted))).mappings().all() if wanted else ()
    found = {view.id: view for view in request_views(connection, rows)}
    return {name: found[name] for name in wanted if name in found}


def decided_before(connection: Connection, request: RequestView, *, only: str | None, limit: int) -> tuple[RequestView, ...]:
    """Return what became of the same action on the same resource in earlier runs of the same job name, the newest first.

    `only`: of the runs that this person launched; None for everyone's. The same below.
    """
    found = [
        one.id for one in _earlier(connection, request, only) if one.action == request.action and one.state in SETTLED and one.tier > 0
    ]
    return tuple(requests_of(connection, found[:limit]).values())


def approved_before(connection: Connection, request: RequestView, *, only: str | None) -> RequestView | None:
    """Return the newest request for the same resource that people approved in an earlier run of the same job name."""
    found = [one.id for one in _earlier(connection, request, only) if one.state == RequestState.APPROVED.value]
    return next(iter(requests_of(connection, found[:1]).values()), None)


def delegations_of(connection: Connection, person: str, *, now: datetime, limit: int) -> tuple[DelegationView, ...]:
    """Return the delegations that somebody made or that name them, which hold at `now`; the newest first."""
    holds = (DELEGATIONS.c.ended_at.is_(None), DELEGATIONS.c.until > now)
    whose = or_(DELEGATIONS.c.person_id == person, DELEGATIONS.c.delegate_id == person)
    wanted = select(DELEGATIONS).where(whose, *holds).order_by(DELEGATIONS.c.made_at.desc(), DELEGATIONS.c.id).limit(limit)
    return tuple(DelegationView(**row) for row in connection.execute(wanted).mappings())


def _agent(known: Mapping[str, Any] | None) -> str:
    return " ".join(filter(None, (known.get("name"), known.get("version")))) if known else ""


def _theirs(which: WaitingFilter) -> ColumnElement[bool]:
    given = select(APPROVALS.c.id).where(APPROVALS.c.request_id == REQUESTS.c.id, APPROVALS.c.approver_id == which.person)
    return and_(REQUESTS.c.current_tier <= which.tier, REQUESTS.c.requester_id != which.person, not_(given.exists()))


def _asked(which: WaitingFilter) -> list[ColumnElement[bool]]:
    # NUL is in no row, and PostgreSQL refuses to look for it.
    texts = (
        (REQUESTS.c.resource, which.resource),
        (REQUESTS.c.action, which.action),
        (JOBS.c.name, which.job_name),
        (REQUESTS.c.requester_id, which.only),
    )
    found = [column == value.replace("\0", "\ufffd") for column, value in texts if value is not None]
    return [*found, REQUESTS.c.current_tier == which.tier_now] if which.tier_now is not None else found


def _earlier(connection: Connection, request: RequestView, only: str | None) -> list[Any]:
    """Return the requests for the same resource in earlier runs of the same job name, the newest first.

    Narrowed here and not in the question: a database without statistics would rather walk through all that there ever was of a resource.
    """
    name, number = REQUESTS.c.job_id, REQUESTS.c.number
    runs = select(JOBS.c.id).where(JOBS.c.name == request.job_name, JOBS.c.id < request.job_id).order_by(JOBS.c.id.desc()).limit(RUNS)
    wanted = select(REQUESTS.c.id, REQUESTS.c.resource, REQUESTS.c.action, REQUESTS.c.state, REQUESTS.c.tier, REQUESTS.c.requester_id)
    rows = connection.execute(wanted.where(name.in_(runs.scalar_subquery())).order_by(name.desc(), number)).all()
    # A name belongs to nobody: whoever reads their own jobs alone must not read others' by giving one of theirs the same name.
    return [row for row in rows if row.resource == request.resource and only in {None, row.requester_id}]
