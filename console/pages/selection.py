"""POST /jobs/selected/… and /credentials/selected/…: cancel, kill, prove or revoke several rows of a list, after one confirmation.

Each row has a separate result; a failure does not affect the other rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, NamedTuple

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse
from starlette.datastructures import FormData

from console.http.dependencies import TheConsole
from console.pages.page_user import PageMember, PageUser, TheForm
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.console import Console
from console.services.credentials import request_revocation, visible_credential
from console.services.stop_job import can_stop, stop_job
from console.services.visibility import job_for
from justenough.domain.core.errors import InvalidInput, JustEnoughError, Problem
from justenough.domain.jobs.states import Revocable

MAX_SELECTED = 100
"""Rows of one selection; a page of a list has at most 50."""
MAX_CONCURRENT = 8
IRREVOCABLE_TEXT: Mapping[str, str] = {
    Revocable.NEVER: "it cannot be revoked, and stays valid until its owner changes it",
    Revocable.ON_EXPIRY: "it cannot be revoked early, and stays valid until it expires",
}
JobAction = Annotated[str, Path(pattern="^(cancel|kill|prove)$")]
CredentialAction = Annotated[str, Path(pattern="^revoke$")]

router = APIRouter(route_class=PageRoute, include_in_schema=False)


class SelectedRow(NamedTuple):
    """One selected job or credential, as the page shows it."""

    id: str
    title: str
    state: str
    why_not: str = ""
    """Why the action is impossible for this row; empty if it is possible."""


class RowResult(NamedTuple):
    row: SelectedRow
    text: str
    failed: bool


class BulkAction(NamedTuple):
    """One action on each selected row."""

    kind: str
    """job | credential: a kind in status_badges.BADGES, and a part of the rows' addresses."""
    title: str
    button: str
    consequence: str
    """What happens to each row, in a sentence or two."""
    is_dangerous: bool
    outcome: str
    """What has happened to each row, in a word."""
    row: Callable[[Console, PageUser, str], SelectedRow]
    """Return the row of an id, in a thread. Raises NotFound."""
    run: Callable[[Console, PageUser, str, str], Awaitable[str]]
    """Perform the action on an id, for a reason; return the result in words."""
    has_reason: bool = False
    """Whether its form asks for a reason."""


def job_row(console: Console, visitor: PageUser, job: str, *, kill: bool) -> SelectedRow:
    """Return the row of a job to stop."""
    view = job_for(console.deps.store, visitor.caller, job)
    why_not = "" if visitor.caller.can_stop_jobs_of(view.requester_id) else visitor.caller.who_may_stop
    if not why_not and not can_stop(view, kill=kill):
        why_not = "it has already ended"
    return SelectedRow(view.id, view.name, view.state.value, why_not)


def proved_job_row(console: Console, visitor: PageUser, job: str) -> SelectedRow:
    """Return the row of a job whose access to verify."""
    view = job_for(console.deps.store, visitor.caller, job)
    return SelectedRow(view.id, view.name, view.state.value)


def credential_row(console: Console, visitor: PageUser, credential: str) -> SelectedRow:
    """Return the row of a credential to revoke."""
    view = visible_credential(console, visitor.caller, credential)
    may_stop = visitor.caller.can_stop_jobs_of(console.job_owners.owner_of(view.job_id) or "")
    why_not = "" if may_stop else visitor.caller.who_may_stop
    if not why_not and (view.state.is_settled or view.revocable != Revocable.NOW):
        why_not = "there is nothing left to revoke" if view.state.is_settled else IRREVOCABLE_TEXT[view.revocable]
    return SelectedRow(view.id, f"{view.action} on {view.resource}", view.state.value, why_not)


async def stop(console: Console, visitor: PageUser, job: str, reason: str, *, kill: bool) -> str:
    outcome = await stop_job(console, job, visitor.caller, kill=kill, reason=reason)
    return outcome.note or ("kill requested" if kill else "cancel requested")


