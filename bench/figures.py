"""Measured figures, their budgets and their table, and the arithmetic on series. Measures only how long a call takes."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

VERDICTS = {True: "ok", False: "miss", None: ""}


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. `ratio` is to the floor, which was measured in the same run."""

    name: str
    what: str
    value: float
    unit: str
    floor: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    of: Literal["value", "ratio"] = "value"
    """What the budget limits."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The value divided by the floor; None without a floor."""
        return self.value / self.floor if self.floor else None

    @property
    def ok(self) -> bool | None:
        """Whether the figure is within its budget; None without a budget."""
        measured = self.ratio if self.of == "ratio" else self.value
        if measured is None or (self.at_least is None and self.at_most is None):
            return None
        return (self.at_least is None or measured >= self.at_least) and (self.at_most is None or measured <= self.at_most)

    @property
    def budget(self) -> str:
        """The budget as text."""
        unit = "× floor" if self.of == "ratio" else self.unit
        if self.at_least is not None:
            return f"≥ {self.at_least:,g} {unit}"
        return "" if self.at_most is None else f"≤ {self.at_most:,g} {unit}"

    def as_json(self) -> dict[str, Any]:
        """Return the figure as plain JSON."""
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


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long a call takes, in seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def best_of_five(call: Callable[[], object]) -> float:
    """Return the shortest of five runs, in seconds."""
    return min(seconds_of(call) for _ in range(5))


def p50(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def p95(values: Sequence[float]) -> float:
    """Return the value that 95 of 100 stay under; of fewer than twenty values, the largest."""
    return _percentile(values, 0.95)


def p99(values: Sequence[float]) -> float:
    """Return the value that 99 of 100 stay under; of fewer than a hundred values, the largest."""
    return _percentile(values, 0.99)


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(figures: Sequence[Figure]) -> str:
    """Return a table of the figures, their budgets and floors, with the notes below."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("what", "budget", "figure", "floor", "ratio", ""):
        rows.add_column(heading, justify="right" if heading in {"figure", "floor", "ratio"} else "left", no_wrap=heading != "what")
    for figure in figures:
        floor = "" if figure.floor is None else _number(figure.floor, figure.unit)
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        rows.add_row(figure.what, figure.budget, _number(figure.value, figure.unit), floor, ratio, VERDICTS[figure.ok])
    text = io.StringIO()
    console = Console(file=text, width=140, force_terminal=False)
    console.print(rows)
    for figure in figures:
        if figure.note:
            console.print(f"  {figure.name}: {figure.note}", highlight=False, soft_wrap=True)
    return text.getvalue().rstrip()


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 or value == int(value) else f"{value:.1f} {unit}"
