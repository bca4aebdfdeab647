"""The tables, as SQLModel classes. Statements use them through SQLAlchemy Core: rows are values, nothing loads lazily. No queries here.

Only `ledger` is the record; jobs, requests, approvals and credentials are projected from it. A changed class needs a migration.

Over 400 lines: every table of the store is here, so that columns and keys are compared in one place.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint, text
from sqlalchemy.orm import registry
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import Field, SQLModel

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class CodePointText(TypeDecorator[str]):
    """Text that sorts by code point everywhere, as Python does: ids, states, digests."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return Text(collation="C") if dialect.name == "postgresql" else Text()


class UtcDateTime(TypeDecorator[datetime]):
    """A time with its zone; UTC when stored and when read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class PositionInteger(TypeDecorator[int]):
    """A big integer that SQLite can use as its row id."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return Integer() if dialect.name == "sqlite" else BigInteger()


class TableBase(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMING_CONVENTION))):
    """Keeps our tables apart from those of other SQLModel classes."""


class LedgerRow(TableBase, table=True):
    """Insert-only: triggers reject anything else. Positions ascend in the order of commits, so that a reader of the tail misses no entry."""

    __tablename__ = "ledger"
    __table_args__ = (
        UniqueConstraint("job", "seq"),
        UniqueConstraint("id"),
        Index(None, "at", "position"),
        Index(None, "type", "at", "position"),
    )

    position: int = Field(sa_type=PositionInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    job: str = Field(sa_type=CodePointText)
    seq: int
    id: str = Field(sa_type=CodePointText)
    type: str = Field(sa_type=CodePointText)
    at: str = Field(sa_type=CodePointText)
    data: str = Field(sa_type=Text)
    prev: str = Field(sa_type=CodePointText)
    hash: str = Field(sa_type=CodePointText)


class HeadRow(TableBase, table=True):
    """The newest link of each chain. Writers lock its row."""

    __tablename__ = "chain_heads"

    job: str = Field(sa_type=CodePointText, primary_key=True)
    seq: int
    hash: str = Field(sa_type=CodePointText)


class JobRow(TableBase, table=True):
    __tablename__ = "jobs"
    # One index for each combination of filters, so that a list never scans 1,000,000 jobs for a rare one.
    __table_args__ = (
        Index(None, "state", "id"),
        Index(None, "environment", "id"),
        Index(None, "requester_id", "id"),
        Index(None, "environment", "state", "id"),
        Index(None, "requester_id", "state", "id"),
        Index(None, "requester_id", "environment", "id"),
        Index(None, "requester_id", "environment", "state", "id"),
        Index(None, "revocation_state", "created_at"),
        Index(None, "revocation_state", "id"),
        Index(None, "name", "id"),
        Index(None, "requester_id", "name", "id"),
        Index(None, "parent", "id"),
        Index(None, "requester", "requester_id", "id"),
        Index(None, "name", "state", "id"),
        Index(None, "name", "environment", "id"),
        Index(None, "name", "environment", "state", "id"),
        Index(None, "ended_at", "state", sqlite_where=text("ended_at IS NOT NULL"), postgresql_where=text("ended_at IS NOT NULL")),
        Index(None, "requester", "id"),
    )

    id: str = Field(sa_type=CodePointText, primary_key=True)
    name: str = Field(sa_type=Text)
    task: str = Field(sa_type=Text)
    environment: str = Field(sa_type=CodePointText)
    requester: str = Field(sa_type=Text)
    requester_id: str = Field(sa_type=CodePointText)
    state: str = Field(sa_type=CodePointText)
    created_at: datetime = Field(sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    times_out_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When its process is ended if it is still running."""
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    exit_code: int | None = None
    reason: str | None = Field(default=None, sa_type=Text)
    revocation_state: str = Field(sa_type=CodePointText)
    revocation_confirmed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revocation_failures: list[str] = Field(sa_type=JSON)
    revocation_since: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When the unconfirmed revocation began."""
    revocation_residual_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """If the revocation is residual: the time until which credentials that cannot be revoked are valid; None if that is unknown."""
    agent: dict[str, Any] | None = Field(default=None, sa_type=JSON)
    data_scope: dict[str, str] = Field(sa_type=JSON)
    labels: dict[str, str] = Field(sa_type=JSON)
    params: dict[str, str] = Field(sa_type=JSON)
    bundle: str | None = Field(default=None, sa_type=CodePointText)
    order_reason: str = Field(sa_type=Text)
    sandbox: str | None = Field(default=None, sa_type=Text)
    parent: str | None = Field(default=None, sa_type=CodePointText)


class EndedJobsRow(TableBase, table=True):
    """The number of jobs that ended in a state. Counted as they end, because counting a million rows for each page would take too long."""

    __tablename__ = "ended_jobs"

    state: str = Field(sa_type=CodePointText, primary_key=True)
    jobs: int


class OrderRow(TableBase, table=True):
    """The signed order of a job. Separate from `jobs` to keep the rows of lists small."""

    __tablename__ = "orders"
    __table_args__ = (Index(None, "bundle", sqlite_where=text("bundle IS NOT NULL"), postgresql_where=text("bundle IS NOT NULL")),)

    job: str = Field(sa_type=CodePointText, primary_key=True)
    spec: dict[str, Any] = Field(sa_type=JSON)
    params: dict[str, str] = Field(sa_type=JSON)
    bundle: str | None = Field(default=None, sa_type=CodePointText)
    signed: dict[str, Any] = Field(sa_type=JSON)


class RequestRow(TableBase, table=True):
    __tablename__ = "requests"
    __table_args__ = (
        Index(None, "job_id", "number"),
        Index(None, "created_at", "id"),
        Index(None, "state", "created_at", "id"),
        Index(None, "requester_id", "created_at", "id"),
        Index(None, "requester_id", "state", "created_at", "id"),
        Index(None, "resource", "action", "created_at"),
        Index(None, "state", "expires_at", "id"),
    )

    id: str = Field(sa_type=CodePointText, primary_key=True)
    job_id: str = Field(sa_type=CodePointText)
    requester_id: str = Field(sa_type=CodePointText)
    number: int
    resource: str = Field(sa_type=Text)
    title: str = Field(sa_type=Text)
    action: str = Field(sa_type=Text)
    ttl: int
    granted_ttl: int | None = None
    granted_action: str | None = Field(default=None, sa_type=Text)
    reason: str = Field(sa_type=Text)
    reason_by: str | None = Field(default=None, sa_type=Text)
    """Who wrote the reason; None if that was not recorded."""
    signed_reason: str | None = Field(default=None, sa_type=Text)
    """The order's reason for this access."""
    optional: bool
    sensitivity: str = Field(sa_type=Text)
    revocable: str = Field(sa_type=Text)
    state: str = Field(sa_type=CodePointText)
    tier: int
    current_tier: int
    quorum: int
    policies: list[str] = Field(sa_type=JSON)
    policy_digest: str = Field(sa_type=Text)
    digest: str = Field(sa_type=Text)
    call: dict[str, Any] | None = Field(default=None, sa_type=JSON)
    """{tool, arguments} of the single call that is requested."""
    tools: dict[str, Any] | None = Field(default=None, sa_type=JSON)
    """tool → bounds, if access is requested through tools only."""
    granted_tools: dict[str, Any] | None = Field(default=None, sa_type=JSON)
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    claimed_by: str | None = Field(default=None, sa_type=Text)
    claimed_by_id: str | None = Field(default=None, sa_type=CodePointText)
    claimed_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    lock_accessor: str | None = Field(default=None, sa_type=Text)
    """Accessor of the control group's request in Vault. It gives no access."""
    lock_expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class ApprovalRow(TableBase, table=True):
    """One answer that counted. Its id is the id of its event."""

    __tablename__ = "approvals"
    __table_args__ = (Index(None, "approver_id", "at"),)

    id: str = Field(sa_type=CodePointText, primary_key=True)
    request_id: str = Field(sa_type=CodePointText, index=True)
    approver: str = Field(sa_type=Text)
    approver_id: str = Field(sa_type=CodePointText)
    tier: int
    decision: str = Field(sa_type=Text)
    reason: str = Field(sa_type=Text)
    ttl: int
    action: str | None = Field(default=None, sa_type=Text)
    """The action that it allows; None if recorded before approvals could be narrowed."""
    tools: dict[str, Any] | None = Field(default=None, sa_type=JSON)
    """tool → bounds that the answer allows."""
    on_behalf_of: str | None = Field(default=None, sa_type=Text)
    """Login name of the person who delegated to the approver."""
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    withdrawn_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class ReviewRow(TableBase, table=True):
    """The review of a break-glass approval."""

    __tablename__ = "reviews"
    __table_args__ = (Index(None, "open", "opened_at", "request_id"), Index(None, "opened_at", "request_id"))

    request_id: str = Field(sa_type=CodePointText, primary_key=True)
    job_id: str = Field(sa_type=CodePointText)
    person: str = Field(sa_type=Text)
    person_id: str = Field(sa_type=CodePointText)
    tiers: list[int] = Field(sa_type=JSON)
    groups: list[str] = Field(sa_type=JSON)
    reason: str = Field(sa_type=Text)
    opened_at: datetime = Field(sa_type=UtcDateTime)
    open: bool
    verdict: str | None = Field(default=None, sa_type=Text)
    reviewer: str | None = Field(default=None, sa_type=Text)
    review_reason: str | None = Field(default=None, sa_type=Text)
    reviewed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class DelegationRow(TableBase, table=True):
    """A delegation: a person, their delegate, its end, and the statement that the person signed."""

    __tablename__ = "delegations"
    __table_args__ = (Index(None, "made_at", "id"), Index(None, "person_id", "delegate_id"), Index(None, "delegate_id", "until"))

    id: str = Field(sa_type=CodePointText, primary_key=True)
    person: str = Field(sa_type=Text)
    person_id: str = Field(sa_type=CodePointText)
    delegate: str = Field(sa_type=Text)
    delegate_id: str = Field(sa_type=CodePointText)
    reason: str = Field(sa_type=Text)
    made_at: datetime = Field(sa_type=UtcDateTime)
    until: datetime = Field(sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    signed: dict[str, Any] = Field(sa_type=JSON)


class AcknowledgementRow(TableBase, table=True):
    """The newest acknowledgement of something that needs attention."""

    __tablename__ = "acknowledgements"

    item: str = Field(sa_type=CodePointText, primary_key=True)
    """Kind and subject, as in AttentionItem.key."""
    person: str = Field(sa_type=Text)
    person_id: str = Field(sa_type=CodePointText)
    note: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=UtcDateTime)


class CredentialRow(TableBase, table=True):
    __tablename__ = "credentials"
    __table_args__ = (
        Index(None, "job_id"),
        Index(None, "issued_at", "id"),
        Index(None, "live", "issued_at", "id"),
        Index(None, "resource", "action", "issued_at"),
        Index(None, "resource", "issued_at", "id"),
        Index(None, "action", "issued_at", "id"),
        Index(None, "state", "issued_at", "id"),
        Index(None, "confirmed_at", "issued_at"),
    )

    id: str = Field(sa_type=CodePointText, primary_key=True)
    job_id: str = Field(sa_type=CodePointText)
    request_id: str = Field(sa_type=CodePointText)
    resource: str = Field(sa_type=Text)
    action: str = Field(sa_type=Text)
    state: str = Field(sa_type=CodePointText)
    live: bool
    """Not yet confirmed dead."""
    lease_id: str | None = Field(default=None, sa_type=Text)
    accessor: str | None = Field(default=None, sa_type=Text)
    """None if it is unknown whether the credential was issued."""
    issued_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_why: str | None = Field(default=None, sa_type=Text)
    """Why it was revoked while its job continued."""
    confirmed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    confirmed_how: str | None = Field(default=None, sa_type=Text)
    why: str | None = Field(default=None, sa_type=Text)
    """Why it could not be confirmed dead."""
    revocable: str = Field(sa_type=Text)
    certificate: str | None = Field(default=None, sa_type=Text)
    """Path in Vault of its certificate, whose revocation is verified."""
    held_by_job: bool = True
    user: str | None = Field(default=None, sa_type=Text)
    """The name of its user in the target."""
    target_digest: str | None = Field(default=None, sa_type=Text)
    search_digest: str | None = Field(default=None, sa_type=Text)


class SearchWordRow(TableBase, table=True):
    """A word of a job, or a handle of a credential, and its place in the ledger: the job's first entry, or the credential's own."""

    __tablename__ = "search_words"
    # SQLite then stores only the key, once.
    __table_args__ = ({"sqlite_with_rowid": False},)

    word: str = Field(sa_type=CodePointText, primary_key=True)
    position: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})


