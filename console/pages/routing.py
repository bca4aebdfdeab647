"""What every page passes: its visitor is known before anything of it runs, and what goes wrong is answered as a page."""

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

from console.http import problems
from console.http.dependencies import reject_nul
from console.pages.page_user import NoSession, page_user_of
from console.pages.rendering import render
from justenough.domain.core.errors import InvalidInput, JustEnoughError, Problem

ADVICE = {
    401: "Log in again, then open the page once more.",
    403: "If you should have this right, ask who runs this installation for the group that is named.",
    404: "Look for it in the lists; it may also be somebody else's to see.",
    409: "Somebody or something was faster. Open it again to see how it stands now.",
    412: "Open it again: what you answer must be what is there now.",
    413: "Send less at once, or use the command line.",
    422: "Mend what is named here and send it again. Nothing was done.",
    503: "Nothing was lost. Try again in a few seconds.",
}
"""What to do, by status."""


class PageRoute(APIRoute):
    """A page for people who are logged in; strangers are sent to the login and come back."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler with the visitor put into the request's state first."""
        handler = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            request.state.visitor = None
            try:
                request.state.visitor = await page_user_of(request)
                reject_nul(request)
                return await handler(request)
            except NoSession:
                return redirect_to_login(request)
            except Exception as error:  # noqa: BLE001 - whatever it is, a person gets a page that says what to do
                return problem_page(request, error)

        return handle_page


class OpenRoute(APIRoute):
    """A page for anyone: the login."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler whose errors are pages too."""
        handler = super().get_route_handler()

        async def opened(request: Request) -> Response:
            request.state.visitor = None
            try:
                return await handler(request)
            except Exception as error:  # noqa: BLE001 - as above
                return problem_page(request, error)

        return opened


def redirect_to_login(request: Request) -> Response:
    """Return the way to the login and back. What a form held is not sent again by itself: back is to the page that the form was on."""
    asked = (
        request.url.path + (f"?{request.url.query}" if request.url.query else "") if request.method == "GET" else _form_page_path(request)
    )
    return RedirectResponse(f"/login?{urlencode({'next': asked})}", status_code=303)


def _form_page_path(request: Request) -> str:
    here, came_from = str(request.base_url), request.headers.get("referer", "")
    return f"/{came_from.removeprefix(here)}" if came_from.startswith(here) else "/"


def problem_page(request: Request, error: Exception) -> HTMLResponse:
    """Return the page that tells what went wrong, what of it by place, and what to do."""
    status, detail, faults = _problem_parts(request, error)
    title, advice = HTTPStatus(status).phrase, ADVICE.get(status, "")
    return render(request, "problem.html", status=status, title=title, detail=detail, faults=faults, advice=advice)


def _problem_parts(request: Request, error: Exception) -> tuple[int, str, tuple[Problem, ...]]:
    if isinstance(error, RequestValidationError):
        return 422, "The address or the form holds something that this page does not take.", problems.faults_of(error)
    if isinstance(error, HTTPException):
        return error.status_code, f"There is no {request.url.path} here." if error.status_code == 404 else str(error.detail), ()
    status = problems.status_of(error) if isinstance(error, JustEnoughError) else 500
    if status == 500:
        problems.unexpected_error_response(request, error)
        return 500, "Something went wrong here; the console's log tells more.", ()
    if isinstance(error, InvalidInput):
        return status, f"The {error.what} does not hold.", error.problems
    return status, str(error), ()
