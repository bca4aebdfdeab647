"""Reads what needs a person now: failed jobs, late requests, denials, dead deliveries, missed schedules, silent workers.

Each kind has at most MAX_ITEMS_PER_KIND items, newest first; items about jobs that nobody has acknowledged come before acknowledged ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, exists, func, literal, or_, select

from justenough.adapters.store.dashboard import job_conditions
from justenough.adapters.store.repository import Repository, fetch_all, reads, reads_snapshot
from justenough.adapters.store.tables import (
    ACKNOWLEDGEMENTS,
    APPROVALS,
    DELIVERIES,
    JOBS,
    LEDGER,
    LOGS,
    REQUESTS,
    SUBSCRIPTIONS,
    WORKERS,
)
from justenough.domain.approvals.statements import MAX_STATEMENT_LIFETIME
from justenough.domain.jobs.result_reasons import result_reason_text
from justenough.domain.jobs.states import JobState, RequestState
from justenough.domain.ledger.events import EventType, parse_entry_time
from justenough.domain.ledger.hash_chain import moment_text
from justenough.domain.readmodel.attention import ATTENTION_PERIOD, Acknowledgement, AttentionItem, AttentionKind, is_half_gone
from justenough.domain.readmodel.dashboard import JobFilter

MAX_ITEMS_PER_KIND = 20
MAX_PENDING_REQUESTS = 200
"""Maximum number of pending requests that are examined, nearest deadlines first."""
MAX_LINE_CHARS = 300
FAILED_STATES = tuple(state.value for state in (JobState.FAILED, JobState.TIMED_OUT, JobState.LOST))

_LATER = JOBS.alias("later")
# Compare times, because ids are made by the launchers' machines, whose clocks may be behind. Compare ids, too, so that databases use an index.
_IS_LATER = and_(_LATER.c.id > JOBS.c.id, _LATER.c.created_at >= JOBS.c.created_at)
_SUCCEEDED_SINCE = exists().where(_LATER.c.name == JOBS.c.name, _LATER.c.state == JobState.SUCCEEDED.value, _IS_LATER)
_DENIED_BY_PERSON = exists().where(APPROVALS.c.request_id == REQUESTS.c.id, APPROVALS.c.decision == "deny")


class AttentionRepository(Repository):
    @reads_snapshot
    def items(self, connection: Connection, only: JobFilter, *, now: datetime, worker_silence: timedelta) -> tuple[AttentionItem, ...]:
        """Return what needs attention, without acknowledgements. With a filter, only items about jobs.

        `worker_silence`: how long a worker may go without reporting.
        """
        since = now - ATTENTION_PERIOD
        about_jobs = (
            *failed_jobs(connection, only, since),
            *late_requests(connection, only, now),
            *denied_jobs(connection, only, since),
        )
        if only:
            return about_jobs
        about_installation = (*failing_subscriptions(connection), *missed_schedules(connection, since))
        return (*about_jobs, *about_installation, *silent_workers(connection, since, now - worker_silence))

    @reads
    def acknowledgements(self, connection: Connection, keys: Iterable[str]) -> Mapping[str, Acknowledgement]:
        statement = select(ACKNOWLEDGEMENTS).where(ACKNOWLEDGEMENTS.c.item.in_(tuple(keys)))
        return {found.item: found for found in fetch_all(connection, statement, Acknowledgement)}


def failed_jobs(connection: Connection, only: JobFilter, since: datetime) -> Iterator[AttentionItem]:
    failed = and_(JOBS.c.ended_at >= since, JOBS.c.state.in_(FAILED_STATES), ~_SUCCEEDED_SINCE, *job_conditions(only))
    order = (_acknowledgement_order(AttentionKind.FAILED, JOBS.c.ended_at), JOBS.c.ended_at.desc())
    for job in connection.execute(select(JOBS).where(failed).order_by(*order).limit(MAX_ITEMS_PER_KIND)):
        how = result_reason_text(job.reason) or (
            f"exit code {job.exit_code}" if job.exit_code is not None else JobState(job.state).value.replace("_", " ")
        )
        detail = "; ".join(filter(None, (how, _last_line(connection, job.id))))
        yield _job_item(AttentionKind.FAILED, job, detail=detail, since=job.ended_at, state=JobState(job.state))


def _acknowledgement_order(kind: AttentionKind, since: ColumnElement[datetime]) -> ColumnElement[int]:
    """Return the sort key of a job's item of this kind: 1 if somebody acknowledged it after `since`, else 0."""
    theirs = exists().where(ACKNOWLEDGEMENTS.c.item == literal(f"{kind}/").concat(JOBS.c.id), ACKNOWLEDGEMENTS.c.at >= since)
    return case((theirs, 1), else_=0)


