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
from console.pages.jobs.timeline import drawn
from console.pages.page_user import TheVisitor, Visitor
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation import time_text
from console.presentation.job_status import DEAD, doing, tier_name
from console.presentation.timeline_model import TAKEN, pictured
from console.services.console import Console
from console.services.stop_job import stoppable
from console.services.visibility import job_for
from justenough.domain.jobs.states import RequestState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import JobView, LogChunk
from justenough.services.parent_chain import chain

LOG_CHUNKS = 64
"""Of the newest output, as many are read."""
LOG_SHOWN = 16_000
"""Bytes of output that a page begins with, its last ones, as they are sent."""
SPEC_SHOWN = 6_000
"""Bytes of the spec, its first ones."""
LOG_PAGE = 1000
DRAWN_ENTRIES = 1000
"""Entries that a timeline is drawn from, the first ones of its kinds."""
ENTRIES = 15
"""Of the ledger, the newest ones."""
CHILDREN = 10
WHOLE = 5
"""Requests that are told of whole; of others there is a line each."""
MOST = 20
"""Lines of a table of the page; the rest is in lists of their own."""
DONE = {
    "launched": "Launched. Its order carries your signature.",
    "again": "This form was sent before: this is the job that it launched. Nothing was launched twice.",
    "cancel": "It is asked to end: its process first, then its access.",
    "kill": "It is asked to be killed: its access is cut first, then its process.",
    "gone": "Its workflow could not be told. Its right to be issued more is ended; its session obeys that within seconds, and sweeps revoke what it holds.",
}
"""What somebody has just done, by the word in the address."""
KINDS = (*(kind for kind in EventType if kind.value in TAKEN), EventType.REVOCATION_STARTED)

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Output:
    """The last part of what a job wrote."""

    text: str
    seq: int
    """The last chunk that is in it; -1 for none."""
    whole: bool


@router.get("/jobs/{job}")
def show(request: Request, job: str, console: TheConsole, visitor: TheVisitor, done: Annotated[str, Query(max_length=20)] = "") -> Response:
    """Show a job."""
    visitor.caller.require(*Role)
    # First of all: what happens to the job from here on reaches the page.
    following = live_stream.stream(console, job=job)
    view = job_for(console.deps.store, visitor.caller, job)
    now, seen = datetime.now(UTC), last_output(console.deps.store.last_logs(job, LOG_CHUNKS))
    return render(
        request,
        "job.html",
        now=now,
        job=view,
        does=doing(view, visitor.caller.tiers),
        output=seen,
        done=DONE.get(done, ""),
        tier_name=lambda number: tier_name(number, visitor.caller.tiers),
        temporal=temporal_page(console, job),
        MOST=MOST,
        refresh=30,
        **_timeline(console, view, now),
        **_credentials(view),
        **_decisions(console, view),
        **_surroundings(console, visitor, view),
        **_may(visitor, view),
        # All that a job wrote is there before it has ended.
        stream=following if view.state.ended else f"{following}&log={seen.seq}",
    )


