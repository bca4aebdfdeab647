"""The outbox's one door: the ledger is what is to be told, and here is how far everybody is. Blocking, as the store is.

One process delivers at a time: whatever it settles counts only while it holds the lease, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Connection, Engine, and_, delete, select, update

from justenough.adapters.store import outbox_queries
from justenough.adapters.store.engine import read_transaction
from justenough.adapters.store.group_commit import GroupCommitter
from justenough.adapters.store.outbox_queries import DeliveryState, OutboxBatch, OutboxStatus, Settlement, SubscriptionProgress
from justenough.adapters.store.paging import fetch_page
from justenough.adapters.store.tables import DELIVERIES, LEASES, TOLD
from justenough.domain.integrations.retry_policy import SentNotice
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import DeliveryView, Page

T = TypeVar("T")


class Outbox:
    """The outbox's tables. Every method may raise StoreUnavailable."""

    def __init__(self, engine: Engine, commits: GroupCommitter) -> None:
        self._engine = engine
        self._commits = commits

    # Who delivers.

    def acquire_lease(self, holder: str, *, now: datetime, until: datetime) -> bool:
        """Take the lease, or keep it; False where another process has it."""
        return self._commits.run(lambda connection: outbox_queries.acquire_lease(connection, holder, now=now, until=until))

    def release_lease(self, holder: str) -> None:
        """Give the lease up, where it is ours."""
        self._commits.run(lambda connection: connection.execute(delete(LEASES).where(outbox_queries.is_held_by(holder))).rowcount)

    def keep_subscriptions(self, kinds: Mapping[str, str], *, holder: str, now: datetime) -> bool:
        """Take down that these subscriptions (kinds by name) are configured: a new one is told from now on. False, and nothing done, without the lease."""
        return self._commits.run(
            lambda connection: (
                outbox_queries.has_lease(connection, holder, now) and outbox_queries.keep_subscriptions(connection, kinds, now)
            )
        )

    # What is owed.

    def status(self) -> OutboxStatus:
        """Look whether there is anything to do; cheap."""
        return self._read(outbox_queries.status)

    def due_batch(self, name: str, *, now: datetime, limit: int) -> OutboxBatch:
        """Return what is to be tried again now."""
        return self._read(lambda connection: outbox_queries.due_batch(connection, name, now=now, limit=limit))

    def next_batch(self, kinds: Collection[EventType], *, after: int, limit: int) -> OutboxBatch:
        """Return what comes next of these kinds after a position."""
        return self._read(lambda connection: outbox_queries.next_batch(connection, [kind.value for kind in kinds], after, limit))

    def count_pending(self, name: str) -> int:
        """Count what waits for another attempt."""
        return self._read(lambda connection: outbox_queries.count_deliveries(connection, name, DeliveryState.PENDING))

    def unsettled_notices(self, name: str, job: str) -> tuple[SentNotice, ...]:
        """Return who was told of something of a job's that is not settled."""
        wanted = select(TOLD.c.about, TOLD.c.target, TOLD.c.tier, TOLD.c.job).where(TOLD.c.subscription == name, TOLD.c.job == job)
        rows = self._read(lambda connection: connection.execute(wanted.order_by(TOLD.c.about, TOLD.c.target)).mappings().all())
        return tuple(SentNotice(**row) for row in rows)

    def settle(self, settlement: Settlement, *, holder: str) -> bool:
        """Take down what became of a batch; False, and nothing done, where the lease was lost meanwhile."""
        return self._commits.run(
            lambda connection: outbox_queries.has_lease(connection, holder, settlement.at) and outbox_queries.settle(connection, settlement)
        )

    # What people see and do.

    def subscription_progress(self) -> tuple[SubscriptionProgress, ...]:
        """Return how each subscription stands."""
        return self._read(outbox_queries.subscription_progress)

    def deliveries(self, name: str, *, state: DeliveryState | None, limit: int, cursor: str | None) -> Page[DeliveryView]:
        """Return what waits or is dead, the newest event first. Raises InvalidInput on a cursor that is not ours."""
        wanted = select(DELIVERIES).where(DELIVERIES.c.subscription == name)
        if state is not None:
            wanted = wanted.where(DELIVERIES.c.state == state.value)
        by = (DELIVERIES.c.at, DELIVERIES.c.id)
        return self._read(
            lambda connection: fetch_page(connection, wanted, by=by, limit=limit, cursor=cursor, views=outbox_queries.to_delivery_views)
        )

    def resend(self, name: str, ids: Collection[str] | None, *, now: datetime) -> int:
        """Have dead letters tried again as if they were new, all of them where `ids` is None; return how many."""
        theirs = and_(DELIVERIES.c.subscription == name, DELIVERIES.c.state == DeliveryState.DEAD.value)
        if ids is not None:
            theirs = and_(theirs, DELIVERIES.c.id.in_(ids))
        again = update(DELIVERIES).where(theirs).values(state=DeliveryState.PENDING.value, attempts=0, next_at=now)
        return self._commits.run(lambda connection: connection.execute(again).rowcount)

    def _read(self, question: Callable[[Connection], T]) -> T:
        with read_transaction(self._engine) as connection:
            return question(connection)
