"""GET and POST /login and /login/fresh, POST /logout. `console.auth.page_sessions` decides which logins are valid.

A browser that follows a link from another site does not send our SameSite=Strict cookies, even if it is logged in. One redirect from a page of
ours makes it send them.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Annotated, Any
from urllib.parse import urlencode

import structlog
from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from console.auth.login_throttle import TooManyTries
from console.auth.page_sessions import ActiveSession, NoSession, PageLoginMethod, SessionKey, TokenTooPowerful, TokenTooWeak, UnknownPerson
from console.http.dependencies import TheConsole
from console.pages.page_user import BadForm, PageUser, TheForm, ThePageUser, is_same_origin, read_form_with_csrf
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.console import Console
from justenough.adapters.vault import user_login
from justenough.adapters.vault.user_login import LoginRefused, LoginResult, ProviderRefused, SecondFactorWanted
from justenough.domain.core.errors import GiveUp, RetryLater
from justenough.domain.core.secret import Secret

HOME = "/now"
MAX_PASSWORD_LENGTH = 4096
"""Characters of a password, at most."""
MAX_NAME_LENGTH = 128
MAX_PATH_LENGTH = 2048
FORM_LIFETIME_S = 3600
"""Seconds until a login form expires."""

REFUSED = "Wrong name or password. After several failed attempts the account is locked for a while."
SECOND_FACTOR = (
    "This login needs a second factor, which these pages do not support. Use `bao login`, set VAULT_TOKEN and work on the command line."
)
PROVIDER = "Vault rejected the response of your identity provider; it may be too late or a duplicate. Try again. The console's log has Vault's message."
NOBODY = (
    "Your password is correct, but this login is not linked to a JustEnough user, or the user is disabled. Ask a Vault administrator to "
    "add an alias for this login to your identity."
)
AWAY = "Vault or the store is unavailable (Vault may be sealed). Your login was not rejected; try again in a moment."
ERRORS: dict[type[Exception], tuple[int, str]] = {
    LoginRefused: (401, REFUSED),
    SecondFactorWanted: (403, SECOND_FACTOR),
    ProviderRefused: (403, PROVIDER),
    UnknownPerson: (403, NOBODY),
    RetryLater: (503, AWAY),
    BadForm: (403, "This page expired. Please try again."),
}
"""Status and message of errors whose own text is not for the user."""

router = APIRouter(include_in_schema=False)
pages = APIRouter(include_in_schema=False, route_class=PageRoute)
log = structlog.get_logger()


@router.get("/login")
async def login_form(
    request: Request, console: TheConsole, onward: Annotated[str, Query(alias="next")] = HOME, again: Annotated[str, Query()] = ""
) -> Response:
    """Show the login form; a logged-in user is redirected at once."""
    try:
        await console.sessions.session_of(request.cookies.get(console.cookies.session))
        return RedirectResponse(local_path(onward), status_code=303)
    except RetryLater as error:
        return refusal_response(request, console, error, name="", onward=onward)
    except NoSession as error:
        said = "" if request.cookies.get(console.cookies.session) is None else to_sentence(str(error))
    hop = "" if again or said else arrival_url(request, onward)
    if hop and request.headers.get("sec-fetch-site"):
        return render(request, "arriving.html", hop=hop)
    return login_page(request, console, onward=onward, notice=said, hop=hop)


@router.post("/login")
async def log_in(request: Request, console: TheConsole) -> Response:
    """Log in with name and password."""
    name = onward = ""
    try:
        posted = await read_form_with_csrf(request, _login_form_csrf(request, console))
        name, onward = str(posted.get("name", "")).strip()[:MAX_NAME_LENGTH], str(posted.get("next", ""))
        entry = await log_in_at_vault(request, console, name, str(posted.get("password", "")))
        key = await console.sessions.start(entry, method=PageLoginMethod.PASSWORD, name=name)
    except (GiveUp, RetryLater) as error:
        return refusal_response(request, console, error, name=name, onward=onward)
    return login_response(console, key, onward)


@pages.get("/login/fresh")
async def fresh_form(request: Request, visitor: ThePageUser, onward: Annotated[str, Query(alias="next")] = HOME) -> Response:
    """Ask the user to authenticate again."""
    return _fresh_login_page(request, visitor, onward=local_path(onward))


@pages.post("/login/fresh")
async def log_in_anew(request: Request, console: TheConsole, visitor: ThePageUser, posted: TheForm) -> Response:
    """Authenticate the same user again; the session stays and counts as fresh."""
    visit: ActiveSession = request.state.visit
    onward = local_path(str(posted.get("next", "")))
    try:
        entry = await log_in_at_vault(request, console, visit.row.name, str(posted.get("password", "")))
        await console.sessions.refresh_login(visit, entry)
    except (GiveUp, RetryLater) as error:
        status, message = error_status_and_text(error)
        log_refusal(visit.row.name, error)
        answer = _fresh_login_page(request, visitor, onward=onward, error=message)
        answer.status_code = status
        return answer
    return RedirectResponse(onward, status_code=303)


@pages.post("/logout")
async def log_out(request: Request, console: TheConsole, posted: TheForm) -> Response:
    """End this session, or with `everywhere` all of the person's."""
    visit: ActiveSession = request.state.visit
    await (console.sessions.end_everywhere(visit) if posted.get("everywhere") else console.sessions.end(visit))
    return logout_response(console)


