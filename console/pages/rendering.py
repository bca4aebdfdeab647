"""Templates to answers. Every value is escaped by the template engine; strangers' text shows what cannot be seen. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from console.pages.static import address
from console.presentation import time_text
from console.presentation.event_text import sentence
from console.presentation.status_badges import mark
from console.presentation.terminal_text import plain
from justenough.domain.core.units import duration_text
from justenough.domain.inbox.diff import telling
from justenough.domain.jobs.tool_bounds_syntax import lines_of

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
"""Content-Security-Policy of every page: nothing inline, nothing from elsewhere."""
NAV = (
    ("/now", "Now"),
    ("/inbox", "Inbox"),
    ("/jobs", "Jobs"),
    ("/credentials", "Credentials"),
    ("/ledger", "Ledger"),
    ("/catalog", "Catalog"),
    ("/report", "Report"),
)


def render(request: Request, template: str, *, status: int = 200, now: datetime | None = None, **context: Any) -> HTMLResponse:
    """Return a page. Every template knows `request`, `visitor` (None for strangers), `now` and `nav` beside what is given."""
    known = {"request": request, "visitor": getattr(request.state, "visitor", None), "now": now or datetime.now(UTC), "nav": NAV}
    text = environment().get_template(template).render({**known, **context})
    return HTMLResponse(text, status_code=status, headers={"Content-Security-Policy": POLICY})


@cache
def environment() -> Environment:
    """Return the templates' engine."""
    made = Environment(
        loader=PackageLoader("console.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {
        "plain": plain,
        "lines": lambda text: "\n".join(plain(line) for line in str(text).split("\n")),
        "duration": duration_text,
        "span": time_text.span,
        "took": time_text.took,
        "exact": time_text.exact,
        "rfc": time_text.rfc,
        "pretty": lambda value: json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str),
        "number": "{:,}".format,
        "ago": _ago,
        "left": _left,
        "pairs": lambda values: [(str(value), plain(value)) for value in values],
        "bounds": lines_of,
        "telling": telling,
        "told": lambda entry: plain(sentence(entry.type, entry.data)),
    }
    made.globals |= {"mark": mark, "static": address, "with_query": _with_query, "words_of": _words_of}
    return made


def _words_of(kind: str, states: Iterable[object]) -> list[tuple[str, str]]:
    """Return states with their words, to choose from."""
    return [(str(getattr(state, "value", state)), mark(kind, state).word) for state in states]


@pass_context
def _ago(context: Context, moment: datetime | None) -> Markup:
    """A moment as time since now, which app.js keeps true."""
    return _time(moment, "ago", time_text.ago(moment, now=context["now"]) if moment else "")


@pass_context
def _left(context: Context, moment: datetime | None) -> Markup:
    """A moment as the time that is left until it."""
    return _time(moment, "left", time_text.left(moment, now=context["now"]) if moment else "")


def _time(moment: datetime | None, kind: str, text: str) -> Markup:
    if moment is None:
        return Markup("–")
    # Markup.format escapes its arguments.
    return Markup('<time datetime="{}" title="{}" data-tick="{}">{}</time>').format(
        time_text.rfc(moment), time_text.exact(moment), kind, text
    )


@pass_context
def _with_query(context: Context, **changes: object) -> str:
    """Return this page's address with some of its query changed; None takes a part away. A new filter starts without a cursor."""
    query: Mapping[str, str] = context["request"].query_params
    kept = {name: value for name, value in query.items() if name not in {"cursor", *changes}}
    changed = {name: str(value) for name, value in changes.items() if value not in {None, ""}}
    asked = urlencode({**kept, **changed})
    return f"?{asked}" if asked else str(context["request"].url.path)
