"""Finds jobs, requests, credentials and ledger entries by text that somebody typed or pasted: ids, handles, names, words. Every
query reads a bounded number of rows, however often a word occurs.

Only consoles index the ledger: they record which words and names each entry has, from the first entry on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Literal, NamedTuple

from sqlalchemy import ARRAY, Column, Connection, Select, Table, TextClause, bindparam, exists, func, select, text, union_all, update
from sqlalchemy.dialects import postgresql, sqlite

from justenough.adapters.store.engine import insert_new
from justenough.adapters.store.repository import (
    AFTER_EVERY_SUFFIX,
    Repository,
    fetch_all,
    has_type,
    newest_position,
    reads,
    reads_snapshot,
    without_nul,
    writes,
)
from justenough.adapters.store.tables import CREDENTIALS, JOBS, LEDGER, REQUESTS, SEARCH_NAMES, SEARCH_PROGRESS, SEARCH_WORDS
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.search import INDEXED_TYPES, MAX_QUERY_CHARS, SearchHit, agent_term, index_terms, query_handle, query_words
from justenough.domain.readmodel.views import CredentialView

MAX_FOUND_PER_KIND = 10
"""Maximum number of results of each kind."""
MAX_CANDIDATES = 2_000
"""Maximum number of jobs with a text's rarest word, newest first, that are searched for its other words; also of a person's own jobs, if
that person may read no others.
"""
MAX_WORDS_OF_A_BEGINNING = 8
"""Maximum number of words that a typed beginning can stand for, in alphabetical order."""
MAX_TERMS_READ = 1_000
"""Maximum number of terms that are looked at for these words. Handles of credentials are random, so some begin like a word."""
MAX_NAMES = 2_000
"""Maximum number of names that are compared with a typed name."""
EVERYTHING_READER = ""
"""Stands for all people who may read everything, so that their search reads each name once."""
MAX_POSITIONS = 500
"""Maximum ledger positions per transaction, because other writers wait for it."""
ID_PREFIX = re.compile(r"[jrc]-")

Kind = Literal["job", "request", "credential"]
_KINDS: dict[str, tuple[Kind, Column[str], Column[str]]] = {
    "j-": ("job", JOBS.c.id, JOBS.c.id),
    "r-": ("request", REQUESTS.c.id, REQUESTS.c.job_id),
    "c-": ("credential", CREDENTIALS.c.id, CREDENTIALS.c.job_id),
}
# Jumps from each term to the next: a term may be in a million rows.
_TERMS_OF_A_BEGINNING = """
WITH RECURSIVE found (term, number) AS (
    SELECT min(word), 1 FROM search_words WHERE word >= :begin AND word < :end
    UNION ALL
    SELECT (SELECT min(word) FROM search_words WHERE word > found.term AND word < :end), number + 1
    FROM found WHERE found.term IS NOT NULL AND number < :most
)
SELECT term FROM found WHERE term IS NOT NULL"""
_HANDLES_OF_A_BEGINNING = text(f"{_TERMS_OF_A_BEGINNING} LIMIT :words")
# Words have the position of their job's first entry, handles that of their credential's. Only an agent's term has a colon.
_WORDS_OF_A_BEGINNING = text(
    f"{_TERMS_OF_A_BEGINNING} AND term NOT LIKE '%:%' AND"  # noqa: S608 - each part is a constant
    " (SELECT seq FROM ledger WHERE position = (SELECT min(position) FROM search_words WHERE word = term)) = 1 LIMIT :words"
)

_ENTRIES = select(LEDGER.c.position, LEDGER.c.job, LEDGER.c.seq, LEDGER.c.type, LEDGER.c.data).where(has_type(INDEXED_TYPES))


class IndexProgress(NamedTuple):
    """The last indexed position of the ledger, and its end."""

    position: int
    newest: int

    @property
    def is_complete(self) -> bool:
        return self.position >= self.newest

    @property
    def is_nearly_complete(self) -> bool:
        """Whether at most one transaction's entries are missing: new entries are always missing for a short time."""
        return self.newest - self.position <= MAX_POSITIONS


class UnindexedTerms(NamedTuple):
    """What the search index still lacks of the ledger's entries after one position, up to another one."""

    after: int
    until: int
    words: frozenset[tuple[str, int]]
    """Word, or handle of a credential, and position."""
    names: frozenset[tuple[str, str, str]]
    """Who may learn of it, kind and name."""


class WordMatches(NamedTuple):
    """Jobs that have every word of a text, newest first."""

    hits: tuple[SearchHit, ...]
    is_partial: bool
    """Whether only the newest MAX_CANDIDATES jobs were searched, although more have the rarest word or belong to the requester."""