def logout_response(console: Console) -> Response:
    """Redirect to the login page and delete the session cookie."""
    answer = RedirectResponse("/login?again=1", status_code=303)
    console.cookies.delete(answer, console.cookies.session)
    return answer


async def log_in_at_vault(request: Request, console: Console, name: str, password: str) -> LoginResult:
    """Log in at Vault, counting attempts. Raises LoginRefused, SecondFactorWanted, TooManyTries, RetryLater."""
    address = request.client.host if request.client else ""
    if not name or not password or len(password) > MAX_PASSWORD_LENGTH:
        raise LoginRefused("name or password is missing, or too long")
    console.login_throttle.record_try(name, address)
    try:
        entry = await to_thread.run_sync(
            lambda: user_login.log_in(console.deps.vault, name, Secret(password), mount=console.deps.settings.pages_mount)
        )
    except RetryLater:
        console.login_throttle.undo_try(name, address)
        raise
    console.login_throttle.record_success(name, address)
    return entry


def refusal_response(request: Request, console: Console, error: GiveUp | RetryLater, *, name: str, onward: str) -> Response:
    """Render the login form with an error message."""
    status, message = error_status_and_text(error)
    log_refusal(name, error)
    answer = login_page(request, console, onward=onward, name=name, error=message)
    answer.status_code = status
    return answer


def log_refusal(name: str, error: GiveUp | RetryLater) -> None:
    """Log a refused login with its reason."""
    words = {"vault": str(error)} if isinstance(error, ProviderRefused) else {}
    log.info("login refused", name=name, why=type(error).__name__, **words)


def error_status_and_text(error: GiveUp | RetryLater) -> tuple[int, str]:
    """Return an error's HTTP status and message."""
    if isinstance(error, TooManyTries):
        return 429, to_sentence(str(error))
    if isinstance(error, TokenTooPowerful):
        return 403, to_sentence(f"{error}; ask a Vault administrator to remove that, or to allow it (JUSTENOUGH_PAGES_POLICIES)")
    if isinstance(error, TokenTooWeak):
        return 403, to_sentence(f"{error}; `justenough vault setup` says what the mount needs")
    return next((ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS), (403, to_sentence(str(error))))


def login_page(
    request: Request, console: Console, *, onward: str, name: str = "", error: str = "", notice: str = "", hop: str = ""
) -> Response:
    """Render the login form with a CSRF token for this browser."""
    made = request.cookies.get(console.cookies.form) or secrets.token_urlsafe(32)
    context: dict[str, Any] = {
        "csrf": _derive_csrf(made),
        "onward": local_path(onward),
        "user": name,
        "error": error,
        "said": notice,
        "hop": hop,
    }
    answer = render(request, "login.html", **context, oidc=console.deps.settings.pages_oidc_mount is not None)
    console.cookies.set(answer, console.cookies.form, made, max_age_s=FORM_LIFETIME_S)
    return answer


def login_response(console: Console, key: SessionKey, onward: str) -> Response:
    """Redirect onward and set the session cookie."""
    answer = RedirectResponse(local_path(onward), status_code=303)
    console.cookies.set(answer, console.cookies.session, key.secret.reveal())
    console.cookies.delete(answer, console.cookies.form)
    return answer


def arrival_url(request: Request, onward: str) -> str:
    """Return where a browser that may come from another site must be redirected, so that it sends its cookies; empty if it already does."""
    if request.headers.get("sec-fetch-site") in {"same-origin", "none"}:
        return ""
    return f"/login?{urlencode({'next': local_path(onward), 'again': 'true'})}"


def local_path(path: str) -> str:
    """Return a local path as it is, and the dashboard for anything else: no open redirect."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") and len(path) <= MAX_PATH_LENGTH else HOME


def to_sentence(text: str) -> str:
    """Return a message as a sentence, with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _fresh_login_page(request: Request, visitor: PageUser, *, onward: str, error: str = "") -> Response:
    visit: ActiveSession = request.state.visit
    return render(request, "fresh.html", csrf=visitor.csrf, onward=onward, error=error, oidc=visit.row.how == PageLoginMethod.OIDC)


def _login_form_csrf(request: Request, console: Console) -> str:
    made = request.cookies.get(console.cookies.form)
    if not made or not is_same_origin(request):
        raise BadForm("invalid or expired login form; reload the page")
    return _derive_csrf(made)


def _derive_csrf(secret: str) -> str:
    return hmac.digest(secret.encode(), b"justenough login form", "sha256").hex()
