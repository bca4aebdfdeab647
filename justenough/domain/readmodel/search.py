"""The search terms of ledger entries, and how a typed text is parsed into terms. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from justenough.domain.core.base_model import Message
from justenough.domain.core.ids import CREDENTIAL_ID, JOB_ID, REQUEST_ID
from justenough.domain.ledger.events import EventType

MAX_QUERY_CHARS = 400
MAX_QUERY_WORDS = 5
"""Maximum words of a typed text that are searched for."""
MAX_WORDS = 100
"""Maximum words of one entry that are indexed."""
MAX_WORD_CHARS = 40
MAX_HANDLE_CHARS = 200
MIN_HANDLE_CHARS = 6
"""The shortest beginning of a handle that is searched for."""
AFTER_ORIGIN_KIND = ":"
"""Occurs only in the names of launchers that are not people: `trigger:<name>`, `schedule:<name>`."""

SERIAL = re.compile(r"(?:serial(?: number)?\s*[=:]\s*|0x)?((?:[0-9a-f]{2}[:-])+[0-9a-f]{2}|[0-9a-f]{16,})")
"""Matches a certificate's serial number in the formats of Vault, openssl and browsers."""

NameKind = Literal["name", "agent", "person"]
HitKind = Literal["job", "request", "credential", "entry", "name", "agent", "person", "resource"]


class SearchHit(Message):
    """One thing that was found."""

    kind: HitKind
    """`name` means all jobs of a name; the other values mean what they say."""
    id: str
    """The id of a job, request, credential or ledger entry; the name of anything else."""
    job: str = ""
    """The job's id; `-` for an entry without a job; empty for anything that belongs to no single job."""
    name: str = ""
    """The job's name; empty if there is no single job, or if the store does not have it."""
    text: str = ""
    """The job's task, or a resource's title; may be empty."""


@dataclass(frozen=True, slots=True)
class IndexTerms:
    """The words, names and handles by which a ledger entry is found."""

    words: tuple[str, ...] = ()
    """Words; a search combines them with the words of the job's other entries."""
    handles: tuple[str, ...] = ()
    """Database user, lease, accessor, certificate: names of this entry's credential. None of them gives access."""
    names: tuple[tuple[NameKind, str, str], ...] = ()
    """Kind, name, and the entity id of the person who may see the name without the right to read everything."""


INDEXED_TYPES = (EventType.JOB_SUBMITTED, EventType.ACCESS_REQUESTED, EventType.APPROVAL_DECIDED, EventType.CREDENTIAL_ISSUED)
"""The types of entries that have search terms."""


def index_terms(kind: EventType, data: Mapping[str, Any]) -> IndexTerms:
    """Return the terms by which an entry is found. A job's parameters are not indexed, because they may contain anything."""
    match kind:
        case EventType.JOB_SUBMITTED:
            agent = str((data["agent"] or {}).get("name") or "")
            labels = [f"{key} {value}" for key, value in data["labels"].items()]
            texts = (data["name"], agent, data["requester_name"], data["environment"], data["task"], data["reason"], *labels)
            owner, who = data["requester"], data["requester_name"]
            names: tuple[tuple[NameKind, str, str], ...] = (("name", data["name"], owner),)
            names += (("agent", agent, owner),) if agent else ()
            names += () if AFTER_ORIGIN_KIND in who else (("person", who, owner),)
            words = words_of(*texts)
            return IndexTerms(words=(*words, agent_term(agent)) if agent else words, names=names)
        case EventType.ACCESS_REQUESTED:
            return IndexTerms(words=words_of(data["resource"], data["title"], data["reason"]))
        case EventType.APPROVAL_DECIDED:
            return IndexTerms(words=words_of(data["name"], data["reason"]), names=(("person", data["name"], data["person"]),))
        case EventType.CREDENTIAL_ISSUED:
            handles = (data.get(name) for name in ("user", "lease_id", "accessor", "certificate"))
            return IndexTerms(handles=tuple(dict.fromkeys(to_handle(handle) for handle in handles if handle)))
        case _:
            return IndexTerms()


def agent_term(agent: str) -> str:
    """Return the term that is indexed for each job of an agent. No typed word can equal it, because words contain no colon."""
    return f"agent:{agent}"[:MAX_HANDLE_CHARS]


def words_of(*texts: str) -> tuple[str, ...]:
    """Return the distinct words of texts, in the form in which they are compared: at most MAX_WORDS."""
    folded = (unicodedata.normalize("NFKC", text).casefold() for text in texts)
    # The vowel signs of Hindi or Thai are marks, not letters: they are part of a word.
    spaced = ("".join(char if char.isalnum() or unicodedata.category(char)[0] == "M" else " " for char in text) for text in folded)
    words = (word[:MAX_WORD_CHARS] for text in spaced for word in text.split() if len(word) > 1 or word.isdigit())
    return tuple(dict.fromkeys(words))[:MAX_WORDS]


def to_handle(text: str) -> str:
    """Normalize a database user, lease id, accessor or certificate for comparison: the last part of a path, a serial without separators."""
    last = text.replace("\0", "\ufffd").strip().casefold().rstrip("/").rpartition("/")[2]
    serial = SERIAL.fullmatch(last)
    return (re.sub("[:-]", "", serial[1]) if serial else last)[:MAX_HANDLE_CHARS]


def query_words(text: str) -> tuple[str, ...]:
    return words_of(text[:MAX_QUERY_CHARS])[:MAX_QUERY_WORDS]


def query_handle(text: str) -> str:
    """Return a pasted text as a handle; empty if it is too short for one."""
    handle = to_handle(text[:MAX_QUERY_CHARS])
    return handle if len(handle) >= MIN_HANDLE_CHARS else ""


def id_within(text: str) -> str | None:
    """Return the first id of a credential, request or job in a longer text (a database user's name, a log line, an address); None if it has
    none.
    """
    folded = text[:MAX_QUERY_CHARS].lower()
    found = CREDENTIAL_ID.search(folded) or REQUEST_ID.search(folded) or JOB_ID.search(folded)
    return found[0] if found else None
