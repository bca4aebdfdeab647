"""Sessions of the pages: what begins, carries and ends them, seen by effect on a real Vault and store."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.pages.browser import SAME, Browser, Site, hidden
from tests.pages.conftest import LogIn

pytestmark = pytest.mark.servers


async def test_without_a_session_every_page_leads_to_the_login_and_back(browser: Callable[[], Browser]) -> None:
    stranger = browser()
    sent = await stranger.open("/sessions?a=b")
    assert (sent.status_code, sent.headers["location"]) == (303, "/login?next=%2Fsessions%3Fa%3Db")
    shown = await stranger.open(sent.headers["location"])
    assert hidden(shown.text)["next"] == "/sessions?a=b"


async def test_a_right_password_opens_the_page_that_was_asked_for(site: Site, browser: Callable[[], Browser]) -> None:
    lead = browser()
    sent = await lead.log_in("lead", site.passwords["lead"])
    assert (sent.status_code, sent.headers["location"]) == (303, "/sessions")
    cookie = next(value for name, value in sent.headers.multi_items() if name == "set-cookie" and value.startswith("je="))
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "this one" in (await lead.open("/sessions")).text


async def test_a_cookie_that_was_changed_opens_nothing(logged_in: LogIn) -> None:
    lead = await logged_in()
    changed = ("B" if lead.cookie[0] != "B" else "C") + lead.cookie[1:]
    lead.http.cookies.clear()
    for forged in (changed, changed[:-1], "../../etc", "", "a" * 5000):
        answer = await lead.open("/sessions", SAME | {"Cookie": f"je={forged}"})
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login")


async def test_the_vault_token_of_a_session_that_logged_out_is_dead_in_vault(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in()
    cookie, token = lead.cookie, await site.token_of(lead)
    assert await site.alive(token)
    answer = await lead.submit("/sessions", "/logout")
    assert answer.status_code == 303
    assert not await site.alive(token)
    assert (await lead.open("/sessions", SAME | {"Cookie": f"je={cookie}"})).status_code == 303
