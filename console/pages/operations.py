"""GET /operations/… and /models: workers, schedules, deliveries, model use and settings; POST the actions on them. Calls the API's services."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from anyio import to_thread
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from console.http.dependencies import Cursor, TheConsole
from console.pages.page_user import PageApprover, PageLauncher, PageMember, PageReader, PageUser, TheForm
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services import schedules, subscriptions
from console.services.console_orders import order_run_now
from console.services.model_use import Period, model_use_summary
from console.services.submit_job import start_job
from console.temporal.client import TemporalUnavailable
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.ledger.overdue import find_unpolled_queues

PAGE_SIZE = 50
MAX_REASON_CHARS = 500
PAGES = (
    ("/operations/workers", "Workers"),
    ("/operations/schedules", "Schedules"),
    ("/operations/deliveries", "Webhooks and notifications"),
    ("/models", "Model use"),
    ("/operations/settings", "Settings"),
)
SHOWN_SETTINGS = (
    *("installation", "console_url", "temporal_address", "temporal_namespace", "payload_encryption", "vault_addr", "vault_namespace"),
    *("people_mounts", "pages_mount", "pages_oidc_mount", "pages_idle", "pages_longest", "max_sessions", "quota_running_jobs"),
    *("quota_open_jobs", "quota_waiting_requests", "quota_page_sessions", "quota_event_streams", "checkpoint_file"),
)
"""Settings of this console without addresses that may contain passwords, such as the store's."""
PERIOD_NAMES: Mapping[Period, str] = {"24h": "last 24 hours", "7d": "last 7 days"}
REFUSED_WORDS = {"over_budget": "over budget", "denied": "denied or waiting for approval", "not_allowed": "model not allowed"}
"""Why calls of a model were refused."""
Name = Annotated[str, Path(max_length=63)]

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/operations")
@router.get("/operations/workers")
async def workers(request: Request, console: TheConsole, _: PageMember) -> HTMLResponse:
    """Show the workers, with the configuration that each uses, and when task queues were last polled."""
    report, polls, problem = await console.health.report(), {}, ""
    try:
        polls = dict(await console.gateway.last_polls())
    except TemporalUnavailable as error:
        problem = str(error)
    unpolled = find_unpolled_queues(polls, now=console.deps.now())
    current, counts = console.deps.config.current(), await to_thread.run_sync(console.dashboard.current_counts)
    return await _render(
        request,
        "operations_workers.html",
        workers=report.workers,
        polls=polls,
        unpolled=unpolled,
        problem=problem,
        digest=current.digest,
        running=sum(counts.jobs.values()),
        refresh=10,
    )


@router.get("/operations/schedules")
async def list_schedules(request: Request, console: TheConsole, _: PageMember) -> HTMLResponse:
    views = await schedules.list_schedules(console)
    return await _render(request, "operations_schedules.html", schedules=views, triggers=console.deps.config.current().triggers)


@router.post("/operations/schedules/{name}/pause")
async def pause(console: TheConsole, visitor: PageLauncher, form: TheForm, name: Name) -> Response:
    await schedules.set_paused(console, name, visitor.caller.person, reason=_reason(form.get("reason"), required=True))
    return _back(visitor, "schedules", f"{name} is paused.")


@router.post("/operations/schedules/{name}/unpause")
async def unpause(console: TheConsole, visitor: PageLauncher, _: TheForm, name: Name) -> Response:
    await schedules.set_paused(console, name, visitor.caller.person, reason=None)
    return _back(visitor, "schedules", f"{name} continues with its next run.")


@router.post("/operations/schedules/{name}/run")
async def run_now(console: TheConsole, visitor: PageLauncher, form: TheForm, name: Name) -> Response:
    """Launch a schedule's job now, and show it to those who may read it. The form's key prevents a second click from launching it twice."""
    reason, key = _reason(form.get("reason")), str(form.get("key", ""))[:100] or None
    order = await to_thread.run_sync(
        lambda: order_run_now(console.deps, console.quotas, name, visitor.caller.person, reason=reason, key=key)
    )
    await start_job(console, order)
    if not visitor.caller.can_read_jobs_of(order.job.requester_id):
        return _back(visitor, "schedules", f"{name} has launched {order.job.id}.")
    return RedirectResponse(f"/jobs/{order.job.id}", status_code=303)


