"""The read model of jobs, requests and credentials, as views. Reads only; projection.py decides what a state means."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping, Select, Table, case, func, select, tuple_, union_all

from justenough.adapters.store import reviews
from justenough.adapters.store.metrics import OPEN_STATES
from justenough.adapters.store.paging import MAX_PAGE_SIZE, ROWS_PER_FETCH, fetch_page, iterate_pages, merge_pages
from justenough.adapters.store.repository import DEFAULT_PAGE_SIZE, Repository, reads
from justenough.adapters.store.tables import APPROVALS, CLAIMS, CREDENTIALS, JOBS, ORDERS, REQUESTS
from justenough.domain.approvals.statements import OrderRecord, SignedStatement
from justenough.domain.evidence.current_state import LiveCredential
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, RevocationState
from justenough.domain.readmodel.views import (
    ApprovalView,
    ClaimView,
    CredentialView,
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
"""Prefix of a trigger's name, which stands in the place of a login name."""
MAX_DEAD_CREDENTIALS = 1_000
"""Dead credentials in a job's view. An agent that calls tools all day is issued very many credentials, each dead right after its call."""
UNPROVED_STATES = (RevocationState.PENDING.value, RevocationState.OVERDUE.value)

_JOB_COLUMNS = (JOBS.c.name.label("job_name"), JOBS.c.task, JOBS.c.requester, JOBS.c.parent)
REQUESTS_WITH_JOBS = select(REQUESTS, *_JOB_COLUMNS).outerjoin(JOBS, JOBS.c.id == REQUESTS.c.job_id)
"""Requests with what people need to know about their jobs."""

_LIVE_WITH_JOBS = (
    select(
        CREDENTIALS.c.id.label("credential"),
        CREDENTIALS.c.job_id.label("job"),
        JOBS.c.state.label("job_state"),
        JOBS.c.task,
        *(CREDENTIALS.c[name] for name in ("resource", "action", "issued_at", "expires_at")),
        CREDENTIALS.c.accessor.is_not(None).label("known"),
    )
    .outerjoin(JOBS, JOBS.c.id == CREDENTIALS.c.job_id)
    .where(CREDENTIALS.c.live)
)

_LAUNCH_COLUMNS = tuple(JOBS.c[name] for name in Launched.model_fields)


class JobCaption(NamedTuple):
    """What lists show of a job beside its id."""

    name: str
    requester: str
    """Login name."""
    requester_id: str


