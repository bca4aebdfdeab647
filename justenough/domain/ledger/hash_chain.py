"""The ledger's hash chain: how entries are chained, and how chains are verified. No I/O, no clock.

An entry's hash is the SHA-256 of eight lines: the format's name, the hash of the job's previous entry, job, seq, id, type, at,
and the data as RFC 8785 JSON. None of them can contain a line break, so the hashed text is unambiguous; `data` and
`at` are stored as exactly the text that was hashed, so verification needs no parsing. docs/reference/ledger.md describes the format.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic_core import to_jsonable_python

from justenough.domain.core.base_model import Message
from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.core.errors import reject_if
from justenough.domain.ledger.events import Event

FORMAT = "justenough.ledger.v1"
GENESIS = "0" * 64
"""The previous hash of a job's first entry."""
MAX_ID_CHARS = 400

UNDETECTABLE = (
    "Someone who can alter the tables can remove the newest entries with their checkpoints, and rewrite those after the last checkpoint.",
    "Only a checkpoint that was kept elsewhere shows that: justenough ledger verify --offline EXPORT --checkpoint FILE.",
)
"""The changes that verification cannot detect."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class LedgerEntry(NamedTuple):
    """One entry of a job's chain, as stored and hashed."""

    job: str
    seq: int
    """From 1, without gaps."""
    id: str
    type: str
    at: str
    """RFC 3339 UTC with microseconds."""
    data: str
    """RFC 8785 JSON."""
    prev: str
    hash: str


class ChainHead(NamedTuple):
    """The newest entry of a chain, as the writer recorded it."""

    job: str
    seq: int
    hash: str


class Fault(StrEnum):
    """The kinds of problems of a chain."""

    EDITED = "edited"
    """The hash does not match the entry's content."""
    MISSING = "missing"
    """A sequence number is missing, or the newest entries that the head records are missing."""
    FORKED = "forked"
    """Two entries have the same sequence number."""
    UNLINKED = "unlinked"
    """The entry does not follow from the previous one: it was moved or exchanged, or its neighbour was rewritten."""
    HEADLESS = "headless"
    """The chain does not end at the entry that its head records: entries were added or removed without the writer."""
    REWRITTEN = "rewritten"
    """The entries are not those that a signed checkpoint commits to: some were removed, added, moved or changed."""
    FORGED = "forged"
    """A signature does not prove what the entry or the checkpoint says."""


class ChainProblem(Message):
    """One problem of one chain."""

    job: str
    seq: int
    fault: Fault
    message: str

    def __str__(self) -> str:
        return f"{self.job} #{self.seq}: {self.fault}: {self.message}"


class LedgerReport(Message):
    """The result of verifying every chain, and what verification cannot detect."""

    entries: int
    jobs: int
    problems: tuple[ChainProblem, ...] = ()
    """In the order of jobs; only the first ones if there are very many."""
    unseen: tuple[str, ...] = UNDETECTABLE

    @property
    def sound(self) -> bool:
        return not self.problems


def entry_id(event: Event) -> str:
    """Return the id under which an event is recorded: its own id, with characters that databases cannot store replaced."""
    return _to_stored_id(event.id)


def chain_name_of(event: Event) -> str:
    """Return the name of an event's chain, which is its job's id in stored form."""
    return _to_stored_id(event.job)


def chain_entry(event: Event, prev: LedgerEntry | ChainHead | None) -> LedgerEntry:
    """Return the event as the entry after `prev`, or as its job's first entry.

    Characters that databases cannot store (NUL, lone surrogates) become U+FFFD, so that untrusted input cannot prevent recording.
    Raises ValueError if the data is not JSON, or the time has no zone.
    """
    try:
        data = to_canonical_json(to_jsonable_python(event.data)).decode()
    except ValueError:
        # A lone surrogate has no canonical form. Any other error is raised again below.
        data = ""
    if not data or "\\u0000" in data:
        data = to_canonical_json(to_jsonable_python(_to_storable_json(event.data))).decode()
    seq, before = (prev.seq + 1, prev.hash) if prev else (1, GENESIS)
    fields = (chain_name_of(event), seq, entry_id(event), event.type.value, moment_text(event.at), data, before)
    return LedgerEntry(*fields, entry_hash(*fields))


def entry_hash(job: str, seq: int, entry: str, kind: str, at: str, data: str, prev: str) -> str:
    """Return the SHA-256 of an entry's eight lines, as hex."""
    return hashlib.sha256(hashed_text(job, seq, entry, kind, at, data, prev).encode()).hexdigest()


def hashed_text(job: str, seq: int, entry: str, kind: str, at: str, data: str, prev: str) -> str:
    """Return an entry's eight lines."""
    return f"{FORMAT}\n{prev}\n{job}\n{seq}\n{entry}\n{kind}\n{at}\n{data}"


