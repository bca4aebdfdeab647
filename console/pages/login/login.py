"""GET and POST /login and /login/fresh, POST /logout, /sessions, and POST /look. `console.auth.page_sessions` decides which logins are valid.

A browser that follows a link from another site does not send our SameSite=Strict cookies, even if it is logged in. One redirect from a page of
the console makes it send them.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Annotated
from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from console.auth.login_throttle import TooManyAttempts
from console.auth.page_sessions import NoSession, PageLoginMethod, SessionKey, TokenTooPowerful, TokenTooWeak, UnknownPerson
from console.concurrency.vault_threads import LOGIN_THREADS
from console.http.dependencies import TheConsole
from console.pages.look import COOKIE as LOOK_COOKIE
from console.pages.look import THEMES, Look
from console.pages.page_user import BadForm, PageUser, TheForm, ThePageUser, is_same_origin, read_form_with_csrf
from console.pages.rendering import render, to_sentence
from console.pages.routing import PageRoute
from console.services.console import Console
from justenough.adapters.vault import user_login
from justenough.adapters.vault.user_login import LoginRefused, LoginResult, NoSuchLogin, ProviderRefused, SecondFactorRequired
from justenough.domain.core.errors import GiveUp, InvalidInput, OverQuota, Problem, RetryLater
from justenough.domain.core.secret import Secret

HOME = "/now"
MAX_PASSWORD_LENGTH = 4096
"""Maximum number of characters in a password."""
MAX_NAME_LENGTH = 128
MAX_PATH_LENGTH = 2048
FORM_LIFETIME_S = 3600
"""Seconds until a login form expires."""
LOOK_LIFETIME_S = 365 * 86_400

ERRORS: dict[type[Exception], tuple[int, str]] = {
    LoginRefused: (401, "Wrong name or password. After several failed attempts, logging in is blocked for a while."),
    SecondFactorRequired: (
        403,
        "This login needs a second factor, which these pages do not support. Use `bao login`, set VAULT_TOKEN and work on the command line.",
    ),
    ProviderRefused: (
        403,
        "Vault rejected the response of your identity provider: it may be late or a duplicate, or lack what the mount's role requires. Try again. The console's log has Vault's message.",
    ),
    UnknownPerson: (
        403,
        "This login is not linked to a JustEnough user, or the user is disabled. Ask a Vault administrator to add an alias for it to your identity.",
    ),
    RetryLater: (503, "Vault or the store is unavailable (Vault may be sealed). Your login was not rejected; try again in a moment."),
    BadForm: (403, "This page has expired. Try again."),
}
"""Status and message of errors whose own text is not for the user."""

router = APIRouter(include_in_schema=False)
pages = APIRouter(include_in_schema=False, route_class=PageRoute)
log = structlog.get_logger()


@router.get("/login")
async def login_form(
    request: Request, console: TheConsole, onward: Annotated[str, Query(alias="next")] = HOME, again: Annotated[str, Query()] = ""
) -> Response:
    """Show the login form; redirect a logged-in user at once."""
    try:
        await console.sessions.session_of(request.cookies.get(console.cookies.session))
        return RedirectResponse(local_path(onward), status_code=303)
    except RetryLater as error:
        return refusal_response(request, console, error, name="", onward=onward)
    except NoSession as error:
        notice = "" if request.cookies.get(console.cookies.session) is None else to_sentence(str(error))
    site, hop = request.headers.get("sec-fetch-site"), ""
    if not (again or notice or site in {"same-origin", "none"}):
        # The browser may come from another site. After one redirect from a page of the console, it sends its cookies.
        hop = f"/login?{urlencode({'next': local_path(onward), 'again': 'true'})}"
        if site:
            return render(request, "arriving.html", hop=hop)
    return login_page(request, console, onward=onward, notice=notice, hop=hop)


@router.post("/login")
async def log_in(request: Request, console: TheConsole) -> Response:
    name = onward = ""
    try:
        form_secret = request.cookies.get(console.cookies.form)
        if not form_secret or not is_same_origin(request):
            raise BadForm("invalid or expired login form; reload the page")
        form = await read_form_with_csrf(request, _derive_csrf(form_secret))
        name, onward = str(form.get("name", "")).strip()[:MAX_NAME_LENGTH], str(form.get("next", ""))
        entry = await log_in_at_vault(request, console, name, str(form.get("password", "")))
        key = await console.sessions.start(entry, method=PageLoginMethod.PASSWORD, name=name)
    except (GiveUp, RetryLater) as error:
        return refusal_response(request, console, error, name=name, onward=onward)
    return login_response(console, key, onward)


@pages.get("/login/fresh")
async def fresh_form(request: Request, visitor: ThePageUser, onward: Annotated[str, Query(alias="next")] = HOME) -> Response:
    return _fresh_login_page(request, visitor, onward=local_path(onward))


@pages.post("/login/fresh")
async def log_in_again(request: Request, console: TheConsole, visitor: ThePageUser, form: TheForm) -> Response:
    """Authenticate the same user again; the session stays and counts as fresh."""
    onward, name = local_path(str(form.get("next", ""))), visitor.session.row.name
    try:
        entry = await log_in_at_vault(request, console, name, str(form.get("password", "")))
        await console.sessions.refresh_login(visitor.session, entry)
    except (GiveUp, RetryLater) as error:
        return _fresh_login_page(request, visitor, onward=onward, refusal=_record_refusal(name, error))
    return RedirectResponse(onward, status_code=303)


@pages.post("/logout")
async def log_out(console: TheConsole, visitor: ThePageUser, form: TheForm) -> Response:
    """End this session, or with `everywhere` all sessions of the person."""
    await (console.sessions.end_everywhere if form.get("everywhere") else console.sessions.end)(visitor.session)
    return _logout_response(console)


@pages.get("/sessions")
async def sessions(request: Request, console: TheConsole, visitor: ThePageUser) -> Response:
    return render(request, "sessions.html", sessions=await console.sessions.open_sessions_of(visitor.session))


@pages.post("/sessions/end")
async def end_session(console: TheConsole, visitor: ThePageUser, form: TheForm) -> Response:
    """End one of the user's own sessions by its key."""
    key = str(form.get("key", ""))
    await console.sessions.end_one(visitor.session, key)
    return _logout_response(console) if key == visitor.session.row.key else RedirectResponse("/sessions", status_code=303)


