"""What pages show at a glance: what stands open now, and how the last hours went. Reads only, bounded however much is over.

What is open is counted by indexes that hold little else. Of what is over, at most NEWEST rows of each kind are read, newest first; whoever
shows them is told where that was not all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, case, func, select

from justenough.adapters.store.metrics import OPEN_STATES
from justenough.adapters.store.repository import Repository, reads
from justenough.adapters.store.tables import APPROVALS, CREDENTIALS, JOBS, REQUESTS, REVIEWS
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, RevocationState
from justenough.domain.readmodel.dashboard import (
    CurrentCounts,
    DurationHistogram,
    LiveKind,
    OverdueJob,
    PeriodTrend,
    build_histogram,
    reconstruct_alive_counts,
)

DAY = timedelta(hours=24)
MAX_ROWS_PER_KIND = 5_000
"""Rows of each kind that a course is drawn from, at most."""
MAX_OVERDUE_JOBS = 20
MAX_UNSEEN_LIFETIME = timedelta(days=7)
"""Of what expired unseen, as much longer than a period's beginning ago it may have been issued."""

_LATE = case((CREDENTIALS.c.state == CredentialState.OVERDUE.value, 1))
_LIVE = (
    select(CREDENTIALS.c.resource, CREDENTIALS.c.action, func.count(), func.count(_LATE), func.min(CREDENTIALS.c.issued_at))
    .where(CREDENTIALS.c.live)
    .group_by(CREDENTIALS.c.resource, CREDENTIALS.c.action)
    .order_by(CREDENTIALS.c.resource, CREDENTIALS.c.action)
)
_OPEN = select(JOBS.c.state, func.count()).where(JOBS.c.state.in_(OPEN_STATES)).group_by(JOBS.c.state)
_WAITING = (
    select(REQUESTS.c.current_tier, func.count(), func.min(REQUESTS.c.expires_at))
    .where(REQUESTS.c.state == RequestState.PENDING.value, REQUESTS.c.quorum > 0)
    .group_by(REQUESTS.c.current_tier)
)
_IS_OVERDUE = JOBS.c.revocation_state == RevocationState.OVERDUE.value
_OVERDUE = (
    select(*(JOBS.c[name] for name in ("id", "name", "state", "revocation_since", "ended_at", "created_at", "revocation_failures")))
    .where(_IS_OVERDUE)
    .order_by(JOBS.c.created_at)
    .limit(MAX_OVERDUE_JOBS)
)


class DashboardRepository(Repository):
    """What is open now, and how the last hours went."""

    @reads
    def current_counts(self, connection: Connection, now: datetime | None = None) -> CurrentCounts:
        """Count what is open at `now` (default: the current time), and what ended within a day before it."""
        # Behind an offset, so that no planner walks all jobs in the order of their states.
        lately = select(JOBS.c.state).where(JOBS.c.ended_at >= (now or datetime.now(UTC)) - DAY).offset(0).subquery()
        ended = select(lately.c.state, func.count()).group_by(lately.c.state)
        waiting = connection.execute(_WAITING).all()
        return CurrentCounts(
            live=tuple(_to_live_kind(row) for row in connection.execute(_LIVE)),
            jobs=_counts_by_state(connection.execute(_OPEN)),
            ended=_counts_by_state(connection.execute(ended)),
            requests={row[0]: row[1] for row in waiting},
            soonest=min((row[2] for row in waiting if row[2] is not None), default=None),
            overdue=tuple(_to_overdue_job(row) for row in connection.execute(_OVERDUE)),
            overdue_jobs=connection.execute(select(func.count()).select_from(JOBS).where(_IS_OVERDUE)).scalar_one(),
            open_reviews=connection.execute(select(func.count()).select_from(REVIEWS).where(REVIEWS.c.open)).scalar_one(),
        )

    @reads
    def period_trend(self, connection: Connection, since: datetime, until: datetime, buckets: int) -> PeriodTrend:
        """Return how a period went, with the number of live credentials at the end of each of `buckets` equal parts.

        `until` is about now.
        """
        ends = [since + (until - since) * part / buckets for part in range(1, buckets + 1)]
        dead = connection.execute(_newest_rows(CREDENTIALS.c.confirmed_at, CREDENTIALS.c.issued_at, since=since)).all()
        lifetimes = [(end - begin).total_seconds() for end, begin in dead if end <= until]
        born = connection.execute(_newest_rows(CREDENTIALS.c.issued_at, since=since)).scalars().all()
        unseen = _unseen_ends(connection, since)
        cuts = [rows[-1] for rows in (born, [row[0] for row in dead], unseen) if len(rows) == MAX_ROWS_PER_KIND]
        alive: int = connection.execute(select(func.count()).select_from(CREDENTIALS).where(CREDENTIALS.c.live)).scalar_one()
        over = [row[0] for row in dead] + [end for end in unseen if end > since]
        return PeriodTrend(
            since=since,
            until=until,
            alive=reconstruct_alive_counts(ends, now=alive, begun=born, over=over, known_since=max(cuts, default=None)),
            approvals=_approval_delays(connection, since, until),
            lifetimes=build_histogram(lifetimes, whole=len(dead) < MAX_ROWS_PER_KIND),
        )


def _newest_rows(by: ColumnElement[Any], *more: ColumnElement[Any], since: datetime) -> Any:
    return select(by, *more).where(by > since).order_by(by.desc()).limit(MAX_ROWS_PER_KIND)


def _unseen_ends(connection: Connection, since: datetime) -> Sequence[datetime]:
    """Return when credentials ended whose death nobody could see, those issued last first."""
    theirs = select(CREDENTIALS.c.expires_at).where(
        CREDENTIALS.c.state == CredentialState.EXPIRED.value, CREDENTIALS.c.issued_at > since - MAX_UNSEEN_LIFETIME
    )
    return (
        connection.execute(theirs.order_by(CREDENTIALS.c.issued_at.desc(), CREDENTIALS.c.id.desc()).limit(MAX_ROWS_PER_KIND))
        .scalars()
        .all()
    )


def _approval_delays(connection: Connection, since: datetime, until: datetime) -> DurationHistogram:
    answers = (
        select(APPROVALS.c.request_id, APPROVALS.c.at)
        .where(APPROVALS.c.at > since, APPROVALS.c.at <= until)
        .order_by(APPROVALS.c.at.desc())
        .limit(MAX_ROWS_PER_KIND)
        .subquery()
    )
    settled = REQUESTS.c.state != RequestState.PENDING.value
    asked = select(answers.c.request_id, answers.c.at, REQUESTS.c.created_at).join(REQUESTS, REQUESTS.c.id == answers.c.request_id)
    rows = connection.execute(asked.where(settled)).all()
    # Of several answers the last one settled it.
    last: dict[str, float] = {}
    for request, at, created in rows:
        last[request] = max(last.get(request, 0.0), (at - created).total_seconds())
    return build_histogram(list(last.values()), whole=len(rows) < MAX_ROWS_PER_KIND)


def _counts_by_state(rows: Iterable[Any]) -> dict[JobState, int]:
    return {JobState(row[0]): row[1] for row in rows}


def _to_live_kind(row: Row[Any]) -> LiveKind:
    resource, action, count, late, oldest = tuple(row)
    return LiveKind(resource=resource, action=action, count=count, overdue=late, oldest=oldest)


def _to_overdue_job(row: Row[Any]) -> OverdueJob:
    since = row.revocation_since or row.ended_at or row.created_at
    return OverdueJob(id=row.id, name=row.name, state=row.state, since=since, failures=tuple(row.revocation_failures))
