"""Exports of the ledger (one entry per line, as the API's JSON object, oldest first) and their verification. No I/O, no clock.

The command line and the pages write the same lines. An export mixes chains, each in its own order; verification keeps the newest entry of each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.json_values import unique_object
from justenough.domain.ledger.checkpoint import Checkpoint
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, parse_entry_time
from justenough.domain.ledger.hash_chain import (
    GENESIS,
    ChainProblem,
    Fault,
    LedgerEntry,
    LedgerReport,
    entry_problems,
    hashed_text,
    moment_text,
)
from justenough.domain.ledger.merkle import Frontier, leaf_of
from justenough.domain.ledger.public_keys import LedgerKeys

EXPORT = "copy of the ledger"
MAX_PROBLEMS = 1_000
WITHOUT_CHECKPOINT = (
    "A copy that ends early, omits whole jobs or changes the order between jobs still verifies without a checkpoint (--checkpoint).",
    "Without a checkpoint, the author of the copy could have recomputed every hash.",
)
BEHIND_CHECKPOINT = "The entries after the newest checkpoint, {size:,}, may have been removed, or rewritten with their hashes."
WITHOUT_KEYS = "Signatures of people and of checkpoints are verified only with their keys (--keys)."
TRUSTED_KEYS = "The keys themselves are trusted: keep a copy of them elsewhere, as of a checkpoint."


WhyForged = Callable[[str, str, datetime, dict[str, Any]], str | None]
"""Returns why the signature in an entry (job, type, at, data) does not prove what the entry says; None if it does or if it has none."""


class ExportedEntry(NamedTuple):
    """One line of an export."""

    position: int
    """The position in the whole ledger, counted from 1; 0 if the line does not contain it."""
    entry: LedgerEntry
    text: str | None
    """The exact text that was hashed; None in exports of older versions."""


def to_export_line(entry: Mapping[str, Any]) -> str:
    """Return an entry (in the API's format) and the exact text that was hashed as one line, including the line break."""
    return json.dumps({**entry, "text": hashed_text(*_to_entry(entry)[:-1])}, ensure_ascii=False, separators=(",", ":")) + "\n"


def read_export(lines: Iterable[str]) -> Iterator[ExportedEntry]:
    """Yield the entries of lines. Raises InvalidInput for the first line that is not an entry."""
    for number, text in enumerate(lines, start=1):
        if text.strip():
            try:
                raw = json.loads(text, object_pairs_hook=unique_object)
                yield ExportedEntry(int(raw.get("position", 0)), _to_entry(raw), raw.get("text"))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
                message = "is not a ledger entry as `justenough ledger export` writes it"
                raise InvalidInput(EXPORT, (Problem(f"line {number}", message),)) from error


def verify_export(
    lines: Iterable[str], *, checkpoints: Sequence[Checkpoint] = (), keys: LedgerKeys | None = None, why_forged: WhyForged | None = None
) -> LedgerReport:
    """Verify every chain of a copy, and that the copy is consistent with `checkpoints`; with `keys`, also verify the checkpoints'
    signatures.

    `why_forged`: verifies the signatures of people. Entries that were left out of the copy are reported as missing.
    """
    ends: dict[str, tuple[int, str]] = {}
    tree = _TreeCheck(checkpoints, keys)
    problems: list[ChainProblem] = []
    count = 0
    for position, entry, text in read_export(lines):
        count += 1
        found = [*entry_problems(entry, *ends.get(entry.job, (0, GENESIS))), *tree.add(position, entry)]
        if text is not None and text != hashed_text(*entry[:-1]):
            message = "its text is not that of its fields"
            found.append(ChainProblem(job=entry.job, seq=entry.seq, fault=Fault.EDITED, message=message))
        if why_forged and (why := why_forged(entry.job, entry.type, parse_entry_time(entry.at), json.loads(entry.data))):
            found.append(ChainProblem(job=entry.job, seq=entry.seq, fault=Fault.FORGED, message=why))
        problems += found if len(problems) < MAX_PROBLEMS else ()
        ends[entry.job] = entry.seq, entry.hash
    problems += tree.finish()
    newest = max((checkpoint.size for checkpoint in checkpoints), default=None)
    unseen = WITHOUT_CHECKPOINT if newest is None else (BEHIND_CHECKPOINT.format(size=newest),)
    return LedgerReport(entries=count, jobs=len(ends), problems=tuple(problems), unseen=(*unseen, TRUSTED_KEYS if keys else WITHOUT_KEYS))


class _TreeCheck:
    """Compares the tree of a copy with checkpoints, entry by entry."""

    def __init__(self, checkpoints: Sequence[Checkpoint], keys: LedgerKeys | None) -> None:
        self._waiting = sorted(checkpoints, key=lambda checkpoint: checkpoint.size, reverse=True)
        self._keys = keys
        self._tree = Frontier()
        self._is_whole = True

    def add(self, position: int, entry: LedgerEntry) -> Iterator[ChainProblem]:
        """Compare the checkpoints of the entries so far, then add the next entry."""
        yield from self._compare_reached()
        if not self._waiting:
            return
        if position != self._tree.size + 1:
            if self._is_whole:
                message = (
                    f"position {self._tree.size + 1} is missing or not in its place: a checkpoint commits to the whole ledger in order"
                )
                yield ChainProblem(job=entry.job, seq=entry.seq, fault=Fault.REWRITTEN, message=message)
            self._is_whole = False
            return
        self._tree = self._tree.with_leaves([leaf_of(entry.hash)])

    def finish(self) -> Iterator[ChainProblem]:
        """Compare the checkpoints of all entries; yield a problem for each that commits to more entries than there are."""
        yield from self._compare_reached()
        for checkpoint in self._waiting:
            message = f"a checkpoint commits to {checkpoint.size:,} entries, but the copy has only the first {self._tree.size:,}"
            yield ChainProblem(job=UNATTRIBUTED_CHAIN, seq=0, fault=Fault.REWRITTEN, message=message)

    def _compare_reached(self) -> Iterator[ChainProblem]:
        while self._waiting and self._waiting[-1].size <= self._tree.size:
            yield from self._compare(self._waiting.pop())

    def _compare(self, checkpoint: Checkpoint) -> Iterator[ChainProblem]:
        if self._tree.size != checkpoint.size or self._tree.root != checkpoint.root:
            message = f"the first {checkpoint.size:,} entries are not those that a checkpoint commits to"
            yield ChainProblem(job=UNATTRIBUTED_CHAIN, seq=0, fault=Fault.REWRITTEN, message=message)
        if self._keys is None:
            return
        by_version = {key.version: key.raw for key in self._keys.checkpoint_keys}
        if checkpoint.origin != self._keys.origin or not checkpoint.is_signed_by(by_version):
            message = f"the checkpoint of {checkpoint.size:,} entries has no valid signature of {self._keys.origin}"
            yield ChainProblem(job=UNATTRIBUTED_CHAIN, seq=0, fault=Fault.FORGED, message=message)


def _to_entry(raw: Mapping[str, Any]) -> LedgerEntry:
    """Return the API's entry in the form that was hashed."""
    fields = {name: str(raw[name]) for name in ("job", "id", "type", "prev", "hash")}
    # Nothing with a lone surrogate was ever hashed. This raises UnicodeEncodeError, a ValueError.
    "".join(fields.values()).encode()
    data = to_canonical_json({**raw["data"]}).decode()
    return LedgerEntry(seq=int(raw["seq"]), at=moment_text(datetime.fromisoformat(raw["at"])), data=data, **fields)
