"""What the read model answers, as views. Reads only; what a state means is decided in projection.py."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping, Select, Table, case, func, select, tuple_, union_all

from justenough.adapters.store import reviews
from justenough.adapters.store.metrics import OPEN_STATES
from justenough.adapters.store.paging import fetch_page, merge_pages
from justenough.adapters.store.tables import APPROVALS, CLAIMS, CREDENTIALS, JOBS, ORDERS, REQUESTS
from justenough.domain.approvals.statements import OrderRecord, SignedStatement
from justenough.domain.evidence.current_state import LiveCredential
from justenough.domain.jobs.states import JobState, RevocationState
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
"""How the name of a trigger begins, which stands for a login name."""
MAX_DEAD_CREDENTIALS = 1_000
"""Of what a job was issued, that a whole view of it has: an agent that calls tools all day is issued very many, each dead right after."""
UNPROVED_STATES = (RevocationState.PENDING.value, RevocationState.OVERDUE.value)

_JOB_COLUMNS = (JOBS.c.name.label("job_name"), JOBS.c.task, JOBS.c.requester, JOBS.c.parent)
REQUESTS_WITH_JOBS = select(REQUESTS, *_JOB_COLUMNS).outerjoin(JOBS, JOBS.c.id == REQUESTS.c.job_id)
"""Requests with what people need to know of their jobs."""

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


class JobFilter(NamedTuple):
    """Columns of `jobs` and what they must be; None for whatever."""

    state: str | None = None
    environment: str | None = None
    requester_id: str | None = None
    revocation_state: str | None = None
    parent: str | None = None
    requester: str | None = None
    """Login name."""
    name: str | None = None


class CredentialFilter(NamedTuple):
    """Columns of `credentials` and what they must be; None for whatever."""

    job_id: str | None = None
    resource: str | None = None
    action: str | None = None
    state: str | None = None


class RequestFilter(NamedTuple):
    """Columns of `requests` and what they must be; None for whatever."""

    state: str | None = None
    job_id: str | None = None
    requester_id: str | None = None


def job(connection: Connection, job_id: str) -> JobView | None:
    """Return a job whole, but for what it was issued long ago and is dead where that was very much."""
    row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).mappings().first()
    if row is None:
        return None
    asked = (
        connection.execute(REQUESTS_WITH_JOBS.where(REQUESTS.c.job_id == job_id).order_by(REQUESTS.c.number, REQUESTS.c.id))
        .mappings()
        .all()
    )
    issued, older = _credentials_of(connection, job_id)
    requests = to_request_views(connection, asked)
    return JobView(**row, revocation=_to_revocation_view(row), requests=requests, credentials=issued, older_credentials=older)


def jobs(connection: Connection, criteria: JobFilter, *, limit: int, cursor: str | None) -> Page[JobSummary]:
    """Return jobs, newest first: their ids sort by time."""
    if criteria.requester is None or criteria.requester_id is not None:
        return _fetch_jobs(connection, criteria, limit=limit, cursor=cursor)
    # By the entity behind the login name, for whom there is an index for each combination of filters. Mostly it is one.
    pages = [
        _fetch_jobs(connection, criteria._replace(requester_id=one), limit=limit, cursor=cursor)
        for one in _requester_ids(connection, criteria.requester)
    ]
    if len(pages) < 2:
        return pages[0] if pages else Page(items=())
    return merge_pages(pages, by=lambda job: (job.id,), limit=limit)


def requesters(connection: Connection, jobs: Collection[str]) -> dict[str, str]:
    """Return the entity ids of who launched these jobs."""
    found = connection.execute(select(JOBS.c.id, JOBS.c.requester_id).where(JOBS.c.id.in_(jobs)))
    return {row.id: row.requester_id for row in found}


def request(connection: Connection, request_id: str) -> RequestView | None:
    """Return a request with its approvals."""
    rows = connection.execute(REQUESTS_WITH_JOBS.where(REQUESTS.c.id == request_id)).mappings().all()
    return next(iter(to_request_views(connection, rows)), None)


def requests(connection: Connection, criteria: RequestFilter, *, limit: int, cursor: str | None) -> Page[RequestView]:
    """Return requests, newest first."""
    wanted = _apply_filter(REQUESTS_WITH_JOBS, REQUESTS, criteria)
    by = (REQUESTS.c.created_at, REQUESTS.c.id)
    return fetch_page(connection, wanted, by=by, limit=limit, cursor=cursor, views=lambda rows: to_request_views(connection, rows))


def credential(connection: Connection, credential_id: str) -> CredentialView | None:
    """Return a credential's handle."""
    rows = connection.execute(select(CREDENTIALS).where(CREDENTIALS.c.id == credential_id)).mappings().all()
    return next(iter(_to_credential_views(rows)), None)


