"""Which jobs' revocations are overdue, and whose events are dead letters, from a store that this machine can read. Changes nothing, and makes no store.

Names are for whoever may read the store anyway; a console without a login tells counts only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from justenough.adapters.store import Store
from justenough.adapters.store.outbox_queries import SubscriptionProgress
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.jobs.states import RevocationState
from justenough.domain.readmodel.views import JobSummary
from worker.stack.finding import DoctorFinding
from worker.stack.readyz import RUNBOOK

MAX_JOBS_SHOWN = 20
SQLITE_PREFIX = "sqlite:///"


def overdue_findings(url: str) -> Iterator[DoctorFinding]:
    """Yield a finding for each job whose revocation is overdue and each subscription with dead letters; nothing where there is no store yet."""
    try:
        if url.startswith(SQLITE_PREFIX) and not Path(url.removeprefix(SQLITE_PREFIX)).is_file():
            return
        with closing(Store(url)) as store:
            page = store.jobs.list(revocation=RevocationState.OVERDUE, limit=MAX_JOBS_SHOWN)
            standings = store.outbox.subscription_progress()
    except Exception as error:  # noqa: BLE001 - an older shape, a broken file, a server away: doctor goes on and says that it could not look
        why = str(error) if isinstance(error, JustEnoughError) else type(error).__name__
        yield DoctorFinding("store", "warning", f"could not be read: {why}", "Look at JUSTENOUGH_DATABASE_URL and at that database.")
        return
    yield from map(_overdue_finding, page.items)
    if page.next:
        yield DoctorFinding("overdue", "missing", f"more than {MAX_JOBS_SHOWN} jobs", "justenough job list --revocation overdue")
    yield from (_dead_letter_finding(one) for one in standings if one.dead)


def _overdue_finding(job: JobSummary) -> DoctorFinding:
    since = f" since {job.revocation.since:%Y-%m-%dT%H:%M:%SZ}" if job.revocation.since else ""
    why = "; ".join(job.revocation.failures) or "no reason is recorded"
    return DoctorFinding("overdue", "missing", f"{job.id} ({job.state}){since}: {why}", f"justenough job show {job.id}; {RUNBOOK}#overdue")


def _dead_letter_finding(subscription: SubscriptionProgress) -> DoctorFinding:
    why = f"; last: {subscription.why}" if subscription.why else ""
    remedy = f"justenough webhook deliveries {subscription.name} --dead; {RUNBOOK}#dead-letters"
    return DoctorFinding("dead letters", "warning", f"{subscription.dead} event(s) were not delivered to {subscription.name}{why}", remedy)
