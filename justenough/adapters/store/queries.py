"""The read model of jobs, requests and credentials, as views. Reads only; projection.py decides what a state means."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Unpack

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, Table, case, exists, func, select, union_all

from justenough.adapters.store import reviews
from justenough.adapters.store.metrics import OPEN_STATES
from justenough.adapters.store.paging import MAX_PAGE_SIZE, fetch_page, iterate_pages, merge_pages
from justenough.adapters.store.repository import (
    DEFAULT_PAGE_SIZE,
    Repository,
    count_rows,
    fetch_all,
    fetch_first,
    id_begins,
    reads,
    reads_snapshot,
    without_nul,
)
from justenough.adapters.store.tables import APPROVALS, CLAIMS, CREDENTIALS, JOBS, ORDERS, REQUESTS
from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.evidence.current_state import LiveCredential
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, RevocationState
from justenough.domain.readmodel.views import (
    ApprovalView,
    ClaimView,
    CredentialFilters,
    CredentialView,
    JobFilters,
    JobSummary,
    JobView,
    Launched,
    LockView,
    Page,
    RequestView,
    RevocationView,
)

SUMMARY_COLUMNS = tuple(JOBS.c[name] for name in JobSummary.model_fields if name != "revocation")
REVOCATION_COLUMNS = tuple(JOBS.c[f"revocation_{name}"] for name in RevocationView.model_fields)
TRIGGER_PREFIX = "trigger:"
"""Prefix of a trigger's name, which is shown in place of a login name."""
MAX_DEAD_CREDENTIALS = 1_000
"""Dead credentials that a job's view shows. An agent that calls tools all day is issued very many, each revoked right after its call."""
UNPROVED_STATES = (RevocationState.PENDING.value, RevocationState.OVERDUE.value)

_JOB_COLUMNS = {"job_name": JOBS.c.name, "task": JOBS.c.task, "requester": JOBS.c.requester}
# A request's job may not be recorded yet.
_JOB_TEXTS = [func.coalesce(column, "").label(name) for name, column in _JOB_COLUMNS.items()]
_JOB_END = case((REQUESTS.c.state == RequestState.PENDING.value, JOBS.c.times_out_at)).label("job_times_out_at")
REQUESTS_WITH_JOBS = select(REQUESTS, *_JOB_TEXTS, JOBS.c.parent, _JOB_END).outerjoin(JOBS, JOBS.c.id == REQUESTS.c.job_id)
"""Selects requests with what people need to know about their jobs."""

_BY_ISSUE = (CREDENTIALS.c.issued_at, CREDENTIALS.c.id)
_LIVE = select(CREDENTIALS).where(CREDENTIALS.c.live)
_LIVE_WITH_JOBS = (
    select(
        CREDENTIALS.c.issued_at,
        CREDENTIALS.c.id.label("credential"),
        CREDENTIALS.c.job_id.label("job"),
        JOBS.c.state.label("job_state"),
        func.coalesce(JOBS.c.task, "").label("task"),
        *(CREDENTIALS.c[name] for name in ("resource", "action", "expires_at", "revocable")),
        CREDENTIALS.c.accessor.is_not(None).label("known"),
    )
    .outerjoin(JOBS, JOBS.c.id == CREDENTIALS.c.job_id)
    .where(CREDENTIALS.c.live)
)


class JobCaption(NamedTuple):
    """The name and requester of a job, which lists show next to its id."""

    name: str
    requester: str
    """Login name."""
    requester_id: str