class SearchRepository(Repository):
    def index(self) -> IndexProgress:
        """Index the next MAX_POSITIONS positions of the ledger; return how far it is indexed afterwards.

        Everything is read before the writers' lock is taken, because nobody else can write while it is held. If two consoles index the same
        positions, one of them changes nothing.
        """
        unindexed = self._read_unindexed()
        if unindexed.until > unindexed.after:
            self._add_terms(unindexed)
        return self.progress()

    @reads_snapshot
    def _read_unindexed(self, connection: Connection) -> UnindexedTerms:
        done, newest = _read_progress(connection)
        until = min(newest, done + MAX_POSITIONS)
        rows = connection.execute(_ENTRIES.where(LEDGER.c.position > done, LEDGER.c.position <= until)).all() if until > done else ()
        places = {row.job: row.position for row in rows if row.seq == 1}
        if earlier := {row.job for row in rows} - places.keys():
            first = select(LEDGER.c.job, LEDGER.c.position).where(LEDGER.c.job.in_(earlier), LEDGER.c.seq == 1)
            places |= {row.job: row.position for row in connection.execute(first)}
        words: set[tuple[str, int]] = set()
        names: set[tuple[str, str, str]] = set()
        for row in rows:
            terms = index_terms(EventType(row.type), json.loads(row.data))
            words |= {(word, places[row.job]) for word in terms.words} | {(handle, row.position) for handle in terms.handles}
            names |= {(reader, kind, name) for kind, name, owner in terms.names for reader in (owner, EVERYTHING_READER)}
        return UnindexedTerms(done, until, frozenset(words), frozenset(names))

    @writes
    def _add_terms(self, connection: Connection, terms: UnindexedTerms) -> None:
        move_on = update(SEARCH_PROGRESS).where(SEARCH_PROGRESS.c.position == terms.after).values(position=terms.until)
        has_moved = connection.execute(move_on).rowcount == 1
        if has_moved or (terms.after == 0 and insert_new(connection, SEARCH_PROGRESS, {"id": 1, "position": terms.until})):
            _insert_new_rows(connection, SEARCH_WORDS, terms.words)
            _insert_new_rows(connection, SEARCH_NAMES, terms.names)

    @reads_snapshot
    def progress(self, connection: Connection) -> IndexProgress:
        return _read_progress(connection)

    @reads_snapshot
    def find(self, connection: Connection, text: str, *, installation: str, requester_id: str | None = None) -> tuple[SearchHit, ...]:
        """Return jobs, requests or credentials (the first MAX_FOUND_PER_KIND) by prefix of their id, and an entry by id or position.

        `requester_id`: find only the jobs of this person, and requests and credentials of these jobs.
        """
        query = without_nul(text.strip())[:MAX_QUERY_CHARS]
        if not query:
            return ()
        is_entry = LEDGER.c.position == int(query) if re.fullmatch(r"[0-9]{1,15}", query) else LEDGER.c.id == query
        entries = select(LEDGER.c.id, LEDGER.c.job, JOBS.c.name).outerjoin(JOBS, JOBS.c.id == LEDGER.c.job).where(is_entry)
        # Most people copy an id without the prefix that all job ids share.
        prefix = query if ID_PREFIX.match(query) else f"j-{installation}-{query.lower()}"
        kind, column, job = _KINDS[prefix[:2]]
        # A range of ids uses the index, because ids sort by code point.
        matches = select(column, job, JOBS.c.name, JOBS.c.task).where(column >= prefix, column < prefix + AFTER_EVERY_SUFFIX)
        if kind != "job":
            matches = matches.outerjoin(JOBS, JOBS.c.id == job)
        if requester_id is not None:
            matches = matches.where(JOBS.c.requester_id == requester_id)
        return (
            *(SearchHit(kind="entry", id=row[0], job=row[1], name=row[2] or "") for row in connection.execute(entries)),
            *(
                SearchHit(kind=kind, id=row[0], job=row[1], name=row[2] or "", text=row[3] or "")
                for row in connection.execute(matches.order_by(column).limit(MAX_FOUND_PER_KIND))
            ),
        )

    @reads_snapshot
    def find_handle(self, connection: Connection, text: str) -> tuple[SearchHit, ...]:
        """Return the credentials by a database user, lease id, accessor or certificate serial, or its beginning; newest first."""
        handle = query_handle(text)
        handles = _terms_beginning(connection, _HANDLES_OF_A_BEGINNING, handle) if handle else ()
        positions = connection.execute(_newest(handles, MAX_FOUND_PER_KIND)).scalars().all() if handles else ()
        is_handle = has_type([EventType.CREDENTIAL_ISSUED])
        found = select(LEDGER.c.id, LEDGER.c.job, JOBS.c.name, JOBS.c.task).outerjoin(JOBS, JOBS.c.id == LEDGER.c.job)
        rows = connection.execute(found.where(LEDGER.c.position.in_(positions), is_handle).order_by(LEDGER.c.position.desc()))
        # The entry's id ends with the credential's.
        return tuple(
            SearchHit(kind="credential", id=row.id.rpartition("/")[2], job=row.job, name=row.name or "", text=row.task or "")
            for row in rows
        )

    @reads_snapshot
    def find_words(self, connection: Connection, text: str, *, requester_id: str | None = None) -> WordMatches:
        """Return the newest jobs that have, for every word of the text, that word or a word that begins with it. `requester_id`: only this
        person's jobs.
        """
        alternatives = [_terms_beginning(connection, _WORDS_OF_A_BEGINNING, word) for word in query_words(text)]
        if not alternatives or not all(alternatives):
            return WordMatches((), is_partial=False)
        is_partial = False
        if requester_id is None:
            # Counted up to MAX_CANDIDATES + 1, which stands for more.
            some = {
                words: select(SEARCH_WORDS.c.position).where(SEARCH_WORDS.c.word.in_(words)).limit(MAX_CANDIDATES + 1)
                for words in alternatives
            }
            counts = {
                words: connection.execute(select(func.count()).select_from(found.subquery())).scalar_one() for words, found in some.items()
            }
            rarest, *others = sorted(alternatives, key=counts.__getitem__)
            candidates = _newest(rarest, MAX_CANDIDATES if others else MAX_FOUND_PER_KIND)
            is_partial = bool(others) and counts[rarest] > MAX_CANDIDATES
        else:
            candidates, others = _newest_of(requester_id), alternatives
            older = select(JOBS.c.id).where(JOBS.c.requester_id == requester_id).order_by(JOBS.c.id.desc()).offset(MAX_CANDIDATES).limit(1)
            is_partial = connection.execute(older).first() is not None
        positions = connection.execute(_positions_with(others, candidates).limit(MAX_FOUND_PER_KIND)).scalars().all()
        found = select(JOBS.c.id, JOBS.c.name, JOBS.c.task).join(LEDGER, LEDGER.c.job == JOBS.c.id)
        # The positions of handles are not those of a job's first entry.
        rows = connection.execute(found.where(LEDGER.c.position.in_(positions), LEDGER.c.seq == 1).order_by(LEDGER.c.position.desc()))
        return WordMatches(
            tuple(SearchHit(kind="job", id=row.id, job=row.id, name=row.name, text=row.task) for row in rows), is_partial=is_partial
        )

    @reads
    def resources_of(self, connection: Connection, jobs: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """Return the titles of the resources that these jobs requested access to, by job and resource."""
        columns = (REQUESTS.c.job_id, REQUESTS.c.resource, REQUESTS.c.title)
        found = select(*columns).where(REQUESTS.c.job_id.in_(jobs)).distinct().order_by(*columns)
        titles: dict[str, dict[str, str]] = {}
        for job, resource, title in connection.execute(found) if jobs else ():
            titles.setdefault(job, {})[resource] = title
        return titles

    @reads
    def credentials(self, connection: Connection, ids: Collection[str]) -> tuple[CredentialView, ...]:
        """Return these credentials' handles. Unknown ids are left out."""
        return fetch_all(connection, select(CREDENTIALS).where(CREDENTIALS.c.id.in_(ids)), CredentialView) if ids else ()

    @reads_snapshot
    def jobs_of_agent(self, connection: Connection, agent: str, *, requester_id: str | None = None, limit: int) -> tuple[str, ...]:
        """Return the newest jobs of an agent, newest first.

        If a requester is named, search only that requester's newest MAX_CANDIDATES jobs.
        """
        term = agent_term(without_nul(agent))
        theirs = _newest([term], limit) if requester_id is None else _positions_with([(term,)], _newest_of(requester_id)).limit(limit)
        positions = connection.execute(theirs).scalars().all()
        jobs = select(LEDGER.c.job).where(LEDGER.c.position.in_(positions)).order_by(LEDGER.c.position.desc())
        return tuple(connection.execute(jobs).scalars())

    @reads_snapshot
    def find_names(self, connection: Connection, text: str, *, reader_id: str | None = None) -> tuple[tuple[str, str], ...]:
        """Return kinds and names that contain every word of the text; with `reader_id`, only those that this person may see."""
        has_words = [func.lower(SEARCH_NAMES.c.name).contains(word, autoescape=True) for word in query_words(text)]
        return _names(connection, has_words, reader_id, limit=MAX_FOUND_PER_KIND) if has_words else ()

    @reads
    def ids_of_person(self, connection: Connection, name: str) -> tuple[str, ...]:
        """Return the entity ids under which a login name launched jobs or decided; usually one, none for an unknown name."""
        is_theirs = (
            SEARCH_NAMES.c.kind == "person",
            SEARCH_NAMES.c.name == without_nul(name),
            SEARCH_NAMES.c.reader_id != EVERYTHING_READER,
        )
        return tuple(connection.execute(select(SEARCH_NAMES.c.reader_id).where(*is_theirs).order_by(SEARCH_NAMES.c.reader_id)).scalars())

    @reads_snapshot
    def names(self, connection: Connection, *, reader_id: str | None = None) -> tuple[tuple[str, str], ...]:
        """Return at most MAX_NAMES names, each with its kind."""
        return _names(connection, (), reader_id, limit=MAX_NAMES)


def _names(connection: Connection, criteria: Iterable[Any], reader_id: str | None, *, limit: int) -> tuple[tuple[str, str], ...]:
    reader = EVERYTHING_READER if reader_id is None else reader_id
    names = select(SEARCH_NAMES.c.kind, SEARCH_NAMES.c.name).where(SEARCH_NAMES.c.reader_id == reader, *criteria)
    # The shortest match is the closest one.
    rows = connection.execute(names.order_by(func.length(SEARCH_NAMES.c.name), SEARCH_NAMES.c.name, SEARCH_NAMES.c.kind).limit(limit))
    return tuple((row.kind, row.name) for row in rows)


def _terms_beginning(connection: Connection, statement: TextClause, begin: str) -> tuple[str, ...]:
    """Return the first words or handles with a beginning, in alphabetical order."""
    values = {"begin": begin, "end": begin + AFTER_EVERY_SUFFIX, "words": MAX_WORDS_OF_A_BEGINNING, "most": MAX_TERMS_READ}
    return tuple(connection.execute(statement, values).scalars())


def _newest(words: Iterable[str], limit: int) -> Select[tuple[int]]:
    """Return the query for the newest positions that have one of the words, newest first."""
    # The newest of each word are the end of one range of the index. Of all words together, the database would sort every row.
    position = SEARCH_WORDS.c.position
    parts = [select(position).where(SEARCH_WORDS.c.word == word).order_by(position.desc()).limit(limit).subquery() for word in words]
    together = union_all(*(select(part.c.position) for part in parts)).subquery()
    return select(together.c.position).distinct().order_by(together.c.position.desc()).limit(limit)


def _newest_of(requester_id: str) -> Select[tuple[int]]:
    """Return the query for the positions of a requester's newest MAX_CANDIDATES jobs."""
    theirs = select(LEDGER.c.position).join(JOBS, JOBS.c.id == LEDGER.c.job).where(JOBS.c.requester_id == requester_id, LEDGER.c.seq == 1)
    return theirs.order_by(JOBS.c.id.desc()).limit(MAX_CANDIDATES)


def _positions_with(alternatives: Iterable[Collection[str]], positions: Select[tuple[int]]) -> Select[tuple[int]]:
    """Return the query for the positions that have at least one word from each set of alternatives, newest first."""
    found = positions.subquery()
    place = SEARCH_WORDS.c.position == found.c.position
    has_words = (exists().where(place, SEARCH_WORDS.c.word.in_(words)) for words in alternatives)
    return select(found.c.position).where(*has_words).order_by(found.c.position.desc())


def _read_progress(connection: Connection) -> IndexProgress:
    indexed = connection.execute(select(SEARCH_PROGRESS.c.position)).scalar()
    return IndexProgress(indexed or 0, newest_position(connection))


def _insert_new_rows(connection: Connection, table: Table, rows: AbstractSet[tuple[Any, ...]]) -> None:
    """Insert rows, in the order of the table's columns, unless they exist."""
    if not rows:
        return
    ordered = sorted(rows)
    if connection.dialect.name == "postgresql":
        # One array for each column: a statement for each row would take several times as long.
        arrays = [bindparam(column.name, type_=ARRAY(column.type)) for column in table.columns]
        source = select(*(func.unnest(array) for array in arrays))
        values = {column.name: [row[at] for row in ordered] for at, column in enumerate(table.columns)}
        connection.execute(postgresql.insert(table).from_select(table.columns.keys(), source).on_conflict_do_nothing(), values)
    else:
        names = table.columns.keys()
        connection.execute(sqlite.insert(table).on_conflict_do_nothing(), [dict(zip(names, row, strict=True)) for row in ordered])
