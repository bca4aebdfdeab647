"""Single sign-on through Vault's OIDC method: GET /login/oidc and /login/oidc/callback.

State and nonce are in a cookie for ten minutes. The provider's redirect comes from another site, so the browser does not send that
SameSite=Strict cookie at once; one redirect from a page of the console makes it send the cookie.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from functools import partial
from typing import Annotated
from urllib.parse import parse_qs, urlencode, urlsplit

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from console.auth.page_sessions import PageLoginMethod
from console.concurrency.vault_threads import LOGIN_THREADS
from console.http.dependencies import TheConsole
from console.pages.login.login import HOME, local_path, login_response, refusal_response
from console.pages.rendering import render
from console.services.console import Console
from justenough.adapters.vault import user_login
from justenough.adapters.vault.user_login import NoSuchLogin
from justenough.domain.core.base_model import Model
from justenough.domain.core.errors import GiveUp, RetryLater

FLOW_LIFETIME_S = 600
"""Seconds until a login at the provider must be complete."""
MAX_PARAMETER_LENGTH = 4096
"""Longest parameter accepted from a provider, in characters."""
ERROR_PATTERN = re.compile(r"[a-z_]{1,64}")
LOGIN_PROMPT = {"prompt": "login"}
"""Makes the provider re-authenticate the person. Vault verifies the re-authentication with the role's max_age."""

router = APIRouter(include_in_schema=False)


class OidcFlowUnknown(GiveUp):
    """A provider's redirect that matches no login started in this browser."""


class OtherOidcFlow(OidcFlowUnknown):
    """A provider's redirect for another login than the one that was started last in this browser, for example in another tab."""


class ProviderLoginFailed(GiveUp):
    """The identity provider did not log the person in."""


class LoginNotFresh(GiveUp):
    """A re-authentication used a role that lets the identity provider reuse an existing session."""


class OidcFlow(Model):
    """A login in progress at the provider. The user can forge this cookie, so its content must not be trusted."""

    state: str
    nonce: str
    onward: str
    fresh: bool

    @classmethod
    def from_cookie(cls, cookie: str | None) -> OidcFlow:
        """Parse the cookie. Raises OidcFlowUnknown."""
        try:
            return cls.model_validate_json(base64.urlsafe_b64decode(cookie or ""))
        except ValueError as error:
            raise OidcFlowUnknown("this login was not started in this browser, or took longer than ten minutes; start again") from error

    def to_cookie(self) -> str:
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode()


@router.get("/login/oidc")
async def begin(
    request: Request, console: TheConsole, onward: Annotated[str, Query(alias="next")] = HOME, fresh: Annotated[str, Query()] = ""
) -> Response:
    """Redirect to the identity provider; with `fresh`, make it re-authenticate the person."""
    try:
        settings = console.deps.settings
        mount, role = settings.pages_oidc_mount, settings.pages_oidc_fresh_role if fresh else settings.pages_oidc_role
        if mount is None or role is None:
            subject, setting = ("re-authentication with SSO", "PAGES_OIDC_FRESH_ROLE") if fresh else ("SSO", "PAGES_OIDC_MOUNT")
            raise NoSuchLogin(f"{subject} is not configured (JUSTENOUGH_{setting})")
        nonce = secrets.token_urlsafe(32)
        redirect = f"{(settings.console_url or str(request.base_url)).rstrip('/')}/login/oidc/callback"
        url = await LOGIN_THREADS.run(partial(user_login.begin_oidc, console.deps.vault, mount, role=role, redirect=redirect, nonce=nonce))
    except (GiveUp, RetryLater) as error:
        return refusal_response(request, console, error, name="", onward=onward)
    state = parse_qs(urlsplit(url).query).get("state", [""])[0]
    flow = OidcFlow(state=state, nonce=nonce, onward=local_path(onward), fresh=bool(fresh))
    response = RedirectResponse(f"{url}&{urlencode(LOGIN_PROMPT)}" if fresh else url, status_code=303)
    console.cookies.set(response, console.cookies.oidc, flow.to_cookie(), max_age_s=FLOW_LIFETIME_S)
    return response


@router.get("/login/oidc/callback")
async def callback(
    request: Request,
    console: TheConsole,
    code: Annotated[str, Query()] = "",
    state: Annotated[str, Query()] = "",
    error: Annotated[str, Query()] = "",
    landed: Annotated[str, Query()] = "",
) -> Response:
    cookie, onward = request.cookies.get(console.cookies.oidc), HOME
    if cookie is None and not landed:
        values = {name: value[:MAX_PARAMETER_LENGTH] for name, value in (("code", code), ("state", state), ("error", error)) if value}
        return render(request, "arriving.html", hop=f"/login/oidc/callback?{urlencode({**values, 'landed': '1'})}")
    try:
        flow = OidcFlow.from_cookie(cookie)
        onward = flow.onward
        code, state = code[:MAX_PARAMETER_LENGTH], state[:MAX_PARAMETER_LENGTH]
        response = await _finish_flow(request, console, flow, code=code, state=state, error=error)
    except (GiveUp, RetryLater) as failure:
        response = refusal_response(request, console, failure, name="", onward=onward)
        if isinstance(failure, OtherOidcFlow):
            # The login that was started last may still be under way in another tab.
            return response
    console.cookies.delete(response, console.cookies.oidc)
    return response


async def _finish_flow(request: Request, console: Console, flow: OidcFlow, *, code: str, state: str, error: str) -> Response:
    """Log the person in, or refresh the login of their session. Raises GiveUp, RetryLater."""
    if not flow.state or not hmac.compare_digest(flow.state.encode(), state.encode()):
        raise OtherOidcFlow("this response belongs to a different login than the one started last in this browser; start again")
    if error:
        reason = error if ERROR_PATTERN.fullmatch(error) else "no readable reason"
        raise ProviderLoginFailed(f"your identity provider did not log you in ({reason}); try again, or ask its administrator")
    mount, sessions = str(console.deps.settings.pages_oidc_mount), console.sessions
    entry = await LOGIN_THREADS.run(partial(user_login.finish_oidc, console.deps.vault, mount, state=state, code=code, nonce=flow.nonce))
    if not flow.fresh:
        return login_response(console, await sessions.start(entry, method=PageLoginMethod.OIDC), flow.onward)
    try:
        # Only the role that Vault reports, whose max_age Vault checks, proves a fresh login. The cookie proves nothing.
        role = console.deps.settings.pages_oidc_fresh_role
        if not role or entry.role != role:
            raise LoginNotFresh("your identity provider reused an existing session instead of re-authenticating you; start again")
        session = await sessions.session_of(request.cookies.get(console.cookies.session))
    except (GiveUp, RetryLater):
        await sessions.end_token(entry.token)
        raise
    await sessions.refresh_login(session, entry)
    return RedirectResponse(local_path(flow.onward), status_code=303)
