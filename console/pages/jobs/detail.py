"""GET /jobs/{id}: one job, its output and its spec; POST cancel, kill and prove. Cancel and kill ask for confirmation first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Annotated, Any
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from console.auth.authorization import Role
from console.http.dependencies import TheConsole
from console.pages import live_stream
from console.pages.jobs.launch import relaunch_url
from console.pages.jobs.timeline import draw_timeline
from console.pages.page_user import PageMember, PageUser, TheForm, ThePageUser
from console.pages.rendering import download_headers, render
from console.pages.routing import PageRoute
from console.presentation.job_status import job_status_text, proof_text
from console.presentation.terminal_text import output_text
from console.presentation.timeline_model import ENTRY_HANDLERS, build_timeline
from console.services.console import Console
from console.services.deciders import barred_people
from console.services.stop_job import can_stop, stop_job
from console.services.visibility import job_for
from justenough.domain.core.errors import Conflict
from justenough.domain.jobs.states import CredentialState, RequestState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import JobView, LogChunk
from justenough.services.parent_chain import ancestor_views

MAX_LOG_CHUNKS = 64
"""Maximum number of output chunks to read, newest first."""
MAX_LOG_BYTES = 16_000
"""Maximum bytes of output on the page, after escaping; the last ones are shown."""
MAX_LAST_LINES = 5
"""Number of last output lines that are shown with the result of a failed job."""
MAX_LAST_LINE_CHARS = 200
MAX_SPEC_BYTES = 6_000
"""Maximum bytes of the spec on the page, after escaping; the first ones are shown."""
LOG_PAGE_CHUNKS = 1000
MAX_DRAWN_ENTRIES = 1000
"""Maximum number of ledger entries from which the timeline is drawn; the oldest are used."""
MAX_STOP_REQUESTS = 3
MAX_LEDGER_ENTRIES = 15
"""Number of newest ledger entries on the page."""
MAX_CHILDREN = 10
MAX_WHOLE_REQUESTS = 5
"""Requests shown in full; the others get one row each."""
MAX_TABLE_ROWS = 20
"""Maximum rows of a table on the page; separate lists have the rest."""
DONE_TEXT = {
    "launched": "Signed and launched.",
    "again": "This form was already submitted and launched this job. Nothing was launched twice.",
    "cancel": "Cancel requested: the process stops first, then its access is revoked.",
    "kill": "Kill requested: its access is revoked first, then the process is killed.",
    "gone": "The job's workflow could not be reached. No more credentials are issued, its session stops within seconds, and the sweep revokes its access.",
}
"""Messages by the value of `?done=`."""
LASTING_DONE_WORDS = frozenset({"again"})
"""Values whose message stays true once the job has ended. The other messages are replaced by the job's state."""
DRAWN_KINDS = (*(kind for kind in EventType if kind.value in ENTRY_HANDLERS), EventType.REVOCATION_STARTED)

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class OutputTail:
    text: str
    seq: int
    """Sequence number of the last chunk; -1 for none."""
    whole: bool

    @property
    def last_lines(self) -> str:
        """The last lines that are not blank, each with its first characters."""
        lines = [line.rstrip() for line in self.text.split("\n") if line.strip()][-MAX_LAST_LINES:]
        return "\n".join(line if len(line) <= MAX_LAST_LINE_CHARS else f"{line[:MAX_LAST_LINE_CHARS]}…" for line in lines)


