"""The route class of pages: it finds the logged-in user first and turns every error into a page."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from console.auth.page_sessions import NoSession
from console.http import problems
from console.http.dependencies import reject_nul
from console.pages.page_user import BadForm, page_user_of
from console.pages.rendering import render, to_sentence
from justenough.domain.core.errors import InvalidInput, JustEnoughError, OverQuota, Problem

TITLE_AND_ADVICE = {
    401: ("Not logged in", "Log in again, then reopen the page."),
    403: ("Not allowed", "Ask your administrator if you need this access."),
    404: ("Not found", "It may not exist, or you may not have access."),
    409: ("Not possible now", "The state changed while you were working. Reopen the page to see the current one."),
    412: ("Out of date", "Reopen the page: you can decide only on the current version."),
    413: ("Too much data", "Send less data at once, or use the command line."),
    422: ("Invalid input", "Nothing was changed. Go back, fix the problems above and try again."),
    500: ("Internal error", "Try again. If it keeps failing, tell your administrator when it happened."),
    429: ("Too much at once", "You have used up your share. Nothing was changed. Try again later."),
    503: ("Temporarily unavailable", "Nothing was lost. Try again in a few seconds."),
}
"""The title of an error page and what to do next, by HTTP status."""
BAD_FORM_TITLE_AND_ADVICE = ("Not submitted", "Nothing was changed. Reopen the page of the form and submit it again.")
STOPPING_PATHS = ("/cancel", "/kill", "/revoke", "/logout", "/sessions/end")
"""How the paths of pages end that stop jobs, revoke access or end logins."""


class PageRoute(APIRoute):
    """A page that needs a login; people without one are redirected to the login page, and from there back."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, called with the page user in the request's state."""
        handler = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            request.state.visitor = None
            try:
                stops = request.url.path.endswith(STOPPING_PATHS)
                # Answers to a request too: Vault must sign them, except a withdrawal.
                allow_last_known = request.method == "GET" or stops or request.url.path.endswith("/answer")
                request.state.visitor = visitor = await page_user_of(request, allow_last_known=allow_last_known)
                reject_nul(request)
                async with visitor.console.quotas.take_turn(visitor.caller.person.id, stops=stops):
                    return await handler(request)
            except NoSession:
                # A posted form is not sent again: the login leads back to the page that the form was on.
                path = _local_path(request, str(request.url)) if request.method == "GET" else _form_page(request)
                return RedirectResponse(f"/login?{urlencode({'next': path or '/'})}", status_code=303)
            except Exception as error:  # noqa: BLE001 - any error becomes a page with advice
                return problem_page(request, error)

        return handle_page


def problem_page(request: Request, error: Exception) -> HTMLResponse:
    """Return the page of an error: what is wrong, where, and what to do next."""
    status, detail, faults = 500, str(error), tuple[Problem, ...]()
    if isinstance(error, JustEnoughError):
        status, detail = problems.status_of(error), to_sentence(error.for_callers)
    if isinstance(error, RequestValidationError):
        status, detail, faults = 422, "The address or the form contains invalid values.", problems.faults_of(error)
    elif isinstance(error, HTTPException):
        status, detail = error.status_code, f"Page not found: {request.url.path}" if error.status_code == 404 else str(error.detail)
    elif status == 500:
        problems.unexpected_error_response(request, error)
        detail = "Something went wrong in the console. Its log has the details."
    elif isinstance(error, InvalidInput):
        detail, faults = f"The {error.what} is not valid.", error.problems
    title, advice = TITLE_AND_ADVICE.get(status) or (HTTPStatus(status).phrase, "")
    if isinstance(error, BadForm):
        title, advice = BAD_FORM_TITLE_AND_ADVICE
    form_page = "" if request.method == "GET" else _form_page(request)
    page = render(request, "problem.html", status=status, title=title, detail=detail, faults=faults, advice=advice, form_page=form_page)
    page.headers.update(error.headers if isinstance(error, OverQuota) else {})
    return page


def _form_page(request: Request) -> str:
    """Return the path of the page that a posted form was on; empty if it is unknown."""
    return _local_path(request, request.headers.get("referer", ""))


def _local_path(request: Request, url: str) -> str:
    """Return the path of one of the console's addresses; empty for others. A path that begins with `//` would lead to another site."""
    site = str(request.base_url)
    return f"/{url.removeprefix(site).lstrip('/')}" if url.startswith(site) else ""
