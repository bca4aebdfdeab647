"""Figures as a table for people. Measures nothing."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench.figures import Figure

VERDICTS = {True: "ok", False: "miss", None: ""}


def table(figures: Sequence[Figure]) -> str:
    """Return the figures with their budgets, the floor beside them, and the notes below."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("what", "budget", "figure", "floor", "ratio", ""):
        shown.add_column(heading, justify="right" if heading in {"figure", "floor", "ratio"} else "left", no_wrap=heading != "what")
    for figure in figures:
        shown.add_row(figure.what, figure.budget, _number(figure.value, figure.unit), *_beside(figure), VERDICTS[figure.ok])
    text = io.StringIO()
    console = Console(file=text, width=140, force_terminal=False)
    console.print(shown)
    for figure in figures:
        if figure.note:
            console.print(f"  {figure.name}: {figure.note}", highlight=False, soft_wrap=True)
    return text.getvalue().rstrip()


def _beside(figure: Figure) -> tuple[str, str]:
    if figure.floor is None or figure.ratio is None:
        return "", ""
    return _number(figure.floor, figure.unit), f"{figure.ratio:.2f}"


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 or value == int(value) else f"{value:.1f} {unit}"
