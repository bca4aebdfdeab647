"""What a text that somebody typed names: a job, a request, a credential or an entry, by its id or how the id begins. Reads only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from sqlalchemy import Column, Connection, select

from justenough.adapters.store.repository import Repository, reads
from justenough.adapters.store.tables import CREDENTIALS, JOBS, LEDGER, REQUESTS
from justenough.domain.readmodel.dashboard import SearchHit

MAX_FOUND_PER_KIND = 10
"""As many of each kind are told of."""
MAX_TEXT_CHARS = 400
"""Characters: as long as an entry's id may be."""
ID_PREFIX = re.compile(r"[jrc]-")
AFTER_EVERY_SUFFIX = "\U0010ffff"
"""Sorts behind all that an id may go on with."""

Kind = Literal["job", "request", "credential"]
_KINDS: dict[str, tuple[Kind, Column[str], Column[str]]] = {
    "j-": ("job", JOBS.c.id, JOBS.c.id),
    "r-": ("request", REQUESTS.c.id, REQUESTS.c.job_id),
    "c-": ("credential", CREDENTIALS.c.id, CREDENTIALS.c.job_id),
}


class SearchRepository(Repository):
    """Looks up ids that people typed or pasted."""

    @reads
    def find(self, connection: Connection, text: str, *, installation: str = "dev") -> tuple[SearchHit, ...]:
        """Return what a text names: jobs, requests and credentials by id or the beginning of one, entries by id or position.

        At most MAX_FOUND_PER_KIND of each kind.
        """
        wanted = text.strip().replace("\0", "\ufffd")[:MAX_TEXT_CHARS]
        if not wanted:
            return ()
        found = list(_find_entries(connection, wanted))
        if ID_PREFIX.match(wanted):
            found += _find_by_prefix(connection, wanted)
        else:
            # Most copy an id without what all of them begin with.
            found += _find_by_prefix(connection, f"j-{installation}-{wanted.lower()}")
        return tuple(found)


def _find_by_prefix(connection: Connection, prefix: str) -> Iterator[SearchHit]:
    kind, column, job = _KINDS[prefix[:2]]
    # A range, for which there is an index; ids sort by code point.
    theirs = (
        select(column, job, JOBS.c.name)
        .where(column >= prefix, column < prefix + AFTER_EVERY_SUFFIX)
        .order_by(column)
        .limit(MAX_FOUND_PER_KIND)
    )
    if kind != "job":
        theirs = theirs.outerjoin(JOBS, JOBS.c.id == job)
    for name, owner, title in connection.execute(theirs):
        yield SearchHit(kind=kind, id=name, job=owner, name=title or "")


def _find_entries(connection: Connection, text: str) -> Iterator[SearchHit]:
    place = int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None
    theirs = LEDGER.c.id == text if place is None else LEDGER.c.position == place
    for name, job, title in connection.execute(
        select(LEDGER.c.id, LEDGER.c.job, JOBS.c.name).outerjoin(JOBS, JOBS.c.id == LEDGER.c.job).where(theirs)
    ):
        yield SearchHit(kind="entry", id=name, job=job, name=title or "")
