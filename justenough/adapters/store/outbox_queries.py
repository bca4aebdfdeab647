"""The outbox: how far each subscription has read the ledger, which deliveries wait or are dead, who was notified.

One process delivers at a time: what it settles counts only while it holds the lease, in the same transaction. Decides nothing about when
to try again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select, tuple_, update

from justenough.adapters.store.engine import insert_new, upsert
from justenough.adapters.store.ledger_repository import ENTRY_COLUMNS, to_entry_view
from justenough.adapters.store.paging import fetch_page
from justenough.adapters.store.repository import Repository, reads, writes
from justenough.adapters.store.tables import DELIVERIES, LEASES, LEDGER, SUBSCRIPTIONS, TOLD
from justenough.domain.core.base_model import Message
from justenough.domain.integrations.retry_policy import SentNotice
from justenough.domain.integrations.subscriptions import delivery_id
from justenough.domain.ledger.events import EventType
from justenough.domain.ledger.hash_chain import LedgerEntry
from justenough.domain.readmodel.views import DeliveryView, EntryView, Page

LEASE_NAME = "outbox"
FORGET_AFTER = timedelta(days=7)
"""A subscription that was in no configuration for so long is deleted, with its deliveries."""


class DeliveryState(StrEnum):
    PENDING = "pending"
    DEAD = "dead"


class OutboxStatus(Message):
    """Whether there is anything to deliver."""

    head: int
    """The ledger's newest position."""
    positions: Mapping[str, int]
    """The position that each subscription has reached."""
    due: Mapping[str, datetime]
    """The time of the next attempt, for each subscription that has one."""
    again: frozenset[str] = frozenset()
    """Subscriptions for which someone queued dead letters again."""


class OutboxBatch(Message):
    """Entries to deliver to a subscription, oldest first."""

    entries: tuple[EntryView, ...]
    attempts: Mapping[int, int] = {}
    """Attempts so far, by position."""
    position: int | None = None
    """The position that the subscription reaches once all are settled; None if these are further attempts."""


class FailedDelivery(Message):
    """One entry that was not delivered, and when to try again. None stands for never."""

    entry: EntryView
    attempts: int
    next_at: datetime | None
    why: str


class Settlement(Message):
    """The outcome of a batch."""

    subscription: str
    at: datetime
    position: int | None = None
    delivered: tuple[int, ...] = ()
    """Positions."""
    dropped: tuple[int, ...] = ()
    """Positions of entries that no longer need a delivery."""
    failed: tuple[FailedDelivery, ...] = ()
    told: tuple[SentNotice, ...] = ()
    untold: tuple[SentNotice, ...] = ()
    trouble: str | None = None
    """Why nothing can be delivered now, if the receiver is not the cause."""


class SubscriptionProgress(Message):
    """The progress of one subscription."""

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
    """When the oldest event happened that waits for another attempt."""
    behind: int = 0
    """Ledger entries that the subscription has not read yet."""
    behind_since: datetime | None = None
    """When the oldest of those events happened."""


def lag_of(progress: SubscriptionProgress, now: datetime) -> float:
    """Return the age of the oldest undelivered event in seconds; 0 if there is none."""
    oldest = min((moment for moment in (progress.oldest, progress.behind_since) if moment is not None), default=now)
    return max(0.0, (now - oldest).total_seconds())


