"""Logging in by one's own identity provider, against a real one: OpenBao's OIDC provider behind OpenBao's OIDC auth method."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from html import unescape

import httpx
import pytest

from tests.pages.browser import Browser, Site
from tests.pages.provider import Provider

pytestmark = pytest.mark.servers

ELSEWHERE = {"Sec-Fetch-Site": "cross-site"}
HOP = re.compile(r'<meta http-equiv="refresh" content="0; url=(?P<url>[^"]+)">')


@pytest.fixture
async def lead(oidc_site: tuple[Site, Provider]) -> AsyncIterator[Browser]:
    async with AsyncExitStack() as opened:
        yield Browser.of(oidc_site[0], opened)


async def by_provider(browser: Browser, provider: Provider, token: str, start: str = "/login/oidc?next=/sessions") -> httpx.Response:
    """Log in as a browser does: over to the provider, back from elsewhere without our cookies, on from our own page with them."""
    sent = await browser.open(start)
    assert sent.status_code == 303, sent.text
    back, _ = await provider.redirect(sent.headers["location"], token)
    kept = dict(browser.http.cookies)
    browser.http.cookies.clear()
    arrived = await browser.open(back, ELSEWHERE)
    browser.http.cookies.update(kept)
    hop = HOP.search(arrived.text)
    assert hop, arrived.text
    return await browser.open(unescape(hop["url"]))


async def test_an_identity_provider_opens_the_page_that_was_asked_for(oidc_site: tuple[Site, Provider], lead: Browser) -> None:
    site, provider = oidc_site
    assert "/login/oidc?next=/sessions" in (await lead.open("/login?next=/sessions")).text
    answer = await by_provider(lead, provider, await provider.log_in("lead"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/sessions")
    assert "oidc (this one)" in (await lead.open("/sessions")).text
    visit = await site.console.sessions.visit(lead.cookie)
    assert (visit.person.name, visit.person.groups, visit.fresh) == ("lead", frozenset({"support-leads"}), False)
    token = await site.token_of(lead)
    await lead.submit("/sessions", "/logout")
    assert not await site.alive(token)
