"""Checks for overdue revocations and dead letters in a store that this machine can read. Changes nothing and creates no store.

The findings have names because their reader can read the store anyway; /readyz, which needs no login, has only counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.jobs.states import RevocationState
from justenough.domain.ledger.overdue import end_session_advice
from worker.stack.doctor.store import missing_file, open_own_store, store_findings
from worker.stack.finding import DoctorFinding
from worker.stack.readyz import RUNBOOK

MAX_JOBS_SHOWN = 20


def overdue_findings(settings: Settings, *, is_required: bool = False) -> Iterator[DoctorFinding]:
    """Yield the findings about the store, and one for each overdue revocation and each subscription with dead letters.

    Without a store there are no findings, unless a store is required.
    """
    if missing_file(settings) and not is_required:
        return
    found = tuple(store_findings(settings))
    yield from found
    if any(finding.level == "missing" for finding in found):
        return
    try:
        with open_own_store(settings) as store:
            page = store.jobs.list(revocation=RevocationState.OVERDUE, limit=MAX_JOBS_SHOWN)
            subscriptions = store.outbox.subscription_progress()
    except JustEnoughError as error:
        yield DoctorFinding("store", "missing", f"could not be read: {error}", "Check JUSTENOUGH_DATABASE_URL and that database.")
        return
    for job in page.items:
        since = f" since {job.revocation.since:%Y-%m-%dT%H:%M:%SZ}" if job.revocation.since else ""
        text = f"{job.id} ({job.state}){since}: {'; '.join(job.revocation.failures) or 'no reason is recorded'}"
        advice = end_session_advice(job.revocation.failures)
        # Nothing follows a statement.
        remedy = f"{RUNBOOK}#overdue: {advice}" if advice else f"justenough job show {job.id}; {RUNBOOK}#overdue"
        yield DoctorFinding("overdue", "missing", text, remedy)
    if page.next:
        yield DoctorFinding("overdue", "missing", f"more than {MAX_JOBS_SHOWN} jobs", "justenough job list --revocation overdue")
    for subscription in subscriptions:
        if subscription.dead:
            why = f"; last: {subscription.why}" if subscription.why else ""
            text = f"{subscription.dead} event(s) were not delivered to {subscription.name}{why}"
            remedy = f"justenough webhook deliveries {subscription.name} --dead; {RUNBOOK}#dead-letters"
            yield DoctorFinding("dead letters", "warning", text, remedy)