class SearchNameRow(TableBase, table=True):
    """A name of jobs, of an agent or of a person, and who may see it: a person, or (empty) everyone who may read everything."""

    __tablename__ = "search_names"
    __table_args__ = (Index(None, "kind", "name"),)

    reader_id: str = Field(sa_type=CodePointText, primary_key=True)
    kind: str = Field(sa_type=CodePointText, primary_key=True)
    name: str = Field(sa_type=CodePointText, primary_key=True)


class SearchProgressRow(TableBase, table=True):
    """The last indexed position of the ledger: one row, none at first."""

    __tablename__ = "search_progress"

    id: int = Field(primary_key=True)
    position: int = Field(sa_type=BigInteger)


class ProbeRow(TableBase, table=True):
    """The last test of whether the store accepts writes."""

    __tablename__ = "probes"

    id: int = Field(sa_type=Integer, primary_key=True, sa_column_kwargs={"autoincrement": False})
    at: datetime = Field(sa_type=UtcDateTime)


class WorkerRow(TableBase, table=True):
    """A worker's process, as in its last report."""

    __tablename__ = "workers"

    name: str = Field(sa_type=Text, primary_key=True)
    version: str = Field(sa_type=Text)
    config_digest: str | None = Field(default=None, sa_type=Text)
    config_alarm: str | None = Field(default=None, sa_type=Text)
    last_seen: datetime = Field(sa_type=UtcDateTime)