def credentials(connection: Connection, criteria: CredentialFilter, *, live: bool, limit: int, cursor: str | None) -> Page[CredentialView]:
    """Return credentials, newest first; `live`: only those not yet shown to be dead."""
    wanted = _apply_filter(_live_or_all(live=live), CREDENTIALS, criteria)
    by = (CREDENTIALS.c.issued_at, CREDENTIALS.c.id)
    return fetch_page(connection, wanted, by=by, limit=limit, cursor=cursor, views=_to_credential_views)


def live_credentials(connection: Connection, job_id: str) -> tuple[CredentialView, ...]:
    """Return the job's credentials that are not yet shown to be dead, in the order of their issue."""
    theirs = _live_or_all(live=True).where(CREDENTIALS.c.job_id == job_id).order_by(CREDENTIALS.c.issued_at, CREDENTIALS.c.id)
    return _to_credential_views(connection.execute(theirs).mappings().all())


def live_with_jobs(connection: Connection, *, after: tuple[datetime, str] | None, limit: int) -> Sequence[LiveCredential]:
    """Return credentials that are not yet shown to be dead after this issue, oldest first, with their jobs."""
    by = (CREDENTIALS.c.issued_at, CREDENTIALS.c.id)
    wanted = _LIVE_WITH_JOBS.order_by(*by).limit(limit)
    if after is not None:
        wanted = wanted.where(tuple_(*by) > tuple_(*after, types=[column.type for column in by]))
    return [LiveCredential(**{**row, "task": row["task"] or ""}) for row in connection.execute(wanted).mappings()]


def open_jobs(connection: Connection, older_than: datetime) -> tuple[str, ...]:
    """Return jobs submitted before a moment that have not ended, or whose revocation is pending or overdue, oldest first."""
    running = select(JOBS.c.id).where(JOBS.c.state.in_(OPEN_STATES), JOBS.c.created_at < older_than)
    unproved = select(JOBS.c.id).where(JOBS.c.revocation_state.in_(UNPROVED_STATES), JOBS.c.created_at < older_than)
    return tuple(sorted(set(connection.execute(union_all(running, unproved)).scalars())))


def unstarted_jobs(connection: Connection, older_than: datetime) -> tuple[str, ...]:
    """Return pending jobs submitted before a moment that were never claimed and have asked for nothing, oldest first."""
    asked = select(REQUESTS.c.id).where(REQUESTS.c.job_id == JOBS.c.id).exists()
    claimed = select(CLAIMS.c.job).where(CLAIMS.c.job == JOBS.c.id).exists()
    pending = select(JOBS.c.id).where(JOBS.c.state == JobState.PENDING.value, JOBS.c.created_at < older_than)
    return tuple(connection.execute(pending.where(~asked, ~claimed).order_by(JOBS.c.id)).scalars())


def jobs_launched_by(connection: Connection, requester: str, *, requester_id: str | None, limit: int) -> tuple[Launched, ...]:
    """Return the newest jobs of a requester by name, newest first; `by`: only those of this entity's."""
    wanted = select(*_LAUNCH_COLUMNS).where(JOBS.c.requester == requester).order_by(JOBS.c.id.desc()).limit(limit)
    wanted = wanted.where(JOBS.c.requester_id == requester_id) if requester_id is not None else wanted
    return tuple(Launched(**row) for row in connection.execute(wanted).mappings())


def order(connection: Connection, job_id: str) -> OrderRecord | None:
    """Return the order of a job, or None if none is recorded."""
    row = connection.execute(select(ORDERS).where(ORDERS.c.job == job_id)).first()
    return OrderRecord(row.spec, row.params, row.bundle, SignedStatement(**row.signed)) if row else None


