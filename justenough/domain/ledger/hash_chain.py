"""The ledger's arithmetic: how entries are chained, and what a look at a chain finds. No I/O, no clock.

An entry's hash is the SHA-256 of eight lines: the format's name, the hash of the job's entry before it, job, seq, id, type, at,
and the data as RFC 8785 JSON. None of them can hold a line break, so the lines say unambiguously what is hashed; `data` and
`at` are kept as exactly the text that was hashed, so verifying needs no parsing. docs/reference/ledger.md describes the format.
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
from justenough.domain.ledger.events import Event

FORMAT = "justenough.ledger.v1"
GENESIS = "0" * 64
"""What a job's first entry has for the hash before it."""
MAX_ID_CHARS = 400

UNDETECTABLE = (
    "Whoever can alter the tables can cut off or rewrite a chain's newest entries together with its head; only held checkpoints show that.",
    "They can remove a whole chain with its head and renumber what follows; only held checkpoints show that.",
    "This version makes no checkpoints yet.",
)
"""What `verify` cannot see yet."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class LedgerEntry(NamedTuple):
    """One link of a job's chain, as it is stored and hashed."""

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
    """The newest link of a chain, as the writer knows it."""

    job: str
    seq: int
    hash: str


class Fault(StrEnum):
    """What can be wrong with a chain."""

    EDITED = "edited"
    """The hash is not that of what the entry says."""
    MISSING = "missing"
    """A sequence number, or the newest entries that the head tells of, are not there."""
    FORKED = "forked"
    """Two entries have one place."""
    UNLINKED = "unlinked"
    """The entry does not follow from the one before it: moved, exchanged, or its neighbour was rewritten."""
    HEADLESS = "headless"
    """The chain's end is not what the writer last knew: entries came or went behind its back."""


class ChainProblem(Message):
    """One thing wrong with one chain."""

    job: str
    seq: int
    fault: Fault
    message: str

    def __str__(self) -> str:
        return f"{self.job} #{self.seq}: {self.fault}: {self.message}"


class LedgerReport(Message):
    """What a look at every chain found, and what such a look cannot find."""

    entries: int
    jobs: int
    problems: tuple[ChainProblem, ...] = ()
    """In the order of jobs; where there are very many, the first ones."""
    unseen: tuple[str, ...] = UNDETECTABLE

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.problems


def entry_id(event: Event) -> str:
    """Return the id under which an event is recorded: its own, with what databases cannot hold replaced."""
    return _to_stored_id(event.id)


def chain_name_of(event: Event) -> str:
    """Return the name of the chain that an event belongs to: its job."""
    return _to_stored_id(event.job)


def chain_entry(event: Event, prev: LedgerEntry | ChainHead | None) -> LedgerEntry:
    """Return the event as the entry after `prev`, or as its job's first.

    Text that databases cannot hold (NUL, lone surrogates) becomes U+FFFD, so that no stranger's input can keep a fact from being
    recorded. Raises ValueError where the data is not JSON, or the time has no zone.
    """
    seq, before = (prev.seq + 1, prev.hash) if prev else (1, GENESIS)
    fields = (chain_name_of(event), seq, entry_id(event), event.type.value, moment_text(event.at), _to_json_text(event.data), before)
    return LedgerEntry(*fields, entry_hash(*fields))


def entry_hash(job: str, seq: int, entry: str, kind: str, at: str, data: str, prev: str) -> str:
    """Return the SHA-256 of an entry's eight lines, as hex."""
    return hashlib.sha256(f"{FORMAT}\n{prev}\n{job}\n{seq}\n{entry}\n{kind}\n{at}\n{data}".encode()).hexdigest()


