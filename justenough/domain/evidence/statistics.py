"""Building blocks of the metrics: a parsed ledger entry, a distribution, a bounded sample, tables and results. No I/O, no clock."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic_core import from_json

from justenough.domain.evidence.report import Cell, Status, Table

T = TypeVar("T")
MAX_SHOWN = 20
"""Maximum entry ids in a line, and maximum rows of a table that lists individual items."""


class EntryFact:
    """The parts of a ledger entry that metrics read."""

    __slots__ = ("at", "data", "id", "job", "kind")

    def __init__(self, job: str, entry: str, kind: str, at: str, data: str) -> None:
        self.job = job
        self.id = entry
        self.kind = kind
        self.at = datetime.fromisoformat(at)
        self.data: dict[str, Any] = from_json(data)


class Distribution:
    """Durations in seconds, eight bytes each."""

    def __init__(self) -> None:
        self._values = array("d")

    def add(self, value: float) -> None:
        """Add a duration. A negative one comes from clocks that differ, and counts as 0."""
        self._values.append(max(value, 0.0))

    def __len__(self) -> int:
        return len(self._values)

    def figures(self) -> dict[str, Cell]:
        """Return count, p50, p95 and max, in seconds."""
        return {"measured": len(self), **self.durations()}

    def durations(self, prefix: str = "") -> dict[str, Cell]:
        """Return p50, p95 and max, in seconds, by name."""
        ordered, ranks = sorted(self._values), {"p50": 50, "p95": 95, "max": 100}
        return {f"{prefix}{name}_seconds": nearest_rank(ordered, percent) for name, percent in ranks.items()}


@dataclass(slots=True)
class Sample(Generic[T]):
    """The number of items, and the first MAX_SHOWN of them."""

    count: int = 0
    first: list[T] = field(default_factory=list)

    def add(self, item: T) -> None:
        """Count the item; keep it if it is among the first MAX_SHOWN."""
        self.count += 1
        if len(self.first) < MAX_SHOWN:
            self.first.append(item)

    def to_table(self, columns: tuple[str, ...], to_row: Callable[[T], tuple[Cell, ...]]) -> Table | None:
        """Return the first items as a table; None if there are none."""
        rows = tuple(map(to_row, self.first))
        return Table(columns=columns, rows=rows, left_out=self.count - len(rows)) if rows else None


@dataclass(frozen=True, slots=True)
class MetricResult:
    """The figures and the status of a metric; `metric_definitions` defines them."""

    key: str
    figures: Mapping[str, Cell]
    status: Status = Status.OK
    seen: Sample[str] = field(default_factory=Sample)
    """The ids of the entries behind the figures."""
    types: tuple[str, ...] = ()
    """The types of those entries; empty if they are not entries of the period."""
    table: Table | None = None


def count_result(
    key: str, figure: str, seen: Sample[str], types: tuple[str, ...] = (), *, above: Status = Status.OK, table: Table | None = None
) -> MetricResult:
    """Return a result whose only figure is the size of the sample. `above`: its status if the sample is not empty."""
    return MetricResult(key, {figure: seen.count}, status_above(seen.count, above), seen, types, table)


def count_table(columns: tuple[str, str], counts: Counter[str]) -> Table:
    """Return counts by name as a table, the highest first."""
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Table(columns=columns, rows=tuple(rows))


def nearest_rank(ordered: Sequence[float], percent: float) -> float | None:
    """Return the least value that at least `percent` of the values do not exceed, to the millisecond; None if there are no values."""
    return round(ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1], 3) if ordered else None


def status_above(count: float, status: Status) -> Status:
    """Return `status` if the count is above 0, else ok."""
    return status if count > 0 else Status.OK


def seconds_between(start: datetime, end: datetime) -> float:
    """Return the seconds from `start` to `end`, negative if `end` is earlier."""
    return (end - start).total_seconds()
