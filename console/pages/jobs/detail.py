"""GET /jobs/{id}: one job whole, what a person needs first; its output as text. Stopping and proving: console/pages/jobs/stop.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from console.auth.authorization import Role
from console.http.dependencies import TheConsole
from console.pages import live_stream
from console.pages.jobs.timeline import draw_timeline
from console.pages.page_user import PageUser, ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation import time_text
from console.presentation.job_status import job_status_text, tier_name
from console.presentation.timeline_model import ENTRY_HANDLERS, build_timeline
from console.services.console import Console
from console.services.stop_job import can_stop
from console.services.visibility import job_for
from justenough.domain.jobs.states import RequestState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import JobView, LogChunk
from justenough.services.parent_chain import ancestor_views

MAX_LOG_CHUNKS = 64
"""Of the newest output, as many are read."""
MAX_LOG_BYTES = 16_000
"""Bytes of output that a page begins with, its last ones, as they are sent."""
MAX_SPEC_BYTES = 6_000
"""Bytes of the spec, its first ones."""
LOG_PAGE_CHUNKS = 1000
MAX_DRAWN_ENTRIES = 1000
"""Entries that a timeline is drawn from, the first ones of its kinds."""
MAX_LEDGER_ENTRIES = 15
"""Of the ledger, the newest ones."""
MAX_CHILDREN = 10
MAX_WHOLE_REQUESTS = 5
"""Requests that are told of whole; of others there is a line each."""
MAX_TABLE_ROWS = 20
"""Lines of a table of the page; the rest is in lists of their own."""
DONE_TEXT = {
    "launched": "Launched. Its order carries your signature.",
    "again": "This form was sent before: this is the job that it launched. Nothing was launched twice.",
    "cancel": "It is asked to end: its process first, then its access.",
    "kill": "It is asked to be killed: its access is cut first, then its process.",
    "gone": "Its workflow could not be told. Its right to be issued more is ended; its session obeys that within seconds, and sweeps revoke what it holds.",
}
"""What somebody has just done, by the word in the address."""
DRAWN_KINDS = (*(kind for kind in EventType if kind.value in ENTRY_HANDLERS), EventType.REVOCATION_STARTED)

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class OutputTail:
    """The last part of what a job wrote."""

    text: str
    seq: int
    """The last chunk that is in it; -1 for none."""
    whole: bool


@router.get("/jobs/{job}")
def show(
    request: Request, job: str, console: TheConsole, visitor: ThePageUser, done: Annotated[str, Query(max_length=20)] = ""
) -> Response:
    """Show a job."""
    visitor.caller.require(*Role)
    # First of all: what happens to the job from here on reaches the page.
    following = live_stream.stream_url(console, job=job)
    view = job_for(console.deps.store, visitor.caller, job)
    now, seen = datetime.now(UTC), last_output(console.deps.store.logs.last_chunks(job, MAX_LOG_CHUNKS))
    return render(
        request,
        "job.html",
        now=now,
        job=view,
        does=job_status_text(view, visitor.caller.tiers),
        output=seen,
        done=DONE_TEXT.get(done, ""),
        tier_name=lambda number: tier_name(number, visitor.caller.tiers),
        temporal=temporal_ui_url(console, job),
        MOST=MAX_TABLE_ROWS,
        refresh=30,
        **_timeline_context(console, view, now),
        **_credentials_context(view),
        **_decisions_context(console, view),
        **_order_context(console, visitor, view),
        **_rights_context(visitor, view),
        # All that a job wrote is there before it has ended.
        stream=following if view.state.ended else f"{following}&log={seen.seq}",
    )


@router.get("/jobs/{job}/output")
def output(job: str, console: TheConsole, visitor: ThePageUser) -> Response:
    """Return all that a job wrote, as a file."""
    visitor.caller.require(*Role)
    view = job_for(console.deps.store, visitor.caller, job)
    headers = {"Content-Disposition": f'attachment; filename="{quote(view.id)}.txt"'}
    return StreamingResponse(_output_chunks(console, view.id), media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/jobs/{job}/spec")
def spec(job: str, console: TheConsole, visitor: ThePageUser) -> Response:
    """Return the spec as it was signed, as a file."""
    visitor.caller.require(*Role)
    view = job_for(console.deps.store, visitor.caller, job)
    order = console.deps.store.jobs.order(view.id)
    content = json.dumps(order.spec if order else {}, indent=2, ensure_ascii=False)
    return Response(
        content, media_type="application/json", headers={"Content-Disposition": f'attachment; filename="{quote(view.id)}.json"'}
    )


def last_output(chunks: Sequence[LogChunk]) -> OutputTail:
    """Return the end of what these chunks hold, as it may be shown, beginning with a whole line where something is left out."""
    text = time_text.output_text("".join(chunk.text for chunk in chunks))
    last = chunks[-1].seq if chunks else -1
    if _escaped_size(text) <= MAX_LOG_BYTES:
        return OutputTail(text, last, whole=len(chunks) < MAX_LOG_CHUNKS)
    kept = text[-fitting_length(text[::-1], MAX_LOG_BYTES) :]
    return OutputTail(kept.partition("\n")[2] or kept, last, whole=False)


def fitting_length(text: str, size: int) -> int:
    """Return how many of a text's first characters take no more than so many bytes of a page."""
    kept = min(len(text), size)
    while (found := _escaped_size(text[:kept])) > size:
        kept = kept * size // found
    return kept