def _last_line(connection: Connection, job: str) -> str:
    """Return the last line of a job's output that is not blank; empty if there is none."""
    newest = select(LOGS.c.text).where(LOGS.c.job == job).order_by(LOGS.c.seq.desc()).limit(2)
    text = "".join(reversed(connection.execute(newest).scalars().all()))
    return next((f"last output: {line.strip()[:MAX_LINE_CHARS]}" for line in reversed(text.splitlines()) if line.strip()), "")


def late_requests(connection: Connection, only: JobFilter, now: datetime) -> Sequence[AttentionItem]:
    pending = and_(REQUESTS.c.state == RequestState.PENDING.value, REQUESTS.c.quorum > 0, *job_conditions(only))
    # A running job's requests end with it.
    expires, times_out = REQUESTS.c.expires_at, JOBS.c.times_out_at
    ends = case((times_out < expires, times_out), else_=func.coalesce(expires, times_out))
    statement = select(REQUESTS, JOBS.c.name, ends.label("ends")).join(JOBS, JOBS.c.id == REQUESTS.c.job_id).where(pending)
    items: list[AttentionItem] = []
    for one in connection.execute(statement.order_by(ends, REQUESTS.c.id).limit(MAX_PENDING_REQUESTS)):
        escalated = one.current_tier > one.tier
        if not (escalated or is_half_gone(one.created_at, one.ends, now=now)):
            continue
        kind = AttentionKind.ESCALATED if escalated else AttentionKind.WAITING
        item = AttentionItem(
            # What a tier has acknowledged is new to the next one.
            key=f"{kind}/{one.id}/{one.current_tier}",
            kind=kind,
            subject=one.name,
            job=one.job_id,
            requester_id=one.requester_id,
            request=one.id,
            detail=f"{one.action} on {one.resource}",
            since=one.created_at,
            until=one.ends,
            tier=one.current_tier,
        )
        items.append(item)
    acknowledged = select(ACKNOWLEDGEMENTS.c.item).where(ACKNOWLEDGEMENTS.c.item.in_([item.key for item in items]))
    known = frozenset(connection.execute(acknowledged).scalars())
    return sorted(items, key=lambda item: item.key in known)[:MAX_ITEMS_PER_KIND]


def denied_jobs(connection: Connection, only: JobFilter, since: datetime) -> Iterator[AttentionItem]:
    """Yield the jobs with requests that were denied by policy, not by a person."""
    # A request may have waited for people for days before policy denied it at its issue, which ended the job.
    has_just_ended = and_(JOBS.c.state == JobState.DENIED.value, JOBS.c.ended_at >= since)
    recent = (REQUESTS.c.created_at >= since - MAX_STATEMENT_LIFETIME, or_(REQUESTS.c.created_at >= since, has_just_ended))
    at = case((REQUESTS.c.created_at >= since, REQUESTS.c.created_at), else_=JOBS.c.ended_at)
    denied = and_(REQUESTS.c.state == RequestState.DENIED.value, *recent, ~_DENIED_BY_PERSON, *job_conditions(only))
    statement = (
        select(
            JOBS.c.id,
            JOBS.c.name,
            JOBS.c.requester_id,
            func.count().label("requests"),
            func.max(at).label("at"),
            func.min(REQUESTS.c.action).label("action"),
            func.min(REQUESTS.c.resource).label("resource"),
        )
        .join(REQUESTS, REQUESTS.c.job_id == JOBS.c.id)
        .where(denied)
        .group_by(JOBS.c.id, JOBS.c.name, JOBS.c.requester_id)
        .order_by(func.min(_acknowledgement_order(AttentionKind.DENIED, at)), func.max(at).desc())
        .limit(MAX_ITEMS_PER_KIND)
    )
    for job in connection.execute(statement):
        what = f"{job.requests} requests" if job.requests > 1 else f"{job.action} on {job.resource}"
        yield _job_item(AttentionKind.DENIED, job, detail=f"policy denied {what}", since=job.at)