class JobRepository(Repository):
    """Jobs and their orders."""

    @reads
    def get(self, connection: Connection, job: str) -> JobView | None:
        """Return a job whole; of very many credentials, all live ones and the newest of the rest."""
        row = connection.execute(select(JOBS).where(JOBS.c.id == job)).mappings().first()
        if row is None:
            return None
        asked = (
            connection.execute(REQUESTS_WITH_JOBS.where(REQUESTS.c.job_id == job).order_by(REQUESTS.c.number, REQUESTS.c.id))
            .mappings()
            .all()
        )
        issued, older = _credentials_of(connection, job)
        requests = to_request_views(connection, asked)
        return JobView(**row, revocation=_to_revocation_view(row), requests=requests, credentials=issued, older_credentials=older)

    @reads
    def list(  # noqa: PLR0913 - each is one filter of the list
        self,
        connection: Connection,
        *,
        state: JobState | None = None,
        environment: str | None = None,
        requester_id: str | None = None,
        revocation: RevocationState | None = None,
        parent: str | None = None,
        requester: str | None = None,
        name: str | None = None,
        limit: int = DEFAULT_PAGE_SIZE,
        cursor: str | None = None,
    ) -> Page[JobSummary]:
        """Return jobs, newest first: their ids sort by time. `requester` is a login name. Raises InvalidInput on a foreign cursor."""
        criteria = {"state": state, "environment": environment, "requester_id": requester_id, "revocation_state": revocation}
        criteria |= {"parent": parent, "requester": requester, "name": name}
        if requester is None or requester_id is not None:
            return _fetch_jobs(connection, criteria, limit=limit, cursor=cursor)
        # Each combination of filters has an index by the requester's entity id. A login name usually belongs to one entity.
        pages = [
            _fetch_jobs(connection, {**criteria, "requester_id": entity}, limit=limit, cursor=cursor)
            for entity in _requester_ids(connection, requester)
        ]
        if len(pages) < 2:
            return pages[0] if pages else Page(items=())
        return merge_pages(pages, by=lambda job: (job.id,), limit=limit)

    @reads
    def requesters(self, connection: Connection, jobs: Collection[str]) -> dict[str, str]:
        """Return the entity ids of the requesters of these jobs, by job. Unknown jobs are left out."""
        found = connection.execute(select(JOBS.c.id, JOBS.c.requester_id).where(JOBS.c.id.in_(jobs)))
        return {row.id: row.requester_id for row in found}

    @reads
    def open(self, connection: Connection, older_than: datetime) -> tuple[str, ...]:
        """Return the jobs submitted before `older_than` that have not ended, or whose revocation is pending or overdue, oldest first."""
        running = select(JOBS.c.id).where(JOBS.c.state.in_(OPEN_STATES), JOBS.c.created_at < older_than)
        unproved = select(JOBS.c.id).where(JOBS.c.revocation_state.in_(UNPROVED_STATES), JOBS.c.created_at < older_than)
        return tuple(sorted(set(connection.execute(union_all(running, unproved)).scalars())))

    @reads
    def unstarted(self, connection: Connection, older_than: datetime) -> tuple[str, ...]:
        """Return the pending jobs submitted before `older_than` that were never claimed and have requested nothing, oldest first."""
        asked = select(REQUESTS.c.id).where(REQUESTS.c.job_id == JOBS.c.id).exists()
        claimed = select(CLAIMS.c.job).where(CLAIMS.c.job == JOBS.c.id).exists()
        pending = select(JOBS.c.id).where(JOBS.c.state == JobState.PENDING.value, JOBS.c.created_at < older_than)
        return tuple(connection.execute(pending.where(~asked, ~claimed).order_by(JOBS.c.id)).scalars())

    @reads
    def launched_by(
        self, connection: Connection, requester: str, *, requester_id: str | None = None, limit: int = DEFAULT_PAGE_SIZE
    ) -> tuple[Launched, ...]:
        """Return a requester's newest jobs by login name, newest first; with `requester_id`, only those of this entity."""
        wanted = select(*_LAUNCH_COLUMNS).where(JOBS.c.requester == requester).order_by(JOBS.c.id.desc()).limit(limit)
        wanted = wanted.where(JOBS.c.requester_id == requester_id) if requester_id is not None else wanted
        return tuple(Launched(**row) for row in connection.execute(wanted).mappings())

    @reads
    def order(self, connection: Connection, job: str) -> OrderRecord | None:
        """Return the order as it was signed: raw spec, params, bundle digest, statement with signature."""
        row = connection.execute(select(ORDERS).where(ORDERS.c.job == job)).first()
        return OrderRecord(row.spec, row.params, row.bundle, SignedStatement(**row.signed)) if row else None

    @reads
    def captions(self, connection: Connection, jobs: Collection[str]) -> Mapping[str, JobCaption]:
        """Return name and requester of these jobs, by id. Unknown jobs are left out."""
        if not jobs:
            return {}
        statement = select(JOBS.c.id, JOBS.c.name, JOBS.c.requester, JOBS.c.requester_id).where(JOBS.c.id.in_(jobs))
        return {row[0]: JobCaption(*row[1:]) for row in connection.execute(statement)}

    def overdue(self) -> Iterator[tuple[str, datetime]]:
        """Yield each job whose revocation is overdue, and since when the revocation is open."""
        for job in iterate_pages(lambda cursor: self.list(revocation=RevocationState.OVERDUE, limit=MAX_PAGE_SIZE, cursor=cursor)):
            yield job.id, job.revocation.since or job.ended_at or job.created_at


class RequestRepository(Repository):
    """Requests with their approvals."""

    @reads
    def get(self, connection: Connection, request: str) -> RequestView | None:
        """Return a request with its approvals."""
        rows = connection.execute(REQUESTS_WITH_JOBS.where(REQUESTS.c.id == request)).mappings().all()
        return next(iter(to_request_views(connection, rows)), None)

    @reads
    def list(
        self,
        connection: Connection,
        *,
        state: RequestState | None = None,
        job: str | None = None,
        requester_id: str | None = None,
        limit: int = DEFAULT_PAGE_SIZE,
        cursor: str | None = None,
    ) -> Page[RequestView]:
        """Return requests, newest first. Raises InvalidInput if the cursor is not one of this list."""
        criteria = {"state": state, "job_id": job, "requester_id": requester_id}
        wanted = _apply_filter(REQUESTS_WITH_JOBS, REQUESTS, criteria)
        by = (REQUESTS.c.created_at, REQUESTS.c.id)
        return fetch_page(connection, wanted, by=by, limit=limit, cursor=cursor, views=lambda rows: to_request_views(connection, rows))

    @reads
    def by_ids(self, connection: Connection, requests: Iterable[str]) -> Mapping[str, RequestView]:
        """Return these requests by id, in this order. Unknown ids are left out."""
        return requests_by_id(connection, requests)


