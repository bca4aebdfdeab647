"""Login with SSO, against a real provider: OpenBao's OIDC provider behind OpenBao's OIDC auth method."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from html import unescape
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from console.auth.csrf import mask
from console.pages.login.login import _derive_csrf
from console.pages.login.oidc import OidcFlow
from justenough.adapters.configuration.settings import Settings
from tests.console.pages.conftest import serve_site
from tests.console.pages.oidc_provider import MAX_AGE, Provider
from tests.console.pages.plain_browser import Browser, Site, hidden_fields

pytestmark = pytest.mark.servers

HOP = re.compile(r'<meta http-equiv="refresh" content="0; url=(?P<url>[^"]+)">')
START = "/login/oidc?next=/sessions"
FRESH = "/login/oidc?fresh=1&next=/sessions"


@pytest.fixture
async def lead(oidc_site: tuple[Site, Provider]) -> AsyncIterator[Browser]:
    async with AsyncExitStack() as kept:
        yield Browser.create(oidc_site[0], kept)


async def start_login(browser: Browser, start: str = START) -> str:
    """Begin a login; return the address that the browser is redirected to."""
    sent = await browser.open(start)
    assert sent.status_code == 303, sent.text
    return sent.headers["location"]


async def come_back(browser: Browser, back: str) -> httpx.Response:
    """Return from the provider as a browser does: first without our cookies, then, from our own page, with them."""
    arrived = await browser.arrive(back)
    hop = HOP.search(arrived.text)
    assert hop, arrived.text
    return await browser.open(unescape(hop["url"]))


async def log_in_by_provider(browser: Browser, provider: Provider, token: str, start: str = START) -> httpx.Response:
    back, _ = await provider.redirect(await start_login(browser, start), token)
    return await come_back(browser, back)


async def test_sso_opens_the_requested_page(oidc_site: tuple[Site, Provider], lead: Browser) -> None:
    site, provider = oidc_site
    form = (await lead.open("/login?next=/sessions")).text
    assert START in form
    assert 'type="password"' not in form, "no setting names a mount for passwords"
    answer = await log_in_by_provider(lead, provider, await provider.log_in("lead"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/sessions")
    assert "SSO (current session)" in (await lead.open("/sessions")).text
    visit = await site.console.sessions.session_of(lead.cookie)
    assert (visit.person.name, visit.person.groups) == ("lead", frozenset({"support-leads"}))
    token = await site.token_of(lead)
    await lead.submit("/sessions", "/logout")
    assert not await site.is_valid(token)


async def test_an_sso_login_is_fresh_only_if_vault_checked_the_reauthentication(oidc_site: tuple[Site, Provider], lead: Browser) -> None:
    site, provider = oidc_site
    at_provider = await provider.log_in("lead")
    await log_in_by_provider(lead, provider, at_provider)
    assert not (await site.console.sessions.session_of(lead.cookie)).fresh, "the provider may have asked nothing"

    assert "/login/oidc?fresh=1" in (await lead.open("/login/fresh?next=/sessions")).text
    answer = await log_in_by_provider(lead, provider, await provider.log_in("lead"), FRESH)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sessions")
    assert (await site.console.sessions.session_of(lead.cookie)).fresh


async def test_pages_that_take_no_passwords_refuse_them_although_vault_has_a_mount_for_them(
    oidc_site: tuple[Site, Provider], lead: Browser
) -> None:
    site, provider = oidc_site
    await lead.open("/login")
    # No form is shown, but a program can make its fields from the cookie.
    fields = {"csrf": mask(_derive_csrf(lead.http.cookies["je-form"])), "name": "lead", "password": site.passwords["lead"]}
    answer = await lead.send("/login", fields)
    assert (answer.status_code, lead.cookie) == (403, "")
    assert "Login with a password is not configured (JUSTENOUGH_PAGES_MOUNT)." in answer.text
    await log_in_by_provider(lead, provider, await provider.log_in("lead"))
    csrf = hidden_fields((await lead.open("/sessions")).text)["csrf"]
    answer = await lead.send("/login/fresh", {"csrf": csrf, "next": "/sessions", "password": site.passwords["lead"]})
    assert answer.status_code == 403
    assert not (await site.console.sessions.session_of(lead.cookie)).fresh


async def test_vault_refuses_a_login_without_reauthentication(oidc_site: tuple[Site, Provider], lead: Browser) -> None:
    site, provider = oidc_site
    await log_in_by_provider(lead, provider, await provider.log_in("lead"))
    old = await provider.log_in("lead")
    await provider.until_older_than(old, MAX_AGE)
    url = await start_login(lead, FRESH)
    asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert (asked["prompt"], asked["max_age"]) == ("login", str(MAX_AGE))
    _, said = await provider.redirect(url, old)
    assert said.get("error") == "max_age_violation"

    stripped = url.partition("?")[0] + "?" + urlencode({name: value for name, value in asked.items() if name not in {"prompt", "max_age"}})
    back, _ = await provider.redirect(stripped, old)
    answer = await come_back(lead, back)
    assert answer.status_code == 403
    assert not (await site.console.sessions.session_of(lead.cookie)).fresh


async def test_an_ordinary_login_that_claims_to_be_fresh_is_refused(oidc_site: tuple[Site, Provider], lead: Browser) -> None:
    site, provider = oidc_site
    at_provider = await provider.log_in("lead")
    await log_in_by_provider(lead, provider, at_provider)
    back, _ = await provider.redirect(await start_login(lead), at_provider)
    flow = OidcFlow.from_cookie(lead.http.cookies["je-oidc"])
    lead.http.cookies.delete("je-oidc")
    lead.http.cookies.set("je-oidc", flow.model_copy(update={"fresh": True}).to_cookie(), domain="127.0.0.1", path="/")
    answer = await come_back(lead, back)
    assert answer.status_code == 403
    assert "reused an existing session instead of re-authenticating you" in answer.text
    assert not (await site.console.sessions.session_of(lead.cookie)).fresh


async def test_a_fresh_sso_login_must_be_of_the_same_person(oidc_site: tuple[Site, Provider], lead: Browser) -> None:
    site, provider = oidc_site
    await log_in_by_provider(lead, provider, await provider.log_in("lead"))
    answer = await log_in_by_provider(lead, provider, await provider.log_in("chief"), FRESH)
    assert answer.status_code == 403
    assert "belongs to a different person" in answer.text
    visit = await site.console.sessions.session_of(lead.cookie)
    assert (visit.person.name, visit.fresh) == ("lead", False)


async def test_a_redirect_of_another_browsers_login_logs_nobody_in(oidc_site: tuple[Site, Provider], lead: Browser) -> None:
    site, provider = oidc_site
    async with AsyncExitStack() as kept:
        mallory = Browser.create(site, kept)
        back, _ = await provider.redirect(await start_login(mallory), await provider.log_in("chief"))
        for _ in range(2):
            answer = await come_back(lead, back)
            assert answer.status_code == 403
            assert "start again" in answer.text
            assert lead.cookie == ""
            await start_login(lead)


async def test_the_login_that_was_started_last_succeeds_although_an_earlier_one_comes_back_first(
    oidc_site: tuple[Site, Provider], lead: Browser
) -> None:
    _, provider = oidc_site
    token = await provider.log_in("lead")
    earlier, _ = await provider.redirect(await start_login(lead), token)
    last, _ = await provider.redirect(await start_login(lead), token)
    refused = await come_back(lead, earlier)
    assert (refused.status_code, "than the one started last in this browser; start again" in refused.text) == (403, True)
    assert (await come_back(lead, last)).status_code == 303
    assert lead.cookie


async def test_a_code_works_once(oidc_site: tuple[Site, Provider], lead: Browser) -> None:
    _, provider = oidc_site
    back, _ = await provider.redirect(await start_login(lead), await provider.log_in("lead"))
    flow = lead.http.cookies["je-oidc"]
    assert (await come_back(lead, back)).status_code == 303
    lead.http.cookies.clear()
    lead.http.cookies.set("je-oidc", flow)
    answer = await lead.open(f"{back}&landed=1")
    assert (answer.status_code, lead.cookie) == (403, "")
    assert "it may be late or a duplicate" in answer.text


async def test_a_person_known_only_to_the_provider_is_told_so(oidc_site: tuple[Site, Provider], lead: Browser) -> None:
    site, provider = oidc_site
    answer = await log_in_by_provider(lead, provider, await provider.log_in("stranger"))
    assert answer.status_code == 403
    assert "is not linked to a JustEnough user" in answer.text
    assert lead.cookie == ""
    assert site.store.page_sessions.open_of("stranger", since=site.clock()) == ()


async def test_a_providers_refusal_is_shown_and_none_of_its_other_text(oidc_site: tuple[Site, Provider], lead: Browser) -> None:
    del oidc_site
    for error, shown in (("access_denied", "(access_denied)"), ("<b>x", "(no readable reason)")):
        state = parse_qs(urlsplit(await start_login(lead)).query)["state"][0]
        answer = await come_back(lead, f"/login/oidc/callback?{urlencode({'error': error, 'state': state})}")
        assert answer.status_code == 403
        assert shown in answer.text
        assert "<b>x" not in answer.text


async def test_a_mount_that_does_not_take_this_address_is_named(
    settings: Settings, passwords: dict[str, str], oidc_site: tuple[Site, Provider]
) -> None:
    del oidc_site
    changed = {"pages_oidc_mount": "pages-oidc", "console_url": "https://je.example", "pages_oidc_role": "pages"}
    async with serve_site(settings.model_copy(update=changed), passwords) as other, AsyncExitStack() as kept:
        answer = await Browser.create(other, kept).open(START)
    assert answer.status_code == 403
    assert "https://je.example/login/oidc/callback: add it to the role" in answer.text
    assert "allowed_redirect_uris" in answer.text


@pytest.mark.parametrize(
    "changed, start, said",
    [
        ({}, START, "JUSTENOUGH_PAGES_OIDC_MOUNT"),
        ({"pages_oidc_mount": "nowhere"}, START, "Vault has no OIDC login at nowhere/"),
        ({"pages_oidc_mount": "pages-oidc"}, FRESH, "JUSTENOUGH_PAGES_OIDC_FRESH_ROLE"),
    ],
    ids=["no mount", "no such mount", "no fresh role"],
)
async def test_missing_configuration_is_named(
    settings: Settings, passwords: dict[str, str], changed: dict[str, str], start: str, said: str
) -> None:
    async with serve_site(settings.model_copy(update=changed), passwords) as other, AsyncExitStack() as kept:
        answer = await Browser.create(other, kept).open(start)
    assert answer.status_code == 403
    assert said in answer.text
