"""The outbox: how far each subscription has read the ledger, which deliveries are pending or dead, and who was notified.

One process delivers at a time: it can settle a batch only while it holds the lease. Does not decide when to try again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, and_, case, delete, exists, func, literal, or_, select, tuple_, update

from justenough.adapters.store.engine import insert_new, upsert
from justenough.adapters.store.ledger_repository import ENTRY_COLUMNS, row_to_view
from justenough.adapters.store.paging import fetch_page
from justenough.adapters.store.repository import Repository, count_rows, fetch_all, has_type, newest_position, reads, reads_snapshot, writes
from justenough.adapters.store.tables import DELIVERIES, LEASES, LEDGER, SUBSCRIPTIONS, TOLD, UtcDateTime
from justenough.domain.approvals.statements import MAX_CLOCK_SKEW
from justenough.domain.core.base_model import Message
from justenough.domain.integrations.retry_policy import SentNotice
from justenough.domain.integrations.triggers import delivery_id
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import DeliveryView, EntryView, Page

LEASE_NAME = "outbox"
FORGET_AFTER = timedelta(days=7)
"""A subscription that has not been configured for this long is deleted, with its deliveries."""


class DeliveryState(StrEnum):
    PENDING = "pending"
    DEAD = "dead"


class OutboxStatus(Message):
    """The progress of each subscription, and its next attempt."""

    head: int
    """The ledger's newest position."""
    positions: Mapping[str, int]
    """The position that each subscription has reached."""
    due: Mapping[str, datetime]
    """The time of the next attempt, for each subscription that has one."""
    again: Mapping[str, datetime] = {}
    """When someone last queued dead letters again, for each subscription with some that were not tried since."""


class OutboxBatch(Message):
    """Entries to deliver to a subscription, oldest first."""

    entries: tuple[EntryView, ...]
    attempts: Mapping[int, int] = {}
    """Attempts so far, by position."""
    position: int | None = None
    """The position that the subscription reaches once all entries are settled; None if these are repeated attempts."""
    entry_id: str | None = None
    """The id of the entry at `position`."""


class FailedDelivery(Message):
    """One entry that was not delivered. `next_at` is None if it is not tried again."""

    entry: EntryView
    attempts: int
    next_at: datetime | None
    why: str


class Settlement(Message):
    """The outcome of a batch."""

    subscription: str
    at: datetime
    position: int | None = None
    entry_id: str | None = None
    """The id that the entry at `position` must still have; None if nobody needs to check it."""
    delivered: tuple[int, ...] = ()
    """Positions of entries that were delivered."""
    dropped: tuple[int, ...] = ()
    """Positions of entries that no longer need a delivery."""
    failed: tuple[FailedDelivery, ...] = ()
    sent_notices: tuple[SentNotice, ...] = ()
    settled_notices: tuple[SentNotice, ...] = ()
    trouble: str | None = None
    """Why nothing can be delivered now, for causes other than the receiver."""

    @property
    def why(self) -> str | None:
        """Why the last delivery failed, or why nothing can be delivered now; None if nothing failed."""
        return self.trouble or (self.failed[-1].why if self.failed else None)


class SubscriptionProgress(Message):
    name: str
    kind: str
    created_at: datetime
    seen_at: datetime
    position: int
    delivered: int
    delivered_at: datetime | None
    failed_at: datetime | None
    why: str | None
    pending: int = 0
    dead: int = 0
    oldest: datetime | None = None
    """When the oldest pending event happened."""
    behind: int = 0
    """Ledger entries that the subscription has not read yet."""
    behind_since: datetime | None = None
    """When the oldest of those events happened."""


def lag_of(progress: SubscriptionProgress, now: datetime) -> float:
    """Return the age of the oldest undelivered event in seconds; 0 if there is none."""
    oldest = min((moment for moment in (progress.oldest, progress.behind_since) if moment is not None), default=now)
    return max(0.0, (now - oldest).total_seconds())


