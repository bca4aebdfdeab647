"""Renders templates into responses. The template engine escapes every value; filters make invisible characters visible."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container
from datetime import datetime
from functools import cache, partial
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from console.auth.csrf import mask
from console.pages.look import look_of
from console.pages.regions import AUTO_REFRESH_HEADER, KNOWN_REGIONS_HEADER, changed_regions, with_digests
from console.pages.static import static_url
from console.presentation import request_text, time_text
from console.presentation.event_text import event_sentence
from console.presentation.job_status import tier_name, tier_names
from console.presentation.runbook import runbook_url
from console.presentation.status_badges import shown_credential_state, shown_request_state, status_badge
from console.presentation.terminal_text import plain
from console.services.deciders import GroupMembers, deciders_from, tier_deciders
from justenough.domain.core.units import duration_text
from justenough.domain.inbox.diff import to_excerpt, word_diff
from justenough.domain.jobs.result_reasons import result_reason_text
from justenough.domain.jobs.tool_bounds_syntax import format_tool_lines
from justenough.domain.ledger.overdue import session_ends

CONTENT_SECURITY_POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
"""Content-Security-Policy of every page: nothing inline, nothing from other origins."""
NAV = (
    ("/now", "Dashboard"),
    ("/inbox", "Approvals"),
    ("/jobs", "Jobs"),
    ("/credentials", "Credentials"),
    ("/ledger", "Ledger"),
    ("/catalog", "Catalog"),
    ("/report", "Compliance"),
    ("/operations", "Operations"),
)
READERS_PAGES = frozenset({"/report", "/operations/deliveries", "/operations/settings"})
"""Pages that only people who may read everything can open. Nobody else gets a link to them."""


def render(request: Request, template: str, *, status: int = 200, now: datetime | None = None, **context: Any) -> HTMLResponse:
    """Render a page, or for an automatic refresh its changed regions.

    Besides `context`, every template gets `request`, `visitor` (None without a login), `now`, `nav` and `look`.
    """
    context |= {
        "request": request,
        "visitor": getattr(request.state, "visitor", None),
        "now": now or request.app.state.console.deps.now(),
        "nav": NAV,
    }
    context["look"] = look_of(request)
    text = template_environment().get_template(template).render(context)
    if AUTO_REFRESH_HEADER in request.headers:
        text = changed_regions(text, request.headers.get(KNOWN_REGIONS_HEADER, ""))
    else:
        text = with_digests(text)
    return HTMLResponse(text, status_code=status, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


@cache
def template_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("console.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "plain": plain,
        "message": _message,
        "masked": mask,
        "lines": lambda text: "\n".join(plain(line) for line in str(text).split("\n")),
        "duration": duration_text,
        "span": time_text.span,
        "took": time_text.elapsed_text,
        "exact": time_text.exact_time,
        "rfc": time_text.rfc3339_ms,
        "pretty": lambda value: json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str),
        "number": "{:,}".format,
        "ago": pass_context(partial(_time_element, kind="ago", text=time_text.time_since)),
        "left": pass_context(partial(_time_element, kind="left", text=time_text.time_left)),
        "pairs": lambda values: [(str(value), plain(value)) for value in values],
        "bounds": format_tool_lines,
        "telling": to_excerpt,
        "word_diff": lambda difference: word_diff(difference.before, difference.now),
        "result_reason": result_reason_text,
        "sentence": lambda entry: plain(event_sentence(entry.type, entry.data)),
    }
    environment.globals |= {"mark": status_badge, "static": static_url, "with_query": _with_query, "runbook": runbook_url}
    environment.globals |= {
        "session_ends": session_ends,
        "shown_credential_state": shown_credential_state,
        "shown_request_state": shown_request_state,
    }
    environment.globals |= {"request_text": request_text, "deciders": _deciders}
    # Whether a person may open a page that a menu links to.
    environment.globals["can_open"] = lambda caller, path: caller.can_read_all or path not in READERS_PAGES
    environment.globals |= {
        "tier_name": pass_context(lambda context, number: tier_name(number, context["visitor"].caller.tiers)),
        "tier_names": pass_context(lambda context, numbers: tier_names(numbers, context["visitor"].caller.tiers)),
    }
    return environment


def download_headers(filename: str) -> dict[str, str]:
    """Return the headers of a response that the browser saves as a file. By default no cache stores a response (console.http.middleware)."""
    return {"Content-Disposition": f'attachment; filename="{filename}"'}


def to_sentence(text: str) -> str:
    """Return a message as a sentence, with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}" if text else ""


def _message(text: object) -> Markup:
    """Return an error message or a warning as HTML; text between backticks becomes code."""
    parts = enumerate(re.split("`([^`]+)`", plain(text)))
    # Markup.format and Markup.join escape their arguments.
    return Markup("").join(Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in parts)


def _time_element(context: Context, moment: datetime | None, *, kind: str, text: Callable[..., str]) -> Markup:
    """Return a moment relative to now, in words; app.js keeps it current. A dash for None."""
    if moment is None:
        return Markup("–")
    # Markup.format escapes its arguments.
    return Markup('<time datetime="{}" title="{}" data-tick="{}">{}</time>').format(
        time_text.rfc3339_ms(moment), time_text.exact_time(moment), kind, text(moment, now=context["now"])
    )


@pass_context
def _deciders(context: Context, tier: int, *, without: Container[str] = (), and_above: bool = True) -> tuple[GroupMembers, ...]:
    """Return the groups that can decide at a tier, with their members except `without`."""
    deps, tiers = context["request"].app.state.console.deps, context["visitor"].caller.tiers
    return deciders_from(deps, tiers, tier, without=without) if and_above else tier_deciders(deps, tiers, tier)


@pass_context
def _with_query(context: Context, **changes: object) -> str:
    """Return this page's URL with changed query parameters. None removes a parameter. The cursor is always dropped.

    `here` in the context: the path to link to if the page is the response to a form, because the form's own address cannot be opened.
    """
    # A parameter may occur several times, as `column` of the list of jobs.
    unchanged = [(name, value) for name, value in context["request"].query_params.multi_items() if name not in {"cursor", *changes}]
    changed = [(name, str(value)) for name, value in changes.items() if value not in {None, ""}]
    new_query = urlencode([*unchanged, *changed])
    here = context.get("here")
    return f"{here or ''}?{new_query}" if new_query else str(here or context["request"].url.path)