class JobRepository(Repository):
    @reads_snapshot
    def get(self, connection: Connection, job: str) -> JobView | None:
        """Return a job with its requests and credentials; None if there is no such job. If there are very many credentials, it includes all
        live ones and the newest of the rest.
        """
        row = connection.execute(select(JOBS).where(JOBS.c.id == without_nul(job))).mappings().first()
        if row is None:
            return None
        theirs = REQUESTS_WITH_JOBS.where(REQUESTS.c.job_id == job).order_by(REQUESTS.c.number, REQUESTS.c.id)
        requests = to_request_views(connection, connection.execute(theirs).mappings().all())
        credentials, older = _credentials_of(connection, job)
        return JobView(**row, revocation=_to_revocation_view(row), requests=requests, credentials=credentials, older_credentials=older)

    @reads_snapshot
    def list(
        self,
        connection: Connection,
        *,
        oldest_first: bool = False,
        limit: int = DEFAULT_PAGE_SIZE,
        cursor: str | None = None,
        **filters: Unpack[JobFilters],
    ) -> Page[JobSummary]:
        """Return jobs, newest or oldest first: their ids sort by time. Raises InvalidInput if the cursor is not from this list."""
        requester = filters.get("requester")
        if requester is None or filters.get("requester_id") is not None:
            return _fetch_jobs(connection, filters, oldest_first=oldest_first, limit=limit, cursor=cursor)
        # Each combination of filters has an index by the requester's entity id. A login name usually belongs to one entity, but a user who
        # was deleted and created again has a new one.
        pages, last = [], ""
        entities = select(func.min(JOBS.c.requester_id)).where(JOBS.c.requester == without_nul(requester))
        while (entity := connection.execute(entities.where(JOBS.c.requester_id > last)).scalar()) is not None:
            theirs: JobFilters = {**filters, "requester_id": entity}
            pages.append(_fetch_jobs(connection, theirs, oldest_first=oldest_first, limit=limit, cursor=cursor))
            last = entity
        return merge_pages(pages, by=lambda job: (job.id,), limit=limit, is_ascending=oldest_first)

    @reads_snapshot
    def count(self, connection: Connection, filters: JobFilters, *, up_to: int) -> int:
        """Return how many jobs `list` finds with these filters, counting no further than `up_to`."""
        found = _matching_jobs(connection, select(JOBS.c.id), filters)
        return int(connection.execute(select(func.count()).select_from(found.limit(up_to).subquery())).scalar_one())

    @reads
    def with_request_for(self, connection: Connection, jobs: Collection[str], resource: str) -> frozenset[str]:
        """Return the jobs among these that requested access to a resource."""
        requested = select(REQUESTS.c.job_id).where(REQUESTS.c.job_id.in_(jobs), REQUESTS.c.resource == resource)
        return frozenset(connection.execute(requested).scalars())

    @reads
    def by_ids(self, connection: Connection, jobs: Collection[str]) -> tuple[JobSummary, ...]:
        """Return these jobs, newest first. Unknown jobs are left out."""
        statement = select(*SUMMARY_COLUMNS, *REVOCATION_COLUMNS).where(JOBS.c.id.in_(jobs)).order_by(JOBS.c.id.desc())
        rows = connection.execute(statement).mappings().all()
        return tuple(JobSummary(**row, revocation=_to_revocation_view(row)) for row in rows)

    @reads
    def requesters(self, connection: Connection, jobs: Collection[str]) -> dict[str, str]:
        """Return the entity ids of the requesters of these jobs, by job. Unknown jobs are left out."""
        rows = connection.execute(select(JOBS.c.id, JOBS.c.requester_id).where(JOBS.c.id.in_(jobs)))
        return {row.id: row.requester_id for row in rows}

    @reads
    def open(self, connection: Connection, older_than: datetime) -> tuple[str, ...]:
        """Return the jobs submitted before `older_than` that have not ended, or whose revocation is pending or overdue, oldest first."""
        running = select(JOBS.c.id).where(JOBS.c.state.in_(OPEN_STATES), JOBS.c.created_at < older_than)
        unproved = select(JOBS.c.id).where(JOBS.c.revocation_state.in_(UNPROVED_STATES), JOBS.c.created_at < older_than)
        return tuple(sorted(set(connection.execute(union_all(running, unproved)).scalars())))

    @reads
    def count_open(self, connection: Connection, requester_id: str, *, origin: str | None, environment: str | None) -> int:
        """Return how many jobs of a launcher have not ended: a person's, or those of a trigger or schedule (`origin`). None: any environment."""
        return count_rows(connection, JOBS, *_criteria_of(requester_id, origin, environment), JOBS.c.state.in_(OPEN_STATES))

    @reads
    def list_unstarted(self, connection: Connection, older_than: datetime) -> tuple[str, ...]:
        """Return the pending jobs submitted before `older_than` that were never claimed and have requested nothing, oldest first."""
        requested = select(REQUESTS.c.id).where(REQUESTS.c.job_id == JOBS.c.id).exists()
        claimed = select(CLAIMS.c.job).where(CLAIMS.c.job == JOBS.c.id).exists()
        pending = select(JOBS.c.id).where(JOBS.c.state == JobState.PENDING.value, JOBS.c.created_at < older_than)
        return tuple(connection.execute(pending.where(~requested, ~claimed).order_by(JOBS.c.id)).scalars())

    @reads
    def list_launched_by(
        self, connection: Connection, requester: str, *, requester_id: str | None = None, limit: int = DEFAULT_PAGE_SIZE
    ) -> tuple[Launched, ...]:
        """Return a requester's newest jobs by login name, newest first; with `requester_id`, only those of this entity."""
        launched = select(*(JOBS.c[name] for name in Launched.model_fields)).where(JOBS.c.requester == requester)
        launched = launched.where(JOBS.c.requester_id == requester_id) if requester_id is not None else launched
        return fetch_all(connection, launched.order_by(JOBS.c.id.desc()).limit(limit), Launched)

    @reads
    def order(self, connection: Connection, job: str) -> JobInput | None:
        """Return the order as it was signed: raw spec, params, bundle digest, statement with signature; None if there is none."""
        row = connection.execute(select(ORDERS).where(ORDERS.c.job == job)).first()
        return JobInput.of(job, row.spec, row.params, row.bundle, SignedStatement(**row.signed)) if row else None

    @reads
    def captions(self, connection: Connection, jobs: Collection[str]) -> Mapping[str, JobCaption]:
        """Return name and requester of these jobs, by id. Unknown jobs are left out."""
        if not jobs:
            return {}
        statement = select(JOBS.c.id, JOBS.c.name, JOBS.c.requester, JOBS.c.requester_id).where(JOBS.c.id.in_(jobs))
        return {row[0]: JobCaption(*row[1:]) for row in connection.execute(statement)}

    def overdue(self) -> Iterator[tuple[str, datetime]]:
        """Yield each job whose revocation is overdue, and the time since which the revocation has been open."""
        for job in iterate_pages(lambda cursor: self.list(revocation=RevocationState.OVERDUE, limit=MAX_PAGE_SIZE, cursor=cursor)):
            yield job.id, job.revocation.since or job.ended_at or job.created_at