class TargetCheckRow(TableBase, table=True):
    """A target's state in the last sweep."""

    __tablename__ = "target_checks"

    name: str = Field(sa_type=Text, primary_key=True)
    failure: str | None = Field(default=None, sa_type=Text)
    since: datetime = Field(sa_type=UtcDateTime)
    checked_at: datetime = Field(sa_type=UtcDateTime)


class SweepRow(TableBase, table=True):
    """The installation's sweeps: one row."""

    __tablename__ = "sweeps"

    id: int = Field(primary_key=True)
    active_at: datetime = Field(sa_type=UtcDateTime)
    """When a worker was last known to be sweeping."""
    steady_since: datetime = Field(sa_type=UtcDateTime)
    """Since when workers have swept without a long gap, so the store has accepted writes since then."""
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    by_clock: bool
    """Whether a worker began the last sweep by its own clock, because no sweep had come through Temporal."""


class PositiveControlRow(TableBase, table=True):
    """A digest under which an observer found a live user: without that, finding none would prove nothing."""

    __tablename__ = "positive_controls"

    digest: str = Field(sa_type=CodePointText, primary_key=True)
    credential_id: str = Field(sa_type=CodePointText)
    """The credential whose user was found."""
    found_at: datetime = Field(sa_type=UtcDateTime)


