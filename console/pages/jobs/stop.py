"""Cancel, kill and prove a job. Cancel and kill ask for confirmation first."""

from __future__ import annotations

from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from console.http.dependencies import TheConsole
from console.pages.page_user import PageMember, PageUser, TheForm, ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation.job_status import job_status_text, proof_text
from console.services.stop_job import can_stop, stop_job
from console.services.visibility import job_for
from justenough.domain.core.errors import Conflict
from justenough.domain.readmodel.views import JobView

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/jobs/{job}/cancel")
@router.get("/jobs/{job}/kill")
def ask_to_stop(request: Request, job: str, console: TheConsole, visitor: ThePageUser) -> Response:
    """Ask to confirm cancelling or killing a job."""
    view = job_for(console.deps.store, visitor.caller, job)
    visitor.caller.require_right_to_stop(view.requester_id)
    return _render_confirmation(request, visitor, view)


@router.post("/jobs/{job}/cancel")
@router.post("/jobs/{job}/kill")
async def stop(request: Request, job: str, console: TheConsole, visitor: ThePageUser, form: TheForm) -> Response:
    """Cancel or kill a job."""
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
