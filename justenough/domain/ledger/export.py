"""Exports of the ledger (one JSON object per line, as the API shows entries, oldest first) and their verification. No I/O, no clock.

The command line and the pages write the same lines. An export mixes chains, each in its own order; verification keeps the newest entry of each.
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
    "A copy that ends early or omits whole jobs still verifies: compare its newest hash and number of entries with the console's.",
    "The author of the copy could have recomputed every hash; only a hash that was stored elsewhere shows that.",
)
"""The changes that the verification of a copy cannot detect."""


def to_export_line(entry: Mapping[str, Any]) -> str:
    """Return an entry (as the API shows it) as one line, including the line break."""
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n"


def read_export(lines: Iterable[str]) -> Iterator[LedgerEntry]:
    """Yield the entries of lines in the form that was hashed. Raises InvalidInput for the first line that is not an entry."""
    for number, text in enumerate(lines, start=1):
        if text.strip():
            try:
                raw = json.loads(text)
                fields = {name: str(raw[name]) for name in ("job", "id", "type", "prev", "hash")}
                data = to_canonical_json({**raw["data"]}).decode()
                yield LedgerEntry(seq=int(raw["seq"]), at=moment_text(datetime.fromisoformat(raw["at"])), data=data, **fields)
            except (ValueError, KeyError, TypeError) as error:
                message = "is not a ledger entry as `justenough ledger export` writes it"
                raise InvalidInput(EXPORT, (Problem(f"line {number}", message),)) from error


def verify_export(lines: Iterable[str]) -> LedgerReport:
    """Verify every chain of a copy. Entries that were left out of it are reported as missing."""
    ends: dict[str, ChainHead] = {}
    problems: list[ChainProblem] = []
    count = 0
    for entry in read_export(lines):
        count += 1
        entry_faults = entry_problems(entry, ends.get(entry.job, ChainHead(entry.job, 0, GENESIS)))
        problems += entry_faults if len(problems) < MAX_PROBLEMS else ()
        ends[entry.job] = ChainHead(entry.job, entry.seq, entry.hash)
    return LedgerReport(entries=count, jobs=len(ends), problems=tuple(problems), unseen=UNDETECTABLE)
