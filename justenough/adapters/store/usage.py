"""What jobs and resources were asked for, granted and used for, read for right-sizing and review. Reads only; judges nothing.

Every question is bounded, however many jobs there are: the newest runs of a name, the newest requests of an action, the next name or
action behind the last one, each by an index.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Row, Text, and_, case, cast, func, literal, or_, select, tuple_

from justenough.adapters.store.paging import MAX_PAGE_SIZE
from justenough.adapters.store.tables import CREDENTIALS, JOBS, LEDGER, ORDERS, REQUESTS
from justenough.domain.jobs.states import JobState, RequestState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import Page
from justenough.domain.rightsizing.usage import AccessKey, ActionUse, CredentialUse, PastRequest, PastRun, delivered_keys, requested_keys

MAX_REQUESTS_PER_ACTION = 5_000
"""As many requests of one action are looked at, at most."""
GRANTED_STATES = tuple(state.value for state in RequestState if state.granted)
REFUSED_STATES = (RequestState.DENIED.value, RequestState.EXPIRED.value)

_RUN = tuple(JOBS.c[name] for name in ("id", "state", "created_at", "started_at", "ended_at"))
_ASK = tuple(REQUESTS.c[name] for name in ("id", "job_id", "resource", "action", "ttl", "granted_ttl", "granted_action", "state"))
_USE = tuple(CREDENTIALS.c[name] for name in ("request_id", "accessor", "issued_at", "expires_at", "revoked_at", "confirmed_at"))


class RunFilter(NamedTuple):
    """Which runs are wanted."""

    requester_id: str | None
    since: datetime | None
    most: int
    """The newest so many are looked at."""


class RunHistory(NamedTuple):
    """A job name's past."""

    name: str
    newest: str
    """Job id of its newest run, over or not."""
    newest_at: datetime
    spec: dict[str, Any]
    """That run's raw spec."""
    runs: tuple[PastRun, ...]
    """Those that are over, newest first."""


def run_history(connection: Connection, name: str, criteria: RunFilter) -> RunHistory | None:
    """Return one job name's past; None where there is no run of that name."""
    theirs = select(*_RUN).where(JOBS.c.name == name.replace("\0", "\ufffd"))
    if criteria.requester_id is not None:
        theirs = theirs.where(JOBS.c.requester_id == criteria.requester_id)
    jobs = connection.execute(theirs.order_by(JOBS.c.id.desc()).limit(min(criteria.most, MAX_PAGE_SIZE))).all()
    if not jobs:
        return None
    over = [job for job in jobs if JobState(job.state).ended and (criteria.since is None or job.created_at >= criteria.since)]
    specs = _specs_by_job(connection, {jobs[0].id, *(job.id for job in over)})
    return RunHistory(name, jobs[0].id, jobs[0].created_at, specs[jobs[0].id], tuple(_build_runs(connection, over, specs)))


def run_histories(connection: Connection, criteria: RunFilter, *, limit: int, cursor: str | None) -> Page[RunHistory]:
    """Return the past of each job name behind `cursor`, which is a name."""
    names = list(_job_names(connection, criteria.requester_id, after=(cursor or "").replace("\0", ""), count=limit + 1))
    items = tuple(found for name in names[:limit] if (found := run_history(connection, name, criteria)))
    return Page(items=items, next=names[limit - 1] if len(names) > limit else None)


def action_uses(connection: Connection, *, since: datetime | None, limit: int, cursor: str | None) -> Page[ActionUse]:
    """Return the use of each action behind `cursor`, which is `resource:action`."""
    # Few, whatever the number of jobs. Sorted here: databases sort text in ways of their own.
    known = {key for table in (REQUESTS, CREDENTIALS) for key in _action_keys(connection, table.c.resource, table.c.action)}
    wanted = sorted(key for key in known if cursor is None or ":".join(key) > cursor)
    items = tuple(_build_action_use(connection, key, since) for key in wanted[:limit])
    return Page(items=items, next=":".join(wanted[limit - 1]) if len(wanted) > limit else None)


def _job_names(connection: Connection, requester_id: str | None, *, after: str, count: int) -> Iterator[str]:
    # One step through the index for each name: to look at each job for the distinct ones would take as long as there are jobs.
    for _ in range(count):
        following = select(func.min(JOBS.c.name)).where(JOBS.c.name > after)
        if requester_id is not None:
            following = following.where(JOBS.c.requester_id == requester_id)
        found = connection.execute(following).scalar()
        if found is None:
            return
        yield found
        after = found


def _action_keys(connection: Connection, resource: Column[Any], action: Column[Any]) -> Iterator[AccessKey]:
    last = AccessKey("", "")
    while True:
        following = (
            select(resource, action).where(tuple_(resource, action) > tuple_(*map(literal, last))).order_by(resource, action).limit(1)
        )
        found = connection.execute(following).first()
        if found is None:
            return
        last = AccessKey(*found)
        yield last


