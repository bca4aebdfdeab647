"""Page sessions: how they start, last and end, by their effect on a real Vault and store."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import update

from console.auth.page_sessions import SessionKey, WrongPerson
from console.auth.vault_directory import CACHE_TTL_S, ConsoleVault
from console.concurrency.quotas import WAITING_CALLS_PER_TURN
from console.pages.routers import ROUTERS
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store.engine import open_database
from justenough.adapters.store.tables import PAGE_SESSIONS
from justenough.adapters.vault import VaultDenied, user_login
from justenough.domain.core.secret import Secret
from tests.console.pages.conftest import LogIn, serve_site
from tests.console.pages.plain_browser import SAME, Browser, Site, hidden_fields

pytestmark = pytest.mark.servers
PUBLIC_PAGES = {"/login", "/login/oidc", "/login/oidc/callback", "/static/{digest}/{name}", "/wall"}
"""The addresses that answer without a login. A wall screen has a token of its own."""
PAGES = [
    (method, route.path)
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute) and route.path not in PUBLIC_PAGES
    for method in sorted(route.methods or ())
]


def vault_of(site: Site) -> ConsoleVault:
    vault = site.console.deps.vault
    assert isinstance(vault, ConsoleVault)
    return vault


async def login_page(browser: Browser) -> str:
    """Return the login page that appears because the session has ended."""
    answer = await browser.open("/sessions")
    assert answer.status_code == 303, answer.text
    return (await browser.open(answer.headers["location"])).text


async def test_without_a_session_every_page_leads_to_the_login_and_back(browser: Callable[[], Browser]) -> None:
    stranger = browser()
    sent = await stranger.open("/sessions?a=b")
    assert sent.status_code == 303
    shown = await stranger.open(sent.headers["location"])
    assert hidden_fields(shown.text, "/login")["next"] == "/sessions?a=b"
    for method, path in PAGES:
        sent = await stranger.http.request(method, re.sub(r"\{[^}]+\}", "x", path), headers=SAME)
        assert (sent.status_code, sent.headers.get("location", "").partition("?")[0]) == (303, "/login"), (method, path)


async def test_a_right_password_opens_the_requested_page(site: Site, browser: Callable[[], Browser]) -> None:
    lead = browser()
    sent = await lead.log_in("lead", site.passwords["lead"])
    assert (sent.status_code, sent.headers["location"]) == (303, "/sessions")
    cookie = next(value for name, value in sent.headers.multi_items() if name == "set-cookie" and value.startswith("je="))
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "password (current session)" in (await lead.open("/sessions")).text
    again = await lead.open("/login?next=/sessions?x=1")
    assert (again.status_code, again.headers["location"]) == (303, "/sessions?x=1")


async def test_each_login_has_a_session_of_its_own(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in()
    first = lead.cookie
    lead.http.cookies.clear()
    await lead.log_in("lead", site.passwords["lead"])
    assert lead.cookie != first
    assert (await lead.open("/sessions")).text.count("<tr>") >= 3


async def test_each_person_has_their_own_quota_of_page_sessions(settings: Settings, passwords: dict[str, str], own_store: Path) -> None:
    own = settings.model_copy(update={"quota_page_sessions": 2, "database_url": f"sqlite:///{own_store}"})
    async with serve_site(own, passwords) as site, AsyncExitStack() as opened:
        browsers = [Browser.create(site, opened) for _ in range(4)]
        answers = [await browser.log_in("lead", passwords["lead"]) for browser in browsers[:3]]
        assert [answer.status_code for answer in answers] == [303, 303, 429]
        assert "2 sessions are open for you; log out of some (see Sessions), or wait until they end (the quota is 2)." in answers[2].text
        assert int(answers[2].headers["Retry-After"]) >= 1
        assert (await browsers[3].log_in("auditor", passwords["auditor"])).status_code == 303
        await browsers[0].submit("/sessions", "/logout")
        assert (await browsers[2].log_in("lead", passwords["lead"])).status_code == 303
        # Sessions that have ended by themselves do not count.
        site.clock.forward(minutes=31)
        assert [(await browser.log_in("lead", passwords["lead"])).status_code for browser in browsers[:2]] == [303, 303]


async def test_a_page_that_a_person_may_not_open_now_says_so_and_when_to_retry(logged_in: LogIn, site: Site) -> None:
    lead, end = await logged_in(), asyncio.Event()
    person = (await site.console.sessions.session_of(lead.cookie)).person.id

    async def call() -> None:
        async with site.console.quotas.take_turn(person):
            await end.wait()

    async with asyncio.TaskGroup() as calls:
        for _ in range(site.console.deps.settings.quota_calls * (1 + WAITING_CALLS_PER_TURN)):
            calls.create_task(call())
        refused = await lead.open("/jobs")
        end.set()
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert "of your calls are already being served or waiting" in refused.text
    assert (await lead.open("/jobs")).status_code == 200


async def test_a_login_does_not_adopt_a_session_cookie_that_was_planted(site: Site, browser: Callable[[], Browser]) -> None:
    lead, planted = browser(), SessionKey.new().secret.reveal()
    lead.http.cookies.set("je", planted, domain="127.0.0.1")
    await lead.log_in("lead", site.passwords["lead"])
    lead.http.cookies.clear()
    assert (await lead.open("/sessions", SAME | {"Cookie": f"je={planted}"})).status_code == 303


async def test_a_cookie_that_was_changed_opens_nothing(logged_in: LogIn) -> None:
    lead = await logged_in()
    changed = ("B" if lead.cookie[0] != "B" else "C") + lead.cookie[1:]
    lead.http.cookies.clear()
    for forged in (changed, changed[:-1], "../../etc", "", "a" * 5000):
        answer = await lead.open("/sessions", SAME | {"Cookie": f"je={forged}"})
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login")


async def test_logging_out_revokes_the_sessions_vault_token(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in()
    cookie, token = lead.cookie, await site.token_of(lead)
    assert await site.is_valid(token)
    answer = await lead.submit("/sessions", "/logout")
    assert answer.status_code == 303
    assert lead.cookie == ""
    assert not await site.is_valid(token)
    assert (await lead.open("/sessions", SAME | {"Cookie": f"je={cookie}"})).status_code == 303


async def test_the_store_and_the_consoles_login_do_not_open_a_token_without_the_cookie(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in()
    key = SessionKey.from_cookie(lead.cookie)
    row = site.store.page_sessions.get(key.hash)
    assert row
    vault = vault_of(site)
    assert user_login.decrypt_token(vault, row.ciphertext, key.context).reveal() == await site.token_of(lead)
    known = (row.key, row.person, row.name, row.ciphertext, row.created_at.isoformat(), "", key.csrf)
    for context in (*(value.encode() for value in known), bytes.fromhex(row.key), SessionKey.new().context):
        with pytest.raises(user_login.Unreadable):
            user_login.decrypt_token(vault, row.ciphertext, context)
    with pytest.raises(VaultDenied):
        vault.call_own("post", "transit/decrypt/je-pages", {"ciphertext": row.ciphertext})
    with pytest.raises(VaultDenied):
        vault.call_own("get", "transit/export/encryption-key/je-pages")
    assert lead.cookie not in row.model_dump_json()


async def test_an_idle_session_ends(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in()
    token = await site.token_of(lead)
    for _ in range(3):
        site.clock.forward(minutes=29)
        assert (await lead.open("/sessions")).status_code == 200
    site.clock.forward(minutes=31)
    assert "You were inactive for longer than 30 min." in await login_page(lead)
    assert not await site.is_valid(token)
    assert "You were inactive for longer than 30 min." in await login_page(lead)


async def test_a_session_ends_after_eight_hours_however_much_it_is_used(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in()
    token = await site.token_of(lead)
    for _ in range(17):
        site.clock.forward(minutes=28)
        assert (await lead.open("/sessions")).status_code == 200
    site.clock.forward(minutes=10)
    assert "You were logged in for 8 h, which is the maximum." in await login_page(lead)
    assert not await site.is_valid(token)


async def test_use_is_recorded_once_a_minute_and_renews_the_token(site: Site, logged_in: LogIn, admin: httpx.AsyncClient) -> None:
    lead = await logged_in()
    token, key = await site.token_of(lead), SessionKey.from_cookie(lead.cookie).hash

    def seen() -> datetime:
        row = site.store.page_sessions.get(key)
        assert row
        return row.seen_at

    async def renewed() -> bool:
        answer = await admin.post("auth/token/lookup", json={"token": token})
        return "last_renewal" in answer.raise_for_status().json()["data"]

    first = seen()
    await lead.open("/sessions")
    assert (seen(), await renewed()) == (first, False)
    site.clock.forward(seconds=61)
    await lead.open("/sessions")
    second = seen()
    assert second > first
    assert await renewed()
    # Otherwise nothing would be recorded or renewed until the clock has reached the last time again.
    site.clock.forward(hours=-1)
    await lead.open("/sessions")
    assert seen() < first


async def test_a_token_that_was_revoked_in_vault_ends_its_session_although_the_clock_was_set_back(
    site: Site, logged_in: LogIn, admin: httpx.AsyncClient
) -> None:
    lead = await logged_in()
    (await admin.post("auth/token/revoke", json={"token": await site.token_of(lead)})).raise_for_status()
    site.clock.forward(hours=-1)
    assert "Vault has ended this login." in await login_page(lead)


async def test_a_token_that_was_revoked_in_vault_ends_its_session(site: Site, logged_in: LogIn, admin: httpx.AsyncClient) -> None:
    lead = await logged_in()
    (await admin.post("auth/token/revoke", json={"token": await site.token_of(lead)})).raise_for_status()
    site.clock.forward(seconds=CACHE_TTL_S)
    assert "Vault has ended this login." in await login_page(lead)


async def test_rotating_the_key_ends_every_session(site: Site, logged_in: LogIn, admin: httpx.AsyncClient) -> None:
    lead = await logged_in()
    rotated = (await admin.post("transit/keys/je-pages/rotate")).raise_for_status().json()["data"]["latest_version"]
    assert (await lead.open("/sessions")).status_code == 200
    (await admin.post("transit/keys/je-pages/config", json={"min_decryption_version": rotated})).raise_for_status()
    site.clock.forward(seconds=CACHE_TTL_S)
    assert "Vault has ended this login." in await login_page(lead)
    assert (await (await logged_in()).open("/sessions")).status_code == 200


async def test_a_token_with_additional_policies_ends_its_session(site: Site, logged_in: LogIn, admin: httpx.AsyncClient) -> None:
    lead = await logged_in("mallory")
    cookie = lead.cookie
    mallory = (await admin.get("identity/entity/name/mallory")).json()["data"]["id"]
    (await admin.post("identity/group/name/mighty", json={"policies": ["je-worker"], "member_entity_ids": [mallory]})).raise_for_status()
    try:
        site.clock.forward(seconds=CACHE_TTL_S)
        assert "has policies that the pages do not allow: je-worker" in await login_page(lead)
        answer = await lead.log_in("mallory", site.passwords["mallory"])
        assert answer.status_code == 403
        assert "has policies that the pages do not allow: je-worker; ask a Vault administrator to remove these policies" in answer.text
        assert lead.cookie == cookie
    finally:
        (await admin.delete("identity/group/name/mighty")).raise_for_status()


async def test_a_person_who_was_disabled_loses_the_session_soon(site: Site, logged_in: LogIn, admin: httpx.AsyncClient) -> None:
    gone = await logged_in("gone")
    token, key = await site.token_of(gone), SessionKey.from_cookie(gone.cookie).hash
    assert (await gone.open("/sessions")).status_code == 200
    (await admin.post("identity/entity/name/gone", json={"disabled": True})).raise_for_status()
    try:
        end = time.monotonic() + CACHE_TTL_S + 5
        while (await gone.open("/sessions")).status_code == 200:
            assert time.monotonic() < end
            await asyncio.sleep(0.5)
        assert "Your login no longer exists or is disabled." in await login_page(gone)
        assert not await site.is_valid(token)
        answer = await gone.log_in("gone", site.passwords["gone"])
        assert answer.status_code in {401, 403}
    finally:
        (await admin.post("identity/entity/name/gone", json={"disabled": False})).raise_for_status()
    # Vault does not accept a call of a disabled person, so the token cannot be revoked. It expires, and nothing can decrypt its ciphertext any more.
    row = site.store.page_sessions.get(key)
    assert row
    assert (row.ciphertext, (await gone.open("/sessions")).status_code) == ("", 303)


async def test_logging_out_everywhere_ends_every_session_of_the_person_and_of_nobody_else(site: Site, logged_in: LogIn) -> None:
    here, there, other = await logged_in("chief"), await logged_in("chief"), await logged_in("ops")
    kept, token = SessionKey.from_cookie(there.cookie), await site.token_of(here)
    form = hidden_fields((await here.open("/sessions")).text)
    answer = await here.send("/logout", {"csrf": form["csrf"], "everywhere": "yes"})
    assert answer.status_code == 303
    assert not await site.is_valid(token)
    assert "You logged out everywhere." in await login_page(there)
    row = site.store.page_sessions.get(kept.hash)
    assert row
    assert (row.ciphertext, row.ended_at is not None) == ("", True)
    assert (await other.open("/sessions")).status_code == 200


async def test_one_session_is_ended_from_another_and_never_somebody_elses(site: Site, logged_in: LogIn) -> None:
    here, there, other = await logged_in("chief"), await logged_in("chief"), await logged_in("ops")
    page, theirs = (await here.open("/sessions")).text, await site.token_of(there)
    csrf = hidden_fields(page)["csrf"]
    for browser in (there, other):
        answer = await here.send("/sessions/end", {"csrf": csrf, "key": SessionKey.from_cookie(browser.cookie).hash})
        assert (answer.status_code, answer.headers["location"]) == (303, "/sessions")
    assert "You ended this session from another one." in await login_page(there)
    assert [(await browser.open("/sessions")).status_code for browser in (here, other)] == [200, 200]
    # Decrypting its token would need its cookie.
    assert await site.is_valid(theirs)
    assert "If you end another session, the console deletes its token, which then expires in Vault." in page


async def test_a_fresh_login_counts_for_five_minutes_and_keeps_the_session(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in()
    cookie = lead.cookie
    assert (await site.console.sessions.session_of(cookie)).fresh
    site.clock.forward(minutes=6)
    assert not (await site.console.sessions.session_of(cookie)).fresh
    answer = await lead.submit("/login/fresh?next=/sessions", "/login/fresh", password=site.passwords["lead"])
    assert (answer.status_code, answer.headers["location"], lead.cookie) == (303, "/sessions", cookie)
    assert (await site.console.sessions.session_of(cookie)).fresh
    site.clock.forward(minutes=6)
    answer = await lead.submit("/login/fresh?next=/sessions", "/login/fresh", password="wrong")
    assert answer.status_code == 401
    assert not (await site.console.sessions.session_of(cookie)).fresh


async def test_a_login_does_not_stay_fresh_although_the_clock_was_set_back(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in()
    # Two consoles' clocks may differ a little.
    site.clock.forward(seconds=-30)
    assert (await site.console.sessions.session_of(lead.cookie)).fresh
    site.clock.forward(hours=-1)
    assert not (await site.console.sessions.session_of(lead.cookie)).fresh


async def test_a_fresh_login_of_another_person_is_refused(site: Site, logged_in: LogIn) -> None:
    lead, chief = await logged_in("lead"), await logged_in("chief")
    site.clock.forward(minutes=6)
    visit, other = await site.console.sessions.session_of(lead.cookie), await site.console.sessions.session_of(chief.cookie)
    entry = user_login.log_in(vault_of(site), "chief", Secret(site.passwords["chief"]), mount="pages")
    assert entry.entity == other.person.id
    with pytest.raises(WrongPerson):
        await site.console.sessions.refresh_login(visit, entry)
    assert not await site.is_valid(entry.token.reveal())
    assert not (await site.console.sessions.session_of(lead.cookie)).fresh
    # The page uses the session's own name and ignores the form's.
    answer = await lead.submit("/login/fresh", "/login/fresh", name="chief", password=site.passwords["chief"])
    assert answer.status_code == 401


async def test_an_unknown_address_gets_a_page_or_an_api_problem_by_accept_header(browser: Callable[[], Browser]) -> None:
    lost = browser()
    page = await lost.http.get("/nowhere", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "Page not found: /nowhere" in page.text
    assert 'href="/jobs"' in page.text
    for path, accept in (("/nowhere", "application/json"), ("/api/v1/nowhere", "text/html")):
        answer = await lost.http.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_a_session_whose_person_was_changed_in_the_store_ends(site: Site, logged_in: LogIn) -> None:
    ops, chief = await logged_in("ops"), await logged_in("chief")
    row = (await site.console.sessions.session_of(ops.cookie)).row
    other = (await site.console.sessions.session_of(chief.cookie)).person
    engine = open_database(site.console.deps.settings.store_url).engine
    with engine.begin() as connection:
        connection.execute(update(PAGE_SESSIONS).where(PAGE_SESSIONS.c.key == row.key).values(person=other.id))
    engine.dispose()
    assert "a different person than the session" in await login_page(ops)
    assert (await chief.open("/sessions")).status_code == 200