@router.get("/jobs/{job}")
def show(request: Request, job: str, console: TheConsole, visitor: PageMember, done: Annotated[str, Query(max_length=20)] = "") -> Response:
    # Take the stream position before reading anything, so that no later change is missed.
    stream, store, tiers, roles = live_stream.stream_url(console, job=job), console.deps.store, visitor.caller.tiers, visitor.caller.roles
    view = job_for(store, visitor.caller, job)
    now, tail = console.deps.now(), last_output(store.logs.last_chunks(job, MAX_LOG_CHUNKS))
    drawn = store.ledger.entries(job=job, types=DRAWN_KINDS, limit=MAX_DRAWN_ENTRIES)
    timeline = build_timeline({"type": entry.type, "at": entry.at.isoformat(), "data": entry.data} for entry in drawn.items)
    revocation_started_at = next((entry.at for entry in drawn.items if entry.type == EventType.REVOCATION_STARTED), None)
    order = store.jobs.order(job)
    spec_text = output_text(json.dumps(order.spec if order else {}, indent=2, ensure_ascii=False))
    shown = fitting_length(spec_text, MAX_SPEC_BYTES)
    return render(
        request,
        "job.html",
        now=now,
        job=view,
        status_text=job_status_text(view, tiers),
        stop_requests=store.ledger.entries_newest_first(job=job, types=(EventType.STOP_REQUESTED,), limit=MAX_STOP_REQUESTS).items,
        output=tail,
        done=DONE_TEXT.get(done, "") if done in LASTING_DONE_WORDS or not view.state.ended else "",
        barred={view.requester_id, *barred_people(console.deps, job, parent=view.parent)},
        temporal=temporal_ui_url(console, job),
        max_rows=MAX_TABLE_ROWS,
        refresh=30,
        drawing=draw_timeline(timeline, view, revocation_started_at=revocation_started_at, now=now),
        truncated=drawn.next is not None,
        live=[one for one in view.credentials if not one.state.is_dead],
        residual=[one for one in view.credentials if one.state is CredentialState.RESIDUAL][:MAX_TABLE_ROWS],
        # Active credentials come first, then the newest.
        credentials=sorted(view.credentials, key=lambda one: (one.state.is_dead, -one.issued_at.timestamp())),
        **_decisions_context(console, view),
        spec=spec_text if shown == len(spec_text) else f"{spec_text[:shown]}…",
        model=order.spec.get("model") if order else None,
        ancestors=ancestor_views(console.deps, view.parent),
        children=store.jobs.list(parent=job, requester_id=visitor.caller.requester_filter, limit=MAX_CHILDREN),
        entries=store.ledger.entries_newest_first(job=job, limit=MAX_LEDGER_ENTRIES),
        can_cancel=visitor.caller.can_stop_jobs_of(view.requester_id) and can_stop(view, kill=False),
        can_kill=visitor.caller.can_stop_jobs_of(view.requester_id) and can_stop(view, kill=True),
        again=relaunch_url(console.deps, view.id, order.spec) if order and Role.LAUNCH in roles else "",
        # An ended job writes no more output, so the page need not follow it.
        stream=stream if view.state.ended else f"{stream}&log={tail.seq}",
    )


