"""One thing's own entries, one entry, and whose jobs these are: what a page shows beside a list. Reads only, each by an index."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, or_, select

from activities.store.audit import FIELDS, view
from activities.store.tables import JOBS, LEDGER
from justenough.ledger import Entry
from justenough.views import EntryView

MOST = 200
"""Entries of one type that a story holds at most."""


class Whose(NamedTuple):
    """What lists say of a job beside its id."""

    name: str
    requester: str
    """Login name."""
    requester_id: str


def entry(connection: Connection, name: str) -> EntryView | None:
    """Return an entry by its id."""
    # NUL is in no row, and PostgreSQL refuses to look for it.
    wanted = select(LEDGER.c.position, *FIELDS).where(LEDGER.c.id == name.replace("\0", "\ufffd"))
    row = connection.execute(wanted).first()
    return view((row[0], Entry(*row[1:]))) if row else None


def story(connection: Connection, job: str, types: Iterable[str], about: str) -> tuple[EntryView, ...]:
    """Return a job's entries of these types about one thing, in their order; of very many, the first ones of each type."""
    rows: list[Any] = []
    for kind in types:
        # A range of ids, for which there is an index: the thing's own, and that one with `/` and more. `0` follows `/`.
        own = f"{job}/{kind}/{about}"
        theirs = or_(LEDGER.c.id == own, (LEDGER.c.id >= f"{own}/") & (LEDGER.c.id < f"{own}0"))
        rows += connection.execute(select(LEDGER.c.position, *FIELDS).where(theirs).limit(MOST)).all()
    return tuple(view((row[0], Entry(*row[1:]))) for row in sorted(rows, key=lambda row: row.seq))


def whose(connection: Connection, jobs: Collection[str]) -> Mapping[str, Whose]:
    """Return name and requester of these jobs by id; of those that there are."""
    if not jobs:
        return {}
    wanted = select(JOBS.c.id, JOBS.c.name, JOBS.c.requester, JOBS.c.requester_id).where(JOBS.c.id.in_(jobs))
    return {row[0]: Whose(*row[1:]) for row in connection.execute(wanted)}
