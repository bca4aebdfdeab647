"""The report as one HTML page that needs nothing else: no script, no file, no address. Every value is escaped by the template engine."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from console.presentation.report import figures
from console.presentation.terminal_text import moment, plain
from justenough.domain.evidence.report import Report


def render_html(report: Report) -> str:
    """Return the whole page."""
    environment = Environment(
        loader=PackageLoader("console.presentation.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Controls and direction-changing characters would be shown as what they do.
    environment.filters |= {"plain": plain, "moment": lambda value: moment(value.isoformat())}
    return environment.get_template("page.html").render(report=report, wording=figures)
