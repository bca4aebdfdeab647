"""Requests, grants and use of past jobs, for right-sizing and access review; and the use of language models.

Reads only; every query is bounded and uses an index.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Table, Text, and_, case, cast, func, literal, or_, select, tuple_

from justenough.adapters.store.paging import MAX_PAGE_SIZE
from justenough.adapters.store.repository import DEFAULT_PAGE_SIZE, Repository, reads_snapshot, without_nul
from justenough.adapters.store.tables import CREDENTIALS, JOBS, LEDGER, ORDERS, REQUESTS
from justenough.domain.jobs.states import JobState, RequestState
from justenough.domain.ledger.events import EventType
from justenough.domain.ledger.hash_chain import moment_text
from justenough.domain.readmodel.model_use import JobModelUse, PeriodModelUse, TokenBudgets, calls_of_entries
from justenough.domain.readmodel.views import Page
from justenough.domain.rightsizing.usage import (
    AccessKey,
    ActionUse,
    CredentialUse,
    PastRequest,
    PastRun,
    delivered_keys,
    requested_keys,
    requested_ttls,
)

MAX_REQUESTS_PER_ACTION = 5_000
"""Maximum number of requests of one action that a query reads."""
MAX_CHILDREN = 1_000
"""Maximum number of jobs of each generation that the analysed runs launched, whose requests a query reads; the newest ones."""
MAX_MODEL_ENTRIES = 10_000
"""Maximum number of entries about the use of models that a query reads. One covers many calls, so this many cover thousands of jobs."""
GRANTED_STATES = tuple(state.value for state in RequestState if state.granted)
REFUSED_STATES = (RequestState.DENIED.value, RequestState.EXPIRED.value)

_RUN = tuple(JOBS.c[name] for name in ("id", "state", "created_at", "started_at", "ended_at"))
_ASK = tuple(REQUESTS.c[name] for name in ("id", "job_id", "resource", "action", "ttl", "granted_ttl", "granted_action", "state", "call"))
# PostgreSQL cannot compare JSON. The keys are sorted, so equal tools are equal texts. An absent value may be stored as null.
_TOOLS, _GRANTED_TOOLS = cast(REQUESTS.c.tools, Text), cast(REQUESTS.c.granted_tools, Text)
_FEWER_TOOLS = and_(_GRANTED_TOOLS != "null", _GRANTED_TOOLS != _TOOLS).label("fewer_tools")
_MODEL_JOB = (JOBS.c.id, JOBS.c.name, JOBS.c.requester, JOBS.c.requester_id, JOBS.c.agent, ORDERS.c.spec["model"].label("model"))
_USE = tuple(CREDENTIALS.c[name] for name in ("request_id", "accessor", "issued_at", "expires_at", "revoked_at", "confirmed_at"))


class RunHistory(NamedTuple):
    """The past runs of a job name."""

    name: str
    newest: str
    """Job id of its newest run, finished or not."""
    newest_at: datetime
    spec: dict[str, Any]
    """That run's raw spec."""
    runs: tuple[PastRun, ...]
    """The finished ones, newest first."""


class UsageRepository(Repository):
    @reads_snapshot
    def action_uses(
        self, connection: Connection, *, since: datetime | None = None, limit: int = DEFAULT_PAGE_SIZE, cursor: str | None = None
    ) -> Page[ActionUse]:
        """Return the use of each action of each resource since a moment, sorted. `cursor` is the last action read, as `resource:action`."""
        # There are few actions, however many jobs there are. Sort them here, because each database sorts text its own way.
        all_keys = {key for table in (REQUESTS, CREDENTIALS) for key in _action_keys(connection, table)}
        resource, _, action = (cursor or "").rpartition(":")
        # Compare the parts: as one text, `orders-db:read` comes before `orders:read`.
        keys = sorted(key for key in all_keys if key > AccessKey(resource, action))
        items = tuple(_build_action_use(connection, key, since) for key in keys[:limit])
        return Page(items=items, next=":".join(keys[limit - 1]) if len(keys) > limit else None)

    @reads_snapshot
    def action_use(self, connection: Connection, key: AccessKey, *, since: datetime | None = None) -> ActionUse:
        return _build_action_use(connection, key, since)

    @reads_snapshot
    def run_history(
        self,
        connection: Connection,
        name: str,
        *,
        requester_id: str | None = None,
        since: datetime | None = None,
        runs: int = DEFAULT_PAGE_SIZE,
    ) -> RunHistory | None:
        """Return the newest finished runs of a job name, and its newest spec; None if there is no run of that name."""
        return _run_history(connection, name, requester_id=requester_id, since=since, runs=runs)

    @reads_snapshot
    def run_histories(
        self,
        connection: Connection,
        *,
        requester_id: str | None = None,
        since: datetime | None = None,
        runs: int = DEFAULT_PAGE_SIZE,
        limit: int = DEFAULT_PAGE_SIZE,
        cursor: str | None = None,
    ) -> Page[RunHistory]:
        """Return the history of each job name, sorted by name. `cursor` is the last name read."""
        name: str | None = (cursor or "").replace("\0", "")
        names: list[str] = []
        # One step through the index for each name: SELECT DISTINCT would read every job.
        while len(names) <= limit:
            following = select(func.min(JOBS.c.name)).where(JOBS.c.name > name)
            if requester_id is not None:
                following = following.where(JOBS.c.requester_id == requester_id)
            if (name := connection.execute(following).scalar()) is None:
                break
            names.append(name)
        histories = (_run_history(connection, name, requester_id=requester_id, since=since, runs=runs) for name in names[:limit])
        return Page(items=tuple(history for history in histories if history), next=names[limit - 1] if len(names) > limit else None)