def _fetch_jobs(connection: Connection, criteria: JobFilter, *, limit: int, cursor: str | None) -> Page[JobSummary]:
    wanted = _apply_filter(select(*SUMMARY_COLUMNS, *REVOCATION_COLUMNS), JOBS, criteria)
    return fetch_page(connection, wanted, by=(JOBS.c.id,), limit=limit, cursor=cursor, views=_to_summaries)


def _requester_ids(connection: Connection, requester: str) -> Iterator[str]:
    """Yield the entity ids of those who launched jobs under a login name: a user that was made anew has another one."""
    last = ""
    theirs = select(func.min(JOBS.c.requester_id)).where(JOBS.c.requester == requester.replace("\0", "\ufffd"))
    while (found := connection.execute(theirs.where(JOBS.c.requester_id > last)).scalar()) is not None:
        yield found
        last = found


def _apply_filter(statement: Select[Any], table: Table, criteria: JobFilter | RequestFilter | CredentialFilter) -> Select[Any]:
    # str(): a state is an enum, which drivers may take for one of theirs. NUL is in no row, and PostgreSQL refuses to look for it.
    asked = {name: str(value).replace("\0", "\ufffd") for name, value in criteria._asdict().items() if value is not None}
    if "requester_id" in asked and "requester" in asked and not _prefers_name_index(asked):
        # Written so that no index by login name is tried, and that planners take nearly every row for one that fits.
        statement = statement.where(case((table.c.requester == asked.pop("requester"), 1)).is_not(None))
    return statement.where(*(table.c[name] == value for name, value in asked.items()))


def _prefers_name_index(conditions: Mapping[str, str]) -> bool:
    """Whether the index by login name finds jobs sooner than those by entity do.

    A person is called one thing, mostly, and there is an index by entity for each combination. All triggers are one entity; of that one,
    only the state that most jobs end in has many jobs.
    """
    return (
        conditions["requester"].startswith(TRIGGER_PREFIX) and conditions.get("state", JobState.SUCCEEDED.value) == JobState.SUCCEEDED.value
    )


def _live_or_all(*, live: bool) -> Select[Any]:
    wanted: Select[Any] = select(CREDENTIALS)
    return wanted.where(CREDENTIALS.c.live) if live else wanted


def _to_summaries(rows: Sequence[RowMapping]) -> tuple[JobSummary, ...]:
    return tuple(JobSummary(**row, revocation=_to_revocation_view(row)) for row in rows)


def _to_revocation_view(row: RowMapping) -> RevocationView:
    return RevocationView(**{name: row[f"revocation_{name}"] for name in RevocationView.model_fields})


def to_request_views(connection: Connection, rows: Sequence[RowMapping]) -> tuple[RequestView, ...]:
    """Return what rows of `ASKED` stand for, with their answers."""
    answers: dict[str, list[ApprovalView]] = {row["id"]: [] for row in rows}
    if answers:
        wanted = select(APPROVALS).where(APPROVALS.c.request_id.in_(answers)).order_by(APPROVALS.c.at, APPROVALS.c.id)
        for answer in connection.execute(wanted).mappings():
            answers[answer["request_id"]].append(ApprovalView(**answer))
    glass = [name for name, given in answers.items() if any(item.decision == "break_glass" for item in given)]
    by_request = reviews.reviews_by_request(connection, glass)
    return tuple(
        RequestView(
            **_request_fields(row), approvals=tuple(answers[row["id"]]), claim=_to_claim_view(row), review=by_request.get(row["id"])
        )
        for row in rows
    )


def _to_claim_view(row: RowMapping) -> ClaimView | None:
    return ClaimView(by=row["claimed_by"], by_id=row["claimed_by_id"], until=row["claimed_until"]) if row["claimed_until"] else None


def _request_fields(row: RowMapping) -> dict[str, Any]:
    """Return a request's fields; its job may not be recorded yet."""
    lock = LockView(accessor=row["lock_accessor"], expires_at=row["lock_expires_at"]) if row["lock_accessor"] else None
    return {**row, **{name: row[name] or "" for name in ("job_name", "task", "requester")}, "lock": lock}


def _credentials_of(connection: Connection, job_id: str) -> tuple[tuple[CredentialView, ...], int]:
    """Return what a job was issued, oldest first: all that is alive and the newest of the rest; and how many more there were."""
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