def moment_text(moment: datetime) -> str:
    """Return a moment as RFC 3339 UTC with microseconds: `2026-01-31T09:30:00.000000Z`."""
    if moment.tzinfo is None:
        message = "an event's time needs a zone"
        raise ValueError(message)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def to_storable(text: str) -> str:
    """Return a text with what databases cannot hold, NUL and lone surrogates, replaced by U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def verify_chain(entries: Iterable[LedgerEntry], heads: Iterable[ChainHead] | None = None) -> Iterator[ChainProblem]:
    """Yield what is wrong in entries that come by job and seq, any number of chains; `heads`, by job, tell where each ends."""
    ends = chain_ends(entries)
    for item in ends if heads is None else compare_with_heads(ends, heads):
        if isinstance(item, ChainProblem):
            yield item


def chain_ends(entries: Iterable[LedgerEntry]) -> Iterator[ChainProblem | ChainHead]:
    """Yield what is wrong within chains, and each chain's last link after its problems. Keeps one entry in memory."""
    job, last_seq, last_hash = None, 0, GENESIS
    for name, seq, entry, kind, at, data, prev, given in entries:
        if name != job:
            if job is not None:
                yield ChainHead(job, last_seq, last_hash)
            job, last_seq, last_hash = name, 0, GENESIS
        if given != entry_hash(name, seq, entry, kind, at, data, prev):
            yield _edited_problem(name, seq)
        if seq != last_seq + 1:
            yield _misplaced_problem(name, seq, last_seq)
        elif prev != last_hash:
            yield _unlinked_problem(name, seq)
        last_seq, last_hash = seq, given
    if job is not None:
        yield ChainHead(job, last_seq, last_hash)


def entry_problems(entry: LedgerEntry, before: ChainHead) -> tuple[ChainProblem, ...]:
    """Return what is wrong with one entry where its chain has come as far as `before`."""
    found = () if entry.hash == entry_hash(*entry[:-1]) else (_edited_problem(entry.job, entry.seq),)
    if entry.seq != before.seq + 1:
        return (*found, _misplaced_problem(entry.job, entry.seq, before.seq))
    return found if entry.prev == before.hash else (*found, _unlinked_problem(entry.job, entry.seq))


def compare_with_heads(ends: Iterable[ChainProblem | ChainHead], heads: Iterable[ChainHead]) -> Iterator[ChainProblem | ChainHead]:
    """Yield the same, and where chains end elsewhere than the writer's heads say. Both come by job."""
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
            yield ChainProblem(job=item.job, seq=item.seq, fault=Fault.HEADLESS, message="the writer knows of no such chain")
            continue
        if head != item:
            yield _end_problem(item, head)
        head = next(known, None)
    while head is not None:
        yield _missing_chain_problem(head)
        head = next(known, None)


def _edited_problem(job: str, seq: int) -> ChainProblem:
    return ChainProblem(job=job, seq=seq, fault=Fault.EDITED, message="its hash is not that of what it says")


def _misplaced_problem(job: str, seq: int, last: int) -> ChainProblem:
    if seq <= last:
        return ChainProblem(job=job, seq=seq, fault=Fault.FORKED, message="a second entry has this place")
    what = f"entry {last + 1} is" if seq == last + 2 else f"entries {last + 1} to {seq - 1} are"
    return ChainProblem(job=job, seq=last + 1, fault=Fault.MISSING, message=f"{what} not there")


def _unlinked_problem(job: str, seq: int) -> ChainProblem:
    return ChainProblem(job=job, seq=seq, fault=Fault.UNLINKED, message="it does not follow from the entry before it")


def _missing_chain_problem(head: ChainHead) -> ChainProblem:
    return ChainProblem(job=head.job, seq=1, fault=Fault.MISSING, message=f"the whole chain of {head.seq} entries is not there")


def _end_problem(end: ChainHead, head: ChainHead) -> ChainProblem:
    if end.seq < head.seq:
        message = f"the newest entries, {end.seq + 1} to {head.seq}, are not there"
        return ChainProblem(job=end.job, seq=end.seq + 1, fault=Fault.MISSING, message=message)
    message = f"the writer last wrote entry {head.seq}, and another than what is there"
    if end.seq > head.seq:
        message = f"the writer last wrote entry {head.seq}; what follows came behind its back"
    return ChainProblem(job=end.job, seq=end.seq, fault=Fault.HEADLESS, message=message)


def _to_json_text(data: Mapping[str, Any]) -> str:
    try:
        text = to_canonical_json(to_jsonable_python(data)).decode()
    except ValueError:
        # A lone surrogate has no canonical form; anything else fails again below.
        text = ""
    if text and "\\u0000" not in text:
        return text
    return to_canonical_json(to_jsonable_python(_to_storable_json(data))).decode()


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
