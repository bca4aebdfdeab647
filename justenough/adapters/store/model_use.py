"""Reads the use of language models in a period, by job. At most MAX_ENTRIES entries are read, the newest ones, by an index."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from justenough.adapters.store.repository import Repository, reads_snapshot
from justenough.adapters.store.tables import JOBS, LEDGER, ORDERS
from justenough.domain.ledger.events import EventType
from justenough.domain.ledger.hash_chain import moment_text
from justenough.domain.readmodel.model_use import JobModelUse, PeriodModelUse, TokenBudgets, calls_of_entries

MAX_ENTRIES = 10_000
"""One entry covers many calls, so this many entries cover the use of thousands of jobs."""
_JOB = (JOBS.c.id, JOBS.c.name, JOBS.c.requester, JOBS.c.requester_id, JOBS.c.agent, ORDERS.c.spec["model"].label("model"))


class ModelUseRepository(Repository):
    @reads_snapshot
    def period_use(self, connection: Connection, since: datetime, *, limit: int = MAX_ENTRIES) -> PeriodModelUse:
        """Return the use since a moment, the job with the newest entry first."""
        used = (LEDGER.c.type == EventType.MODEL_USED.value) & (LEDGER.c.at >= moment_text(since))
        newest = select(LEDGER.c.job, LEDGER.c.data).where(used).order_by(LEDGER.c.at.desc(), LEDGER.c.position.desc())
        rows = connection.execute(newest.limit(limit + 1)).all()
        entries: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows[:limit]:
            entries[row.job].append(json.loads(row.data))
        statement = select(*_JOB).join(ORDERS, ORDERS.c.job == JOBS.c.id).where(JOBS.c.id.in_(tuple(entries)))
        jobs = {job.id: job for job in connection.execute(statement)}
        uses = (_build_use(jobs[job], data) for job, data in entries.items() if job in jobs)
        return PeriodModelUse(tuple(uses), is_whole=len(rows) <= limit)


def _build_use(job: Any, entries: list[dict[str, Any]]) -> JobModelUse:
    budget = job.model or {}
    return JobModelUse(
        job=job.id,
        name=job.name,
        requester=job.requester,
        requester_id=job.requester_id,
        agent=str((job.agent or {}).get("name") or ""),
        # A spec names one model, so each of its entries does.
        model=entries[0]["name"],
        budget=TokenBudgets(requests=budget.get("requests", 0), tokens=budget.get("tokens", 0)),
        calls=calls_of_entries(entries),
    )
