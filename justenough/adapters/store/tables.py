"""The tables, for SQLAlchemy Core: rows are values, nothing loads lazily. No queries here.

Only `ledger` is the record; jobs, requests, approvals and credentials are projected from it. A changed table needs a migration.

Over 400 lines: every table of the store is here, so that columns and keys are compared in one place.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeDecorator, TypeEngine

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


CODE_POINT_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that sorts by code point everywhere, as Python does: ids, states, digests."""
POSITION_INTEGER = BigInteger().with_variant(Integer(), "sqlite")
"""A big integer that SQLite can use as its row id."""


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


METADATA = MetaData(naming_convention=NAMING_CONVENTION)
APPEND = "SELECT, INSERT"
CHANGE = "SELECT, INSERT, UPDATE"
REPLACE = "SELECT, INSERT, DELETE"
EVERYTHING = "SELECT, INSERT, UPDATE, DELETE"


def _table(name: str, rights: str, *parts: SchemaItem, **options: Any) -> Table:
    """Return a table on which workers and consoles need these rights."""
    return Table(name, METADATA, *parts, info={"rights": rights}, **options)


def _column(name: str, kind: TypeEngine[Any] | type[TypeEngine[Any]], *, nullable: bool = False, **options: Any) -> Column[Any]:
    """Return a column; unlike SQLAlchemy's own, it is not nullable unless it says so."""
    return Column(name, kind, nullable=nullable, **options)


# Insert-only: triggers reject anything else. Positions ascend in the order of commits, so that a reader of the tail misses no entry.
LEDGER = _table(
    "ledger",
    APPEND,
    _column("position", POSITION_INTEGER, primary_key=True, autoincrement=False),
    _column("job", CODE_POINT_TEXT),
    _column("seq", Integer),
    _column("id", CODE_POINT_TEXT),
    _column("type", CODE_POINT_TEXT),
    _column("at", CODE_POINT_TEXT),
    _column("data", Text),
    _column("prev", CODE_POINT_TEXT),
    _column("hash", CODE_POINT_TEXT),
    UniqueConstraint("job", "seq"),
    UniqueConstraint("id"),
    Index(None, "at", "position"),
    Index(None, "type", "at", "position"),
)

# The newest link of each chain. Writers lock its row.
HEADS = _table(
    "chain_heads",
    CHANGE,
    _column("job", CODE_POINT_TEXT, primary_key=True),
    _column("seq", Integer),
    _column("hash", CODE_POINT_TEXT),
)

