"""Small charts as geometry: what a template writes into SVG. Pure; colours and words are the template's.

A curve is drawn in a box of WIDTH × HEIGHT that is stretched to the room there is. Bars are placed in per cent across and in pixels up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from justenough.domain.core.units import duration_text
from justenough.domain.readmodel.dashboard import BOUNDS, Spread

WIDTH, HEIGHT = 320, 80
BAR_HEIGHT = 64
"""Pixels of the highest bar."""
ROOM = 0.7
"""Of each bar's place; the rest is the gap."""


@dataclass(frozen=True, slots=True)
class Curve:
    """How a number went."""

    lines: tuple[str, ...]
    """`points` of a polyline for each stretch that is known."""
    areas: tuple[str, ...]
    """`points` of the polygon below each."""
    top: int
    """What the upper edge stands for."""


@dataclass(frozen=True, slots=True)
class Column:
    """One bar."""

    label: str
    count: int
    x: float
    """Per cent, as `width`."""
    width: float
    middle: float
    height: float
    """Pixels."""


def curve(values: Sequence[int | None]) -> Curve:
    """Return values at equal distances as a curve; None where one is not known."""
    top = ceiling(max((value for value in values if value is not None), default=0))
    apart = WIDTH / max(1, len(values) - 1)
    lines, areas = [], []
    for known, run in groupby(enumerate(values), key=lambda item: item[1] is not None):
        if not known:
            continue
        points = [(round(place * apart, 1), round(HEIGHT - HEIGHT * (value or 0) / top, 1)) for place, value in run]
        lines.append(_written(points))
        areas.append(_written([(points[0][0], HEIGHT), *points, (points[-1][0], HEIGHT)]))
    return Curve(tuple(lines), tuple(areas), top)


def ceiling(most: int) -> int:
    """Return the least of 1, 2, 5, 10, 20, 50 and so on that is not below a number."""
    size = 1
    while True:
        for step in (1, 2, 5):
            if step * size >= most:
                return step * size
        size *= 10


def columns(spread: Spread) -> tuple[Column, ...]:
    """Return a spread's bars, the highest of them BAR_HEIGHT high; what is there at all can be seen."""
    highest = max((bar.count for bar in spread.bars), default=0)
    place = 100 / max(1, len(spread.bars))
    return tuple(
        Column(
            label=label,
            count=bar.count,
            x=round(number * place + place * (1 - ROOM) / 2, 2),
            width=round(place * ROOM, 2),
            middle=round((number + 0.5) * place, 2),
            height=round(max(2.0, BAR_HEIGHT * bar.count / highest), 1) if bar.count else 0.0,
        )
        for number, (bar, label) in enumerate(zip(spread.bars, labels(), strict=True))
    )


def labels() -> Iterator[str]:
    """Yield what stands below each bar: up to how long; above the last bound for the last one."""
    yield from (duration_text(bound) for bound in BOUNDS)
    yield f">{duration_text(BOUNDS[-1])}"


def _written(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
