"""Small charts as geometry that templates write into SVG. Pure; the templates add colours and labels.

A line chart uses a box of WIDTH × HEIGHT, stretched to the available space. Bars use per cent horizontally and pixels vertically.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from justenough.domain.core.units import duration_text
from justenough.domain.readmodel.dashboard import HISTOGRAM_BOUNDS_S, DurationHistogram, JobResults

WIDTH, HEIGHT = 320, 80
BAR_HEIGHT_PX = 64
"""Height of the highest bar in pixels."""
MIN_RUN_SLOTS = 30
"""If there are fewer runs, their bars are as narrow as if there were this many."""
BAR_WIDTH_SHARE = 0.7
"""Width of a bar as a share of its slot; the rest is the gap."""


@dataclass(frozen=True, slots=True)
class LineChart:
    lines: tuple[str, ...]
    """`points` of one polyline per uninterrupted run of known values."""
    areas: tuple[str, ...]
    """`points` of the polygon below each line."""
    top: int
    """The value at the upper edge."""


@dataclass(frozen=True, slots=True)
class ChartBar:
    label: str
    count: int
    x: float
    """Per cent, as `width`."""
    width: float
    middle: float
    height: float
    """Pixels."""


@dataclass(frozen=True, slots=True)
class RunBar:
    x: float
    """Per cent, as `width`."""
    width: float
    height: float
    """Pixels."""
    succeeded: bool


@dataclass(frozen=True, slots=True)
class ResultBar:
    """The jobs of one part of a period: a bar of stacked results, from the bottom to the top. It uses the same box as a line chart."""

    x: float
    width: float
    stacks: tuple[tuple[str, float, float], ...]
    """Tone, upper edge and height of each result that occurred."""
    results: JobResults


@dataclass(frozen=True, slots=True)
class ResultChart:
    """Jobs by result over time, and how many ended in the period before."""

    bars: tuple[ResultBar, ...]
    before: str
    """`points` of the polyline of the period before."""
    top: int
    """The value at the upper edge."""


def result_chart(results: Sequence[JobResults], before: Sequence[JobResults]) -> ResultChart:
    """Return the chart of a period and of the period before, which has as many parts."""
    top = axis_top(max((part.count for part in (*results, *before)), default=0))
    apart = WIDTH / max(1, len(results))
    bars = []
    for place, part in enumerate(results):
        stacks, base = [], float(HEIGHT)
        for tone, count in (("good", part.succeeded), ("calm", part.stopped), ("bad", part.failed)):
            if count:
                height = HEIGHT * count / top
                base -= height
                stacks.append((tone, round(base, 2), round(height, 2)))
        bars.append(ResultBar(round(place * apart, 2), round(apart * BAR_WIDTH_SHARE, 2), tuple(stacks), part))
    points = [(round((place + 0.5) * apart, 2), round(HEIGHT - HEIGHT * part.count / top, 2)) for place, part in enumerate(before)]
    return ResultChart(tuple(bars), _svg_points(points), top)


def line_chart(values: Sequence[int | None]) -> LineChart:
    """Return equally spaced values as a line chart; None is an unknown value."""
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
    """Return the smallest of 1, 2, 5, 10, 20, 50, … that is at least `highest`."""
    size = 1
    while True:
        for step in (1, 2, 5):
            if step * size >= highest:
                return step * size
        size *= 10


def histogram(spread: DurationHistogram) -> tuple[ChartBar, ...]:
    """Return the bars of a histogram, labelled by their upper bound; the highest is BAR_HEIGHT_PX high. Every non-zero bar is visible."""
    labels = [duration_text(bound) for bound in HISTOGRAM_BOUNDS_S]
    labels.append(f">{labels[-1]}")
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
        for number, (bar, label) in enumerate(zip(spread.bars, labels, strict=True))
    )


def run_bars(runs: Sequence[tuple[float | None, bool]]) -> tuple[RunBar, ...]:
    """Return a bar for each run, from its seconds and whether it succeeded; the longest run's bar is BAR_HEIGHT_PX high.

    A run without seconds gets the lowest bar.
    """
    longest = max((seconds for seconds, _ in runs if seconds), default=0.0) or 1.0
    place = 100 / max(MIN_RUN_SLOTS, len(runs))
    return tuple(
        RunBar(
            x=round(number * place + place * (1 - BAR_WIDTH_SHARE) / 2, 2),
            width=round(place * BAR_WIDTH_SHARE, 2),
            height=round(max(4.0, BAR_HEIGHT_PX * (seconds or 0) / longest), 1),
            succeeded=succeeded,
        )
        for number, (seconds, succeeded) in enumerate(runs)
    )


def _svg_points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