JOBS = _table(
    "jobs",
    CHANGE,
    _column("id", CODE_POINT_TEXT, primary_key=True),
    _column("name", Text),
    _column("task", Text),
    _column("environment", CODE_POINT_TEXT),
    _column("requester", Text),
    _column("requester_id", CODE_POINT_TEXT),
    _column("state", CODE_POINT_TEXT),
    _column("created_at", UtcDateTime),
    _column("started_at", UtcDateTime, nullable=True),
    # When its process is ended if it is still running.
    _column("times_out_at", UtcDateTime, nullable=True),
    _column("ended_at", UtcDateTime, nullable=True),
    _column("exit_code", Integer, nullable=True),
    _column("reason", Text, nullable=True),
    _column("revocation_state", CODE_POINT_TEXT),
    _column("revocation_confirmed_at", UtcDateTime, nullable=True),
    _column("revocation_failures", JSON),
    # When the unconfirmed revocation began.
    _column("revocation_since", UtcDateTime, nullable=True),
    # If the revocation is residual: the time until which credentials that cannot be revoked are valid; None if that is unknown.
    _column("revocation_residual_until", UtcDateTime, nullable=True),
    _column("agent", JSON, nullable=True),
    _column("data_scope", JSON),
    _column("labels", JSON),
    _column("params", JSON),
    _column("bundle", CODE_POINT_TEXT, nullable=True),
    _column("order_reason", Text),
    _column("sandbox", Text, nullable=True),
    _column("parent", CODE_POINT_TEXT, nullable=True),
    # One index for each combination of filters, so that a list never scans 1,000,000 jobs for a rare one.
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

# The number of jobs that ended in a state. Counted as they end, because counting a million rows for each page would take too long.
ENDED_JOBS = _table(
    "ended_jobs",
    CHANGE,
    _column("state", CODE_POINT_TEXT, primary_key=True),
    _column("jobs", Integer),
)

# The signed order of a job. Separate from `jobs` to keep the rows of lists small.
ORDERS = _table(
    "orders",
    APPEND,
    _column("job", CODE_POINT_TEXT, primary_key=True),
    _column("spec", JSON),
    _column("params", JSON),
    _column("bundle", CODE_POINT_TEXT, nullable=True),
    _column("signed", JSON),
    Index(None, "bundle", sqlite_where=text("bundle IS NOT NULL"), postgresql_where=text("bundle IS NOT NULL")),
)

REQUESTS = _table(
    "requests",
    CHANGE,
    _column("id", CODE_POINT_TEXT, primary_key=True),
    _column("job_id", CODE_POINT_TEXT),
    _column("requester_id", CODE_POINT_TEXT),
    _column("number", Integer),
    _column("resource", Text),
    _column("title", Text),
    _column("action", Text),
    _column("ttl", Integer),
    _column("granted_ttl", Integer, nullable=True),
    _column("granted_action", Text, nullable=True),
    _column("reason", Text),
    # Who wrote the reason; None if that was not recorded.
    _column("reason_by", Text, nullable=True),
    # The order's reason for this access.
    _column("signed_reason", Text, nullable=True),
    _column("optional", Boolean),
    _column("sensitivity", Text),
    _column("revocable", Text),
    _column("state", CODE_POINT_TEXT),
    _column("tier", Integer),
    _column("current_tier", Integer),
    _column("quorum", Integer),
    _column("policies", JSON),
    _column("policy_digest", Text),
    _column("digest", Text),
    # {tool, arguments} of the single call that is requested.
    _column("call", JSON, nullable=True),
    # tool → bounds, if access is requested through tools only.
    _column("tools", JSON, nullable=True),
    _column("granted_tools", JSON, nullable=True),
    _column("created_at", UtcDateTime),
    _column("expires_at", UtcDateTime, nullable=True),
    _column("claimed_by", Text, nullable=True),
    _column("claimed_by_id", CODE_POINT_TEXT, nullable=True),
    _column("claimed_until", UtcDateTime, nullable=True),
    # Accessor of the control group's request in Vault. It gives no access.
    _column("lock_accessor", Text, nullable=True),
    _column("lock_expires_at", UtcDateTime, nullable=True),
    Index(None, "job_id", "number"),
    Index(None, "created_at", "id"),
    Index(None, "state", "created_at", "id"),
    Index(None, "requester_id", "created_at", "id"),
    Index(None, "requester_id", "state", "created_at", "id"),
    Index(None, "resource", "action", "created_at"),
    Index(None, "state", "expires_at", "id"),
)

# One answer that counted. Its id is the id of its event.
APPROVALS = _table(
    "approvals",
    CHANGE,
    _column("id", CODE_POINT_TEXT, primary_key=True),
    _column("request_id", CODE_POINT_TEXT, index=True),
    _column("approver", Text),
    _column("approver_id", CODE_POINT_TEXT),
    _column("tier", Integer),
    _column("decision", Text),
    _column("reason", Text),
    _column("ttl", Integer),
    # The action that it allows; None if recorded before approvals could be narrowed.
    _column("action", Text, nullable=True),
    # tool → bounds that the answer allows.
    _column("tools", JSON, nullable=True),
    # Login name of the person who delegated to the approver.
    _column("on_behalf_of", Text, nullable=True),
    # That person's entity id: on another people mount, the login name may be somebody else's.
    _column("on_behalf_of_id", CODE_POINT_TEXT, nullable=True),
    _column("at", UtcDateTime, index=True),
    _column("withdrawn_at", UtcDateTime, nullable=True),
    # Why the answer no longer counted when the request's answers were last verified again.
    _column("lapsed", Text, nullable=True),
    Index(None, "approver_id", "at"),
)

# The review of a break-glass approval.
REVIEWS = _table(
    "reviews",
    CHANGE,
    _column("request_id", CODE_POINT_TEXT, primary_key=True),
    _column("job_id", CODE_POINT_TEXT),
    _column("person", Text),
    _column("person_id", CODE_POINT_TEXT),
    _column("tiers", JSON),
    _column("groups", JSON),
    _column("reason", Text),
    _column("opened_at", UtcDateTime),
    _column("open", Boolean),
    _column("verdict", Text, nullable=True),
    _column("reviewer", Text, nullable=True),
    _column("review_reason", Text, nullable=True),
    _column("reviewed_at", UtcDateTime, nullable=True),
    Index(None, "open", "opened_at", "request_id"),
    Index(None, "opened_at", "request_id"),
)

# A delegation: a person, their delegate, its end, and the statement that the person signed.
DELEGATIONS = _table(
    "delegations",
    CHANGE,
    _column("id", CODE_POINT_TEXT, primary_key=True),
    _column("person", Text),
    _column("person_id", CODE_POINT_TEXT),
    _column("delegate", Text),
    _column("delegate_id", CODE_POINT_TEXT),
    _column("reason", Text),
    _column("made_at", UtcDateTime),
    _column("until", UtcDateTime),
    _column("ended_at", UtcDateTime, nullable=True),
    _column("signed", JSON),
    Index(None, "made_at", "id"),
    Index(None, "person_id", "delegate_id"),
    Index(None, "delegate_id", "until"),
)

# The newest acknowledgement of something that needs attention.
ACKNOWLEDGEMENTS = _table(
    "acknowledgements",
    CHANGE,
    # Kind and subject, as in AttentionItem.key.
    _column("item", CODE_POINT_TEXT, primary_key=True),
    _column("person", Text),
    _column("person_id", CODE_POINT_TEXT),
    _column("note", Text),
    _column("at", UtcDateTime),
)

CREDENTIALS = _table(
    "credentials",
    CHANGE,
    _column("id", CODE_POINT_TEXT, primary_key=True),
    _column("job_id", CODE_POINT_TEXT),
    _column("request_id", CODE_POINT_TEXT),
    _column("resource", Text),
    _column("action", Text),
    _column("state", CODE_POINT_TEXT),
    # Not yet confirmed dead.
    _column("live", Boolean),
    _column("lease_id", Text, nullable=True),
    # None if it is unknown whether the credential was issued.
    _column("accessor", Text, nullable=True),
    _column("issued_at", UtcDateTime),
    _column("expires_at", UtcDateTime),
    _column("revoked_at", UtcDateTime, nullable=True),
    # Why it was revoked while its job continued.
    _column("revoked_why", Text, nullable=True),
    _column("confirmed_at", UtcDateTime, nullable=True),
    _column("confirmed_how", Text, nullable=True),
    # Why it could not be confirmed dead.
    _column("why", Text, nullable=True),
    _column("revocable", Text),
    # Path in Vault of its certificate, whose revocation is verified.
    _column("certificate", Text, nullable=True),
    _column("held_by_job", Boolean),
    # The name of its user in the target.
    _column("user", Text, nullable=True),
    _column("target_digest", Text, nullable=True),
    _column("search_digest", Text, nullable=True),
    Index(None, "job_id"),
    Index(None, "issued_at", "id"),
    Index(None, "live", "issued_at", "id"),
    Index(None, "resource", "action", "issued_at"),
    Index(None, "resource", "issued_at", "id"),
    Index(None, "action", "issued_at", "id"),
    Index(None, "state", "issued_at", "id"),
    Index(None, "confirmed_at", "issued_at"),
)

# A word of a job, or a handle of a credential, and its place in the ledger: the job's first entry, or the credential's own.
SEARCH_WORDS = _table(
    "search_words",
    APPEND,
    _column("word", CODE_POINT_TEXT, primary_key=True),
    _column("position", BigInteger, primary_key=True, autoincrement=False),
    # SQLite then stores only the key, once.
    sqlite_with_rowid=False,
)

# A name of jobs, of an agent or of a person, and who may see it: a person, or (empty) everyone who may read everything.
SEARCH_NAMES = _table(
    "search_names",
    APPEND,
    _column("reader_id", CODE_POINT_TEXT, primary_key=True),
    _column("kind", CODE_POINT_TEXT, primary_key=True),
    _column("name", CODE_POINT_TEXT, primary_key=True),
    Index(None, "kind", "name"),
)

# The last indexed position of the ledger: one row, none at first.
SEARCH_PROGRESS = _table(
    "search_progress",
    CHANGE,
    _column("id", Integer, primary_key=True),
    _column("position", BigInteger),
)

# The last test of whether the store accepts writes.
PROBES = _table(
    "probes",
    CHANGE,
    _column("id", Integer, primary_key=True, autoincrement=False),
    _column("at", UtcDateTime),
)

# A worker's process, as in its last report.
WORKERS = _table(
    "workers",
    EVERYTHING,
    _column("name", Text, primary_key=True),
    _column("version", Text),
    _column("config_digest", Text, nullable=True),
    _column("config_alarm", Text, nullable=True),
    _column("last_seen", UtcDateTime),
)

# A target's state in the last sweep.
TARGET_CHECKS = _table(
    "target_checks",
    REPLACE,
    _column("name", Text, primary_key=True),
    _column("failure", Text, nullable=True),
    _column("since", UtcDateTime),
    _column("checked_at", UtcDateTime),
    _column("actions", JSON, nullable=True),
)

# The installation's sweeps: one row.
SWEEPS = _table(
    "sweeps",
    CHANGE,
    _column("id", Integer, primary_key=True),
    # When a worker was last known to be sweeping.
    _column("active_at", UtcDateTime),
    # Since when workers have swept without a long gap, so the store has accepted writes since then.
    _column("steady_since", UtcDateTime),
    _column("ended_at", UtcDateTime, nullable=True),
    # Whether a worker began the last sweep by its own clock, because no sweep had come through Temporal.
    _column("by_clock", Boolean),
)

# A digest under which an observer found a live user: without that, finding none would prove nothing.
POSITIVE_CONTROLS = _table(
    "positive_controls",
    APPEND,
    _column("digest", CODE_POINT_TEXT, primary_key=True),
    # The credential whose user was found.
    _column("credential_id", CODE_POINT_TEXT),
    _column("found_at", UtcDateTime),
)

CLAIMS = _table(
    "claims",
    CHANGE,
    _column("job", CODE_POINT_TEXT, primary_key=True),
    _column("run", CODE_POINT_TEXT, nullable=True),
    _column("owner", CODE_POINT_TEXT, nullable=True),
    _column("renewed_at", UtcDateTime),
    _column("closed_at", UtcDateTime, nullable=True),
    # When a worker last began to revoke everything of the job.
    _column("attempted_at", UtcDateTime, nullable=True),
)

# The wrapping token of a request that waits for a control group, as ciphertext that only Vault can decrypt. Deleted when used.
LOCKS = _table(
    "locks",
    REPLACE,
    _column("request", CODE_POINT_TEXT, primary_key=True),
    _column("job", CODE_POINT_TEXT, index=True),
    _column("accessor", Text),
    # Accessor of the job's token under which the request was sent.
    _column("token_accessor", Text),
    _column("ciphertext", Text),
)

# A job's place among the running jobs of its launcher. Deleted when its session, or the job, ends.
PLACES = _table(
    "places",
    REPLACE,
    _column("job", CODE_POINT_TEXT, primary_key=True),
    _column("account", CODE_POINT_TEXT, index=True),
)

BUNDLES = _table(
    "bundles",
    EVERYTHING,
    _column("digest", CODE_POINT_TEXT, primary_key=True),
    _column("content", LargeBinary),
    # When somebody last uploaded it; None if the release that stored it did not record this.
    _column("uploaded_at", UtcDateTime, index=True, nullable=True),
    # Entity id of the person who last uploaded it; None if the console packed it.
    _column("uploaded_by", CODE_POINT_TEXT, nullable=True),
)

LOGS = _table(
    "logs",
    APPEND,
    _column("job", CODE_POINT_TEXT, primary_key=True),
    _column("seq", Integer, primary_key=True),
    _column("at", UtcDateTime),
    _column("text", Text),
)

# The stored size of a job's output, so that the cap needs no counting.
LOG_SIZES = _table(
    "log_sizes",
    CHANGE,
    _column("job", CODE_POINT_TEXT, primary_key=True),
    # Bytes of UTF-8.
    _column("size", Integer),
)

IDEMPOTENCY = _table(
    "idempotency_keys",
    APPEND,
    _column("person", CODE_POINT_TEXT, primary_key=True),
    _column("key", CODE_POINT_TEXT, primary_key=True),
    _column("job", CODE_POINT_TEXT),
    _column("digest", CODE_POINT_TEXT),
)

# A login session of the pages. The cookie is not stored, and the ciphertext cannot be decrypted without it.
PAGE_SESSIONS = _table(
    "page_sessions",
    EVERYTHING,
    _column("key", CODE_POINT_TEXT, primary_key=True),
    _column("person", CODE_POINT_TEXT, index=True),
    _column("name", Text),
    _column("how", Text),
    _column("ciphertext", Text),
    _column("created_at", UtcDateTime, index=True),
    _column("seen_at", UtcDateTime),
    _column("fresh_at", UtcDateTime, nullable=True),
    _column("ended_at", UtcDateTime, nullable=True),
    _column("ended_why", Text, nullable=True),
)

# The progress of one subscription: each event up to its position was delivered, is in `deliveries`, or is not for this subscription.
SUBSCRIPTIONS = _table(
    "subscriptions",
    EVERYTHING,
    _column("name", CODE_POINT_TEXT, primary_key=True),
    _column("kind", CODE_POINT_TEXT),
    _column("position", BigInteger),
    _column("created_at", UtcDateTime),
    # When the configuration last contained it.
    _column("seen_at", UtcDateTime),
    # Number of events delivered.
    _column("delivered", BigInteger),
    _column("delivered_at", UtcDateTime, nullable=True),
    _column("failed_at", UtcDateTime, nullable=True),
    # Why the last attempt failed; None after a success.
    _column("why", Text, nullable=True),
)

# A delivery that failed: pending its next attempt, or dead. Deleted once it is delivered.
DELIVERIES = _table(
    "deliveries",
    EVERYTHING,
    _column("id", CODE_POINT_TEXT, primary_key=True),
    _column("subscription", CODE_POINT_TEXT),
    # Position of the ledger entry, from which each attempt builds the message.
    _column("position", BigInteger),
    _column("event", CODE_POINT_TEXT),
    _column("type", CODE_POINT_TEXT),
    _column("job", CODE_POINT_TEXT),
    # When the event happened.
    _column("at", UtcDateTime),
    _column("state", CODE_POINT_TEXT),
    _column("attempts", Integer),
    _column("next_at", UtcDateTime, nullable=True),
    _column("last_at", UtcDateTime),
    _column("why", Text),
    UniqueConstraint("subscription", "position"),
    Index(None, "subscription", "state", "next_at"),
    Index(None, "subscription", "state", "at", "id"),
)

# A notice about a request that is not settled yet. Its recipient is also notified when the request is settled.
TOLD = _table(
    "told",
    EVERYTHING,
    _column("subscription", CODE_POINT_TEXT, primary_key=True),
    _column("about", CODE_POINT_TEXT, primary_key=True),
    # Path of an Apprise URL in Vault; never the URL.
    _column("target", CODE_POINT_TEXT, primary_key=True),
    _column("tier", Integer),
    _column("job", CODE_POINT_TEXT),
    Index(None, "subscription", "job"),
)

# The process that does a task that only one process may do at a time, and the time until which no other process may take it over.
LEASES = _table(
    "leases",
    EVERYTHING,
    _column("name", CODE_POINT_TEXT, primary_key=True),
    _column("holder", CODE_POINT_TEXT),
    _column("until", UtcDateTime),
)
