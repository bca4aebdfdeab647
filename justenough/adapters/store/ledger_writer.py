"""The ledger's writer: appends events to their jobs' chains and applies them to the read model, all in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, insert, select

from justenough.adapters.store.change_feed import CHANNEL
from justenough.adapters.store.engine import upsert
from justenough.adapters.store.projection import apply_entry
from justenough.adapters.store.tables import HEADS, LEDGER
from justenough.domain.ledger.events import Event
from justenough.domain.ledger.hash_chain import ChainHead, LedgerEntry, chain_entry, chain_name_of, entry_id

NumberedEntry = tuple[int, LedgerEntry]
"""Position and entry."""

_KNOWN = select(LEDGER.c.id).where(LEDGER.c.id.in_(bindparam("ids", expanding=True)))
_LAST = select(func.coalesce(func.max(LEDGER.c.position), 0))
_LAST_AND_NOTIFY = select(func.coalesce(func.max(LEDGER.c.position), 0), func.pg_notify(CHANNEL, ""))
"""Does the same, and notifies the listeners when the transaction commits.

It is one statement, because a second one would cost a round trip.
"""
_HEAD = select(HEADS.c.job, HEADS.c.seq, HEADS.c.hash).where(HEADS.c.job == bindparam("chain")).with_for_update()
_APPEND = insert(LEDGER)


def record(connection: Connection, events: Sequence[Event]) -> tuple[NumberedEntry, ...]:
    """Append the events that are not recorded yet, in order. Return their entries. The transaction must be the only one that writes."""
    by_id: dict[str, Event] = {}
    for event in events:
        by_id.setdefault(entry_id(event), event)
    known = set(connection.execute(_KNOWN, {"ids": [*by_id]}).scalars()) if by_id else set()
    new = [event for identity, event in by_id.items() if identity not in known]
    if not new:
        return ()
    heads: dict[str, ChainHead | None] = {}
    for job in sorted(set(map(chain_name_of, new))):
        # The row stays locked until the transaction ends. A chain without entries has no such row.
        row = connection.execute(_HEAD, {"chain": job}).first()
        heads[job] = ChainHead(row.job, row.seq, row.hash) if row else None
    last = _LAST_AND_NOTIFY if connection.dialect.name == "postgresql" else _LAST
    position: int = connection.execute(last).one()[0]
    entries: list[NumberedEntry] = []
    for number, event in enumerate(new, start=position + 1):
        entry = chain_entry(event, heads[chain_name_of(event)])
        heads[entry.job] = ChainHead(entry.job, entry.seq, entry.hash)
        entries.append((number, entry))
    connection.execute(_APPEND, [{"position": number, **entry._asdict()} for number, entry in entries])
    upsert(connection, HEADS, [head._asdict() for head in heads.values() if head])
    for _, entry in entries:
        apply_entry(connection, entry)
    return tuple(entries)
