"""Figures of a report as text, the same in every format: labels instead of names, seconds as durations, `not measured` for None. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from console.presentation import time_text
from justenough.domain.evidence.report import Cell, Line, Table

LABELS: Mapping[str, str] = {
    "answers": "decisions",
    "auto_approved_share": "allowed without approval",
    "beyond_their_end": "verified after expiry",
    "by_ttl": "by duration",
    "double_locked_issues": "requests",
    "expired_unconfirmed": "credentials",
    "fault": "problem",
    "for_somebody_away": "by delegates",
    "issued_without_use": "issued but unused",
    "never_issued": "without a credential",
    "never_revocable": "cannot be revoked",
    "of_no_known_job": "unknown names",
    "open_at_the_end": "not confirmed at the end",
    "revocable_never": "cannot be revoked",
    "revocable_now": "revocable immediately",
    "revocable_on_expiry": "cannot be revoked early",
    "runs": "jobs",
    "sandbox_off": "without a sandbox",
    "waiting_at_the_end": "still waiting at the end",
    "what": "details",
}
"""Labels of figures and columns whose JSON names are unsuitable for a page."""


def figures(line: Line) -> Iterator[tuple[str, str]]:
    """Yield the label and value of each figure of a line."""
    for name, value in line.figures.items():
        yield (
            label(name.removesuffix("_seconds")),
            value_text(value, seconds=name.endswith("_seconds"), share=name.endswith("_share")),
        )


def cells(table: Table) -> Iterator[list[str]]:
    """Yield a table's rows as text; columns whose name ends in (s) hold seconds."""
    for row in table.rows:
        yield [value_text(value, seconds=column.endswith("(s)"), nothing="–") for column, value in zip(table.columns, row, strict=True)]


def columns(table: Table) -> list[str]:
    """Return a table's column names without the unit, which the cells contain."""
    return [label(name.removesuffix(" (s)")) for name in table.columns]


def label(name: str) -> str:
    words = LABELS.get(name) or name.replace("_", " ")
    return f"actual {words.removeprefix('real ')}" if words.startswith("real ") else words


def is_number(value: Cell) -> bool:
    """Whether a value is a number and so right-aligned."""
    return isinstance(value, int | float)


def value_text(value: Cell, *, seconds: bool = False, share: bool = False, nothing: str = "not measured") -> str:
    """Return one value as text; `nothing` for None."""
    match value:
        case None:
            return nothing
        case str():
            return value
        case _ if seconds:
            return span(value)
        case _ if share:
            # Rounded down from its four decimals, so that 100% means all.
            return f"{round(value * 10_000) // 10 / 10:.1f}%"
        case int():
            return f"{value:,}"
        case _:
            return f"{value:,.2f}"


def span(seconds: float) -> str:
    """Return seconds in a suitable unit: `340 ms`, `12.5 s`, `4 min 10 s`, `3 h 5 min`, `12 d 4 h`."""
    size = abs(seconds)
    sign = "-" if seconds < 0 else ""
    if size < 1:
        return f"{sign}{size * 1000:.0f} ms"
    return f"{sign}{size:.1f} s" if size < 60 else f"{sign}{time_text.span(size)}"