def _specs_by_job(connection: Connection, jobs: set[str]) -> dict[str, dict[str, Any]]:
    found = connection.execute(select(ORDERS.c.job, ORDERS.c.spec).where(ORDERS.c.job.in_(jobs)))
    return {row.job: row.spec for row in found}


def _build_runs(connection: Connection, jobs: Sequence[Any], specs: Mapping[str, dict[str, Any]]) -> Iterator[PastRun]:
    ids = [job.id for job in jobs]
    uses, asks = _uses_by_request(connection, ids), defaultdict(list)
    handed = {job: delivered_keys(specs[job]) for job in ids}
    ends = {job.id: job.ended_at for job in jobs}
    for row in connection.execute(select(*_ASK).where(REQUESTS.c.job_id.in_(ids)).order_by(REQUESTS.c.job_id, REQUESTS.c.number)):
        key = AccessKey(row.resource, row.action)
        asks[row.job_id].append(
            _build_ask(row, [_build_use(one, ends[row.job_id], delivered=key in handed[row.job_id]) for one in uses[row.id]])
        )
    for job in jobs:
        yield PastRun(job=job.id, ran=job.started_at is not None, offered=requested_keys(specs[job.id]), asks=tuple(asks[job.id]))


def _uses_by_request(connection: Connection, jobs: Sequence[str]) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(select(*_USE, _was_seen().label("seen")).where(CREDENTIALS.c.job_id.in_(jobs))):
        found[row.request_id].append(row)
    return found


def _was_seen() -> ColumnElement[bool]:
    """Whether the ledger has a use of a credential: its entries' ids begin with the job, the type and the credential."""
    # A range of ids, for which there is an index: the credential's own, and that one with `/` and more. `0` follows `/`, so that
    # what begins alike, as the tenth credential of a job does, is not meant.
    first = CREDENTIALS.c.job_id + f"/{EventType.CREDENTIAL_USED.value}/" + CREDENTIALS.c.id
    return select(LEDGER.c.id).where(LEDGER.c.id >= first, LEDGER.c.id < first + "0").exists()


def _build_use(row: Row[Any], job_ended_at: datetime | None, *, delivered: bool) -> CredentialUse:
    known = [moment for moment in (row.revoked_at, row.confirmed_at, job_ended_at) if moment is not None]
    # Of one that is only in doubt nobody knows when it began, nor whether.
    ended = min([*known, row.expires_at]) if known and row.accessor is not None else None
    return CredentialUse(began=row.issued_at, ended=ended, delivered=delivered, seen=row.seen)


def _build_ask(row: Row[Any], uses: Sequence[CredentialUse]) -> PastRequest:
    return PastRequest(
        key=AccessKey(row.resource, row.action),
        ttl=row.ttl,
        granted=row.state in GRANTED_STATES or bool(uses),
        refused=row.state in REFUSED_STATES and not uses,
        granted_ttl=row.granted_ttl,
        granted_action=row.granted_action,
        uses=tuple(uses),
    )


def _build_action_use(connection: Connection, key: AccessKey, since: datetime | None) -> ActionUse:
    asked = select(*_ASK).where(REQUESTS.c.resource == key.resource, REQUESTS.c.action == key.action)
    asked = asked if since is None else asked.where(REQUESTS.c.created_at >= since)
    newest = asked.order_by(REQUESTS.c.created_at.desc()).limit(MAX_REQUESTS_PER_ACTION).subquery()
    issued = select(CREDENTIALS.c.id).where(CREDENTIALS.c.job_id == newest.c.job_id, CREDENTIALS.c.request_id == newest.c.id).exists()
    granted = or_(newest.c.state.in_(GRANTED_STATES), issued)
    less = or_(newest.c.granted_ttl < newest.c.ttl, newest.c.granted_action != newest.c.action)
    longest = func.max(case((granted, func.coalesce(newest.c.granted_ttl, newest.c.ttl))))
    counts = select(func.count(), func.count(case((granted, 1))), func.count(case((and_(granted, less), 1))), longest)
    total, grants, narrowed, seconds = connection.execute(counts.select_from(newest)).one()
    last = select(func.max(CREDENTIALS.c.issued_at)).where(CREDENTIALS.c.resource == key.resource, CREDENTIALS.c.action == key.action)
    # PostgreSQL compares no JSON; as text, the same scope written in two ways is there twice, which harms nothing.
    scopes = select(cast(JOBS.c.data_scope, Text)).distinct().select_from(newest).join(JOBS, JOBS.c.id == newest.c.job_id)
    return ActionUse(
        resource=key.resource,
        action=key.action,
        asked=total,
        granted=grants,
        narrowed=narrowed,
        longest_granted=seconds,
        last_issued=connection.execute(last).scalar(),
        scopes=tuple(json.loads(text) for text in connection.execute(scopes).scalars() if text),
        whole=total < MAX_REQUESTS_PER_ACTION,
    )
