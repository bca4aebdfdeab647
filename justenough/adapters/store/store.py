"""The store's one door. Blocking and thread-safe: call it from threads, never on an event loop. Holds no rule of its own.

Over 400 lines: it passes every query and command of the store's modules through.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, select

from justenough.adapters.store import (
    bundles,
    change_feed,
    dashboard,
    delegations,
    engine,
    idempotency,
    inbox_queries,
    job_logs,
    ledger_reader,
    ledger_writer,
    metrics,
    migrate,
    page_sessions,
    queries,
    reviews,
    search,
    session_claims,
    usage,
    wrapped_tokens,
)
from justenough.adapters.store.change_feed import ChangeFeed
from justenough.adapters.store.group_commit import GroupCommitter
from justenough.adapters.store.ledger_reader import JobCaption, LedgerSpan, LedgerTail, StoredEntry
from justenough.adapters.store.metrics import LedgerHead, OverdueCounts, StoreCounts
from justenough.adapters.store.outbox import Outbox
from justenough.adapters.store.page_sessions import PageSessionRecord
from justenough.adapters.store.paging import MAX_PAGE_SIZE
from justenough.adapters.store.session_claims import SessionClaim
from justenough.adapters.store.wrapped_tokens import StoredWrappingToken
from justenough.domain.approvals.statements import OrderRecord, SignedStatement
from justenough.domain.evidence.current_state import LiveCredential
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, RevocationState
from justenough.domain.ledger.events import Event, EventType
from justenough.domain.ledger.hash_chain import LedgerReport
from justenough.domain.readmodel.dashboard import CurrentCounts, PeriodTrend, SearchHit
from justenough.domain.readmodel.views import (
    CredentialView,
    DelegationView,
    EntryView,
    JobSummary,
    JobView,
    Launched,
    LogChunk,
    Page,
    RequestView,
    ReviewView,
)
from justenough.domain.rightsizing.usage import ActionUse

DEFAULT_PAGE_SIZE = 100

T = TypeVar("T")


class Store:
    """One database, SQLite or PostgreSQL, by its SQLAlchemy URL. Every method may raise StoreUnavailable."""

    def __init__(self, url: str) -> None:
        """Connects to nothing yet. Raises UnusableUrl, a GiveUp."""
        self._engine = engine.open_engine(url)
        self._commits = GroupCommitter(self._engine)
        self.outbox = Outbox(self._engine, self._commits)
        """Who is told of what happens."""

    def migrate(self) -> None:
        """Bring the database to this version's shape; safe when several processes start at once. Raises StoreTooNew."""
        migrate.migrate(self._engine)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def ping(self) -> None:
        """Raise StoreUnavailable where the database does not answer."""
        with engine.read_transaction(self._engine) as connection:
            connection.execute(select(1))

    # What happened.

    def record(self, events: Iterable[Event]) -> tuple[EntryView, ...]:
        """Append events to the ledger and apply them to the read model, in one transaction; return the entries that are new."""
        known = tuple(events)
        if not known:
            return ()
        return tuple(
            ledger_reader.to_entry_view(entry) for entry in self._commits.run(lambda connection: ledger_writer.record(connection, known))
        )

    def ledger(
        self,
        *,
        job: str | None = None,
        types: Iterable[EventType] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        after: int = 0,
        limit: int = DEFAULT_PAGE_SIZE,
    ) -> Page[EntryView]:
        """Return entries after a position, oldest first; `next` is the last one's position, as text, where more follow."""
        which = ledger_reader.EntryFilter(job, tuple(kind.value for kind in types), since, until)
        return self._read(lambda connection: ledger_reader.entries(connection, which, after=after, limit=limit))

    def tail(self, after: int, *, job: str | None = None, limit: int = DEFAULT_PAGE_SIZE) -> LedgerTail:
        """Return what the ledger has after a position, oldest first, at most so many and so much."""
        return self._read(lambda connection: ledger_reader.tail(connection, after=after, job=job, limit=limit))

    def open_change_feed(self) -> ChangeFeed:
        """Return what tells one thread when to look at the ledger again."""
        return change_feed.open_change_feed(self._engine)

    def requesters(self, jobs: Collection[str]) -> Mapping[str, str]:
        """Return the entity ids of who launched these jobs; of jobs that are not known, nothing."""
        return self._read(lambda connection: queries.requesters(connection, jobs))

    def ledger_newest_first(
        self,
        *,
        job: str | None = None,
        types: Iterable[EventType] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        before: int | None = None,
        limit: int = DEFAULT_PAGE_SIZE,
    ) -> Page[EntryView]:
        """Return entries newest first, before the one at a position; `next` is the last one's position, as text, where more follow.

        Newest by when they happened; of one job by their place in its chain.
        """
        which = ledger_reader.EntryFilter(job, tuple(dict.fromkeys(kind.value for kind in types)), since, until)
        return self._read(lambda connection: ledger_reader.entries_newest_first(connection, which, before=before, limit=limit))

    def find(self, text: str, *, installation: str = "dev") -> tuple[SearchHit, ...]:
        """Return what a text names: a job, request or credential by its id or how that begins, an entry by its id or position."""
        return self._read(lambda connection: search.find(connection, text, installation=installation))

    def entry(self, name: str) -> EntryView | None:
        """Return an entry by its id."""
        return self._read(lambda connection: ledger_reader.entry(connection, name))

    def entries_about(self, job: str, types: Iterable[EventType], about: str) -> tuple[EntryView, ...]:
        """Return a job's entries of these types about one thing, as a credential is, in their order."""
        return self._read(lambda connection: ledger_reader.entries_about(connection, job, [kind.value for kind in types], about))

    def job_captions(self, jobs: Collection[str]) -> Mapping[str, JobCaption]:
        """Return name and requester of these jobs by id; of those that there are."""
        return self._read(lambda connection: ledger_reader.job_captions(connection, jobs))

    def span(self, since: datetime, until: datetime) -> LedgerSpan | None:
        """Return between which positions the entries of a period are; None where there are none."""
        return self._read(lambda connection: ledger_reader.span(connection, since, until))

    def stored_entries(self, types: Sequence[str], span: LedgerSpan) -> Iterator[StoredEntry]:
        """Yield position, job, id, type, at and data, as stored, of entries between two positions, in order.

        Each page is a transaction of its own: entries never change, and a long one would keep the database from tidying up.
        """
        after = span.first - 1
        while True:
            rows = self._read(
                partial(ledger_reader.stored_entries, types=types, after=after, last=span.last, limit=ledger_reader.ROWS_PER_FETCH)
            )
            yield from rows
            if len(rows) < ledger_reader.ROWS_PER_FETCH:
                return
            after = rows[-1][0]

    def existing_entry_ids(self, ids: Collection[str]) -> frozenset[str]:
        """Return those of these entry ids that are in the ledger."""
        return self._read(lambda connection: ledger_reader.existing_ids(connection, ids))

    def verify(self) -> LedgerReport:
        """Return what a look at every chain finds."""
        return self._read(ledger_reader.verify)

    def ledger_head(self) -> LedgerHead:
        """Return the ledger's newest entry."""
        return self._read(metrics.ledger_head)

    def figures(self) -> StoreCounts:
        """Count what health and metrics show."""
        return self._read(metrics.figures)

    def overdue(self) -> OverdueCounts:
        """Count the revocations that are overdue: what health shows."""
        return self._read(metrics.overdue)

    def current_counts(self, now: datetime | None = None) -> CurrentCounts:
        """Count what is open, and what ended within a day."""
        moment = now or datetime.now(UTC)
        return self._read(lambda connection: dashboard.current_counts(connection, moment))

    def period_trend(self, since: datetime, until: datetime, buckets: int) -> PeriodTrend:
        """Return how a period went, credentials alive at the end of each of its `buckets` equal parts. `until` is about now."""
        return self._read(lambda connection: dashboard.period_trend(connection, since, until, buckets=buckets))

    # The read model.

    def job(self, job: str) -> JobView | None:
        """Return a job whole."""
        return self._read(lambda connection: queries.job(connection, job))

    def jobs(  # noqa: PLR0913 - each is one filter of the list
        self,
        *,
        state: JobState | None = None,
        environment: str | None = None,
        requester_id: str | None = None,
        revocation: RevocationState | None = None,
        parent: str | None = None,
        requester: str | None = None,
        name: str | None = None,
        limit: int = DEFAULT_PAGE_SIZE,
        cursor: str | None = None,
    ) -> Page[JobSummary]:
        """Return jobs, newest first; `requester` is a login name. Raises InvalidInput on a cursor that is not ours."""
        which = queries.JobFilter(state, environment, requester_id, revocation, parent, requester, name)
        return self._read(lambda connection: queries.jobs(connection, which, limit=limit, cursor=cursor))

    def request(self, request: str) -> RequestView | None:
        """Return a request with its approvals."""
        return self._read(lambda connection: queries.request(connection, request))

    def requests(
        self,
        *,
        state: RequestState | None = None,
        job: str | None = None,
        requester_id: str | None = None,
        limit: int = DEFAULT_PAGE_SIZE,
        cursor: str | None = None,
    ) -> Page[RequestView]:
        """Return requests, newest first. Raises InvalidInput on a cursor that is not ours."""
        which = queries.RequestFilter(state, job, requester_id)
        return self._read(lambda connection: queries.requests(connection, which, limit=limit, cursor=cursor))

    def credential(self, credential: str) -> CredentialView | None:
        """Return a credential's handle."""
        return self._read(lambda connection: queries.credential(connection, credential))

    def credentials(
        self,
        *,
        live: bool = False,
        job: str | None = None,
        resource: str | None = None,
        action: str | None = None,
        state: CredentialState | None = None,
        limit: int = DEFAULT_PAGE_SIZE,
        cursor: str | None = None,
    ) -> Page[CredentialView]:
        """Return credentials, newest first; `live`: only those not yet shown to be dead. Raises InvalidInput on a cursor that is not ours."""
        which = queries.CredentialFilter(job, resource, action, state)
        return self._read(lambda connection: queries.credentials(connection, which, live=live, limit=limit, cursor=cursor))

    def live_credentials(self, job: str) -> tuple[CredentialView, ...]:
        """Return the job's credentials that are not yet shown to be dead."""
        return self._read(lambda connection: queries.live_credentials(connection, job))

    def live_credentials_with_jobs(self) -> Iterator[LiveCredential]:
        """Yield every credential that is not shown to be dead, oldest first, with its job's state."""
        after: tuple[datetime, str] | None = None
        while rows := self._read(partial(queries.live_with_jobs, after=after, limit=ledger_reader.ROWS_PER_FETCH)):
            yield from rows
            after = rows[-1].issued_at, rows[-1].credential

    def overdue_jobs(self) -> Iterator[tuple[str, datetime]]:
        """Yield each job whose revocation is overdue, and since when it is open."""
        cursor: str | None = None
        while True:
            page = self.jobs(revocation=RevocationState.OVERDUE, limit=MAX_PAGE_SIZE, cursor=cursor)
            yield from ((job.id, job.revocation.since or job.ended_at or job.created_at) for job in page.items)
            cursor = page.next
            if cursor is None:
                return

    def open_jobs(self, older_than: datetime) -> tuple[str, ...]:
        """Return the jobs submitted before `older_than` that have not ended, or whose revocation is pending or overdue."""
        return self._read(lambda connection: queries.open_jobs(connection, older_than))

    def unstarted_jobs(self, older_than: datetime) -> tuple[str, ...]:
        """Return the pending jobs submitted before `older_than` that were never claimed and have asked for nothing."""
        return self._read(lambda connection: queries.unstarted_jobs(connection, older_than))

    def jobs_launched_by(self, requester: str, *, requester_id: str | None = None, limit: int = DEFAULT_PAGE_SIZE) -> tuple[Launched, ...]:
        """Return the newest jobs of a requester by the name that is shown, newest first; `by`: only those of this entity's."""
        return self._read(lambda connection: queries.jobs_launched_by(connection, requester, requester_id=requester_id, limit=limit))

    def order(self, job: str) -> OrderRecord | None:
        """Return the order of a job, or None if none is recorded."""
        return self._read(lambda connection: queries.order(connection, job))

    def reviews(self, *, only_open: bool = True, limit: int = DEFAULT_PAGE_SIZE, cursor: str | None = None) -> Page[ReviewView]:
        """Return the reviews of broken glass, newest first. Raises InvalidInput on a cursor that is not ours."""
        return self._read(lambda connection: reviews.reviews(connection, only_open=only_open, limit=limit, cursor=cursor))

    def open_reviews(self) -> Iterator[ReviewView]:
        """Yield each review that nobody has answered, newest first."""
        cursor: str | None = None
        while True:
            page = self.reviews(limit=MAX_PAGE_SIZE, cursor=cursor)
            yield from page.items
            cursor = page.next
            if cursor is None:
                return

    def delegations(self, *, limit: int = DEFAULT_PAGE_SIZE, cursor: str | None = None) -> Page[DelegationView]:
        """Return who answers for whom, newest first. Raises InvalidInput on a cursor that is not ours."""
        return self._read(lambda connection: delegations.delegations(connection, limit=limit, cursor=cursor))

    def delegation_view(self, name: str) -> DelegationView | None:
        """Return a delegation by its id."""
        return self._read(lambda connection: delegations.delegation_view(connection, name))

    def delegation(self, person: str, delegate: str) -> SignedStatement | None:
        """Return what a person last signed to name this delegate, unless they have ended it."""
        return self._read(lambda connection: delegations.signed_delegation(connection, person, delegate))

    # What an approver's inbox shows.

    def inbox_items(
        self, criteria: inbox_queries.InboxFilter, *, after: tuple[datetime, str] | None = None, limit: int = DEFAULT_PAGE_SIZE
    ) -> tuple[inbox_queries.InboxItem, ...]:
        """Return what waits, whose clock ends first first, behind the request of this clock and id."""
        return self._read(lambda connection: inbox_queries.inbox_items(connection, criteria, after=after, limit=limit))

    def requests_answered_by(self, person: str, limit: int) -> tuple[RequestView, ...]:
        """Return the requests that somebody answered, whose answers are the newest first."""
        return self._read(lambda connection: inbox_queries.requests_answered_by(connection, person, limit=limit))

    def requests_by_id(self, requests: Iterable[str]) -> Mapping[str, RequestView]:
        """Return these requests by id, in this order; those that there are."""
        wanted = tuple(requests)
        return self._read(lambda connection: inbox_queries.requests_by_id(connection, wanted))

    def earlier_decisions(self, request: RequestView, limit: int, *, requester_id: str | None = None) -> tuple[RequestView, ...]:
        """Return what people decided on the same action and resource in earlier runs of the same job name, the newest first."""
        return self._read(lambda connection: inbox_queries.earlier_decisions(connection, request, requester_id=requester_id, limit=limit))

    def last_approved_request(self, request: RequestView, *, requester_id: str | None = None) -> RequestView | None:
        """Return the newest request for the same resource that was approved in an earlier run of the same job name."""
        return self._read(lambda connection: inbox_queries.last_approved_request(connection, request, requester_id=requester_id))

    def delegations_of(self, person: str, *, now: datetime, limit: int = DEFAULT_PAGE_SIZE) -> tuple[DelegationView, ...]:
        """Return the delegations that somebody made or that name them, which hold at `now`; the newest first."""
        return self._read(lambda connection: inbox_queries.delegations_of(connection, person, now=now, limit=limit))

    # What was used of what was granted.

    def run_history(
        self, name: str, *, requester_id: str | None = None, since: datetime | None = None, runs: int = DEFAULT_PAGE_SIZE
    ) -> usage.RunHistory | None:
        """Return the newest runs of a job that are over, and the newest one's spec; None where there is no run of that name."""
        which = usage.RunFilter(requester_id, since, runs)
        return self._read(lambda connection: usage.run_history(connection, name, which))

    def run_histories(
        self,
        *,
        requester_id: str | None = None,
        since: datetime | None = None,
        runs: int = DEFAULT_PAGE_SIZE,
        limit: int = DEFAULT_PAGE_SIZE,
        cursor: str | None = None,
    ) -> Page[usage.RunHistory]:
        """Return the same of each job name, in the names' order."""
        which = usage.RunFilter(requester_id, since, runs)
        return self._read(lambda connection: usage.run_histories(connection, which, limit=limit, cursor=cursor))

    def action_uses(self, *, since: datetime | None = None, limit: int = DEFAULT_PAGE_SIZE, cursor: str | None = None) -> Page[ActionUse]:
        """Return what was asked of each action of each resource since a moment, in their order."""
        return self._read(lambda connection: usage.action_uses(connection, since=since, limit=limit, cursor=cursor))

    # The one run that may issue.

    def claim_job(self, job: str, *, run: str, owner: str, now: datetime) -> bool:
        """Claim a job id; False where it was ever claimed, or closed, before."""
        return self._commits.run(lambda connection: session_claims.claim_job(connection, job, run=run, owner=owner, now=now))

    def renew_claim(self, job: str, owner: str, now: datetime) -> bool:
        """Say that the owner is alive; False once the claim is closed or another's."""
        return self._commits.run(lambda connection: session_claims.renew_claim(connection, job, owner=owner, now=now))

    def close_claim(self, job: str, now: datetime) -> None:
        """End the right to issue, for ever, even where nobody had it yet. Again is fine."""
        self._commits.run(lambda connection: session_claims.close_claim(connection, job, now=now))

    def claim_of(self, job: str) -> SessionClaim | None:
        """Return the job's claim."""
        return self._read(lambda connection: session_claims.claim_of(connection, job))

    # What opens locked requests.

    def keep_wrapping_token(self, token: StoredWrappingToken, events: Iterable[Event]) -> bool:
        """Keep what opens a request, and record that it waits, in one transaction; False, and nothing recorded, as `locks.keep` says."""
        known = tuple(events)

        def work(connection: Connection) -> bool:
            if new := wrapped_tokens.keep_token(connection, token):
                ledger_writer.record(connection, known)
            return new

        return self._commits.run(work)

    def wrapping_token_of(self, request: str) -> StoredWrappingToken | None:
        """Return what opens a request; None where nothing is kept."""
        return self._read(lambda connection: wrapped_tokens.find_token(connection, request))

    def take_wrapping_token(self, request: str) -> StoredWrappingToken | None:
        """Return what opens a request and keep it no longer: of several who take it, one gets it."""
        return self._commits.run(lambda connection: wrapped_tokens.take_token(connection, request))

    def end_issuing(self, job: str, now: datetime) -> tuple[StoredWrappingToken, ...]:
        """Close the claim and keep nothing that opens a lock of the job's, in one transaction; return what was kept."""

        def work(connection: Connection) -> tuple[StoredWrappingToken, ...]:
            session_claims.close_claim(connection, job, now=now)
            return wrapped_tokens.drop_tokens(connection, job)

        return self._commits.run(work)

    # What comes along with a job.

    def put_bundle(self, digest: str, content: bytes) -> None:
        """Keep a workdir's bundle by its digest; what is there already stays."""
        self._commits.run(lambda connection: bundles.put_bundle(connection, digest, content))

    def bundle(self, digest: str) -> bytes | None:
        """Return a bundle's content."""
        return self._read(lambda connection: bundles.bundle(connection, digest))

    def append_log(self, job: str, seq: int, text: str, at: datetime) -> None:
        """Keep one chunk of a job's output; again is fine. Past 10 MB a job's log ends with the line `log truncated`."""
        self._commits.run(lambda connection: job_logs.append_log(connection, job, seq=seq, text=text, at=at))

    def logs(self, job: str, after_seq: int = -1, limit: int = 1000) -> tuple[LogChunk, ...]:
        """Return chunks after a sequence number, in order."""
        return self._read(lambda connection: job_logs.logs(connection, job, after_seq=after_seq, limit=limit))

    def last_logs(self, job: str, limit: int = 100) -> tuple[LogChunk, ...]:
        """Return the last chunks of a job's output, in order."""
        return self._read(lambda connection: job_logs.last_logs(connection, job, limit=limit))

    def remember_idempotency_key(self, person: str, key: str, job: str, digest: str) -> str:
        """Return the job id under a person's idempotency key, `job` where it is new. Raises Conflict where the digest differs."""
        found = self._commits.run(lambda connection: idempotency.remember_key(connection, person=person, key=key, job=job, digest=digest))
        return idempotency.require_same_order(found, digest)

    def job_by_idempotency_key(self, person: str, key: str) -> str | None:
        """Return the job id under a person's idempotency key; None where it was never used."""
        return self._read(lambda connection: idempotency.job_by_key(connection, person=person, key=key))

    # Who is logged in to the pages.

    def add_page_session(self, session: PageSessionRecord, *, forget_before: datetime) -> None:
        """Keep a new session, and those no longer that began before a moment."""

        def work(connection: Connection) -> None:
            page_sessions.prune_sessions(connection, before=forget_before)
            page_sessions.add_session(connection, session)

        self._commits.run(work)

    def page_session(self, key: str) -> PageSessionRecord | None:
        """Return the session under the hash of a cookie's secret."""
        return self._read(lambda connection: page_sessions.find_session(connection, key))

    def page_sessions(self, person: str, *, since: datetime) -> tuple[PageSessionRecord, ...]:
        """Return a person's sessions that have not ended and began after a moment, the newest first."""
        return self._read(lambda connection: page_sessions.open_sessions_of(connection, person, since=since))

    def mark_page_session_used(self, key: str, at: datetime) -> None:
        """Say when a session was last used."""
        self._commits.run(lambda connection: page_sessions.mark_used(connection, key, at=at))

    def mark_page_session_fresh(self, key: str, at: datetime) -> None:
        """Say when a session's person last showed who they are."""
        self._commits.run(lambda connection: page_sessions.mark_fresh(connection, key, at=at))

    def end_page_sessions(self, person: str, at: datetime, *, why: str, key: str | None = None) -> int:
        """End one of a person's sessions, or all, and forget their tokens; return how many had not ended. The first end stands."""
        return self._commits.run(lambda connection: page_sessions.end_sessions(connection, person, key=key, at=at, why=why))

    def _read(self, question: Callable[[Connection], T]) -> T:
        """Answer from one moment of the database."""
        with engine.read_transaction(self._engine) as connection:
            return question(connection)