@router.get("/jobs/{job}/output")
def output(job: str, console: TheConsole, visitor: TheVisitor) -> Response:
    """Return all that a job wrote, as a file."""
    visitor.caller.require(*Role)
    view = job_for(console.deps.store, visitor.caller, job)
    headers = {"Content-Disposition": f'attachment; filename="{quote(view.id)}.txt"'}
    return StreamingResponse(_whole(console, view.id), media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/jobs/{job}/spec")
def spec(job: str, console: TheConsole, visitor: TheVisitor) -> Response:
    """Return the spec as it was signed, as a file."""
    visitor.caller.require(*Role)
    view = job_for(console.deps.store, visitor.caller, job)
    found = console.deps.store.order(view.id)
    content = json.dumps(found[0] if found else {}, indent=2, ensure_ascii=False)
    return Response(
        content, media_type="application/json", headers={"Content-Disposition": f'attachment; filename="{quote(view.id)}.json"'}
    )


def last_output(chunks: Sequence[LogChunk]) -> Output:
    """Return the end of what these chunks hold, as it may be shown, beginning with a whole line where something is left out."""
    text = time_text.output("".join(chunk.text for chunk in chunks))
    last = chunks[-1].seq if chunks else -1
    if _size(text) <= LOG_SHOWN:
        return Output(text, last, whole=len(chunks) < LOG_CHUNKS)
    kept = text[-fitting(text[::-1], LOG_SHOWN) :]
    return Output(kept.partition("\n")[2] or kept, last, whole=False)


def fitting(text: str, size: int) -> int:
    """Return how many of a text's first characters take no more than so many bytes of a page."""
    kept = min(len(text), size)
    while (found := _size(text[:kept])) > size:
        kept = kept * size // found
    return kept


def temporal_page(console: Console, job: str) -> str:
    """Return where Temporal shows a job's workflow; empty where nobody said where its pages are."""
    settings = console.deps.settings
    if settings.temporal_ui_url is None:
        return ""
    return (
        f"{settings.temporal_ui_url.rstrip('/')}/namespaces/{quote(settings.temporal_namespace, safe='')}/workflows/{quote(job, safe='')}"
    )


def _timeline(console: Console, view: JobView, now: datetime) -> dict[str, Any]:
    entries = console.deps.store.ledger(job=view.id, types=KINDS, limit=DRAWN_ENTRIES)
    picture = pictured({"type": one.type, "at": one.at.isoformat(), "data": one.data} for one in entries.items)
    given_back = next((one.at for one in entries.items if one.type == EventType.REVOCATION_STARTED), None)
    return {"drawing": drawn(picture, view, given_back=given_back, now=now), "partly": entries.next is not None}


def _credentials(view: JobView) -> dict[str, Any]:
    """Return what is alive; and all of them, what may be alive first, then the newest."""
    whole = sorted(view.credentials, key=lambda one: (one.state in DEAD, -one.issued_at.timestamp()))
    return {"live": [one for one in whole if one.state not in DEAD], "credentials": whole}


def _surroundings(console: Console, visitor: Visitor, view: JobView) -> dict[str, Any]:
    """Return its order, its relatives and the end of its ledger."""
    store = console.deps.store
    order = store.order(view.id)
    return {
        "spec": _spec(order[0] if order else {}),
        "ancestors": chain(console.deps, view.parent),
        "children": store.jobs(parent=view.id, requester_id=visitor.caller.only, limit=CHILDREN),
        "entries": store.ledger_back(job=view.id, limit=ENTRIES),
    }


def _decisions(console: Console, view: JobView) -> dict[str, Any]:
    """Return the requests that are told of whole, what waits first, the others, and the policies that decided, as they are in force now."""
    told = sorted(view.requests, key=lambda one: one.state is not RequestState.PENDING)[:WHOLE]
    policies = console.deps.config.current().policies
    named = tuple(dict.fromkeys(name for one in view.requests for name in one.policies))[:MOST]
    return {
        "requests": told,
        "other_requests": [one for one in view.requests if one not in told],
        "policies": named,
        "rules": {rule.id: rule for rule in policies.rules if rule.id in named},
        "decided_by": dict.fromkeys(one.policy_digest for one in view.requests if one.policy_digest).keys(),
        "policy_digest": policies.digest,
    }


def _spec(raw: Mapping[str, Any]) -> str:
    text = time_text.output(json.dumps(raw, indent=2, ensure_ascii=False))
    kept = fitting(text, SPEC_SHOWN)
    return text if kept == len(text) else f"{text[:kept]}…"


def _size(text: str) -> int:
    """Return how many bytes a text is in a page."""
    return len(escape(text).encode())


def _may(visitor: Visitor, view: JobView) -> dict[str, Any]:
    launches = Role.LAUNCH in visitor.caller.roles
    return {
        "cancels": launches and stoppable(view, kill=False),
        "kills": launches and stoppable(view, kill=True),
        "answers": Role.APPROVE in visitor.caller.roles,
    }


def _whole(console: Console, job: str) -> Iterator[str]:
    after = -1
    while chunks := console.deps.store.logs(job, after, LOG_PAGE):
        yield from (chunk.text for chunk in chunks)
        after = chunks[-1].seq
