"""A copy of the ledger: one JSON object per line, as the API shows entries, oldest first; and what a look at one finds. No I/O, no clock.

Command line and pages write the same lines. In a copy chains are mixed, each in its own order; the newest link of each is kept in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.ledger.hash_chain import GENESIS, ChainHead, ChainProblem, LedgerEntry, LedgerReport, entry_problems, moment_text

EXPORT = "copy of the ledger"
MAX_PROBLEMS = 1_000
UNDETECTABLE = (
    "A copy that ends early, or that leaves whole jobs out, is sound in itself: hold its newest hash and its number of entries against the console's.",
    "Whoever made the copy can have worked every hash out anew; only a hash that was kept elsewhere shows that.",
)
"""What a look at a copy cannot see."""


def to_export_line(entry: Mapping[str, Any]) -> str:
    """Return the line of an entry as the API shows it, with its end."""
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n"


def read_export(lines: Iterable[str]) -> Iterator[LedgerEntry]:
    """Yield what lines hold, as it was hashed. Raises InvalidInput naming the first line that is no entry."""
    for number, text in enumerate(lines, start=1):
        if text.strip():
            try:
                yield _parse_entry(json.loads(text))
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidInput(
                    EXPORT, (Problem(f"line {number}", "is no ledger entry as `justenough ledger export` writes it"),)
                ) from error


def verify_export(lines: Iterable[str]) -> LedgerReport:
    """Return what a look at every chain of a copy finds. Entries that are not in it are missing, whether or not they ever were."""
    ends: dict[str, ChainHead] = {}
    problems: list[ChainProblem] = []
    count = 0
    for entry in read_export(lines):
        count += 1
        found = entry_problems(entry, ends.get(entry.job, ChainHead(entry.job, 0, GENESIS)))
        problems += found if len(problems) < MAX_PROBLEMS else ()
        ends[entry.job] = ChainHead(entry.job, entry.seq, entry.hash)
    return LedgerReport(entries=count, jobs=len(ends), problems=tuple(problems), unseen=UNDETECTABLE)


def _parse_entry(raw: Mapping[str, Any]) -> LedgerEntry:
    at = datetime.fromisoformat(raw["at"])
    data = raw["data"]
    if not isinstance(data, dict):
        message = "data is a mapping"
        raise TypeError(message)
    texts = {name: str(raw[name]) for name in ("job", "id", "type", "prev", "hash")}
    return LedgerEntry(seq=int(raw["seq"]), at=moment_text(at), data=to_canonical_json(data).decode(), **texts)