def moment_text(moment: datetime) -> str:
    """Return a time as RFC 3339 UTC with microseconds: `2026-01-31T09:30:00.000000Z`."""
    reject_if(moment.tzinfo is None, "an event's time needs a time zone")
    # strftime writes years before 1000 with fewer digits, which do not sort.
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def to_storable(text: str) -> str:
    """Return a text with characters that databases cannot store (NUL, lone surrogates) replaced by U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def chain_ends(entries: Iterable[LedgerEntry]) -> Iterator[ChainProblem | ChainHead]:
    """Verify entries, sorted by job and seq: yield each chain's problems, then its end. Keeps one entry in memory."""
    job, last_seq, last_hash = None, 0, GENESIS
    for entry in entries:
        name, seq, entry_id, kind, at, data, prev, given = entry
        if name != job:
            if job is not None:
                yield ChainHead(job, last_seq, last_hash)
            job, last_seq, last_hash = name, 0, GENESIS
        # Asked of every entry of a ledger, so a sound one costs no more than its hash.
        is_sound = given == entry_hash(name, seq, entry_id, kind, at, data, prev) and seq == last_seq + 1 and prev == last_hash
        if not is_sound:
            yield from entry_problems(entry, last_seq, last_hash)
        last_seq, last_hash = seq, given
    if job is not None:
        yield ChainHead(job, last_seq, last_hash)


def entry_problems(entry: LedgerEntry, last_seq: int, last_hash: str) -> Iterator[ChainProblem]:
    """Yield the problems of one entry, from the seq and the hash of its chain's entry before."""
    # Unpacked by place: verification passes rows, because making an entry of each would cost as much as hashing it.
    job, seq, *_, prev, given = entry
    if given != entry_hash(*entry[:-1]):
        yield ChainProblem(job=job, seq=seq, fault=Fault.EDITED, message="its hash does not match its content")
    if seq <= last_seq:
        yield ChainProblem(job=job, seq=seq, fault=Fault.FORKED, message="a second entry has this sequence number")
    elif seq > last_seq + 1:
        gap = f"entry {last_seq + 1} is" if seq == last_seq + 2 else f"entries {last_seq + 1} to {seq - 1} are"
        yield ChainProblem(job=job, seq=last_seq + 1, fault=Fault.MISSING, message=f"{gap} missing")
    elif prev != last_hash:
        yield ChainProblem(job=job, seq=seq, fault=Fault.UNLINKED, message="it does not link to the hash of the previous entry")


def compare_with_heads(ends: Iterable[ChainProblem | ChainHead], heads: Iterable[ChainHead]) -> Iterator[ChainProblem | ChainHead]:
    """Yield the items of `chain_ends`, and a problem for each chain that does not end at its head. Both inputs are sorted by job."""
    known = iter(heads)
    head = next(known, None)
    for item in ends:
        yield item
        if isinstance(item, ChainProblem):
            continue
        while head is not None and head.job < item.job:
            yield _missing_chain_problem(head)
            head = next(known, None)
        if head is None or head.job != item.job:
            yield ChainProblem(job=item.job, seq=item.seq, fault=Fault.HEADLESS, message="no head is recorded for this chain")
            continue
        if item.seq < head.seq:
            message = f"the newest entries, {item.seq + 1} to {head.seq}, are missing"
            yield ChainProblem(job=item.job, seq=item.seq + 1, fault=Fault.MISSING, message=message)
        elif head != item:
            message = f"head mismatch at entry {head.seq}: the recorded hash differs from the stored entry"
            if item.seq > head.seq:
                message = f"the head ends at entry {head.seq}; the entries after it were not added by the ledger's writer"
            yield ChainProblem(job=item.job, seq=item.seq, fault=Fault.HEADLESS, message=message)
        head = next(known, None)
    while head is not None:
        yield _missing_chain_problem(head)
        head = next(known, None)


def _missing_chain_problem(head: ChainHead) -> ChainProblem:
    return ChainProblem(job=head.job, seq=1, fault=Fault.MISSING, message=f"all {head.seq} entries of the chain are missing")


def _to_storable_json(value: Any) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {_to_storable_json(key): _to_storable_json(inner) for key, inner in value.items()}
    return [_to_storable_json(inner) for inner in value] if isinstance(value, list | tuple) else value


def _to_stored_id(text: str) -> str:
    """Return an id on one line, short enough for every database's index."""
    text = _UNPRINTABLE.sub("\ufffd", text)
    if len(text) <= MAX_ID_CHARS:
        return text
    return f"{text[: MAX_ID_CHARS - 80]}~sha256:{hashlib.sha256(text.encode()).hexdigest()}"
