"""What is owed to whom, in SQL: how far each subscription is, what waits, what is dead, who was told. Decides nothing about when to try again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, func, or_, select, tuple_, update

from justenough.adapters.store.engine import insert_new, upsert
from justenough.adapters.store.ledger_reader import ENTRY_COLUMNS, to_entry_view
from justenough.adapters.store.tables import DELIVERIES, LEASES, LEDGER, SUBSCRIPTIONS, TOLD
from justenough.domain.core.base_model import Message
from justenough.domain.integrations.retry_policy import SentNotice
from justenough.domain.integrations.subscriptions import delivery_id
from justenough.domain.ledger.hash_chain import LedgerEntry
from justenough.domain.readmodel.views import DeliveryView, EntryView

LEASE_NAME = "outbox"
FORGET_AFTER = timedelta(days=7)
"""A subscription that was in no configuration for so long is forgotten, with what waited for it."""


class DeliveryState(StrEnum):
    PENDING = "pending"
    DEAD = "dead"


class OutboxStatus(Message):
    """Whether anybody is to be told anything."""

    head: int
    """The ledger's newest position."""
    positions: Mapping[str, int]
    """How far each subscription is."""
    due: Mapping[str, datetime]
    """When each one's next attempt is, of those that have one."""
    again: frozenset[str] = frozenset()
    """Those for which somebody had a dead letter sent again."""


class OutboxBatch(Message):
    """Entries that a subscription is owed, oldest first."""

    entries: tuple[EntryView, ...]
    attempts: Mapping[int, int] = {}
    """By position, how often each was tried."""
    position: int | None = None
    """Where the subscription is once all of them are settled; None where they are attempts made again."""


class FailedDelivery(Message):
    """One entry that was not delivered, and when it is tried again; never, where that is None."""

    entry: EntryView
    attempts: int
    next_at: datetime | None
    why: str


class Settlement(Message):
    """What became of a batch."""

    subscription: str
    at: datetime
    position: int | None = None
    delivered: tuple[int, ...] = ()
    """Positions."""
    dropped: tuple[int, ...] = ()
    """Positions of which there is nothing to tell any more."""
    failed: tuple[FailedDelivery, ...] = ()
    told: tuple[SentNotice, ...] = ()
    untold: tuple[SentNotice, ...] = ()
    trouble: str | None = None
    """Why nothing can be delivered to it now, where that is not the receiver's doing."""


class SubscriptionProgress(Message):
    """How one subscription stands."""

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
    """When the oldest thing happened that waits for another attempt."""
    behind: int = 0
    """Entries of the ledger that it was not looked up in yet."""
    behind_since: datetime | None = None
    """When the oldest of those happened."""


def lag_of(progress: SubscriptionProgress, now: datetime) -> float:
    """Return for how many seconds the oldest event is owed that is not delivered yet; 0 where there is none."""
    oldest = min((moment for moment in (progress.oldest, progress.behind_since) if moment is not None), default=now)
    return max(0.0, (now - oldest).total_seconds())


def is_held_by(holder: str) -> ColumnElement[bool]:
    """Return what the lease's row says where it is this process's."""
    return and_(LEASES.c.name == LEASE_NAME, LEASES.c.holder == holder)


def acquire_lease(connection: Connection, holder: str, *, now: datetime, until: datetime) -> bool:
    """Take the lease, or keep it; False where another process has it."""
    if insert_new(connection, LEASES, {"name": LEASE_NAME, "holder": holder, "until": until}):
        return True
    free = or_(LEASES.c.holder == holder, LEASES.c.until <= now)
    return connection.execute(update(LEASES).where(LEASES.c.name == LEASE_NAME, free).values(holder=holder, until=until)).rowcount == 1


def has_lease(connection: Connection, holder: str, now: datetime) -> bool:
    """Whether the lease is ours still. Every writer is the only one, so nobody takes it before this transaction ends."""
    return connection.execute(select(LEASES.c.name).where(is_held_by(holder), LEASES.c.until > now)).first() is not None


def keep_subscriptions(connection: Connection, kinds: Mapping[str, str], now: datetime) -> bool:
    """Take down that these subscriptions are configured, and forget those that are lost."""
    head = _newest_position(connection)
    for name, kind in kinds.items():
        insert_new(
            connection, SUBSCRIPTIONS, {"name": name, "kind": kind, "position": head, "created_at": now, "seen_at": now, "delivered": 0}
        )
    connection.execute(update(SUBSCRIPTIONS).where(SUBSCRIPTIONS.c.name.in_(kinds)).values(seen_at=now))
    lost = select(SUBSCRIPTIONS.c.name).where(SUBSCRIPTIONS.c.seen_at < now - FORGET_AFTER)
    for table in (DELIVERIES, TOLD):
        connection.execute(delete(table).where(table.c.subscription.in_(lost)))
    connection.execute(delete(SUBSCRIPTIONS).where(SUBSCRIPTIONS.c.seen_at < now - FORGET_AFTER))
    return True


def _newest_position(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(LEDGER.c.position), 0))).scalar_one())


def status(connection: Connection) -> OutboxStatus:
    """Look what there is to do."""
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


def due_batch(connection: Connection, name: str, *, now: datetime, limit: int) -> OutboxBatch:
    """Return what is to be tried again now."""
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


def next_batch(connection: Connection, kinds: Sequence[str], after: int, limit: int) -> OutboxBatch:
    """Return what comes next of these kinds after a position."""
    wanted = select(LEDGER.c.position, *ENTRY_COLUMNS).where(LEDGER.c.position > after, LEDGER.c.type.in_(kinds))
    rows = connection.execute(wanted.order_by(LEDGER.c.position).limit(limit)).all()
    # Fewer than asked for: there is nothing more for it up to the newest entry of this moment.
    end = rows[-1][0] if len(rows) == limit else max(_newest_position(connection), after)
    return OutboxBatch(entries=tuple(to_entry_view((row[0], LedgerEntry(*row[1:]))) for row in rows), position=end)


def settle(connection: Connection, settlement: Settlement) -> bool:
    """Take down what became of a batch."""
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
        # Never back: what is behind it was told.
        behind = and_(SUBSCRIPTIONS.c.name == name, SUBSCRIPTIONS.c.position < settlement.position)
        connection.execute(update(SUBSCRIPTIONS).where(behind).values(position=settlement.position))
    return True


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


def count_deliveries(connection: Connection, name: str, state: DeliveryState) -> int:
    """Count a subscription's deliveries in a state."""
    wanted = select(func.count()).select_from(DELIVERIES).where(DELIVERIES.c.subscription == name, DELIVERIES.c.state == state.value)
    return int(connection.execute(wanted).scalar_one())


def subscription_progress(connection: Connection) -> tuple[SubscriptionProgress, ...]:
    """Return how each subscription stands."""
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


def _next_entry_time(connection: Connection, position: int) -> datetime | None:
    found = connection.execute(select(LEDGER.c.at).where(LEDGER.c.position > position).order_by(LEDGER.c.position).limit(1)).scalar()
    return datetime.fromisoformat(found) if found else None


def to_delivery_views(rows: Sequence[RowMapping]) -> tuple[DeliveryView, ...]:
    """Return deliveries as they are shown."""
    return tuple(DeliveryView(**row) for row in rows)
