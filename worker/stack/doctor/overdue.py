"""Which jobs' revocations are overdue, and whose events are dead letters, from a store that this machine can read. Changes nothing, and makes no store.

Names are for whoever may read the store anyway; a console without a login tells counts only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from justenough.adapters.store import Store
from justenough.adapters.store.outbox_queries import Standing
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.jobs.states import RevocationState
from justenough.domain.readmodel.views import JobSummary
from worker.stack.finding import Finding
from worker.stack.readyz import RUNBOOK

SHOWN = 20
SQLITE = "sqlite:///"


def overdue_findings(url: str) -> Iterator[Finding]:
    """Yield a finding for each job whose revocation is overdue and each subscription with dead letters; nothing where there is no store yet."""
    try:
        if url.startswith(SQLITE) and not Path(url.removeprefix(SQLITE)).is_file():
            return
        with closing(Store(url)) as store:
            page = store.jobs(revocation=RevocationState.OVERDUE, limit=SHOWN)
            standings = store.outbox.standings()
    except Exception as error:  # noqa: BLE001 - an older shape, a broken file, a server away: doctor goes on and says that it could not look
        why = str(error) if isinstance(error, JustEnoughError) else type(error).__name__
        yield Finding("store", "warning", f"could not be read: {why}", "Look at JUSTENOUGH_DATABASE_URL and at that database.")
        return
    yield from map(_late, page.items)
    if page.next:
        yield Finding("overdue", "missing", f"more than {SHOWN} jobs", "justenough job list --revocation overdue")
    yield from (_dead_letters(one) for one in standings if one.dead)


def _late(job: JobSummary) -> Finding:
    since = f" since {job.revocation.since:%Y-%m-%dT%H:%M:%SZ}" if job.revocation.since else ""
    why = "; ".join(job.revocation.failures) or "no reason is recorded"
    return Finding("overdue", "missing", f"{job.id} ({job.state}){since}: {why}", f"justenough job show {job.id}; {RUNBOOK}#overdue")


def _dead_letters(one: Standing) -> Finding:
    why = f"; last: {one.why}" if one.why else ""
    remedy = f"justenough webhook deliveries {one.name} --dead; {RUNBOOK}#dead-letters"
    return Finding("dead letters", "warning", f"{one.dead} event(s) were not delivered to {one.name}{why}", remedy)
