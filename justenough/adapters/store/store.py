"""The store: one repository for each subject, on one database. Blocking: call it from threads, never on an event loop."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select, update

from justenough.adapters.store import change_feed, engine, migrate
from justenough.adapters.store.attention import AttentionRepository
from justenough.adapters.store.bundles import BundleRepository
from justenough.adapters.store.dashboard import DashboardRepository
from justenough.adapters.store.delegations import DelegationRepository
from justenough.adapters.store.group_commit import GroupCommitter
from justenough.adapters.store.idempotency import IdempotencyRepository
from justenough.adapters.store.inbox_queries import InboxRepository
from justenough.adapters.store.inspection import StoreReport, inspect_store
from justenough.adapters.store.job_logs import LogRepository
from justenough.adapters.store.ledger_repository import LedgerRepository
from justenough.adapters.store.metrics import MetricsRepository
from justenough.adapters.store.outbox_queries import OutboxRepository
from justenough.adapters.store.page_sessions import PageSessionRepository
from justenough.adapters.store.postgres_connection import StoreLogins
from justenough.adapters.store.queries import CredentialRepository, JobRepository, RequestRepository
from justenough.adapters.store.reviews import ReviewRepository
from justenough.adapters.store.search import SearchRepository
from justenough.adapters.store.session_claims import ClaimRepository
from justenough.adapters.store.tables import PROBES
from justenough.adapters.store.usage import ModelUseRepository, UsageRepository
from justenough.adapters.store.worker_reports import PositiveControlRepository, SweepRepository, TargetCheckRepository, WorkerRepository
from justenough.adapters.store.wrapped_tokens import WrappedTokenRepository


class Store:
    """One database, SQLite or PostgreSQL, by its SQLAlchemy URL.

    Every method of this class and of its repositories may raise StoreUnavailable.
    """

    def __init__(self, url: str, *, listen_url: str | None = None, logins: StoreLogins | None = None) -> None:
        """Prepare a store without connecting. Raises UnusableUrl (a GiveUp).

        `listen_url`: where PostgreSQL can be reached for LISTEN, if `url` is a pooler's. `logins`: user and password, if `url` lacks them.
        """
        opened = engine.open_database(url, listen_url=listen_url, logins=logins)
        self._engine, self._connector = opened.engine, opened.connector
        self._commits = GroupCommitter(self._engine)
        database = self._engine, self._commits
        # The ledger and the outbox.
        self.ledger = LedgerRepository(*database)
        self.outbox = OutboxRepository(*database)
        # The read model.
        self.jobs = JobRepository(*database)
        self.requests = RequestRepository(*database)
        self.credentials = CredentialRepository(*database)
        self.reviews = ReviewRepository(*database)
        self.delegations = DelegationRepository(*database)
        self.inbox = InboxRepository(*database)
        self.search = SearchRepository(*database)
        self.usage = UsageRepository(*database)
        self.model_use = ModelUseRepository(*database)
        self.dashboard = DashboardRepository(*database)
        self.attention = AttentionRepository(*database)
        self.metrics = MetricsRepository(*database)
        # Workers' reports about themselves, sweeps and targets.
        self.workers = WorkerRepository(*database)
        self.sweeps = SweepRepository(*database)
        self.targets = TargetCheckRepository(*database)
        # For running jobs and open pages.
        self.claims = ClaimRepository(*database)
        self.positive_controls = PositiveControlRepository(*database)
        self.wrapped_tokens = WrappedTokenRepository(*database)
        self.bundles = BundleRepository(*database)
        self.logs = LogRepository(*database)
        self.idempotency = IdempotencyRepository(*database)
        self.page_sessions = PageSessionRepository(*database)

    def migrate(self, *, grant: str | None = None) -> migrate.Revisions:
        """Bring the database to this version's schema; return the revisions before and after. Safe when several processes start at once.

        With `grant`, also give that role of PostgreSQL the rights that workers and consoles need. Raises StoreTooNew, StoreUnfit, and
        StoreRightsMissing if our role may not migrate, or lacks a right that workers and consoles need.
        """
        return migrate.migrate(self._engine, grant=grant)

    def inspect(self) -> StoreReport:
        """Return what can be observed of the database, for people who set it up. Changes nothing. Raises StoreRightsMissing, StoreTooNew."""
        return inspect_store(self._engine, self._connector)

    def open_change_feed(self) -> change_feed.ChangeFeed:
        """Return a change feed, which lets one thread wait until it should read the ledger again. Does not connect yet."""
        return change_feed.open_change_feed(self._engine, self._connector)

    def close(self) -> None:
        """Close every connection; a connection that another thread uses is closed when that thread is done with it."""
        engine.close_connections(self._engine)

    def probe_write(self, now: datetime) -> None:
        """Write something, and return once it is committed: a database may answer reads and refuse writes. Raises StoreUnavailable."""

        def write(connection: Connection) -> None:
            if connection.execute(update(PROBES).values(at=now)).rowcount == 0:
                engine.insert_new(connection, PROBES, {"id": 1, "at": now})

        self._commits.run(write)

    def ping(self) -> None:
        """Raise StoreUnavailable if the database does not answer."""
        engine.read(self._engine, lambda connection: connection.execute(select(1)), snapshot=False)