class ClaimRow(TableBase, table=True):
    __tablename__ = "claims"

    job: str = Field(sa_type=CodePointText, primary_key=True)
    run: str | None = Field(default=None, sa_type=CodePointText)
    owner: str | None = Field(default=None, sa_type=CodePointText)
    renewed_at: datetime = Field(sa_type=UtcDateTime)
    closed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    attempted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When a worker last began to revoke everything of the job."""


class LockRow(TableBase, table=True):
    """The wrapping token of a request that waits for a control group, as ciphertext that only Vault can decrypt. Deleted when used."""

    __tablename__ = "locks"

    request: str = Field(sa_type=CodePointText, primary_key=True)
    job: str = Field(sa_type=CodePointText, index=True)
    accessor: str = Field(sa_type=Text)
    token_accessor: str = Field(sa_type=Text)
    """Accessor of the job's token under which the request was sent."""
    ciphertext: str = Field(sa_type=Text)


class PlaceRow(TableBase, table=True):
    """A job's place among the running jobs of its account. Deleted when its session, or the job, ends."""

    __tablename__ = "places"

    job: str = Field(sa_type=CodePointText, primary_key=True)
    account: str = Field(sa_type=CodePointText, index=True)


class BundleRow(TableBase, table=True):
    __tablename__ = "bundles"

    digest: str = Field(sa_type=CodePointText, primary_key=True)
    content: bytes = Field(sa_type=LargeBinary)
    uploaded_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
    """When somebody last uploaded it; None if the release that stored it did not record this."""
    uploaded_by: str | None = Field(default=None, sa_type=CodePointText)
    """Entity id of the person who last uploaded it; None if the console packed it."""


class LogRow(TableBase, table=True):
    __tablename__ = "logs"

    job: str = Field(sa_type=CodePointText, primary_key=True)
    seq: int = Field(primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime)
    text: str = Field(sa_type=Text)


class LogSizeRow(TableBase, table=True):
    """The stored size of a job's output, so that the cap needs no counting."""

    __tablename__ = "log_sizes"

    job: str = Field(sa_type=CodePointText, primary_key=True)
    size: int
    """Bytes of UTF-8."""


class IdempotencyRow(TableBase, table=True):
    __tablename__ = "idempotency_keys"

    person: str = Field(sa_type=CodePointText, primary_key=True)
    key: str = Field(sa_type=CodePointText, primary_key=True)
    job: str = Field(sa_type=CodePointText)
    digest: str = Field(sa_type=CodePointText)


class PageSessionRow(TableBase, table=True):
    """A login session of the pages. The cookie is not stored, and the ciphertext cannot be decrypted without it."""

    __tablename__ = "page_sessions"

    key: str = Field(sa_type=CodePointText, primary_key=True)
    person: str = Field(sa_type=CodePointText, index=True)
    name: str = Field(sa_type=Text)
    how: str = Field(sa_type=Text)
    ciphertext: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=UtcDateTime, index=True)
    seen_at: datetime = Field(sa_type=UtcDateTime)
    fresh_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_why: str | None = Field(default=None, sa_type=Text)


