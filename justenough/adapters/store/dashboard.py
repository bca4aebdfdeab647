"""Counts for the Dashboard: what is open now, and the trend of the last hours. Reads only.

Open rows are counted by small indexes. Of the rest, at most MAX_ROWS_PER_KIND of each kind are read, newest first; the result notes if there were more.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, bindparam, case, cast, func, or_, select

from justenough.adapters.store.metrics import IS_OVERDUE, OPEN_JOBS, OPEN_STATES
from justenough.adapters.store.repository import Repository, count_rows, fetch_all, reads, reads_snapshot, without_nul
from justenough.adapters.store.tables import APPROVALS, CREDENTIALS, JOBS, REQUESTS, REVIEWS
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, Revocable
from justenough.domain.readmodel.dashboard import (
    ALL_JOBS,
    MAX_ENDLESS_COUNT,
    CurrentCounts,
    DurationHistogram,
    FilterValues,
    JobFilter,
    JobResults,
    LiveKind,
    OverdueCredential,
    OverdueJob,
    PeriodTrend,
    build_histogram,
    build_job_results,
    part_of,
    reconstruct_alive_counts,
)

DAY = timedelta(hours=24)
MAX_ROWS_PER_KIND = 5_000
"""Maximum number of rows of each kind from which a trend is computed."""
MAX_OVERDUE_JOBS = 20
MAX_FILTER_VALUES = 50
MAX_UNSEEN_LIFETIME = timedelta(days=7)
"""Unverified expiries count if their credential was issued at most this long before the period."""

_AGENT, _TEAM = JOBS.c.agent["name"].as_string(), JOBS.c.labels["team"].as_string()
# An expression, so that no index of it is used: one person may have launched most jobs, and few of them are recent.
_REQUESTER = func.coalesce(JOBS.c.requester_id, "")
_LATE = case((CREDENTIALS.c.state == CredentialState.OVERDUE.value, 1))
_LIVE = (
    select(
        CREDENTIALS.c.resource,
        CREDENTIALS.c.action,
        func.count().label("count"),
        func.count(_LATE).label("overdue"),
        func.min(CREDENTIALS.c.issued_at).label("oldest"),
    )
    .where(CREDENTIALS.c.live)
    .group_by(CREDENTIALS.c.resource, CREDENTIALS.c.action)
    .order_by(CREDENTIALS.c.resource, CREDENTIALS.c.action)
)
_WAITING = (
    select(REQUESTS.c.current_tier, func.count(), func.min(REQUESTS.c.expires_at), func.min(REQUESTS.c.created_at))
    .where(REQUESTS.c.state == RequestState.PENDING.value, REQUESTS.c.quorum > 0)
    .group_by(REQUESTS.c.current_tier)
)
_ENDLESS = (
    select(CREDENTIALS.c.id)
    .where(CREDENTIALS.c.state == CredentialState.RESIDUAL.value, CREDENTIALS.c.revocable == Revocable.NEVER.value)
    .limit(MAX_ENDLESS_COUNT)
)
_OVERDUE = (
    select(
        JOBS.c.id,
        JOBS.c.name,
        JOBS.c.state,
        func.coalesce(JOBS.c.revocation_since, JOBS.c.ended_at, JOBS.c.created_at).label("since"),
        JOBS.c.revocation_failures.label("failures"),
    )
    .where(IS_OVERDUE)
    .order_by(JOBS.c.created_at)
    .limit(MAX_OVERDUE_JOBS)
)


_MAY_LIVE = (
    select(CREDENTIALS.c.job_id, CREDENTIALS.c.id, CREDENTIALS.c.resource, CREDENTIALS.c.action)
    .where(
        CREDENTIALS.c.job_id.in_(bindparam("jobs", expanding=True)),
        CREDENTIALS.c.live,
        CREDENTIALS.c.state != CredentialState.RESIDUAL.value,
    )
    .order_by(CREDENTIALS.c.issued_at)
)


class DashboardRepository(Repository):
    @reads_snapshot
    def current_counts(self, connection: Connection, now: datetime, only: JobFilter = ALL_JOBS) -> CurrentCounts:
        """Count open rows at `now`, and jobs that ended within a day before it."""
        theirs = job_conditions(only)
        jobs = select(JOBS.c.id).where(*theirs)
        # The offset keeps planners from walking all jobs in the order of their states.
        lately = select(JOBS.c.state).where(JOBS.c.ended_at >= now - DAY, *theirs).offset(0).subquery()
        ended = select(lately.c.state, func.count()).group_by(lately.c.state)
        waiting = connection.execute(_WAITING.where(REQUESTS.c.job_id.in_(jobs)) if only else _WAITING).all()
        return CurrentCounts(
            live=fetch_all(connection, _LIVE.where(CREDENTIALS.c.job_id.in_(jobs)) if only else _LIVE, LiveKind),
            jobs={JobState(row[0]): row[1] for row in connection.execute(OPEN_JOBS.where(*theirs))},
            ended={JobState(row[0]): row[1] for row in connection.execute(ended)},
            requests={row[0]: row[1] for row in waiting},
            soonest=min((row[2] for row in waiting if row[2] is not None), default=None),
            longest_wait=min((row[3] for row in waiting), default=None),
            overdue=with_credentials(connection, fetch_all(connection, _OVERDUE.where(*theirs), OverdueJob)),
            overdue_jobs=count_rows(connection, JOBS, IS_OVERDUE, *theirs),
            endless_credentials=len(connection.execute(_ENDLESS.where(CREDENTIALS.c.job_id.in_(jobs)) if only else _ENDLESS).all()),
            open_reviews=count_rows(connection, REVIEWS, REVIEWS.c.open, *([REVIEWS.c.job_id.in_(jobs)] if only else [])),
        )

    @reads_snapshot
    def job_results(
        self, connection: Connection, *, until: datetime, width: timedelta, parts: int, only: JobFilter = ALL_JOBS
    ) -> tuple[JobResults, ...]:
        """Return the number of ended jobs by result in each of `parts` equal intervals, oldest first; the last interval contains `until`."""
        begin = datetime.fromtimestamp((part_of(until, width) - parts + 1) * width.total_seconds(), UTC)
        if connection.dialect.name == "postgresql":
            seconds: ColumnElement[Any] = func.extract("epoch", JOBS.c.ended_at)
        else:
            seconds = cast(func.strftime("%s", JOBS.c.ended_at), Integer)
        part = cast(func.floor(seconds / int(width.total_seconds())), Integer).label("part")
        ended = select(part, JOBS.c.state, func.count()).where(JOBS.c.ended_at >= begin, JOBS.c.ended_at <= until, *job_conditions(only))
        rows = connection.execute(ended.group_by(part, JOBS.c.state))
        counts = {(row[0], JobState(row[1])): row[2] for row in rows}
        return build_job_results(counts, until=until, width=width, parts=parts)

    @reads
    def filter_values(self, connection: Connection, now: datetime) -> FilterValues:
        """Return the environments, agents and teams of the jobs that ended within a day, or have not ended: at most MAX_FILTER_VALUES each."""
        lately = or_(JOBS.c.ended_at >= now - DAY, JOBS.c.state.in_(OPEN_STATES))

        def values(column: ColumnElement[str]) -> tuple[str, ...]:
            known = select(column).where(lately, column.is_not(None)).distinct().order_by(column).limit(MAX_FILTER_VALUES)
            return tuple(connection.execute(known).scalars())

        return FilterValues(environments=values(JOBS.c.environment), agents=values(_AGENT), teams=values(_TEAM))

    @reads_snapshot
    def overdue_jobs_of(self, connection: Connection, requester: str) -> tuple[OverdueJob, ...]:
        """Return the overdue revocations of one person's jobs, oldest job first."""
        return with_credentials(connection, fetch_all(connection, _OVERDUE.where(JOBS.c.requester_id == requester), OverdueJob))

    @reads_snapshot
    def period_trend(self, connection: Connection, since: datetime, until: datetime, buckets: int) -> PeriodTrend:
        """Return the trend of a period until about now. Live credentials are counted at the end of each of `buckets` equal parts."""
        ends = [since + (until - since) * part / buckets for part in range(1, buckets + 1)]
        dead = connection.execute(_newest_rows(CREDENTIALS.c.confirmed_at, CREDENTIALS.c.issued_at, since=since)).all()
        lifetimes = [(end - begin).total_seconds() for end, begin in dead if end <= until]
        born = connection.execute(_newest_rows(CREDENTIALS.c.issued_at, since=since)).scalars().all()
        # Credentials whose end nobody verified, the last issued first. What cannot be revoked ended with its job.
        is_endless = CREDENTIALS.c.revocable == Revocable.NEVER.value
        unseen = select(CREDENTIALS.c.expires_at, case((is_endless, JOBS.c.ended_at))).outerjoin(JOBS, JOBS.c.id == CREDENTIALS.c.job_id)
        unseen = unseen.where(CREDENTIALS.c.issued_at > since - MAX_UNSEEN_LIFETIME)
        unseen = unseen.order_by(CREDENTIALS.c.issued_at.desc(), CREDENTIALS.c.id.desc()).limit(MAX_ROWS_PER_KIND)
        # Each state in a query of its own, which the index by state and time of issue answers in order.
        expired, left = (
            [min(filter(None, row)) for row in connection.execute(unseen.where(CREDENTIALS.c.state == state.value, *more))]
            for state, more in ((CredentialState.EXPIRED, ()), (CredentialState.RESIDUAL, (is_endless,)))
        )
        cuts = [rows[-1] for rows in (born, [row[0] for row in dead], expired, left) if len(rows) == MAX_ROWS_PER_KIND]
        alive = count_rows(connection, CREDENTIALS, CREDENTIALS.c.live)
        over = [row[0] for row in dead] + [end for end in (*expired, *left) if end > since]
        return PeriodTrend(
            since=since,
            until=until,
            alive=reconstruct_alive_counts(ends, now=alive, begun=born, ended=over, known_since=max(cuts, default=None)),
            approvals=_approval_delays(connection, since, until),
            lifetimes=build_histogram(lifetimes, whole=len(dead) < MAX_ROWS_PER_KIND),
        )


