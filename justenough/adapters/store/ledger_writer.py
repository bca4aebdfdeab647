"""The ledger's writer: appends events to their jobs' chains and applies them to the read model, all in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Text,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal_column,
    select,
    union_all,
)

from justenough.adapters.store.change_feed import CHANNEL
from justenough.adapters.store.engine import upsert
from justenough.adapters.store.projection import apply_entry
from justenough.adapters.store.tables import HEADS, LEDGER
from justenough.domain.ledger.events import Event
from justenough.domain.ledger.hash_chain import ChainHead, LedgerEntry, chain_entry, chain_name_of, entry_id

NumberedEntry = tuple[int, LedgerEntry]
"""Position and entry."""

_APPEND = insert(LEDGER)


def _select_before(*, notify: bool) -> CompoundSelect[Any]:
    """Return the statement that reads what was recorded before: which of these entries, the heads of these chains, and the last position.

    It is one statement, because each costs a round trip while all other writers wait. With `notify`, it also notifies the listeners when the
    transaction commits, unless all entries are recorded already.
    """
    known = select(LEDGER.c.id).where(LEDGER.c.id.in_(bindparam("ids", expanding=True))).cte("known")
    # The rows stay locked until the transaction ends. A chain without entries has no such row.
    heads = select(HEADS).where(HEADS.c.job.in_(bindparam("chains", expanding=True))).order_by(HEADS.c.job).with_for_update().cte("heads")
    is_any_new = select(func.count() < bindparam("entries")).select_from(known).scalar_subquery()
    notice = case((is_any_new, cast(func.pg_notify(CHANNEL, ""), Text)), else_=_NOTHING) if notify else _NOTHING
    return union_all(
        select(_kind("known"), known.c.id.label("name"), literal_column("0").label("number"), _NOTHING.label("hash")),
        select(_kind("head"), heads.c.job, heads.c.seq, heads.c.hash),
        select(_kind("last"), _NOTHING, func.coalesce(func.max(LEDGER.c.position), 0), notice),
    )


def _kind(name: str) -> ColumnElement[str]:
    return literal_column(f"'{name}'").label("kind")


_NOTHING: ColumnElement[str] = literal_column("''")
_BEFORE = {"sqlite": _select_before(notify=False), "postgresql": _select_before(notify=True)}


def record(connection: Connection, events: Sequence[Event]) -> tuple[NumberedEntry, ...]:
    """Append the events that are not recorded yet, in order. Return their entries. The transaction must be the only one that writes."""
    by_id: dict[str, Event] = {}
    for event in events:
        by_id.setdefault(entry_id(event), event)
    if not by_id:
        return ()
    chains = sorted(set(map(chain_name_of, by_id.values())))
    rows = connection.execute(_BEFORE[connection.dialect.name], {"ids": [*by_id], "chains": chains, "entries": len(by_id)}).all()
    known = {row.name for row in rows if row.kind == "known"}
    new = [event for identity, event in by_id.items() if identity not in known]
    if not new:
        return ()
    heads: dict[str, ChainHead] = {row.name: ChainHead(row.name, row.number, row.hash) for row in rows if row.kind == "head"}
    (position,) = (row.number for row in rows if row.kind == "last")
    entries: list[NumberedEntry] = []
    for number, event in enumerate(new, start=position + 1):
        entry = chain_entry(event, heads.get(chain_name_of(event)))
        heads[entry.job] = ChainHead(entry.job, entry.seq, entry.hash)
        entries.append((number, entry))
    connection.execute(_APPEND, [{"position": number, **entry._asdict()} for number, entry in entries])
    upsert(connection, HEADS, [heads[job]._asdict() for job in {entry.job: None for _, entry in entries}])
    for _, entry in entries:
        apply_entry(connection, entry)
    return tuple(entries)