class CredentialRepository(Repository):
    """Credential handles; never a secret."""

    @reads
    def get(self, connection: Connection, credential: str) -> CredentialView | None:
        """Return a credential's handle."""
        rows = connection.execute(select(CREDENTIALS).where(CREDENTIALS.c.id == credential)).mappings().all()
        return next(iter(_to_credential_views(rows)), None)

    @reads
    def list(
        self,
        connection: Connection,
        *,
        live: bool = False,
        job: str | None = None,
        resource: str | None = None,
        action: str | None = None,
        state: CredentialState | None = None,
        limit: int = DEFAULT_PAGE_SIZE,
        cursor: str | None = None,
    ) -> Page[CredentialView]:
        """Return credentials, newest first; with `live`, only those not yet confirmed dead. Raises InvalidInput on a foreign cursor."""
        criteria = {"job_id": job, "resource": resource, "action": action, "state": state}
        wanted = _apply_filter(_live_or_all(live=live), CREDENTIALS, criteria)
        by = (CREDENTIALS.c.issued_at, CREDENTIALS.c.id)
        return fetch_page(connection, wanted, by=by, limit=limit, cursor=cursor, views=_to_credential_views)

    @reads
    def live_of(self, connection: Connection, job: str) -> tuple[CredentialView, ...]:
        """Return the job's credentials that are not yet confirmed dead, in the order of their issue."""
        return live_credentials(connection, job)

    def live_with_jobs(self) -> Iterator[LiveCredential]:
        """Yield every credential that is not yet confirmed dead, oldest first, with its job's state."""
        after: tuple[datetime, str] | None = None
        while page := self._live_page(after, ROWS_PER_FETCH):
            yield from page
            after = page[-1].issued_at, page[-1].credential

    @reads
    def _live_page(self, connection: Connection, after: tuple[datetime, str] | None, limit: int) -> Sequence[LiveCredential]:
        by = (CREDENTIALS.c.issued_at, CREDENTIALS.c.id)
        statement = _LIVE_WITH_JOBS.order_by(*by).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(*by) > tuple_(*after, types=[column.type for column in by]))
        return [LiveCredential(**{**row, "task": row["task"] or ""}) for row in connection.execute(statement).mappings()]


def live_credentials(connection: Connection, job_id: str) -> tuple[CredentialView, ...]:
    """Return the job's credentials that are not yet confirmed dead, in the order of their issue."""
    theirs = _live_or_all(live=True).where(CREDENTIALS.c.job_id == job_id).order_by(CREDENTIALS.c.issued_at, CREDENTIALS.c.id)
    return _to_credential_views(connection.execute(theirs).mappings().all())


def requests_by_id(connection: Connection, requests: Iterable[str]) -> Mapping[str, RequestView]:
    """Return these requests by id, in this order. Unknown ids are left out."""
    ids = tuple(dict.fromkeys(requests))
    rows = connection.execute(REQUESTS_WITH_JOBS.where(REQUESTS.c.id.in_(ids))).mappings().all() if ids else ()
    found = {view.id: view for view in to_request_views(connection, rows)}
    return {request: found[request] for request in ids if request in found}


def _fetch_jobs(connection: Connection, criteria: Mapping[str, str | None], *, limit: int, cursor: str | None) -> Page[JobSummary]:
    wanted = _apply_filter(select(*SUMMARY_COLUMNS, *REVOCATION_COLUMNS), JOBS, criteria)
    return fetch_page(
        connection,
        wanted,
        by=(JOBS.c.id,),
        limit=limit,
        cursor=cursor,
        views=lambda rows: [JobSummary(**row, revocation=_to_revocation_view(row)) for row in rows],
    )


def _requester_ids(connection: Connection, requester: str) -> Iterator[str]:
    """Yield the entity ids of everyone who launched jobs under a login name. A user who was deleted and created again has a new id."""
    last = ""
    theirs = select(func.min(JOBS.c.requester_id)).where(JOBS.c.requester == requester.replace("\0", "\ufffd"))
    while (found := connection.execute(theirs.where(JOBS.c.requester_id > last)).scalar()) is not None:
        yield found
        last = found