class OutboxRepository(Repository):
    """The tables of the outbox."""

    @writes
    def acquire_lease(self, connection: Connection, holder: str, *, now: datetime, until: datetime) -> bool:
        """Take or extend the lease. False if another process holds it."""
        if insert_new(connection, LEASES, {"name": LEASE_NAME, "holder": holder, "until": until}):
            return True
        free = or_(LEASES.c.holder == holder, LEASES.c.until <= now)
        return connection.execute(update(LEASES).where(LEASES.c.name == LEASE_NAME, free).values(holder=holder, until=until)).rowcount == 1

    @writes
    def release_lease(self, connection: Connection, holder: str) -> None:
        """Give up the lease if this process holds it."""
        connection.execute(delete(LEASES).where(_is_held_by(holder)))

    @writes
    def keep_subscriptions(self, connection: Connection, kinds: Mapping[str, str], *, holder: str, now: datetime) -> bool:
        """Store which subscriptions (kinds by name) are configured, and delete those that were in no configuration for FORGET_AFTER.

        A new subscription begins at the ledger's end. Return False, and change nothing, without the lease.
        """
        if not _has_lease(connection, holder, now):
            return False
        begin = {"position": _newest_position(connection), "created_at": now, "seen_at": now, "delivered": 0}
        for name, kind in kinds.items():
            insert_new(connection, SUBSCRIPTIONS, {"name": name, "kind": kind, **begin})
        connection.execute(update(SUBSCRIPTIONS).where(SUBSCRIPTIONS.c.name.in_(kinds)).values(seen_at=now))
        lost = select(SUBSCRIPTIONS.c.name).where(SUBSCRIPTIONS.c.seen_at < now - FORGET_AFTER)
        for table in (DELIVERIES, TOLD):
            connection.execute(delete(table).where(table.c.subscription.in_(lost)))
        connection.execute(delete(SUBSCRIPTIONS).where(SUBSCRIPTIONS.c.seen_at < now - FORGET_AFTER))
        return True

    @reads
    def status(self, connection: Connection) -> OutboxStatus:
        """Return how far each subscription is and what is due. Cheap."""
        positions = connection.execute(select(SUBSCRIPTIONS.c.name, SUBSCRIPTIONS.c.position)).all()
        waiting = select(DELIVERIES.c.subscription, func.min(DELIVERIES.c.next_at), func.min(DELIVERIES.c.attempts))
        waiting = waiting.where(DELIVERIES.c.state == DeliveryState.PENDING.value).group_by(DELIVERIES.c.subscription)
        rows = connection.execute(waiting).all()
        return OutboxStatus(
            head=_newest_position(connection),
            positions={row[0]: row[1] for row in positions},
            due={row[0]: row[1] for row in rows},
            again=frozenset(row[0] for row in rows if row[2] == 0),
        )

    @reads
    def due_batch(self, connection: Connection, name: str, *, now: datetime, limit: int) -> OutboxBatch:
        """Return the deliveries that are due for another attempt."""
        wanted = (
            select(DELIVERIES.c.attempts, LEDGER.c.position, *ENTRY_COLUMNS)
            .join(LEDGER, LEDGER.c.position == DELIVERIES.c.position)
            .where(DELIVERIES.c.subscription == name, DELIVERIES.c.state == DeliveryState.PENDING.value, DELIVERIES.c.next_at <= now)
            .order_by(DELIVERIES.c.next_at, DELIVERIES.c.position)
            .limit(limit)
        )
        rows = connection.execute(wanted).all()
        entries = sorted((to_entry_view((row[1], LedgerEntry(*row[2:]))) for row in rows), key=lambda entry: entry.position)
        return OutboxBatch(entries=tuple(entries), attempts={row[1]: row[0] for row in rows})

    @reads
    def next_batch(self, connection: Connection, kinds: Collection[EventType], *, after: int, limit: int) -> OutboxBatch:
        """Return the next entries of these types after a position."""
        wanted = select(LEDGER.c.position, *ENTRY_COLUMNS).where(
            LEDGER.c.position > after, LEDGER.c.type.in_([kind.value for kind in kinds])
        )
        rows = connection.execute(wanted.order_by(LEDGER.c.position).limit(limit)).all()
        # Fewer than `limit`: up to the newest entry of this moment there are no others.
        end = rows[-1][0] if len(rows) == limit else max(_newest_position(connection), after)
        return OutboxBatch(entries=tuple(to_entry_view((row[0], LedgerEntry(*row[1:]))) for row in rows), position=end)

    @writes
    def settle(self, connection: Connection, settlement: Settlement, *, holder: str) -> bool:
        """Store the outcome of a batch. Return False, and change nothing, if the lease was lost meanwhile."""
        if not _has_lease(connection, holder, settlement.at):
            return False
        name = settlement.subscription
        ids = [delivery_id(name, position) for position in (*settlement.delivered, *settlement.dropped)]
        connection.execute(delete(DELIVERIES).where(DELIVERIES.c.id.in_(ids)))
        if settlement.failed:
            upsert(connection, DELIVERIES, [_delivery_row(name, settlement.at, failure) for failure in settlement.failed])
        _settle_notices(connection, name, settlement)
        values: dict[str, Any] = {}
        if settlement.delivered:
            values |= {"delivered": SUBSCRIPTIONS.c.delivered + len(settlement.delivered), "delivered_at": settlement.at}
        if settlement.delivered or settlement.dropped:
            values |= {"why": None}
        if settlement.failed:
            values |= {"failed_at": settlement.at, "why": settlement.failed[-1].why}
        if settlement.trouble is not None:
            values |= {"failed_at": settlement.at, "why": settlement.trouble}
        if values:
            connection.execute(update(SUBSCRIPTIONS).where(SUBSCRIPTIONS.c.name == name).values(**values))
        if settlement.position is not None:
            # Never backwards: earlier entries were delivered.
            behind = and_(SUBSCRIPTIONS.c.name == name, SUBSCRIPTIONS.c.position < settlement.position)
            connection.execute(update(SUBSCRIPTIONS).where(behind).values(position=settlement.position))
        return True

    @reads
    def subscription_progress(self, connection: Connection) -> tuple[SubscriptionProgress, ...]:
        """Return the progress of each subscription."""
        wanted = select(DELIVERIES.c.subscription, DELIVERIES.c.state, func.count(), func.min(DELIVERIES.c.at))
        counts = {(row[0], row[1]): row[2:] for row in connection.execute(wanted.group_by(DELIVERIES.c.subscription, DELIVERIES.c.state))}
        head = _newest_position(connection)

        def to_progress(row: Mapping[str, Any]) -> SubscriptionProgress:
            pending, dead = (counts.get((row["name"], state.value), (0, None)) for state in (DeliveryState.PENDING, DeliveryState.DEAD))
            return SubscriptionProgress(
                **row,
                pending=pending[0],
                dead=dead[0],
                oldest=pending[1],
                behind=max(0, head - row["position"]),
                behind_since=_next_entry_time(connection, row["position"]),
            )

        rows = connection.execute(select(SUBSCRIPTIONS).order_by(SUBSCRIPTIONS.c.name)).mappings().all()
        return tuple(to_progress(dict(row)) for row in rows)

    @reads
    def count_pending(self, connection: Connection, name: str) -> int:
        """Count the subscription's deliveries that wait for another attempt."""
        pending = (DELIVERIES.c.subscription == name, DELIVERIES.c.state == DeliveryState.PENDING.value)
        return int(connection.execute(select(func.count()).select_from(DELIVERIES).where(*pending)).scalar_one())

    @reads
    def unsettled_notices(self, connection: Connection, name: str, job: str) -> tuple[SentNotice, ...]:
        """Return who was notified of requests of this job that are not settled."""
        notices = select(TOLD.c.about, TOLD.c.target, TOLD.c.tier, TOLD.c.job).where(TOLD.c.subscription == name, TOLD.c.job == job)
        return tuple(SentNotice(**row) for row in connection.execute(notices.order_by(TOLD.c.about, TOLD.c.target)).mappings())

    @reads
    def deliveries(
        self, connection: Connection, name: str, *, state: DeliveryState | None, limit: int, cursor: str | None
    ) -> Page[DeliveryView]:
        """Return waiting and dead deliveries, those of the newest events first. Raises InvalidInput on a foreign cursor."""
        wanted = select(DELIVERIES).where(DELIVERIES.c.subscription == name)
        if state is not None:
            wanted = wanted.where(DELIVERIES.c.state == state.value)
        by = (DELIVERIES.c.at, DELIVERIES.c.id)
        return fetch_page(connection, wanted, by=by, limit=limit, cursor=cursor, views=lambda rows: [DeliveryView(**row) for row in rows])

    @writes
    def resend(self, connection: Connection, name: str, ids: Collection[str] | None, *, now: datetime) -> int:
        """Queue dead letters again as new, all of them if `ids` is None. Return how many."""
        dead = and_(DELIVERIES.c.subscription == name, DELIVERIES.c.state == DeliveryState.DEAD.value)
        if ids is not None:
            dead = and_(dead, DELIVERIES.c.id.in_(ids))
        again = update(DELIVERIES).where(dead).values(state=DeliveryState.PENDING.value, attempts=0, next_at=now)
        return connection.execute(again).rowcount


