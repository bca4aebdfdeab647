"""Small charts as geometry: what a template writes into SVG. Pure; colours and words are the template's.

A curve is drawn in a box of WIDTH × HEIGHT that is stretched to the room there is. Bars are placed in per cent across and in pixels up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from justenough.domain.core.units import duration_text
from justenough.domain.readmodel.dashboard import HISTOGRAM_BOUNDS_S, DurationHistogram

WIDTH, HEIGHT = 320, 80
BAR_HEIGHT_PX = 64
"""Pixels of the highest bar."""
BAR_WIDTH_SHARE = 0.7
"""Of each bar's place; the rest is the gap."""


@dataclass(frozen=True, slots=True)
class LineChart:
    """How a number went."""

    lines: tuple[str, ...]
    """`points` of a polyline for each stretch that is known."""
    areas: tuple[str, ...]
    """`points` of the polygon below each."""
    top: int
    """What the upper edge stands for."""


@dataclass(frozen=True, slots=True)
class ChartBar:
    """One bar."""

    label: str
    count: int
    x: float
    """Per cent, as `width`."""
    width: float
    middle: float
    height: float
    """Pixels."""


def line_chart(values: Sequence[int | None]) -> LineChart:
    """Return values at equal distances as a curve; None where one is not known."""
    top = axis_top(max((value for value in values if value is not None), default=0))
    apart = WIDTH / max(1, len(values) - 1)
    lines, areas = [], []
    for known, run in groupby(enumerate(values), key=lambda item: item[1] is not None):
        if not known:
            continue
        points = [(round(place * apart, 1), round(HEIGHT - HEIGHT * (value or 0) / top, 1)) for place, value in run]
        lines.append(_svg_points(points))
        areas.append(_svg_points([(points[0][0], HEIGHT), *points, (points[-1][0], HEIGHT)]))
    return LineChart(tuple(lines), tuple(areas), top)


def axis_top(highest: int) -> int:
    """Return the least of 1, 2, 5, 10, 20, 50 and so on that is not below a number."""
    size = 1
    while True:
        for step in (1, 2, 5):
            if step * size >= highest:
                return step * size
        size *= 10


def histogram(spread: DurationHistogram) -> tuple[ChartBar, ...]:
    """Return a spread's bars, the highest of them BAR_HEIGHT high; what is there at all can be seen."""
    highest = max((bar.count for bar in spread.bars), default=0)
    place = 100 / max(1, len(spread.bars))
    return tuple(
        ChartBar(
            label=label,
            count=bar.count,
            x=round(number * place + place * (1 - BAR_WIDTH_SHARE) / 2, 2),
            width=round(place * BAR_WIDTH_SHARE, 2),
            middle=round((number + 0.5) * place, 2),
            height=round(max(2.0, BAR_HEIGHT_PX * bar.count / highest), 1) if bar.count else 0.0,
        )
        for number, (bar, label) in enumerate(zip(spread.bars, bar_labels(), strict=True))
    )


def bar_labels() -> Iterator[str]:
    """Yield what stands below each bar: up to how long; above the last bound for the last one."""
    yield from (duration_text(bound) for bound in HISTOGRAM_BOUNDS_S)
    yield f">{duration_text(HISTOGRAM_BOUNDS_S[-1])}"


def _svg_points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
