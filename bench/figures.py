"""What is measured and the budget it has: figures, their verdicts, and the arithmetic on series. Measures nothing itself."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. `ratio` is to the floor, which was measured beside it."""

    name: str
    what: str
    value: float
    unit: str
    floor: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    of: Literal["value", "ratio"] = "value"
    """What the budget is about."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the floor's."""
        return self.value / self.floor if self.floor else None

    @property
    def ok(self) -> bool | None:
        """Whether the budget holds; None where there is none."""
        judged = self.ratio if self.of == "ratio" else self.value
        if judged is None or (self.at_least is None and self.at_most is None):
            return None
        return (self.at_least is None or judged >= self.at_least) and (self.at_most is None or judged <= self.at_most)

    @property
    def budget(self) -> str:
        """The budget as text."""
        unit = "× floor" if self.of == "ratio" else self.unit
        if self.at_least is not None:
            return f"≥ {self.at_least:,g} {unit}"
        return "" if self.at_most is None else f"≤ {self.at_most:,g} {unit}"

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "name": self.name,
            "what": self.what,
            "budget": self.budget or None,
            "value": round(self.value, 4),
            "unit": self.unit,
            "floor": None if self.floor is None else round(self.floor, 4),
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "ok": self.ok,
            "note": self.note or None,
        }


def p50(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def p95(values: Sequence[float]) -> float:
    """Return the value that 95 in 100 stay under; of fewer than twenty, the largest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]


def p99(values: Sequence[float]) -> float:
    """Return the value that 99 in 100 stay under; of fewer than a hundred, the largest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