class RequestRepository(Repository):
    @reads_snapshot
    def get(self, connection: Connection, request: str) -> RequestView | None:
        rows = connection.execute(REQUESTS_WITH_JOBS.where(REQUESTS.c.id == request)).mappings().all()
        return next(iter(to_request_views(connection, rows)), None)

    @reads_snapshot
    def list(
        self,
        connection: Connection,
        *,
        state: RequestState | None = None,
        job: str | None = None,
        requester_id: str | None = None,
        beginning: str | None = None,
        limit: int = DEFAULT_PAGE_SIZE,
        cursor: str | None = None,
    ) -> Page[RequestView]:
        """Return requests, newest first. Raises InvalidInput if the cursor is not from this list."""
        criteria = {"state": state, "job_id": job, "requester_id": requester_id}
        statement = _apply_filter(REQUESTS_WITH_JOBS, REQUESTS, criteria)
        if beginning is not None:
            statement = statement.where(id_begins(connection, REQUESTS, beginning))
        page = fetch_page(connection, statement, by=(REQUESTS.c.created_at, REQUESTS.c.id), limit=limit, cursor=cursor, view=dict[str, Any])
        return Page(items=to_request_views(connection, page.items), next=page.next)

    @reads_snapshot
    def of_jobs(self, connection: Connection, jobs: Collection[str]) -> tuple[RequestView, ...]:
        """Return the requests of these jobs with their approvals, by job and number."""
        statement = REQUESTS_WITH_JOBS.where(REQUESTS.c.job_id.in_(jobs)).order_by(REQUESTS.c.job_id, REQUESTS.c.number)
        return to_request_views(connection, connection.execute(statement).mappings().all())

    @reads_snapshot
    def of_action(
        self, connection: Connection, resource: str, action: str, *, requester_id: str | None, limit: int
    ) -> tuple[RequestView, ...]:
        """Return the newest requests for an action of a resource, newest first; with `requester_id`, only those of that person's jobs."""
        theirs = REQUESTS_WITH_JOBS.where(REQUESTS.c.resource == without_nul(resource), REQUESTS.c.action == action)
        if requester_id is not None:
            theirs = theirs.where(REQUESTS.c.requester_id == requester_id)
        newest = theirs.order_by(REQUESTS.c.created_at.desc()).limit(limit)
        return to_request_views(connection, connection.execute(newest).mappings().all())

    @reads
    def count_waiting(self, connection: Connection, requester_id: str, *, origin: str | None, environment: str | None) -> int:
        """Return how many requests of a launcher's jobs wait for people; the parameters are those of `JobRepository.count_open`."""
        theirs = exists().where(JOBS.c.id == REQUESTS.c.job_id, *_criteria_of(requester_id, origin, environment))
        waiting = (REQUESTS.c.state == RequestState.PENDING.value) & (REQUESTS.c.requester_id == requester_id)
        return count_rows(connection, REQUESTS, waiting, theirs)

    @reads_snapshot
    def by_ids(self, connection: Connection, requests: Iterable[str]) -> Mapping[str, RequestView]:
        """Return these requests by id, in this order. Unknown ids are left out."""
        return requests_by_id(connection, requests)