class OutboxRepository(Repository):
    @writes
    def acquire_lease(self, connection: Connection, holder: str, *, now: datetime, until: datetime) -> bool:
        """Take or extend the lease. False if another process holds it."""
        if insert_new(connection, LEASES, {"name": LEASE_NAME, "holder": holder, "until": until}):
            return True
        # A lease that ends too late comes from a wrong clock. Its holder may be dead, and then nobody would deliver until that time.
        free = or_(LEASES.c.holder == holder, LEASES.c.until <= now, LEASES.c.until > until + MAX_CLOCK_SKEW)
        return connection.execute(update(LEASES).where(LEASES.c.name == LEASE_NAME, free).values(holder=holder, until=until)).rowcount == 1

    @writes
    def release_lease(self, connection: Connection, holder: str) -> None:
        """Give up the lease if this process holds it."""
        connection.execute(delete(LEASES).where(LEASES.c.name == LEASE_NAME, LEASES.c.holder == holder))

    @writes
    def keep_subscriptions(self, connection: Connection, kinds: Mapping[str, str], *, holder: str, now: datetime) -> bool:
        """Store which subscriptions (kinds by name) are configured, and delete those that were in no configuration for FORGET_AFTER.

        A new subscription begins at the ledger's end. Deliveries that failed while a clock was ahead become due. Return False, and change
        nothing, without the lease.
        """
        if not _has_lease(connection, holder, now):
            return False
        is_pending = DELIVERIES.c.subscription.in_(kinds) & (DELIVERIES.c.state == DeliveryState.PENDING.value)
        connection.execute(update(DELIVERIES).where(is_pending, DELIVERIES.c.last_at > now).values(next_at=now))
        begin = {"position": newest_position(connection), "created_at": now, "seen_at": now, "delivered": 0}
        for name, kind in kinds.items():
            insert_new(connection, SUBSCRIPTIONS, {"name": name, "kind": kind, **begin})
            # A subscription of the other kind may be given the name, and continues at its position.
            connection.execute(update(SUBSCRIPTIONS).where(SUBSCRIPTIONS.c.name == name).values(kind=kind, seen_at=now))
        lost = select(SUBSCRIPTIONS.c.name).where(SUBSCRIPTIONS.c.seen_at < now - FORGET_AFTER)
        for table in (DELIVERIES, TOLD):
            connection.execute(delete(table).where(table.c.subscription.in_(lost)))
        connection.execute(delete(SUBSCRIPTIONS).where(SUBSCRIPTIONS.c.seen_at < now - FORGET_AFTER))
        return True

    @reads_snapshot
    def status(self, connection: Connection) -> OutboxStatus:
        """Return the progress of each subscription, and its next attempt. Cheap."""
        positions = connection.execute(select(SUBSCRIPTIONS.c.name, SUBSCRIPTIONS.c.position)).all()
        resent_at = case((DELIVERIES.c.attempts == 0, DELIVERIES.c.next_at))
        waiting = select(DELIVERIES.c.subscription, func.min(DELIVERIES.c.next_at), func.max(resent_at))
        # Select by name, so that the index is used: there may be many dead letters.
        ours = DELIVERIES.c.subscription.in_([row[0] for row in positions])
        waiting = waiting.where(ours, DELIVERIES.c.state == DeliveryState.PENDING.value).group_by(DELIVERIES.c.subscription)
        rows = connection.execute(waiting).all()
        return OutboxStatus(
            head=newest_position(connection),
            positions={row[0]: row[1] for row in positions},
            due={row[0]: row[1] for row in rows},
            again={row[0]: row[2] for row in rows if row[2] is not None},
        )

    @reads
    def due_batch(self, connection: Connection, name: str, *, now: datetime, limit: int) -> OutboxBatch:
        """Return the deliveries that are due for another attempt."""
        statement = (
            select(DELIVERIES.c.attempts, LEDGER.c.position, *ENTRY_COLUMNS)
            .join(LEDGER, LEDGER.c.position == DELIVERIES.c.position)
            .where(DELIVERIES.c.subscription == name, DELIVERIES.c.state == DeliveryState.PENDING.value, DELIVERIES.c.next_at <= now)
            .order_by(DELIVERIES.c.next_at, DELIVERIES.c.position)
            .limit(limit)
        )
        rows = sorted(connection.execute(statement).all(), key=lambda row: row.position)
        return OutboxBatch(entries=tuple(row_to_view(row[1:]) for row in rows), attempts={row[1]: row[0] for row in rows})

    @reads_snapshot
    def next_batch(self, connection: Connection, kinds: Collection[EventType], *, after: int, limit: int) -> OutboxBatch:
        """Return the next entries of these types after a position."""
        following = (LEDGER.c.position > after, has_type(kinds))
        statement = select(LEDGER.c.position, *ENTRY_COLUMNS).where(*following).order_by(LEDGER.c.position).limit(limit)
        rows = connection.execute(statement).all()
        # Fewer entries than `limit` mean that no further ones exist up to the newest entry.
        end = rows[-1][0] if len(rows) == limit else max(newest_position(connection), after)
        return OutboxBatch(entries=tuple(map(row_to_view, rows)), position=end, entry_id=_entry_id(connection, end))

    @writes
    def settle(self, connection: Connection, settlement: Settlement, *, holder: str) -> bool:
        """Store the outcome of a batch. Return False, and change nothing, if the lease has been lost, or the entries: the store was restored."""
        newest, found = newest_position(connection), _entry_id(connection, settlement.position)
        if (
            (settlement.position or 0) > newest
            or settlement.entry_id not in {None, found}
            or not _has_lease(connection, holder, settlement.at)
        ):
            return False
        name = settlement.subscription
        ids = [delivery_id(name, position) for position in (*settlement.delivered, *settlement.dropped)]
        connection.execute(delete(DELIVERIES).where(DELIVERIES.c.id.in_(ids)))
        if settlement.failed:
            upsert(connection, DELIVERIES, [_delivery_row(name, settlement.at, failure) for failure in settlement.failed])
        if settlement.settled_notices:
            ended = [(notice.about, notice.target) for notice in settlement.settled_notices]
            connection.execute(delete(TOLD).where(TOLD.c.subscription == name, tuple_(TOLD.c.about, TOLD.c.target).in_(ended)))
        if settlement.sent_notices:
            notices = {(notice.about, notice.target): {"subscription": name, **asdict(notice)} for notice in settlement.sent_notices}
            upsert(connection, TOLD, list(notices.values()))
        values: dict[str, Any] = {}
        if settlement.delivered:
            values |= {"delivered": SUBSCRIPTIONS.c.delivered + len(settlement.delivered), "delivered_at": settlement.at}
        if settlement.delivered or settlement.dropped:
            values |= {"why": None}
        if settlement.why is not None:
            # The same trouble as before is not a new failure: an acknowledgement of it stays.
            is_same = SUBSCRIPTIONS.c.why == (settlement.trouble or "")
            failed_at = case((is_same, SUBSCRIPTIONS.c.failed_at), else_=literal(settlement.at, UtcDateTime))
            values |= {"failed_at": failed_at, "why": settlement.why}
        if values:
            connection.execute(update(SUBSCRIPTIONS).where(SUBSCRIPTIONS.c.name == name).values(**values))
        if settlement.position is not None:
            # Never move the position backwards, because earlier entries were delivered. One beyond the ledger's end is from lost entries.
            behind = and_(SUBSCRIPTIONS.c.name == name, ~SUBSCRIPTIONS.c.position.between(settlement.position, newest))
            connection.execute(update(SUBSCRIPTIONS).where(behind).values(position=settlement.position))
            # The position moves only if something could be sent. So if no failed delivery is left, the subscription is healthy again.
            has_failed = exists().where(DELIVERIES.c.subscription == name)
            connection.execute(update(SUBSCRIPTIONS).where(SUBSCRIPTIONS.c.name == name, ~has_failed).values(why=None))
        return True

    @reads_snapshot
    def subscription_progress(self, connection: Connection) -> tuple[SubscriptionProgress, ...]:
        statement = select(DELIVERIES.c.subscription, DELIVERIES.c.state, func.count(), func.min(DELIVERIES.c.at))
        counts = {
            (row[0], row[1]): row[2:] for row in connection.execute(statement.group_by(DELIVERIES.c.subscription, DELIVERIES.c.state))
        }
        head, progress = newest_position(connection), list[SubscriptionProgress]()
        for row in connection.execute(select(SUBSCRIPTIONS).order_by(SUBSCRIPTIONS.c.name)).mappings().all():
            pending, oldest = counts.get((row["name"], DeliveryState.PENDING.value), (0, None))
            dead, _ = counts.get((row["name"], DeliveryState.DEAD.value), (0, None))
            next_entry = select(LEDGER.c.at).where(LEDGER.c.position > row["position"]).order_by(LEDGER.c.position).limit(1)
            behind, behind_since = max(0, head - row["position"]), connection.execute(next_entry).scalar()
            progress.append(
                SubscriptionProgress(**row, pending=pending, dead=dead, oldest=oldest, behind=behind, behind_since=behind_since)
            )
        return tuple(progress)

    @reads
    def count_pending(self, connection: Connection, name: str) -> int:
        return count_rows(connection, DELIVERIES, DELIVERIES.c.subscription == name, DELIVERIES.c.state == DeliveryState.PENDING.value)

    @reads
    def unsettled_notices(self, connection: Connection, name: str, job: str) -> tuple[SentNotice, ...]:
        """Return the notices about requests of this job that are not settled."""
        notices = select(TOLD.c.about, TOLD.c.target, TOLD.c.tier, TOLD.c.job).where(TOLD.c.subscription == name, TOLD.c.job == job)
        return fetch_all(connection, notices.order_by(TOLD.c.about, TOLD.c.target), SentNotice)

    @reads
    def deliveries(
        self, connection: Connection, name: str, *, state: DeliveryState | None, limit: int, cursor: str | None
    ) -> Page[DeliveryView]:
        """Return waiting and dead deliveries, those of the newest events first. Raises InvalidInput if the cursor is not from this list."""
        statement = select(DELIVERIES).where(DELIVERIES.c.subscription == name)
        if state is not None:
            statement = statement.where(DELIVERIES.c.state == state.value)
        by = (DELIVERIES.c.at, DELIVERIES.c.id)
        return fetch_page(connection, statement, by=by, limit=limit, cursor=cursor, view=DeliveryView)

    @writes
    def resend(self, connection: Connection, name: str, ids: Collection[str] | None, *, now: datetime) -> int:
        """Queue dead letters again as new, all of them if `ids` is None. Return how many."""
        dead = and_(DELIVERIES.c.subscription == name, DELIVERIES.c.state == DeliveryState.DEAD.value)
        if ids is not None:
            dead = and_(dead, DELIVERIES.c.id.in_(ids))
        again = update(DELIVERIES).where(dead).values(state=DeliveryState.PENDING.value, attempts=0, next_at=now)
        return connection.execute(again).rowcount


def _entry_id(connection: Connection, position: int | None) -> str | None:
    return connection.execute(select(LEDGER.c.id).where(LEDGER.c.position == position)).scalar()


def _has_lease(connection: Connection, holder: str, now: datetime) -> bool:
    """Whether this process holds the lease.

    No other process can take it before this transaction ends, because only one process writes at a time.
    """
    return count_rows(connection, LEASES, LEASES.c.name == LEASE_NAME, LEASES.c.holder == holder, LEASES.c.until > now) > 0


def _delivery_row(name: str, now: datetime, failure: FailedDelivery) -> dict[str, Any]:
    entry = failure.entry
    state = DeliveryState.DEAD if failure.next_at is None else DeliveryState.PENDING
    ids = {"id": delivery_id(name, entry.position), "subscription": name, "event": entry.id}
    event, attempt = entry.model_dump(include={"position", "type", "job", "at"}), failure.model_dump(include={"attempts", "next_at", "why"})
    return {**ids, **event, **attempt, "state": state.value, "last_at": now}