@pages.post("/look")
async def choose_look(console: TheConsole, _: ThePageUser, form: TheForm) -> Response:
    """Keep the colours and keyboard shortcuts that the user chose for this browser in a cookie."""
    theme, keys = str(form.get("theme", "")), str(form.get("keys", ""))
    if theme not in THEMES or keys not in {"on", "off"}:
        raise InvalidInput("form", (Problem("theme", "choose light, dark or the system's colours, and turn shortcuts on or off"),))
    response = RedirectResponse("/sessions", status_code=303)
    console.cookies.set(response, LOOK_COOKIE, Look(theme, keys == "on").to_cookie(), max_age_s=LOOK_LIFETIME_S)
    return response


def _logout_response(console: Console) -> Response:
    response = RedirectResponse("/login?again=1", status_code=303)
    console.cookies.delete(response, console.cookies.session)
    return response


async def log_in_at_vault(request: Request, console: Console, name: str, password: str) -> LoginResult:
    """Log in at Vault, counting attempts. Raises NoSuchLogin, LoginRefused, SecondFactorRequired, TooManyAttempts, RetryLater."""
    mount = console.deps.settings.pages_password_mount
    if mount is None:
        raise NoSuchLogin("login with a password is not configured (JUSTENOUGH_PAGES_MOUNT)")
    address = request.client.host if request.client else ""
    if not name or not password or len(password) > MAX_PASSWORD_LENGTH:
        raise LoginRefused("name or password is missing, or too long")
    console.login_throttle.record_try(name, address)
    try:
        entry = await LOGIN_THREADS.run(lambda: user_login.log_in(console.deps.vault, name, Secret(password), mount=mount))
    except RetryLater:
        console.login_throttle.undo_try(name, address)
        raise
    console.login_throttle.record_success(name, address)
    return entry


def refusal_response(request: Request, console: Console, error: GiveUp | RetryLater, *, name: str, onward: str) -> Response:
    response = login_page(request, console, onward=onward, name=name, refusal=_record_refusal(name, error))
    response.headers.update(error.headers if isinstance(error, OverQuota) else {})
    return response


def _record_refusal(name: str, error: GiveUp | RetryLater) -> tuple[int, str]:
    """Log a refused login; return its HTTP status and message."""
    details = {"vault": str(error)} if isinstance(error, ProviderRefused) else {}
    log.info("login refused", name=name, why=type(error).__name__, **details)
    if isinstance(error, TooManyAttempts | OverQuota):
        return 429, to_sentence(str(error))
    if isinstance(error, TokenTooPowerful):
        return 403, to_sentence(
            f"{error}; ask a Vault administrator to remove these policies, or to allow them (JUSTENOUGH_PAGES_POLICIES)"
        )
    if isinstance(error, TokenTooWeak):
        return 403, to_sentence(f"{error}; ask a Vault administrator to add it to the login mount")
    return next((ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS), (403, to_sentence(str(error))))


def login_page(
    request: Request,
    console: Console,
    *,
    onward: str,
    name: str = "",
    refusal: tuple[int, str] = (200, ""),
    notice: str = "",
    hop: str = "",
) -> Response:
    """Render the login form with a CSRF token for this browser."""
    form_secret = request.cookies.get(console.cookies.form) or secrets.token_urlsafe(32)
    status, error = refusal
    response = render(
        request,
        "login.html",
        status=status,
        csrf=_derive_csrf(form_secret),
        onward=local_path(onward),
        user=name,
        error=error,
        notice=notice,
        hop=hop,
        oidc=console.deps.settings.pages_oidc_mount is not None,
        passwords=console.deps.settings.pages_password_mount is not None,
    )
    console.cookies.set(response, console.cookies.form, form_secret, max_age_s=FORM_LIFETIME_S)
    return response


def login_response(console: Console, key: SessionKey, onward: str) -> Response:
    """Redirect onward and set the session cookie."""
    response = RedirectResponse(local_path(onward), status_code=303)
    console.cookies.set(response, console.cookies.session, key.secret.reveal())
    console.cookies.delete(response, console.cookies.form)
    return response


def local_path(path: str) -> str:
    """Return a local path unchanged, and the dashboard for anything else, to prevent open redirects."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") and len(path) <= MAX_PATH_LENGTH else HOME


def _fresh_login_page(request: Request, visitor: PageUser, *, onward: str, refusal: tuple[int, str] = (200, "")) -> Response:
    (status, error), oidc = refusal, visitor.session.row.how == PageLoginMethod.OIDC
    return render(request, "fresh.html", status=status, onward=onward, error=error, oidc=oidc)


def _derive_csrf(secret: str) -> str:
    return hmac.digest(secret.encode(), b"justenough login form", "sha256").hex()
