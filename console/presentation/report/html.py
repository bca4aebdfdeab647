"""The report as one self-contained HTML page: no script, no external file, no link elsewhere. The template engine escapes every value."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from console.presentation.report import figures
from console.presentation.terminal_text import moment, plain
from justenough.domain.evidence.report import Report


def render_html(report: Report) -> str:
    loader = PackageLoader("console.presentation.report", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # Escape control and direction-changing characters; a browser would apply them.
    environment.filters |= {"plain": plain, "moment": lambda value: moment(value.isoformat())}
    return environment.get_template("page.html").render(report=report, figures=figures)
