"""The models of the report that the API returns and every renderer reads. New fields need defaults. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum

from justenough.domain.core.base_model import Message

Cell = str | int | float | None


class Status(StrEnum):
    """From best to worst."""

    OK = "ok"
    ATTENTION = "attention"
    VIOLATION = "violation"


class Evidence(Message):
    """The ledger entries that a line counts."""

    count: int = 0
    ids: tuple[str, ...] = ()
    """All of them if they are few, else the first ones."""
    command: str | None = None
    """A command that lists the entries of these types in the period, which include those of the line; None if `ids` has all."""


class Table(Message):
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left_out: int = 0
    """The number of rows that are not shown."""


class Item(Message):
    """A framework's item to which a line is relevant."""

    id: str
    framework: str
    name: str


class Line(Message):
    """One line of the report: a few figures that answer one question."""

    key: str
    title: str
    figures: Mapping[str, Cell]
    """By name; a name that ends in `_seconds` or `_hours` gives the unit. None: not measured."""
    table: Table | None = None
    definition: str
    status: Status
    rule: str
    shows: str
    """The conclusions that the figures support, and those that they do not support."""
    items: tuple[Item, ...]
    evidence: Evidence = Evidence()


class Section(Message):
    key: str
    title: str
    lines: tuple[Line, ...]


class Report(Message):
    """The figures of a period's ledger and of the current state."""

    installation: str
    since: datetime
    until: datetime
    generated_at: datetime
    """The time of the current state."""
    entries: int
    """Ledger entries of the period that the report read."""
    status: Status
    """The worst of all lines."""
    sections: tuple[Section, ...]

    @property
    def lines(self) -> Iterator[Line]:
        return (line for section in self.sections for line in section.lines)