@router.get("/operations/deliveries")
async def list_subscriptions(request: Request, console: TheConsole, _: PageReader) -> HTMLResponse:
    views = (await subscriptions.subscription_views(console)).values()
    return await _render(request, "operations_deliveries.html", subscriptions=tuple(views))


@router.get("/operations/deliveries/{name}")
async def deliveries(request: Request, console: TheConsole, _: PageReader, name: Name, cursor: Cursor = None) -> HTMLResponse:
    view = await subscriptions.find_subscription(console, name)
    outbox = console.deps.store.outbox
    page = await to_thread.run_sync(lambda: outbox.deliveries(name, state=None, limit=PAGE_SIZE, cursor=cursor or None))
    return await _render(request, "operations_delivery.html", view=view, page=page)


@router.post("/operations/deliveries/{name}/test")
async def send_test(console: TheConsole, visitor: PageApprover, _: TheForm, name: Name) -> Response:
    tested = await subscriptions.send_test(console, name, visitor.caller)
    return _back(
        visitor, f"deliveries/{quote(name)}", f"Test event: {'delivered' if tested.arrived else 'not delivered'}, {tested.detail}"[:200]
    )


@router.post("/operations/deliveries/{name}/resend")
async def resend(console: TheConsole, visitor: PageApprover, _: TheForm, name: Name) -> Response:
    count = await subscriptions.resend_deliveries(console, name, None, by=visitor.caller)
    return _back(visitor, f"deliveries/{quote(name)}", f"{count} dead letter{'' if count == 1 else 's'} will be sent again.")


@router.get("/models")
def show_model_use(request: Request, console: TheConsole, visitor: PageMember, period: Period = "24h") -> HTMLResponse:
    """Show how many requests and tokens the jobs that the user may read use of each model, against their budgets."""
    return render(
        request,
        "models.html",
        pages=PAGES,
        place="/operations",
        found=model_use_summary(console, visitor.caller, period),
        period_name=PERIOD_NAMES[period],
        # The first is the default, which the address need not name.
        periods=[("", "Last 24 hours"), ("7d", "Last 7 days")],
        refused_words=REFUSED_WORDS,
        refresh=30,
    )


@router.get("/operations/settings")
def show_settings(request: Request, console: TheConsole, _: PageReader) -> HTMLResponse:
    """Show the settings and the configuration that this console uses. Nothing can be changed here."""
    values = {name: getattr(console.deps.settings, name) for name in SHOWN_SETTINGS}
    return render(
        request,
        "operations_settings.html",
        pages=PAGES,
        current=console.deps.config.current(),
        values=values,
        version=request.app.version,
        alarm=console.deps.config.alarm,
    )


async def _render(request: Request, template: str, **context: Any) -> HTMLResponse:
    done, seal = (request.query_params.get(name, "") for name in ("done", "seal"))
    # Somebody else may have made the address.
    shown = done if hmac.compare_digest(seal.encode(), request.state.visitor.seal(f"done/{done}").encode()) else ""
    return await to_thread.run_sync(lambda: render(request, template, pages=PAGES, done=shown, **context))


def _reason(value: object, *, required: bool = False) -> str:
    """Return a form's reason. Raises InvalidInput if it is too long, or missing."""
    reason = str(value or "").strip()
    if (required and not reason) or len(reason) > MAX_REASON_CHARS:
        raise InvalidInput("form", (Problem("reason", f"give a reason of at most {MAX_REASON_CHARS} characters"),))
    return reason


def _back(visitor: PageUser, page: str, done: str) -> Response:
    return RedirectResponse(f"/operations/{page}?{urlencode({'done': done, 'seal': visitor.seal(f'done/{done}')})}", status_code=303)
