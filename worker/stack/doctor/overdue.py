"""Overdue revocations and dead letters in a store that this machine can read. Changes nothing and creates no store.

The findings have names because their reader can read the store anyway; /readyz, which needs no login, has only counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from justenough.adapters.store import Store
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.jobs.states import RevocationState
from worker.stack.finding import DoctorFinding
from worker.stack.readyz import RUNBOOK

MAX_JOBS_SHOWN = 20
SQLITE_PREFIX = "sqlite:///"


def overdue_findings(url: str) -> Iterator[DoctorFinding]:
    """Yield a finding for the store, each overdue revocation and each subscription with dead letters; none if there is no store yet."""
    try:
        if url.startswith(SQLITE_PREFIX) and not Path(url.removeprefix(SQLITE_PREFIX)).is_file():
            return
        with closing(Store(url)) as store:
            page = store.jobs.list(revocation=RevocationState.OVERDUE, limit=MAX_JOBS_SHOWN)
            subscriptions = store.outbox.subscription_progress()
    except Exception as error:  # noqa: BLE001 - doctor reports an old schema, a broken file or an unreachable server, and continues
        why = str(error) if isinstance(error, JustEnoughError) else type(error).__name__
        yield DoctorFinding("store", "missing", f"could not be read: {why}", "Check JUSTENOUGH_DATABASE_URL and that database.")
        return
    address = urlsplit(url)
    yield DoctorFinding("store", "ok", f"{address.hostname}{address.path}" if address.hostname else url.removeprefix(SQLITE_PREFIX))
    for job in page.items:
        since = f" since {job.revocation.since:%Y-%m-%dT%H:%M:%SZ}" if job.revocation.since else ""
        text = f"{job.id} ({job.state}){since}: {'; '.join(job.revocation.failures) or 'no reason is recorded'}"
        yield DoctorFinding("overdue", "missing", text, f"justenough job show {job.id}; {RUNBOOK}#overdue")
    if page.next:
        yield DoctorFinding("overdue", "missing", f"more than {MAX_JOBS_SHOWN} jobs", "justenough job list --revocation overdue")
    for subscription in subscriptions:
        if subscription.dead:
            why = f"; last: {subscription.why}" if subscription.why else ""
            text = f"{subscription.dead} event(s) were not delivered to {subscription.name}{why}"
            remedy = f"justenough webhook deliveries {subscription.name} --dead; {RUNBOOK}#dead-letters"
            yield DoctorFinding("dead letters", "warning", text, remedy)