async def prove(console: Console, visitor: PageUser, job: str, _: str) -> str:
    """Check which access of a job is still active."""
    report = await console.background_reads.proofs.result(job, by=visitor.caller.person.name)
    if report.dead:
        return "no active access found"
    alive = sum(finding.alive and not finding.residual for finding in report.findings)
    failed = len(report.failures)
    unknown = f"; {failed} check{'' if failed == 1 else 's'} could not be completed" if failed else ""
    return f"{alive} of {len(report.findings)} checks found active access{unknown}"


async def revoke(console: Console, visitor: PageUser, credential: str, _: str) -> str:
    await request_revocation(console, visitor.caller, credential)
    return "revocation requested"


JOB_ACTIONS: Mapping[str, BulkAction] = {
    "cancel": BulkAction(
        "job",
        "Cancel",
        "Cancel them",
        "Each process is asked to stop and gets time to clean up; if it does not stop, it is killed. Then its access is revoked.",
        is_dangerous=True,
        outcome="requested",
        row=partial(job_row, kill=False),
        run=partial(stop, kill=False),
        has_reason=True,
    ),
    "kill": BulkAction(
        "job",
        "Kill",
        "Kill them",
        "Access is revoked immediately, then each process is killed. It gets no chance to clean up.",
        is_dangerous=True,
        outcome="requested",
        row=partial(job_row, kill=True),
        run=partial(stop, kill=True),
        has_reason=True,
    ),
    "prove": BulkAction(
        "job",
        "Verify",
        "Verify",
        "Vault and the targets are asked which access of each job is still active. This changes nothing.",
        is_dangerous=False,
        outcome="checked",
        row=proved_job_row,
        run=prove,
    ),
}
CREDENTIAL_ACTIONS: Mapping[str, BulkAction] = {
    "revoke": BulkAction(
        "credential",
        "Revoke",
        "Revoke them",
        "Each credential is revoked, and its job continues without it.",
        is_dangerous=True,
        outcome="requested",
        row=credential_row,
        run=revoke,
    )
}


@router.post("/jobs/selected/{action}")
async def act_on_jobs(request: Request, console: TheConsole, visitor: PageMember, form: TheForm, action: JobAction) -> HTMLResponse:
    """Cancel, kill or verify the selected jobs; ask for confirmation first."""
    return await _act(request, console, visitor, form, JOB_ACTIONS[action])


@router.post("/credentials/selected/{action}")
async def act_on_credentials(
    request: Request, console: TheConsole, visitor: PageMember, form: TheForm, action: CredentialAction
) -> HTMLResponse:
    """Revoke the selected credentials; ask for confirmation first."""
    return await _act(request, console, visitor, form, CREDENTIAL_ACTIONS[action])


async def _act(request: Request, console: Console, visitor: PageUser, form: FormData, action: BulkAction) -> HTMLResponse:
    ids = tuple(dict.fromkeys(str(pick) for pick in form.getlist("pick")))
    if not ids or len(ids) > MAX_SELECTED:
        how_many = f"select at most {MAX_SELECTED} {action.kind}s" if ids else f"select at least one {action.kind} in the list"
        raise InvalidInput("selection", (Problem("", f"{how_many}; nothing was changed"),))
    rows = await to_thread.run_sync(lambda: [action.row(console, visitor, one) for one in ids])
    confirmed = form.get("confirm") == "yes"
    reason, limiter = str(form.get("reason", "")), CapacityLimiter(MAX_CONCURRENT)

    async def run(row: SelectedRow) -> RowResult:
        if row.why_not:
            return RowResult(row, row.why_not, failed=True)
        async with limiter:
            try:
                return RowResult(row, await action.run(console, visitor, row.id, reason), failed=False)
            except JustEnoughError as error:
                return RowResult(row, error.for_callers, failed=True)

    results = await asyncio.gather(*map(run, rows)) if confirmed else ()
    return render(request, "selection.html", action=action, rows=rows, results=results, confirmed=confirmed)
