"""GET and POST /wall: the dashboard for a screen that several people watch. Read-only.

A screen presents the token once and keeps a cookie, which opens only this page. To rotate the token, write another one into its file. People
with a login who may read all jobs need no token.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import structlog
from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from console.auth.page_sessions import NoSession
from console.http.dependencies import TheConsole
from console.pages import charts
from console.pages.dashboard import HEALTH_TIMEOUT_S, headline_figures, split_results
from console.pages.page_user import PageUser, is_same_origin, page_user_of
from console.pages.rendering import render
from console.services.console import Console
from console.services.health import HealthReport
from justenough.domain.core.errors import RetryLater
from justenough.domain.core.secret import Secret

COOKIE_LIFETIME_S = 365 * 86_400
REFRESH_INTERVAL_S = 5
MAX_ITEMS = 7
"""What fits on one screen."""
MIN_TOKEN_CHARS = 32
MAX_TOKEN_CHARS = 1024

router = APIRouter(include_in_schema=False)
log = structlog.get_logger()


@router.get("/wall")
async def wall(request: Request, console: TheConsole) -> Response:
    """Show the dashboard to a screen with the token, or to a person who may read all jobs; show the token form to anyone else."""
    is_screen = _is_screen(request, console)
    request.state.visitor = visitor = None if is_screen else await _person_of(request)
    if not (is_screen or (visitor and visitor.caller.can_read_all)):
        return _token_form(request, console)
    health = await console.health.report_within(HEALTH_TIMEOUT_S)
    return await to_thread.run_sync(_render_wall, request, console, health)


@router.post("/wall")
async def admit_screen(request: Request, console: TheConsole) -> Response:
    """Give the screen its cookie if the token is right."""
    request.state.visitor = None
    file = console.deps.settings.wall_token_file
    if file is None or not is_same_origin(request):
        return _token_form(request, console, error="This form cannot be used here. Reload the page and try again.")
    form = await request.form(max_files=0, max_fields=5, max_part_size=MAX_TOKEN_CHARS)
    token = read_wall_token(file)
    if token is None:
        return _token_form(request, console, error="The console cannot use its wall token. Its log says why.")
    if not is_same(Secret(str(form.get("token", "")).strip()), token):
        return _token_form(request, console, error="This is not the token for this installation’s screens.")
    response = RedirectResponse("/wall", status_code=303)
    console.cookies.set(response, console.cookies.wall, cookie_value(token).reveal(), max_age_s=COOKIE_LIFETIME_S)
    return response


def _is_screen(request: Request, console: Console) -> bool:
    file, cookie = console.deps.settings.wall_token_file, request.cookies.get(console.cookies.wall)
    token = read_wall_token(file) if file and cookie else None
    return token is not None and is_same(Secret(cookie or ""), cookie_value(token))


def read_wall_token(file: Path) -> Secret | None:
    """Return the token of the installation's screens. If it cannot be read or is too short, log that and return None."""
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = f"cannot read {file}: {error}"
    else:
        if len(token) >= MIN_TOKEN_CHARS:
            return Secret(token)
        why = f"the token in {file} has fewer than {MIN_TOKEN_CHARS} characters. Make one: openssl rand -hex 32"
    log.warning("wall token unusable", why=f"JUSTENOUGH_WALL_TOKEN_FILE: {why}")
    return None


def cookie_value(token: Secret) -> Secret:
    """Return the value of a screen's cookie: a digest, so that the cookie does not reveal the token."""
    return Secret(hashlib.sha256(f"wall:{token.reveal()}".encode()).hexdigest())


def is_same(one: Secret, other: Secret) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(one.reveal().encode(), other.reveal().encode())


async def _person_of(request: Request) -> PageUser | None:
    """Return the logged-in person; None if nobody is, and while Vault or the store does not answer."""
    try:
        return await page_user_of(request, allow_last_known=True)
    except (NoSession, RetryLater):
        return None


def _token_form(request: Request, console: Console, *, error: str = "") -> Response:
    has_token = console.deps.settings.wall_token_file is not None
    status = 403 if error else 401
    return render(request, "wall_token.html", status=status, error=error, has_token=has_token)


def _render_wall(request: Request, console: Console, health: HealthReport | None) -> Response:
    figures, own_alarm = console.dashboard, console.deps.config.alarm
    items = [item for item in figures.attention() if item.acknowledged is None]
    before, results = split_results(figures.results())
    return render(
        request,
        "wall.html",
        figures=headline_figures(figures.current_counts(), before),
        items=items[:MAX_ITEMS],
        more=max(0, len(items) - MAX_ITEMS),
        chart=charts.result_chart(results, before),
        health=health,
        alarm=health.config_alarm(own_alarm) if health else own_alarm,
        tiers=console.deps.config.current().tiers,
        refresh=REFRESH_INTERVAL_S,
    )
