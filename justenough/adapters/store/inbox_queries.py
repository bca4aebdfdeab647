"""An approver's inbox: pending requests by deadline, the approver's answers, earlier decisions. Reads only; every query is bounded."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, not_, or_, select

from justenough.adapters.store.paging import comes_after
from justenough.adapters.store.queries import REQUESTS_WITH_JOBS, requests_by_id, to_request_views
from justenough.adapters.store.repository import DEFAULT_PAGE_SIZE, Repository, is_own_or_descendant, reads, reads_snapshot, without_nul
from justenough.adapters.store.tables import APPROVALS, JOBS, REQUESTS, REVIEWS
from justenough.domain.approvals.statements import MAX_CLOCK_SKEW
from justenough.domain.core.ids import first_job_id, installation_of
from justenough.domain.jobs.states import RequestState
from justenough.domain.readmodel.views import RequestView

MAX_COUNT = 100
"""Maximum number of requests that are counted."""
MAX_EARLIER_RUNS = 200
"""Maximum number of earlier runs of a job name that a query reads."""
UNJUSTIFIED = "unjustified"
"""The verdict of a review that a break-glass approval was not justified."""
SETTLED_STATES = tuple(state.value for state in (RequestState.APPROVED, RequestState.DENIED, RequestState.EXPIRED, RequestState.WITHDRAWN))


class InboxItem(NamedTuple):
    """A pending request, and who launched its job."""

    request: RequestView
    requester_id: str
    agent: str
    """Name and version; empty if the job has no agent."""


class InboxFilter(NamedTuple):
    """Whose inbox it is, and which part of it. None matches any value."""

    person: str
    tier: int
    """The highest tier that the person can decide at."""
    mine: bool | None
    """True: requests that the person can decide by tier, launchers of the job and its ancestors, and earlier answers. False: the other requests. None: both."""
    resource: str | None = None
    action: str | None = None
    tier_now: int | None = None
    job_name: str | None = None
    only: str | None = None
    """Entity id of the requester."""


class InboxRepository(Repository):
    @reads_snapshot
    def items(
        self, connection: Connection, criteria: InboxFilter, *, after: tuple[datetime, str] | None = None, limit: int = DEFAULT_PAGE_SIZE
    ) -> tuple[InboxItem, ...]:
        """Return pending requests sorted by deadline, after the request with this deadline and id."""
        by = (REQUESTS.c.expires_at, REQUESTS.c.id)
        statement = REQUESTS_WITH_JOBS.add_columns(JOBS.c.agent).where(*_conditions_of(criteria))
        if after is not None:
            statement = statement.where(comes_after(by, after))
        rows = connection.execute(statement.order_by(*by).limit(limit)).mappings().all()
        return tuple(
            InboxItem(view, row["requester_id"], " ".join(filter(None, map((row["agent"] or {}).get, ("name", "version")))))
            for view, row in zip(to_request_views(connection, rows), rows, strict=True)
        )

    @reads
    def count(self, connection: Connection, criteria: InboxFilter) -> int:
        """Count the pending requests that match, up to MAX_COUNT."""
        found = select(REQUESTS.c.id).outerjoin(JOBS, JOBS.c.id == REQUESTS.c.job_id).where(*_conditions_of(criteria)).limit(MAX_COUNT)
        return len(connection.execute(found).all())

    @reads_snapshot
    def list_answered_by(self, connection: Connection, person: str, limit: int) -> tuple[RequestView, ...]:
        """Return the requests that this person answered, those with the newest answers first."""
        theirs = select(APPROVALS.c.request_id).where(APPROVALS.c.approver_id == person).order_by(APPROVALS.c.at.desc()).limit(limit)
        return tuple(requests_by_id(connection, connection.execute(theirs).scalars().all()).values())

    @reads_snapshot
    def earlier_decisions(
        self, connection: Connection, request: RequestView, limit: int, *, requester_id: str | None = None
    ) -> tuple[RequestView, ...]:
        """Return settled requests for the same access in earlier runs of the job name (`requester_id`: only of this person), newest first."""
        earlier = _earlier_requests(connection, request, requester_id)
        ids = [row.id for row in earlier if row.action == request.action and row.state in SETTLED_STATES and row.tier > 0]
        return tuple(requests_by_id(connection, ids[:limit]).values())

    @reads_snapshot
    def last_approved(self, connection: Connection, request: RequestView, *, requester_id: str | None = None) -> RequestView | None:
        """Return the newest approved request for the resource in earlier runs of the job name (`requester_id`: only of this person).

        A break-glass approval that its reviewer judged unjustified is skipped: nothing should be compared with it.
        """
        earlier = _earlier_requests(connection, request, requester_id)
        ids = [row.id for row in earlier if row.state == RequestState.APPROVED.value and row.verdict != UNJUSTIFIED]
        return next(iter(requests_by_id(connection, ids[:1]).values()), None)


def _conditions_of(criteria: InboxFilter) -> list[ColumnElement[bool]]:
    conditions = [REQUESTS.c.state == RequestState.PENDING.value, REQUESTS.c.expires_at.is_not(None)]
    for column, value in (
        (REQUESTS.c.resource, criteria.resource),
        (REQUESTS.c.action, criteria.action),
        (JOBS.c.name, criteria.job_name),
        (REQUESTS.c.requester_id, criteria.only),
    ):
        if value is not None:
            conditions.append(column == without_nul(value))
    if criteria.tier_now is not None:
        conditions.append(REQUESTS.c.current_tier == criteria.tier_now)
    if criteria.mine is not None:
        by_delegate = and_(APPROVALS.c.on_behalf_of_id == criteria.person, APPROVALS.c.withdrawn_at.is_(None))
        theirs = or_(APPROVALS.c.approver_id == criteria.person, by_delegate)
        # An escalation discards the answers of lower tiers, whose people may answer again.
        lasting = or_(APPROVALS.c.withdrawn_at.is_not(None), APPROVALS.c.tier >= REQUESTS.c.current_tier)
        answers = select(APPROVALS.c.id).where(APPROVALS.c.request_id == REQUESTS.c.id, theirs, lasting)
        # Few jobs have a parent or were run by a schedule, and only for those does the chain say more than the request.
        is_barred = and_(
            or_(JOBS.c.parent.is_not(None), JOBS.c.requester.startswith("schedule:")), is_own_or_descendant(criteria.person, REQUESTS)
        )
        can_answer = and_(
            REQUESTS.c.current_tier <= criteria.tier,
            REQUESTS.c.requester_id != criteria.person,
            not_(answers.exists()),
            not_(is_barred),
        )
        conditions.append(can_answer if criteria.mine else not_(can_answer))
    return conditions


def _earlier_requests(connection: Connection, request: RequestView, requester_id: str | None) -> list[Any]:
    """Return the requests for the same resource in earlier runs of the same job name, newest first.

    Filters here and not in SQL: without statistics, a database would read every request ever made for the resource.
    """
    begun: datetime | None = connection.execute(select(JOBS.c.created_at).where(JOBS.c.id == request.job_id)).scalar()
    installation = installation_of(request.job_id)
    if begun is None or installation is None:
        return []
    # The launcher chooses the id, so only the time of recording says what is earlier. The bound on ids is for the index.
    bound = JOBS.c.id < first_job_id(installation, since=begun + MAX_CLOCK_SKEW)
    is_earlier = or_(JOBS.c.created_at < begun, and_(JOBS.c.created_at == begun, JOBS.c.id < request.job_id))
    runs = select(JOBS.c.id).where(JOBS.c.name == request.job_name, bound, is_earlier)
    newest = runs.order_by(JOBS.c.id.desc()).limit(MAX_EARLIER_RUNS).scalar_subquery()
    columns = (REQUESTS.c[name] for name in ("id", "resource", "action", "state", "tier", "requester_id"))
    statement = select(*columns, REVIEWS.c.verdict).outerjoin(REVIEWS, REVIEWS.c.request_id == REQUESTS.c.id)
    rows = connection.execute(statement.where(REQUESTS.c.job_id.in_(newest)).order_by(REQUESTS.c.job_id.desc(), REQUESTS.c.number)).all()
    # Anyone may use any job name. A person who may read only their own jobs must not read other people's jobs by using the same name.
    return [row for row in rows if row.resource == request.resource and requester_id in {None, row.requester_id}]