class SubscriptionRow(TableBase, table=True):
    """The progress of one subscription: each event up to its position was delivered, is in `deliveries`, or is not for this subscription."""

    __tablename__ = "subscriptions"

    name: str = Field(sa_type=CodePointText, primary_key=True)
    kind: str = Field(sa_type=CodePointText)
    position: int = Field(sa_type=BigInteger)
    created_at: datetime = Field(sa_type=UtcDateTime)
    seen_at: datetime = Field(sa_type=UtcDateTime)
    """When the configuration last contained it."""
    delivered: int = Field(sa_type=BigInteger)
    """Number of events delivered."""
    delivered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    failed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    why: str | None = Field(default=None, sa_type=Text)
    """Why the last attempt failed; None after a success."""


class DeliveryRow(TableBase, table=True):
    """A delivery that failed: pending its next attempt, or dead. Deleted once it is delivered."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("subscription", "position"),
        Index(None, "subscription", "state", "next_at"),
        Index(None, "subscription", "state", "at", "id"),
    )

    id: str = Field(sa_type=CodePointText, primary_key=True)
    subscription: str = Field(sa_type=CodePointText)
    position: int = Field(sa_type=BigInteger)
    """Position of the ledger entry, from which each attempt builds the message."""
    event: str = Field(sa_type=CodePointText)
    type: str = Field(sa_type=CodePointText)
    job: str = Field(sa_type=CodePointText)
    at: datetime = Field(sa_type=UtcDateTime)
    """When the event happened."""
    state: str = Field(sa_type=CodePointText)
    attempts: int
    next_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_at: datetime = Field(sa_type=UtcDateTime)
    why: str = Field(sa_type=Text)


class ToldRow(TableBase, table=True):
    """A notice about a request that is not settled yet. Its recipient is also notified when the request is settled."""

    __tablename__ = "told"
    __table_args__ = (Index(None, "subscription", "job"),)

    subscription: str = Field(sa_type=CodePointText, primary_key=True)
    about: str = Field(sa_type=CodePointText, primary_key=True)
    target: str = Field(sa_type=CodePointText, primary_key=True)
    """Path of an Apprise URL in Vault; never the URL."""
    tier: int
    job: str = Field(sa_type=CodePointText)


class LeaseRow(TableBase, table=True):
    """The process that does a task that only one process may do at a time, and the time until which no other process may take it over."""

    __tablename__ = "leases"

    name: str = Field(sa_type=CodePointText, primary_key=True)
    holder: str = Field(sa_type=CodePointText)
    until: datetime = Field(sa_type=UtcDateTime)


METADATA = TableBase.metadata


def table_of(model: type[SQLModel]) -> Table:
    """Return a class's table, for statements in Core."""
    return METADATA.tables[str(model.__tablename__)]


LEDGER, HEADS = table_of(LedgerRow), table_of(HeadRow)
JOBS, ENDED_JOBS, ORDERS, REQUESTS = table_of(JobRow), table_of(EndedJobsRow), table_of(OrderRow), table_of(RequestRow)
APPROVALS, CREDENTIALS, REVIEWS, DELEGATIONS = table_of(ApprovalRow), table_of(CredentialRow), table_of(ReviewRow), table_of(DelegationRow)
CLAIMS, BUNDLES, LOCKS, PAGE_SESSIONS = table_of(ClaimRow), table_of(BundleRow), table_of(LockRow), table_of(PageSessionRow)
PLACES, ACKNOWLEDGEMENTS = table_of(PlaceRow), table_of(AcknowledgementRow)
POSITIVE_CONTROLS, PROBES = table_of(PositiveControlRow), table_of(ProbeRow)
WORKERS, TARGET_CHECKS, SWEEPS = table_of(WorkerRow), table_of(TargetCheckRow), table_of(SweepRow)
SEARCH_WORDS, SEARCH_NAMES, SEARCH_PROGRESS = table_of(SearchWordRow), table_of(SearchNameRow), table_of(SearchProgressRow)
LOGS, LOG_SIZES, IDEMPOTENCY = table_of(LogRow), table_of(LogSizeRow), table_of(IdempotencyRow)
SUBSCRIPTIONS, DELIVERIES, TOLD, LEASES = table_of(SubscriptionRow), table_of(DeliveryRow), table_of(ToldRow), table_of(LeaseRow)
