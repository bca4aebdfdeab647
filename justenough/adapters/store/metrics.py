"""Counts over the whole store, for health and metrics. Reads only; names no job."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, func, select

from justenough.adapters.store.repository import Repository, count_rows, reads_snapshot
from justenough.adapters.store.tables import CREDENTIALS, ENDED_JOBS, JOBS, REQUESTS, REVIEWS
from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, RevocationState

OPEN_STATES = tuple(state.value for state in JobState if not state.ended)
OPEN_JOBS = select(JOBS.c.state, func.count()).where(JOBS.c.state.in_(OPEN_STATES)).group_by(JOBS.c.state)
"""Selects the number of jobs in each state that is not an end."""
IS_OVERDUE = JOBS.c.revocation_state == RevocationState.OVERDUE.value


class StoreCounts(Message):
    jobs: Mapping[str, int]
    """By state."""
    pending_requests: int
    live_credentials: int
    """Credentials that are not confirmed as revoked or expired."""
    open_reviews: int
    """Reviews of break-glass approvals that are still due."""


class OverdueCounts(Message):
    jobs: int
    """Jobs whose revocation is overdue."""
    since: datetime | None
    """When the oldest overdue revocation began."""
    credentials: int
    """Credentials that should have ended, by revocation or by their ttl, and are not confirmed as revoked or expired."""


class MetricsRepository(Repository):
    """Counts over all jobs. Cheap, however many jobs there are."""

    @reads_snapshot
    def counts(self, connection: Connection) -> StoreCounts:
        """Return the counts that only metrics show."""
        states = [*connection.execute(OPEN_JOBS), *connection.execute(select(ENDED_JOBS.c.state, ENDED_JOBS.c.jobs))]
        return StoreCounts(
            jobs={row[0]: row[1] for row in states},
            pending_requests=count_rows(connection, REQUESTS, REQUESTS.c.state == RequestState.PENDING.value),
            live_credentials=count_rows(connection, CREDENTIALS, CREDENTIALS.c.live),
            open_reviews=count_rows(connection, REVIEWS, REVIEWS.c.open),
        )

    @reads_snapshot
    def overdue(self, connection: Connection) -> OverdueCounts:
        theirs = select(func.count(), func.min(JOBS.c.revocation_since)).where(IS_OVERDUE)
        jobs, since = connection.execute(theirs).one()
        late = (CREDENTIALS.c.live, CREDENTIALS.c.state == CredentialState.OVERDUE.value)
        return OverdueCounts(jobs=jobs, since=since, credentials=count_rows(connection, CREDENTIALS, *late))