class ModelUseRepository(Repository):
    @reads_snapshot
    def period_use(self, connection: Connection, since: datetime, *, limit: int = MAX_MODEL_ENTRIES) -> PeriodModelUse:
        """Return the use since a moment, by the newest entries: the job with the newest one first."""
        used = (LEDGER.c.type == EventType.MODEL_USED.value) & (LEDGER.c.at >= moment_text(since))
        newest = select(LEDGER.c.job, LEDGER.c.data).where(used).order_by(LEDGER.c.at.desc(), LEDGER.c.position.desc())
        rows = connection.execute(newest.limit(limit + 1)).all()
        entries: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows[:limit]:
            entries[row.job].append(json.loads(row.data))
        statement = select(*_MODEL_JOB).join(ORDERS, ORDERS.c.job == JOBS.c.id).where(JOBS.c.id.in_(tuple(entries)))
        jobs = {job.id: job for job in connection.execute(statement)}
        uses = (_build_model_use(jobs[job], data) for job, data in entries.items() if job in jobs)
        return PeriodModelUse(tuple(uses), is_whole=len(rows) <= limit)


def _run_history(connection: Connection, name: str, *, requester_id: str | None, since: datetime | None, runs: int) -> RunHistory | None:
    theirs = select(*_RUN).where(JOBS.c.name == without_nul(name))
    if requester_id is not None:
        theirs = theirs.where(JOBS.c.requester_id == requester_id)
    jobs = connection.execute(theirs.order_by(JOBS.c.id.desc()).limit(min(runs, MAX_PAGE_SIZE))).all()
    if not jobs:
        return None
    over = [job for job in jobs if JobState(job.state).ended and (since is None or job.created_at >= since)]
    ids = {jobs[0].id, *(job.id for job in over)}
    specs = {row.job: row.spec for row in connection.execute(select(ORDERS.c.job, ORDERS.c.spec).where(ORDERS.c.job.in_(ids)))}
    return RunHistory(name, jobs[0].id, jobs[0].created_at, specs[jobs[0].id], tuple(_build_runs(connection, over, specs)))


def _action_keys(connection: Connection, table: Table) -> Iterator[AccessKey]:
    """Yield each action that occurs in a table. Each takes one step through the index."""
    key = (table.c.resource, table.c.action)
    statement, last = select(*key).order_by(*key).limit(1), AccessKey("", "")
    while row := connection.execute(statement.where(tuple_(*key) > tuple_(*map(literal, last)))).first():
        last = AccessKey(*row)
        yield last