def failing_subscriptions(connection: Connection) -> Iterator[AttentionItem]:
    """Yield the subscriptions whose deliveries failed, or that cannot send anything, for example because their signing secret is missing.

    Each keeps the time of its last failure, so it can be acknowledged until the next.
    """
    waiting = (
        select(DELIVERIES.c.subscription, func.count().label("failed"), func.min(DELIVERIES.c.next_at).label("next_at"))
        .group_by(DELIVERIES.c.subscription)
        .subquery()
    )
    statement = select(SUBSCRIPTIONS, waiting.c.failed, waiting.c.next_at).outerjoin(
        waiting, waiting.c.subscription == SUBSCRIPTIONS.c.name
    )
    fails = or_(waiting.c.failed.is_not(None), SUBSCRIPTIONS.c.why.is_not(None))
    for one in connection.execute(statement.where(fails).order_by(SUBSCRIPTIONS.c.name).limit(MAX_ITEMS_PER_KIND)):
        count = one.failed and f"{one.failed} {'delivery' if one.failed == 1 else 'deliveries'} failed"
        detail = ": ".join(filter(None, (count, one.why)))
        yield _item(AttentionKind.WEBHOOK, one.name, detail=detail, since=one.failed_at or one.created_at, until=one.next_at)


def missed_schedules(connection: Connection, since: datetime) -> Iterator[AttentionItem]:
    skipped = and_(LEDGER.c.type == EventType.SCHEDULE_SKIPPED.value, LEDGER.c.at >= moment_text(since))
    statement = select(LEDGER.c.job, LEDGER.c.at, LEDGER.c.data).where(skipped).order_by(LEDGER.c.at.desc(), LEDGER.c.position.desc())
    for one in connection.execute(statement.limit(MAX_ITEMS_PER_KIND)):
        data = json.loads(one.data)
        name, occasion, at = data["schedule"], data["occasion"], parse_entry_time(one.at)
        detail = f"the run of {occasion} was skipped: the previous one had not ended"
        yield _item(AttentionKind.SCHEDULE, name, about=f"{name}/{occasion}", detail=detail, since=at)


def silent_workers(connection: Connection, since: datetime, seen_before: datetime) -> Iterator[AttentionItem]:
    # Rows of workers that are gone for longer stay until another worker starts.
    silent = select(WORKERS).where(WORKERS.c.last_seen >= since, WORKERS.c.last_seen < seen_before)
    for one in connection.execute(silent.order_by(WORKERS.c.last_seen.desc()).limit(MAX_ITEMS_PER_KIND)):
        yield _item(AttentionKind.WORKER, one.name, detail="it no longer reports, and did not shut down cleanly", since=one.last_seen)


def _item(
    kind: AttentionKind, subject: str, *, about: str | None = None, detail: str, since: datetime, until: datetime | None = None
) -> AttentionItem:
    """Return an item about the installation. `about`: what distinguishes it from other items of its kind, if the subject does not."""
    return AttentionItem(key=f"{kind}/{about or subject}", kind=kind, subject=subject, detail=detail, since=since, until=until)


def _job_item(kind: AttentionKind, job: Any, *, detail: str, since: datetime, state: JobState | None = None) -> AttentionItem:
    """Return the item of this kind about a job."""
    whose = {"subject": job.name, "job": job.id, "requester_id": job.requester_id}
    return AttentionItem(key=f"{kind}/{job.id}", kind=kind, **whose, state=state, detail=detail, since=since)
