"""What a text that somebody typed names: a job, a request, a credential or an entry, by its id or how the id begins. Reads only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from sqlalchemy import Column, Connection, select

from justenough.adapters.store.tables import CREDENTIALS, JOBS, LEDGER, REQUESTS
from justenough.domain.readmodel.dashboard import Found

MOST = 10
"""As many of each kind are told of."""
LONGEST = 400
"""Characters: as long as an entry's id may be."""
BEGINS = re.compile(r"[jrc]-")
HIGHEST = "\U0010ffff"
"""Sorts behind all that an id may go on with."""

Kind = Literal["job", "request", "credential"]
_KINDS: dict[str, tuple[Kind, Column[str], Column[str]]] = {
    "j-": ("job", JOBS.c.id, JOBS.c.id),
    "r-": ("request", REQUESTS.c.id, REQUESTS.c.job_id),
    "c-": ("credential", CREDENTIALS.c.id, CREDENTIALS.c.job_id),
}


def find(connection: Connection, text: str, *, installation: str) -> tuple[Found, ...]:
    """Return what a text names: ids whole or as they begin, an entry by its id or position. Of many, the first ones."""
    wanted = text.strip().replace("\0", "\ufffd")[:LONGEST]
    if not wanted:
        return ()
    found = list(_entries(connection, wanted))
    if BEGINS.match(wanted):
        found += _beginning(connection, wanted)
    else:
        # Most copy an id without what all of them begin with.
        found += _beginning(connection, f"j-{installation}-{wanted.lower()}")
    return tuple(found)


def _beginning(connection: Connection, wanted: str) -> Iterator[Found]:
    kind, column, job = _KINDS[wanted[:2]]
    # A range, for which there is an index; ids sort by code point.
    theirs = select(column, job, JOBS.c.name).where(column >= wanted, column < wanted + HIGHEST).order_by(column).limit(MOST)
    if kind != "job":
        theirs = theirs.outerjoin(JOBS, JOBS.c.id == job)
    for name, owner, title in connection.execute(theirs):
        yield Found(kind=kind, id=name, job=owner, name=title or "")


def _entries(connection: Connection, wanted: str) -> Iterator[Found]:
    place = int(wanted) if re.fullmatch(r"[0-9]{1,15}", wanted) else None
    theirs = LEDGER.c.id == wanted if place is None else LEDGER.c.position == place
    for name, job, title in connection.execute(
        select(LEDGER.c.id, LEDGER.c.job, JOBS.c.name).outerjoin(JOBS, JOBS.c.id == LEDGER.c.job).where(theirs)
    ):
        yield Found(kind="entry", id=name, job=job, name=title or "")