def _build_runs(connection: Connection, jobs: Sequence[Any], specs: Mapping[str, dict[str, Any]]) -> Iterator[PastRun]:
    ids = [job.id for job in jobs]
    uses: dict[str, list[Any]] = defaultdict(list)
    requests: dict[str, list[PastRequest]] = defaultdict(list)
    # The ids of a credential's entries begin with the job, the type and the credential. A range of ids uses the index: the credential's
    # own id, and that id with `/` and more. `0` follows `/`, so that the range excludes ids that only begin alike, such as a tenth credential's.
    first = CREDENTIALS.c.job_id + f"/{EventType.CREDENTIAL_USED.value}/" + CREDENTIALS.c.id
    seen = select(LEDGER.c.id).where(LEDGER.c.id >= first, LEDGER.c.id < first + "0").exists().label("seen")
    for use in connection.execute(select(*_USE, seen).where(CREDENTIALS.c.job_id.in_(ids))):
        uses[use.request_id].append(use)
    handed = {job: delivered_keys(specs[job]) for job in ids}
    ends = {job.id: job.ended_at for job in jobs}
    for row in connection.execute(select(*_ASK).where(REQUESTS.c.job_id.in_(ids)).order_by(REQUESTS.c.job_id, REQUESTS.c.number)):
        key = AccessKey(row.resource, row.action)
        delivered, ttls = key in handed[row.job_id], requested_ttls(specs[row.job_id], key)
        credentials = tuple(
            CredentialUse(began=use.issued_at, ended=_end_of(use, ends[row.job_id]), delivered=delivered, seen=use.seen)
            for use in uses[row.id]
        )
        request = PastRequest(
            key=key,
            ttl=row.ttl,
            granted=row.state in GRANTED_STATES or bool(credentials),
            refused=row.state in REFUSED_STATES and not credentials,
            granted_ttl=row.granted_ttl,
            granted_action=row.granted_action,
            uses=credentials,
            # The credential of a call ends with the call, so its ttl does not matter.
            is_ttl_named=row.ttl not in ttls and row.ttl < max(ttls, default=0) and row.call is None,
        )
        requests[row.job_id].append(request)
    passed_on = _passed_on_keys(connection, ids)
    for job in jobs:
        yield PastRun(
            job=job.id,
            ran=job.started_at is not None,
            offered=requested_keys(specs[job.id]),
            requests=tuple(requests[job.id]),
            passed_on=frozenset(passed_on[job.id]),
        )


def _passed_on_keys(connection: Connection, jobs: Sequence[str]) -> Mapping[str, set[AccessKey]]:
    """Return the access that each job's descendants requested, in their specs or while they ran."""
    keys, ancestors = defaultdict[str, set[AccessKey]](set), {job: job for job in jobs}
    launched = select(JOBS.c.id, JOBS.c.parent, ORDERS.c.spec).join(ORDERS, ORDERS.c.job == JOBS.c.id).order_by(JOBS.c.id.desc())
    asked = select(REQUESTS.c.job_id, REQUESTS.c.resource, REQUESTS.c.action).distinct()
    parents = jobs
    while parents:
        children = connection.execute(launched.where(JOBS.c.parent.in_(parents)).limit(MAX_CHILDREN)).all()
        # Without a job that was seen before: a chain that is a loop must end.
        parents = [child.id for child in children if child.id not in ancestors]
        for child in children:
            ancestors[child.id] = ancestors[child.parent]
            keys[ancestors[child.id]] |= requested_keys(child.spec)
        for job, *key in connection.execute(asked.where(REQUESTS.c.job_id.in_(parents))) if parents else ():
            keys[ancestors[job]].add(AccessKey(*key))
    return keys


def _end_of(row: Row[Any], job_ended_at: datetime | None) -> datetime | None:
    ends = [moment for moment in (row.revoked_at, row.confirmed_at, job_ended_at) if moment is not None]
    # It is unknown when, or whether, a credential without an accessor was issued.
    return min([*ends, row.expires_at]) if ends and row.accessor is not None else None


def _build_action_use(connection: Connection, key: AccessKey, since: datetime | None) -> ActionUse:
    requests = select(*_ASK, _FEWER_TOOLS).where(REQUESTS.c.resource == key.resource, REQUESTS.c.action == key.action)
    requests = requests if since is None else requests.where(REQUESTS.c.created_at >= since)
    newest = requests.order_by(REQUESTS.c.created_at.desc()).limit(MAX_REQUESTS_PER_ACTION).subquery()
    issued = select(CREDENTIALS.c.id).where(CREDENTIALS.c.job_id == newest.c.job_id, CREDENTIALS.c.request_id == newest.c.id).exists()
    granted = or_(newest.c.state.in_(GRANTED_STATES), issued)
    less = or_(newest.c.granted_ttl < newest.c.ttl, newest.c.granted_action != newest.c.action, newest.c.fewer_tools)
    longest = func.max(case((granted, func.coalesce(newest.c.granted_ttl, newest.c.ttl))))
    counts = select(func.count(), func.count(case((granted, 1))), func.count(case((and_(granted, less), 1))), longest)
    total, grants, narrowed, seconds = connection.execute(counts.select_from(newest)).one()
    last = select(func.max(CREDENTIALS.c.issued_at)).where(CREDENTIALS.c.resource == key.resource, CREDENTIALS.c.action == key.action)
    # PostgreSQL cannot compare JSON. As text, a scope that was written in two ways is returned twice, which is harmless.
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


def _build_model_use(job: Any, entries: list[dict[str, Any]]) -> JobModelUse:
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