class CredentialRepository(Repository):
    """Credential handles; never a secret."""

    @reads
    def get(self, connection: Connection, credential: str) -> CredentialView | None:
        return fetch_first(connection, select(CREDENTIALS).where(CREDENTIALS.c.id == without_nul(credential)), CredentialView)

    @reads_snapshot
    def list(
        self, connection: Connection, *, limit: int = DEFAULT_PAGE_SIZE, cursor: str | None = None, **filters: Unpack[CredentialFilters]
    ) -> Page[CredentialView]:
        """Return credentials, newest first. Raises InvalidInput if the cursor is not from this list."""
        criteria = {"job_id": filters.get("job"), **{name: filters.get(name) for name in ("resource", "action", "state")}}
        statement = _apply_filter(_LIVE if filters.get("live") else select(CREDENTIALS), CREDENTIALS, criteria)
        if (beginning := filters.get("beginning")) is not None:
            statement = statement.where(id_begins(connection, CREDENTIALS, beginning))
        return fetch_page(connection, statement, by=_BY_ISSUE, limit=limit, cursor=cursor, view=CredentialView)

    @reads
    def live_of(self, connection: Connection, job: str) -> tuple[CredentialView, ...]:
        """Return the job's credentials that are not yet confirmed dead, in the order of their issue."""
        return live_credentials(connection, job)

    @reads
    def count_active(self, connection: Connection, jobs: Collection[str]) -> Mapping[str, int]:
        """Count the credentials of these jobs that are not dead, by job. Jobs without any are left out."""
        job, active = CREDENTIALS.c.job_id, CREDENTIALS.c.state.not_in([state.value for state in CredentialState if state.is_dead])
        return dict(map(tuple, connection.execute(select(job, func.count()).where(job.in_(jobs), active).group_by(job)))) if jobs else {}

    def live_with_jobs(self) -> Iterator[LiveCredential]:
        """Yield every credential that is not yet confirmed dead, oldest first, with its job's state."""
        return (LiveCredential(**row._asdict()) for row in self._iterate_rows(_LIVE_WITH_JOBS, by=_BY_ISSUE))


def live_credentials(connection: Connection, job_id: str) -> tuple[CredentialView, ...]:
    """Return the job's credentials that are not yet confirmed dead, in the order of their issue."""
    return fetch_all(connection, _LIVE.where(CREDENTIALS.c.job_id == job_id).order_by(*_BY_ISSUE), CredentialView)


def requests_by_id(connection: Connection, requests: Iterable[str]) -> Mapping[str, RequestView]:
    """Return these requests by id, in this order. Unknown ids are left out."""
    ids = tuple(dict.fromkeys(requests))
    rows = connection.execute(REQUESTS_WITH_JOBS.where(REQUESTS.c.id.in_(ids))).mappings().all() if ids else ()
    views = {view.id: view for view in to_request_views(connection, rows)}
    return {request: views[request] for request in ids if request in views}


def _fetch_jobs(connection: Connection, filters: JobFilters, *, oldest_first: bool, limit: int, cursor: str | None) -> Page[JobSummary]:
    statement = _matching_jobs(connection, select(*SUMMARY_COLUMNS, *REVOCATION_COLUMNS), filters)
    page = fetch_page(connection, statement, by=(JOBS.c.id,), limit=limit, cursor=cursor, view=dict[str, Any], is_ascending=oldest_first)
    return Page(items=tuple(JobSummary(**row, revocation=_to_revocation_view(row)) for row in page.items), next=page.next)


def _criteria_of(requester_id: str, origin: str | None, environment: str | None) -> tuple[ColumnElement[bool], ...]:
    criteria = {"requester_id": requester_id, "requester": origin, "environment": environment}
    return tuple(JOBS.c[name] == value for name, value in criteria.items() if value is not None)


