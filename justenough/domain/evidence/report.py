"""The report's shape, as the API answers it and every renderer reads it. Grown only by fields with defaults. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum

from justenough.domain.core.base_model import Message

Cell = str | int | float | None


class Status(StrEnum):
    OK = "ok"
    ATTENTION = "attention"
    VIOLATION = "violation"


class Evidence(Message):
    """The ledger entries behind a line."""

    count: int = 0
    ids: tuple[str, ...] = ()
    """All of them where they are few, else the first ones."""
    command: str | None = None
    """What lists the entries of these types in the period, those behind the line among them; None where `ids` are all."""


class Table(Message):
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left_out: int = 0
    """Rows that are not shown."""


class Item(Message):
    """An item of a framework that a line bears on."""

    id: str
    framework: str
    name: str


class Line(Message):
    """A few figures that answer one question."""

    key: str
    title: str
    figures: Mapping[str, Cell]
    """By name; a name that ends in `_seconds` or `_hours` says the unit, None is `not measured`."""
    table: Table | None = None
    definition: str
    """What the figures count."""
    status: Status
    rule: str
    """What makes the status."""
    shows: str
    """What it shows, and what it does not."""
    items: tuple[Item, ...]
    evidence: Evidence = Evidence()


class Section(Message):
    key: str
    title: str
    lines: tuple[Line, ...]


class Report(Message):
    """What a period's ledger, and the state of things now, tell."""

    installation: str
    since: datetime
    until: datetime
    generated_at: datetime
    """The moment of whatever is said to be so now."""
    entries: int
    """Ledger entries of the period that were read for it."""
    status: Status
    """The worst of all lines."""
    sections: tuple[Section, ...]

    @property
    def lines(self) -> Iterator[Line]:
        """Every line, in order."""
        return (line for section in self.sections for line in section.lines)
