"""GET /delegations: the user's delegations in both directions, with forms to add and end one. The rules are those of the API."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, NamedTuple

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from console.http import problems
from console.http.dependencies import TheConsole
from console.pages.inbox.decisions import reason_errors
from console.pages.login.login import MAX_NAME_LENGTH
from console.pages.page_user import PageApprover, PageUser, TheForm
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.console import Console
from console.services.delegations import create_delegation, end_delegation, find_approver
from justenough.domain.approvals.statements import DelegationStatement
from justenough.domain.core.errors import Conflict, Forbidden, InvalidInput, NotFound

DAYS = (1, 2, 3, 7, 14, 30, 90)
"""Durations that the form offers; the longest is the maximum."""
RESEND_WINDOW = timedelta(minutes=1)
"""If the same form is sent again within this time, it counts as the same delegation."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)


class DelegationForm(NamedTuple):
    """The form's fields as entered."""

    name: str = ""
    days: str = ""
    reason: str = ""

    def errors(self) -> dict[str, str]:
        errors = reason_errors(self.reason, required=True)
        if not self.name or len(self.name) > MAX_NAME_LENGTH or "\0" in self.name:
            errors["name"] = "Enter a login name."
        if self.days not in map(str, DAYS):
            errors["days"] = "Choose a duration."
        return errors


@router.get("/delegations")
def show(request: Request, console: TheConsole, visitor: PageApprover, done: Annotated[str, Query(max_length=20)] = "") -> HTMLResponse:
    return _render_page(request, console, visitor, done=done if done in {"named", "ended"} else "")


@router.post("/delegations")
async def delegate(request: Request, console: TheConsole, visitor: PageApprover, form: TheForm) -> Response:
    typed = DelegationForm(*(str(form.get(name, "")).strip() for name in DelegationForm._fields))
    if errors := typed.errors():
        return await to_thread.run_sync(lambda: _render_page(request, console, visitor, form=typed, errors=errors, status=422))
    try:
        other = await to_thread.run_sync(find_approver, console.deps, visitor.caller, typed.name)
        now = console.deps.now().replace(microsecond=0)
        until = now + timedelta(days=int(typed.days))
        if await to_thread.run_sync(lambda: _was_sent_before(console, visitor, other.id, typed.reason, until)):
            return RedirectResponse("/delegations?done=named", status_code=303)
        person = visitor.caller.person.id
        statement = DelegationStatement(delegate=other.id, reason=typed.reason, person=person, issued_at=now, expires_at=until)
        body = await visitor.sign(statement)
        await to_thread.run_sync(create_delegation, console.deps, visitor.caller, body)
    except (Forbidden, InvalidInput, NotFound) as error:
        errors = {"name": "; ".join(one.message for one in error.problems) if isinstance(error, InvalidInput) else str(error)}
        status = problems.status_of(error)
        return await to_thread.run_sync(lambda: _render_page(request, console, visitor, form=typed, errors=errors, status=status))
    return RedirectResponse("/delegations?done=named", status_code=303)


@router.post("/delegations/{delegation}/end")
def end(request: Request, console: TheConsole, visitor: PageApprover, _: TheForm, delegation: str) -> Response:
    try:
        end_delegation(console.deps, visitor.caller, delegation)
    except Conflict as error:
        return _render_page(request, console, visitor, problem=str(error), status=409)
    return RedirectResponse("/delegations?done=ended", status_code=303)


def _was_sent_before(console: Console, visitor: PageUser, delegate: str, reason: str, until: datetime) -> bool:
    """Whether this form was sent a moment ago. If there were two equal delegations, ending one of them would have no effect."""
    current = console.deps.store.delegations.current_of(visitor.caller.person.id, now=console.deps.now())
    same = (one for one in current if (one.person_id, one.delegate_id, one.reason) == (visitor.caller.person.id, delegate, reason))
    return any(abs(one.until - until) < RESEND_WINDOW for one in same)


def _render_page(
    request: Request,
    console: Console,
    visitor: PageUser,
    *,
    form: DelegationForm | None = None,
    errors: dict[str, str] | None = None,
    problem: str = "",
    status: int = 200,
    done: str = "",
) -> HTMLResponse:
    me = visitor.caller.person.id
    current = console.deps.store.delegations.current_of(me, now=console.deps.now())
    return render(
        request,
        "delegations.html",
        status=status,
        mine=tuple(one for one in current if one.person_id == me),
        others=tuple(one for one in current if one.delegate_id == me),
        typed=form or DelegationForm(),
        errors=errors or {},
        problem=problem,
        done=done,
        days=DAYS,
        tier=visitor.caller.tier,
    )