@router.get("/jobs/{job}/output")
def output(job: str, console: TheConsole, visitor: PageMember) -> Response:
    view = job_for(console.deps.store, visitor.caller, job)
    chunks, headers = _output_chunks(console, view.id), download_headers(f"{view.id}.txt")
    return StreamingResponse(chunks, media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/jobs/{job}/spec")
def spec(job: str, console: TheConsole, visitor: PageMember) -> Response:
    view = job_for(console.deps.store, visitor.caller, job)
    order = console.deps.store.jobs.order(view.id)
    content = json.dumps(order.spec if order else {}, indent=2, ensure_ascii=False)
    return Response(content, media_type="application/json", headers=download_headers(f"{view.id}.json"))


@router.get("/jobs/{job}/cancel")
@router.get("/jobs/{job}/kill")
def ask_to_stop(request: Request, job: str, console: TheConsole, visitor: ThePageUser) -> Response:
    view = job_for(console.deps.store, visitor.caller, job)
    visitor.caller.require_right_to_stop(view.requester_id)
    return _render_confirmation(request, visitor, view)


@router.post("/jobs/{job}/cancel")
@router.post("/jobs/{job}/kill")
async def stop(request: Request, job: str, console: TheConsole, visitor: ThePageUser, form: TheForm) -> Response:
    try:
        outcome = await stop_job(console, job, visitor.caller, kill=_is_kill(request), reason=str(form.get("reason", "")))
    except Conflict:
        view = await to_thread.run_sync(job_for, console.deps.store, visitor.caller, job)
        return await to_thread.run_sync(partial(_render_confirmation, request, visitor, view, status=409))
    done = "gone" if outcome.note else "kill" if _is_kill(request) else "cancel"
    return RedirectResponse(f"/jobs/{outcome.id}?done={done}", status_code=303)


@router.post("/jobs/{job}/prove")
async def prove(request: Request, job: str, console: TheConsole, visitor: PageMember, _: TheForm) -> Response:
    """Check in Vault and the targets which access of a job is still active, and show the result. Changes nothing."""
    view = await to_thread.run_sync(job_for, console.deps.store, visitor.caller, job)
    report = await console.background_reads.proofs.result(view.id, by=visitor.caller.person.name)
    users = {one.id: one.user for one in view.credentials}
    result = proof_text(view.state, report)
    return await to_thread.run_sync(lambda: render(request, "proof.html", job=view, report=report, result_text=result, users=users))


def last_output(chunks: Sequence[LogChunk]) -> OutputTail:
    """Return the end of these chunks as safe text; if something is cut, it starts at a line."""
    text = output_text("".join(chunk.text for chunk in chunks))
    last = chunks[-1].seq if chunks else -1
    if _escaped_size(text) <= MAX_LOG_BYTES:
        return OutputTail(text, last, whole=len(chunks) < MAX_LOG_CHUNKS)
    tail = text[-fitting_length(text[::-1], MAX_LOG_BYTES) :]
    return OutputTail(tail.partition("\n")[2] or tail, last, whole=False)


def fitting_length(text: str, size: int) -> int:
    """Return how many leading characters fit into `size` bytes after HTML escaping."""
    length = min(len(text), size)
    while (escaped := _escaped_size(text[:length])) > size:
        length = length * size // escaped
    return length


def temporal_ui_url(console: Console, job: str) -> str:
    """Return the Temporal UI's address of a job's workflow; empty without `temporal_ui_url`."""
    base, namespace = console.deps.settings.temporal_ui_url, quote(console.deps.settings.temporal_namespace, safe="")
    return "" if base is None else f"{base.rstrip('/')}/namespaces/{namespace}/workflows/{quote(job, safe='')}"


def _decisions_context(console: Console, view: JobView) -> dict[str, Any]:
    """Return the requests shown in full (pending first), all other requests, and the current text of the deciding policies."""
    in_full = sorted(view.requests, key=lambda one: one.state is not RequestState.PENDING)[:MAX_WHOLE_REQUESTS]
    policies = console.deps.config.current().policies
    named = tuple(dict.fromkeys(name for one in view.requests for name in one.policies))[:MAX_TABLE_ROWS]
    return {
        "requests": in_full,
        "other_requests": [one for one in view.requests if one not in in_full],
        "policies": named,
        "rules": {rule.id: rule for rule in policies.rules if rule.id in named},
        "decided_by": dict.fromkeys(one.policy_digest for one in view.requests if one.policy_digest).keys(),
        "policy_digest": policies.digest,
    }


def _escaped_size(text: str) -> int:
    return len(escape(text).encode())


def _output_chunks(console: Console, job: str) -> Iterator[str]:
    after = -1
    while chunks := console.deps.store.logs.chunks(job, after, LOG_PAGE_CHUNKS):
        yield from (chunk.text for chunk in chunks)
        after = chunks[-1].seq


def _is_kill(request: Request) -> bool:
    return request.url.path.endswith("/kill")


def _render_confirmation(request: Request, visitor: PageUser, view: JobView, *, status: int = 200) -> Response:
    return render(
        request,
        "stop.html",
        status=status,
        job=view,
        how="kill" if _is_kill(request) else "cancel",
        status_text=job_status_text(view, visitor.caller.tiers),
        live=[one for one in view.credentials if not one.state.is_dead],
        can_stop=can_stop(view, kill=_is_kill(request)),
    )