def _matching_jobs(connection: Connection, statement: Select[Any], filters: JobFilters) -> Select[Any]:
    equal = {name: value for name, value in filters.items() if name not in {"revocation", "first", "beginning"}}
    statement = _apply_filter(statement, JOBS, {**equal, "revocation_state": filters.get("revocation")})
    if (first := filters.get("first")) is not None:
        statement = statement.where(JOBS.c.id >= first)
    if (beginning := filters.get("beginning")) is not None:
        statement = statement.where(id_begins(connection, JOBS, beginning))
    return statement


def _apply_filter(statement: Select[Any], table: Table, criteria: Mapping[str, object]) -> Select[Any]:
    # str(): drivers may mistake a state, which is an enum, for an enum of the database. No row contains NUL, and PostgreSQL rejects it in a query.
    values = {name: without_nul(str(value)) for name, value in criteria.items() if value is not None}
    if "requester_id" in values and "requester" in values:
        # A person mostly has one login name, so that the indexes by entity, one for each combination of filters, find jobs sooner. But all
        # triggers are one entity, and many of its jobs are in the state in which most jobs end: there, the index by login name is better.
        is_trigger = values["requester"].startswith(TRIGGER_PREFIX)
        if not (is_trigger and values.get("state", JobState.SUCCEEDED.value) == JobState.SUCCEEDED.value):
            # In this form, planners use no index by login name, and expect nearly every row to match.
            statement = statement.where(case((table.c.requester == values.pop("requester"), 1)).is_not(None))
    return statement.where(*(table.c[name] == value for name, value in values.items()))


def _to_revocation_view(row: RowMapping | Mapping[str, Any]) -> RevocationView:
    return RevocationView(**{name: row[f"revocation_{name}"] for name in RevocationView.model_fields})


def to_request_views(connection: Connection, rows: Sequence[RowMapping | Mapping[str, Any]]) -> tuple[RequestView, ...]:
    """Return the requests in rows of REQUESTS_WITH_JOBS, with their approvals."""
    answers: dict[str, list[ApprovalView]] = {row["id"]: [] for row in rows}
    if answers:
        statement = select(APPROVALS).where(APPROVALS.c.request_id.in_(answers)).order_by(APPROVALS.c.at, APPROVALS.c.id)
        for answer in connection.execute(statement).mappings():
            answers[answer["request_id"]].append(ApprovalView(**answer))
    break_glass = [request for request, approvals in answers.items() if any(item.decision == "break_glass" for item in approvals)]
    by_request = reviews.reviews_by_request(connection, break_glass)
    views: list[RequestView] = []
    for row in rows:
        lock = LockView(accessor=row["lock_accessor"], expires_at=row["lock_expires_at"]) if row["lock_accessor"] else None
        claim = ClaimView(by=row["claimed_by"], by_id=row["claimed_by_id"], until=row["claimed_until"]) if row["claimed_until"] else None
        approvals, review = tuple(answers[row["id"]]), by_request.get(row["id"])
        views.append(RequestView(**row, lock=lock, claim=claim, approvals=approvals, review=review))
    return tuple(views)


def _credentials_of(connection: Connection, job_id: str) -> tuple[tuple[CredentialView, ...], int]:
    """Return the job's credentials, oldest first: all live ones, the newest that are residual, and the newest of the rest; and how many were
    left out.
    """
    theirs, newest = CREDENTIALS.c.job_id == job_id, (CREDENTIALS.c.issued_at.desc(), CREDENTIALS.c.id.desc())
    statement = select(CREDENTIALS).where(theirs).order_by(*newest).limit(MAX_DEAD_CREDENTIALS + 1)
    credentials = fetch_all(connection, statement, CredentialView)
    if len(credentials) <= MAX_DEAD_CREDENTIALS:
        return credentials[::-1], 0
    # Those that their owner must change are not live, but they are valid.
    valid = select(CREDENTIALS).where(theirs, CREDENTIALS.c.state == CredentialState.RESIDUAL.value).order_by(*newest)
    residual = fetch_all(connection, valid.limit(MAX_DEAD_CREDENTIALS), CredentialView)
    shown = (*credentials[:MAX_DEAD_CREDENTIALS], *residual, *live_credentials(connection, job_id))
    by_id = {credential.id: credential for credential in shown}
    left_out = count_rows(connection, CREDENTIALS, theirs) - len(by_id)
    return tuple(sorted(by_id.values(), key=lambda credential: (credential.issued_at, credential.id))), left_out