def temporal_ui_url(console: Console, job: str) -> str:
    """Return where Temporal shows a job's workflow; empty where nobody said where its pages are."""
    settings = console.deps.settings
    if settings.temporal_ui_url is None:
        return ""
    return (
        f"{settings.temporal_ui_url.rstrip('/')}/namespaces/{quote(settings.temporal_namespace, safe='')}/workflows/{quote(job, safe='')}"
    )


def _timeline_context(console: Console, view: JobView, now: datetime) -> dict[str, Any]:
    entries = console.deps.store.ledger.entries(job=view.id, types=DRAWN_KINDS, limit=MAX_DRAWN_ENTRIES)
    picture = build_timeline({"type": one.type, "at": one.at.isoformat(), "data": one.data} for one in entries.items)
    given_back = next((one.at for one in entries.items if one.type == EventType.REVOCATION_STARTED), None)
    return {"drawing": draw_timeline(picture, view, revocation_started_at=given_back, now=now), "partly": entries.next is not None}


def _credentials_context(view: JobView) -> dict[str, Any]:
    """Return what is alive; and all of them, what may be alive first, then the newest."""
    whole = sorted(view.credentials, key=lambda one: (one.state.is_dead, -one.issued_at.timestamp()))
    return {"live": [one for one in whole if not one.state.is_dead], "credentials": whole}


def _order_context(console: Console, visitor: PageUser, view: JobView) -> dict[str, Any]:
    """Return its order, its relatives and the end of its ledger."""
    store = console.deps.store
    order = store.jobs.order(view.id)
    return {
        "spec": _spec_text(order.spec if order else {}),
        "ancestors": ancestor_views(console.deps, view.parent),
        "children": store.jobs.list(parent=view.id, requester_id=visitor.caller.requester_filter, limit=MAX_CHILDREN),
        "entries": store.ledger.entries_newest_first(job=view.id, limit=MAX_LEDGER_ENTRIES),
    }


def _decisions_context(console: Console, view: JobView) -> dict[str, Any]:
    """Return the requests that are told of whole, what waits first, the others, and the policies that decided, as they are in force now."""
    told = sorted(view.requests, key=lambda one: one.state is not RequestState.PENDING)[:MAX_WHOLE_REQUESTS]
    policies = console.deps.config.current().policies
    named = tuple(dict.fromkeys(name for one in view.requests for name in one.policies))[:MAX_TABLE_ROWS]
    return {
        "requests": told,
        "other_requests": [one for one in view.requests if one not in told],
        "policies": named,
        "rules": {rule.id: rule for rule in policies.rules if rule.id in named},
        "decided_by": dict.fromkeys(one.policy_digest for one in view.requests if one.policy_digest).keys(),
        "policy_digest": policies.digest,
    }


def _spec_text(raw: Mapping[str, Any]) -> str:
    text = time_text.output_text(json.dumps(raw, indent=2, ensure_ascii=False))
    kept = fitting_length(text, MAX_SPEC_BYTES)
    return text if kept == len(text) else f"{text[:kept]}…"


def _escaped_size(text: str) -> int:
    """Return how many bytes a text is in a page."""
    return len(escape(text).encode())


def _rights_context(visitor: PageUser, view: JobView) -> dict[str, Any]:
    launches = Role.LAUNCH in visitor.caller.roles
    return {
        "cancels": launches and can_stop(view, kill=False),
        "kills": launches and can_stop(view, kill=True),
        "answers": Role.APPROVE in visitor.caller.roles,
    }


def _output_chunks(console: Console, job: str) -> Iterator[str]:
    after = -1
    while chunks := console.deps.store.logs.chunks(job, after, LOG_PAGE_CHUNKS):
        yield from (chunk.text for chunk in chunks)
        after = chunks[-1].seq