def job_conditions(only: JobFilter) -> list[ColumnElement[bool]]:
    """Return the conditions on JOBS of a filter; none if it is empty."""
    columns = ((JOBS.c.environment, only.environment), (_AGENT, only.agent), (_TEAM, only.team), (_REQUESTER, only.requester_id))
    return [column == without_nul(value) for column, value in columns if value]


def _newest_rows(by: ColumnElement[Any], *more: ColumnElement[Any], since: datetime) -> Any:
    return select(by, *more).where(by > since).order_by(by.desc()).limit(MAX_ROWS_PER_KIND)


def _approval_delays(connection: Connection, since: datetime, until: datetime) -> DurationHistogram:
    answers = (
        select(APPROVALS.c.request_id, APPROVALS.c.at)
        .where(APPROVALS.c.at > since, APPROVALS.c.at <= until)
        .order_by(APPROVALS.c.at.desc())
        .limit(MAX_ROWS_PER_KIND)
        .subquery()
    )
    # A request that expired, or whose job ended, may have some answers, too. One whose approval was withdrawn has granted terms.
    decided = REQUESTS.c.state.in_((RequestState.APPROVED.value, RequestState.DENIED.value)) | REQUESTS.c.granted_ttl.is_not(None)
    columns = (answers.c.request_id, answers.c.at, REQUESTS.c.created_at, decided.label("is_decided"))
    rows = connection.execute(select(*columns).join(REQUESTS, REQUESTS.c.id == answers.c.request_id)).all()
    # The last of several answers settled the request.
    last: dict[str, float] = {}
    for request, at, created, is_decided in rows:
        if is_decided:
            last[request] = max(last.get(request, 0.0), (at - created).total_seconds())
    return build_histogram(list(last.values()), whole=len(rows) < MAX_ROWS_PER_KIND)


def with_credentials(connection: Connection, jobs: tuple[OverdueJob, ...]) -> tuple[OverdueJob, ...]:
    """Return overdue jobs with those of their credentials that may be active."""
    found: dict[str, list[OverdueCredential]] = {job.id: [] for job in jobs}
    for row in connection.execute(_MAY_LIVE, {"jobs": list(found)}):
        found[row.job_id].append(OverdueCredential(id=row.id, resource=row.resource, action=row.action))
    return tuple(job.model_copy(update={"credentials": tuple(found[job.id])}) for job in jobs)