def _apply_filter(statement: Select[Any], table: Table, criteria: Mapping[str, str | None]) -> Select[Any]:
    # str(): a state is an enum, which drivers may take for one of theirs. No row contains NUL, and PostgreSQL rejects it in a query.
    asked = {name: str(value).replace("\0", "\ufffd") for name, value in criteria.items() if value is not None}
    if "requester_id" in asked and "requester" in asked and not _prefers_name_index(asked):
        # Written so that planners use no index by login name, and expect nearly every row to match.
        statement = statement.where(case((table.c.requester == asked.pop("requester"), 1)).is_not(None))
    return statement.where(*(table.c[name] == value for name, value in asked.items()))


def _prefers_name_index(conditions: Mapping[str, str]) -> bool:
    """Whether the index by login name finds jobs sooner than the indexes by entity do.

    A person mostly has one login name, and each combination of filters has an index by entity. All triggers are one entity, and only the
    state in which most jobs end has many jobs of that entity.
    """
    return (
        conditions["requester"].startswith(TRIGGER_PREFIX) and conditions.get("state", JobState.SUCCEEDED.value) == JobState.SUCCEEDED.value
    )


def _live_or_all(*, live: bool) -> Select[Any]:
    wanted: Select[Any] = select(CREDENTIALS)
    return wanted.where(CREDENTIALS.c.live) if live else wanted


def _to_revocation_view(row: RowMapping) -> RevocationView:
    return RevocationView(**{name: row[f"revocation_{name}"] for name in RevocationView.model_fields})


def to_request_views(connection: Connection, rows: Sequence[RowMapping]) -> tuple[RequestView, ...]:
    """Return the requests in rows of REQUESTS_WITH_JOBS, with their approvals."""
    answers: dict[str, list[ApprovalView]] = {row["id"]: [] for row in rows}
    if answers:
        wanted = select(APPROVALS).where(APPROVALS.c.request_id.in_(answers)).order_by(APPROVALS.c.at, APPROVALS.c.id)
        for answer in connection.execute(wanted).mappings():
            answers[answer["request_id"]].append(ApprovalView(**answer))
    glass = [name for name, given in answers.items() if any(item.decision == "break_glass" for item in given)]
    by_request = reviews.reviews_by_request(connection, glass)
    return tuple(RequestView(**_request_fields(row), approvals=tuple(answers[row["id"]]), review=by_request.get(row["id"])) for row in rows)


def _request_fields(row: RowMapping) -> dict[str, Any]:
    """Return the fields of a request. Its job may not be recorded yet."""
    lock = LockView(accessor=row["lock_accessor"], expires_at=row["lock_expires_at"]) if row["lock_accessor"] else None
    claim = ClaimView(by=row["claimed_by"], by_id=row["claimed_by_id"], until=row["claimed_until"]) if row["claimed_until"] else None
    return {**row, **{name: row[name] or "" for name in ("job_name", "task", "requester")}, "lock": lock, "claim": claim}


def _credentials_of(connection: Connection, job_id: str) -> tuple[tuple[CredentialView, ...], int]:
    """Return the job's credentials, oldest first: all live ones and the newest of the rest; and how many were left out."""
    theirs, newest = CREDENTIALS.c.job_id == job_id, (CREDENTIALS.c.issued_at.desc(), CREDENTIALS.c.id.desc())
    found = connection.execute(select(CREDENTIALS).where(theirs).order_by(*newest).limit(MAX_DEAD_CREDENTIALS + 1)).mappings().all()
    if len(found) <= MAX_DEAD_CREDENTIALS:
        return _to_credential_views(found[::-1]), 0
    alive = {one.id: one for one in live_credentials(connection, job_id)}
    kept = tuple(alive.values()) + tuple(one for one in _to_credential_views(found[MAX_DEAD_CREDENTIALS - 1 :: -1]) if one.id not in alive)
    count = connection.execute(select(func.count()).select_from(CREDENTIALS).where(theirs)).scalar_one()
    return tuple(sorted(kept, key=lambda one: (one.issued_at, one.id))), count - len(kept)


def _to_credential_views(rows: Sequence[RowMapping]) -> tuple[CredentialView, ...]:
    return tuple(CredentialView(**row) for row in rows)
