"""Finds jobs, requests, credentials and ledger entries by an id, or the beginning of one, that somebody typed. Reads only."""

from __future__ import annotations

import re
from typing import Literal

from sqlalchemy import Column, Connection, select

from justenough.adapters.store.repository import Repository, reads
from justenough.adapters.store.tables import CREDENTIALS, JOBS, LEDGER, REQUESTS
from justenough.domain.readmodel.dashboard import SearchHit

MAX_FOUND_PER_KIND = 10
"""The most results of each kind."""
MAX_TEXT_CHARS = 400
"""The longest id of an entry, in characters."""
ID_PREFIX = re.compile(r"[jrc]-")
AFTER_EVERY_SUFFIX = "\U0010ffff"
"""Sorts after every character that an id may contain."""

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
        """Return jobs, requests or credentials (the first MAX_FOUND_PER_KIND) by prefix of their id, and an entry by id or position."""
        query = text.strip().replace("\0", "\ufffd")[:MAX_TEXT_CHARS]
        if not query:
            return ()
        is_entry = LEDGER.c.position == int(query) if re.fullmatch(r"[0-9]{1,15}", query) else LEDGER.c.id == query
        entries = select(LEDGER.c.id, LEDGER.c.job, JOBS.c.name).outerjoin(JOBS, JOBS.c.id == LEDGER.c.job).where(is_entry)
        # Most people copy an id without the prefix that all job ids share.
        prefix = query if ID_PREFIX.match(query) else f"j-{installation}-{query.lower()}"
        kind, column, job = _KINDS[prefix[:2]]
        # A range of ids uses the index, because ids sort by code point.
        matches = select(column, job, JOBS.c.name).where(column >= prefix, column < prefix + AFTER_EVERY_SUFFIX)
        if kind != "job":
            matches = matches.outerjoin(JOBS, JOBS.c.id == job)
        return (
            *(SearchHit(kind="entry", id=row[0], job=row[1], name=row[2] or "") for row in connection.execute(entries)),
            *(
                SearchHit(kind=kind, id=row[0], job=row[1], name=row[2] or "")
                for row in connection.execute(matches.order_by(column).limit(MAX_FOUND_PER_KIND))
            ),
        )
