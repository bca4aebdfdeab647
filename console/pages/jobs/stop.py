"""Cancel, kill and prove a job. Cancel and kill ask for confirmation first."""

from __future__ import annotations

from typing import Literal

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from console.auth.authorization import Role
from console.http.dependencies import TheConsole
from console.pages.page_user import PageUser, TheForm, ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation.job_status import job_status_text
from console.services.console import Console
from console.services.stop_job import can_stop, stop_job
from console.services.visibility import job_for
from justenough.domain.core.errors import Conflict
from justenough.domain.readmodel.views import JobView

StopMethod = Literal["cancel", "kill"]

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/jobs/{job}/cancel")
def ask_to_cancel(request: Request, job: str, console: TheConsole, visitor: ThePageUser) -> Response:
    """Ask to confirm cancelling a job."""
    return _show_confirmation(request, job, console, visitor, "cancel")


@router.get("/jobs/{job}/kill")
def ask_to_kill(request: Request, job: str, console: TheConsole, visitor: ThePageUser) -> Response:
    """Ask to confirm killing a job."""
    return _show_confirmation(request, job, console, visitor, "kill")


@router.post("/jobs/{job}/cancel")
async def cancel(request: Request, job: str, console: TheConsole, visitor: ThePageUser, form: TheForm) -> Response:
    """Cancel a job."""
    del form
    return await _stop(request, job, console, visitor, "cancel")


@router.post("/jobs/{job}/kill")
async def kill(request: Request, job: str, console: TheConsole, visitor: ThePageUser, form: TheForm) -> Response:
    """Kill a job."""
    del form
    return await _stop(request, job, console, visitor, "kill")


@router.post("/jobs/{job}/prove")
async def prove(request: Request, job: str, console: TheConsole, visitor: ThePageUser, form: TheForm) -> Response:
    """Verify in Vault and the targets what access of a job is still active, and show the result. Changes nothing."""
    del form
    visitor.caller.require(*Role)
    view = await to_thread.run_sync(job_for, console.deps.store, visitor.caller, job)
    report = await console.gateway.prove(view.id)
    return await to_thread.run_sync(lambda: render(request, "proof.html", job=view, report=report))


def _show_confirmation(request: Request, job: str, console: Console, visitor: PageUser, how: StopMethod) -> Response:
    visitor.caller.require(Role.LAUNCH)
    return _render_confirmation(request, visitor, job_for(console.deps.store, visitor.caller, job), how)


async def _stop(request: Request, job: str, console: Console, visitor: PageUser, how: StopMethod) -> Response:
    visitor.caller.require(Role.LAUNCH)
    view = await to_thread.run_sync(job_for, console.deps.store, visitor.caller, job)
    try:
        done = await stop_job(console, view.id, visitor.caller.person, kill=how == "kill")
    except Conflict:
        view = await to_thread.run_sync(job_for, console.deps.store, visitor.caller, job)
        return await to_thread.run_sync(lambda: _render_confirmation(request, visitor, view, how, status=409))
    return RedirectResponse(f"/jobs/{view.id}?done={'gone' if done.note else how}", status_code=303)


def _render_confirmation(request: Request, visitor: PageUser, view: JobView, how: StopMethod, *, status: int = 200) -> Response:
    return render(
        request,
        "stop.html",
        status=status,
        job=view,
        how=how,
        status_text=job_status_text(view, visitor.caller.tiers),
        live=[one for one in view.credentials if not one.state.is_dead],
        possible=can_stop(view, kill=how == "kill"),
    )