def _is_held_by(holder: str) -> ColumnElement[bool]:
    return and_(LEASES.c.name == LEASE_NAME, LEASES.c.holder == holder)


def _has_lease(connection: Connection, holder: str, now: datetime) -> bool:
    """Whether this process holds the lease. No other can take it before this transaction ends, as only one writes at a time."""
    return connection.execute(select(LEASES.c.name).where(_is_held_by(holder), LEASES.c.until > now)).first() is not None


def _newest_position(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(LEDGER.c.position), 0))).scalar_one())


def _settle_notices(connection: Connection, name: str, settlement: Settlement) -> None:
    ended = [(one.about, one.target) for one in settlement.untold]
    if ended:
        connection.execute(delete(TOLD).where(TOLD.c.subscription == name, tuple_(TOLD.c.about, TOLD.c.target).in_(ended)))
    if settlement.told:
        rows = {(one.about, one.target): one for one in settlement.told}.values()
        upsert(
            connection,
            TOLD,
            [{"subscription": name, "about": one.about, "target": one.target, "tier": one.tier, "job": one.job} for one in rows],
        )


def _delivery_row(name: str, now: datetime, failure: FailedDelivery) -> dict[str, Any]:
    entry = failure.entry
    return {
        "id": delivery_id(name, entry.position),
        "subscription": name,
        "position": entry.position,
        "event": entry.id,
        "type": entry.type,
        "job": entry.job,
        "at": entry.at,
        "state": (DeliveryState.DEAD if failure.next_at is None else DeliveryState.PENDING).value,
        "attempts": failure.attempts,
        "next_at": failure.next_at,
        "last_at": now,
        "why": failure.why,
    }


def _next_entry_time(connection: Connection, position: int) -> datetime | None:
    found = connection.execute(select(LEDGER.c.at).where(LEDGER.c.position > position).order_by(LEDGER.c.position).limit(1)).scalar()
    return datetime.fromisoformat(found) if found else None
