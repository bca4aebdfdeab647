"""Numbers over the whole store: for health, metrics and the ledger's head. Reads only; names no job."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, func, select

from justenough.adapters.store.tables import CREDENTIALS, ENDED_JOBS, JOBS, LEDGER, REQUESTS, REVIEWS
from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, RevocationState

OPEN_STATES = tuple(state.value for state in JobState if not state.ended)


class StoreCounts(Message):
    """How many there are now."""

    jobs: Mapping[str, int]
    """By state."""
    pending_requests: int
    live_credentials: int
    """Not yet shown to be dead."""
    overdue_revocations: int
    """Jobs whose revocation is overdue."""
    open_reviews: int
    """Of broken glass."""


class OverdueCounts(Message):
    """How much is overdue now."""

    jobs: int
    """Whose revocation is."""
    since: datetime | None
    """When the oldest of those revocations began."""
    credentials: int
    """Not dead although somebody, or their ttl, wanted them ended."""


class LedgerHead(Message):
    """The ledger's newest entry. Not a signed checkpoint: what is cut off behind it cannot be told from this alone."""

    entries: int
    position: int
    hash: str | None
    """None where the ledger is empty."""


def figures(connection: Connection) -> StoreCounts:
    """Count; cheap however many jobs there are."""
    going = select(JOBS.c.state, func.count()).where(JOBS.c.state.in_(OPEN_STATES)).group_by(JOBS.c.state)
    states = [*connection.execute(going), *connection.execute(select(ENDED_JOBS.c.state, ENDED_JOBS.c.jobs))]
    pending = select(func.count()).select_from(REQUESTS).where(REQUESTS.c.state == RequestState.PENDING.value)
    live = select(func.count()).select_from(CREDENTIALS).where(CREDENTIALS.c.live)
    overdue = select(func.count()).select_from(JOBS).where(JOBS.c.revocation_state == RevocationState.OVERDUE.value)
    unreviewed = select(func.count()).select_from(REVIEWS).where(REVIEWS.c.open)
    return StoreCounts(
        jobs={row[0]: row[1] for row in states},
        pending_requests=connection.execute(pending).scalar_one(),
        live_credentials=connection.execute(live).scalar_one(),
        overdue_revocations=connection.execute(overdue).scalar_one(),
        open_reviews=connection.execute(unreviewed).scalar_one(),
    )


def overdue(connection: Connection) -> OverdueCounts:
    """Count; cheap however many jobs there are."""
    theirs = select(func.count(), func.min(JOBS.c.revocation_since)).where(JOBS.c.revocation_state == RevocationState.OVERDUE.value)
    jobs, since = connection.execute(theirs).one()
    late = select(func.count()).select_from(CREDENTIALS).where(CREDENTIALS.c.live, CREDENTIALS.c.state == CredentialState.OVERDUE.value)
    return OverdueCounts(jobs=jobs, since=since, credentials=connection.execute(late).scalar_one())


def ledger_head(connection: Connection) -> LedgerHead:
    """Return the newest entry; its position is the number of entries, as positions ascend without gaps."""
    newest = connection.execute(select(LEDGER.c.position, LEDGER.c.hash).order_by(LEDGER.c.position.desc()).limit(1)).first()
    if newest is None:
        return LedgerHead(entries=0, position=0, hash=None)
    return LedgerHead(entries=newest.position, position=newest.position, hash=newest.hash)
