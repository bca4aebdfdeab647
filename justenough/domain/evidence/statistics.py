"""What figures are made with: a fact as it is folded, a distribution, a bounded list of the entries behind a figure. No I/O, no clock."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json

from justenough.domain.evidence.report import Cell, Status, Table

MAX_SHOWN = 20
"""Entry ids that a line names; rows that a table of single things has."""


class EntryFact:
    """One ledger entry, as far as it is folded."""

    __slots__ = ("at", "data", "id", "job")

    def __init__(self, job: str, entry: str, at: str, data: str) -> None:
        self.job = job
        self.id = entry
        self.at = datetime.fromisoformat(at)
        self.data: dict[str, Any] = from_json(data)


class Distribution:
    """Values of which rank says how they spread. Eight bytes each."""

    def __init__(self) -> None:
        self._values = array("d")

    def add(self, value: float) -> None:
        """Take one more. What seems to have ended before it began is the clocks' difference: it took nothing."""
        self._values.append(max(value, 0.0))

    def __len__(self) -> int:
        return len(self._values)

    def figures(self) -> dict[str, Cell]:
        """Return count, p50, p95 and max, in seconds."""
        ordered = sorted(self._values)
        ranks = {"p50_seconds": 50, "p95_seconds": 95, "max_seconds": 100}
        return {"measured": len(ordered), **{name: nearest_rank(ordered, percent) for name, percent in ranks.items()}}


@dataclass(slots=True)
class EntrySample:
    """How many entries stand behind a figure, and the first of them."""

    count: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, entry: str) -> None:
        """Take one more."""
        self.count += 1
        if len(self.ids) < MAX_SHOWN:
            self.ids.append(entry)


@dataclass(frozen=True, slots=True)
class MetricResult:
    """What a line came to; `lines` says what it means."""

    key: str
    figures: dict[str, Cell]
    status: Status = Status.OK
    seen: EntrySample = field(default_factory=EntrySample)
    types: tuple[str, ...] = ()
    """Of the entries behind it; none where they are not of the period."""
    table: Table | None = None


def nearest_rank(ordered: Sequence[float], percent: float) -> float | None:
    """Return the least value that at least so many percent of the values do not exceed, to the millisecond; None of none."""
    return round(ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1], 3) if ordered else None


def status_above(count: float, status: Status, *, bound: float = 0) -> Status:
    """Return a status where there is more than the bound, else ok."""
    return status if count > bound else Status.OK


def seconds_between(start: datetime, end: datetime) -> float:
    """Return how long it took."""
    return (end - start).total_seconds()


def parse_moment(text: str) -> datetime:
    """Return the moment that a field of an entry names; UTC where it names no zone."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
