"""The page user: identity, signing, authorizing in Vault, and which forms are accepted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.requests import Request

from console.app import create_app
from console.auth.csrf import is_masked_token
from console.auth.page_sessions import NoSession, SessionKey
from console.pages.page_user import PageUser, page_user_of
from justenough.domain.approvals.statements import DelegationStatement, why_signature_invalid
from justenough.domain.core.errors import Conflict
from tests.console.pages.conftest import LogIn
from tests.console.pages.plain_browser import SAME, Browser, Site, hidden_fields

pytestmark = pytest.mark.servers


async def page_user(site: Site, cookie: str) -> PageUser:
    """Return the page user of a cookie."""
    headers = [(b"cookie", f"je={cookie}".encode())]
    return await page_user_of(Request({"type": "http", "method": "GET", "path": "/", "headers": headers, "app": create_app(site.console)}))


async def test_a_page_user_is_the_person_with_their_rights_until_the_session_ends(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in()
    seen = await page_user(site, lead.cookie)
    assert (seen.caller.person.name, seen.caller.tier, seen.caller.can_read_all, seen.fresh) == ("lead", 1, True, True)
    assert 0 < seen.caller.expires - datetime.now(UTC).timestamp() <= 8 * 3600
    assert is_masked_token(hidden_fields((await lead.open("/sessions")).text)["csrf"], seen.csrf)


async def test_there_is_no_page_user_without_a_session(site: Site) -> None:
    for cookie in ("", SessionKey.new().secret.reveal()):
        with pytest.raises(NoSession, match="you are not logged in"):
            await page_user(site, cookie)


async def test_a_page_user_signs_with_their_own_key(site: Site, logged_in: LogIn) -> None:
    seen = await page_user(site, (await logged_in()).cookie)
    now, person = datetime.now(UTC).replace(microsecond=0), seen.caller.person.id
    statement = DelegationStatement(delegate="x", reason="away", person=person, issued_at=now, expires_at=now + timedelta(hours=1))
    signed = (await seen.sign(statement)).to_signed()
    assert DelegationStatement.model_validate(dict(signed.statement)) == statement
    assert why_signature_invalid(signed, site.console.deps.vault.public_keys(person)) is None


async def test_a_page_user_authorizes_in_vault_as_themselves(site: Site, logged_in: LogIn, admin: httpx.AsyncClient) -> None:
    policy = """
        path "kv/data/tests/locked" {
          capabilities = ["read"]
          control_group = {
            ttl = "1h"
            factor "approvers" {
              controlled_capabilities = ["read"]
              identity {
                group_names = ["support-leads"]
                approvals = 1
              }
            }
          }
        }"""
    (await admin.post("sys/policies/acl/tests-locked", json={"policy": policy})).raise_for_status()
    (await admin.post("kv/data/tests/locked", json={"data": {"a": "b"}})).raise_for_status()
    made = await admin.post("auth/token/create", json={"policies": ["tests-locked"], "no_default_policy": True})
    asked = await admin.get("kv/data/tests/locked", headers={"X-Vault-Token": made.raise_for_status().json()["auth"]["client_token"]})
    wrap = asked.raise_for_status().json()["wrap_info"]

    async def opened() -> bool:
        answer = (await admin.post("sys/control-group/request", json={"accessor": wrap["accessor"]})).raise_for_status()
        return bool(answer.json()["data"]["approved"])

    assert not await (await page_user(site, (await logged_in("ops")).cookie)).authorize(wrap["accessor"])
    assert not await opened()
    lead = await page_user(site, (await logged_in()).cookie)
    assert await lead.authorize(wrap["accessor"])
    assert await opened()
    with pytest.raises(Conflict, match="Vault no longer has this request to authorize"):
        await lead.authorize("nothing-of-that-kind")


async def test_an_ended_login_can_neither_sign_nor_authorize(site: Site, logged_in: LogIn, admin: httpx.AsyncClient) -> None:
    lead = await logged_in()
    seen = await page_user(site, lead.cookie)
    (await admin.post("auth/token/revoke", json={"token": await site.token_of(lead)})).raise_for_status()
    now = datetime.now(UTC)
    statement = DelegationStatement(
        delegate="x", reason="", person=seen.caller.person.id, issued_at=now, expires_at=now + timedelta(hours=1)
    )
    with pytest.raises(NoSession, match="log in again"):
        await seen.sign(statement)
    with pytest.raises(NoSession, match="log in again"):
        await seen.authorize("any")


async def test_a_form_without_the_csrf_token_changes_nothing(site: Site, logged_in: LogIn) -> None:
    lead, chief = await logged_in(), await logged_in("chief")
    token = await site.token_of(lead)
    others = hidden_fields((await chief.open("/sessions")).text)["csrf"]
    for fields in ({}, {"csrf": ""}, {"csrf": others}, {"csrf": "é"}, {"csrf": SessionKey.from_cookie(lead.cookie).hash}):
        answer = await lead.send("/logout", fields)
        assert answer.status_code == 403
        assert "this form belongs to an earlier login, or another site sent it" in answer.text.lower()
    assert await site.is_valid(token)
    assert (await lead.open("/sessions")).status_code == 200


async def test_a_form_from_another_site_changes_nothing_even_with_the_csrf_token(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in()
    fields = {"csrf": hidden_fields((await lead.open("/sessions")).text)["csrf"]}
    host = urlsplit(site.address).netloc
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://{host}.evil.example"},
        {"Origin": f"https://evil.example/{host}"},
    ):
        assert (await lead.send("/logout", fields, headers)).status_code == 403, headers
    assert (await lead.open("/sessions")).status_code == 200
    assert (await lead.send("/logout", fields, {"Origin": f"http://{host}"})).status_code == 303


async def test_a_form_of_a_browser_that_names_no_origin_is_accepted_only_with_the_csrf_token(logged_in: LogIn) -> None:
    lead = await logged_in()
    fields = {"csrf": hidden_fields((await lead.open("/sessions")).text)["csrf"]}
    assert (await lead.send("/logout", {"csrf": "x"}, {})).status_code == 403
    assert (await lead.open("/sessions")).status_code == 200
    assert (await lead.send("/logout", fields, {})).status_code == 303
    assert (await lead.open("/sessions")).status_code == 303


async def test_a_malformed_form_is_rejected(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in()
    csrf = hidden_fields((await lead.open("/sessions")).text)["csrf"]
    fields = {f"f{number}": "x" for number in range(300)}
    for large in (fields, {"much": "x" * 300_000}):
        refused = await lead.send("/logout", {"csrf": csrf, **large})
        assert (refused.status_code, "too large or cannot be read; send less text" in refused.text) == (403, True)
    file = await lead.http.post("/logout", data={"csrf": csrf}, files={"file": ("a", b"b")}, headers=SAME)
    assert file.status_code == 403
    junk = await lead.http.post("/logout", content=b"\xff\xfe" * 10, headers=SAME | {"Content-Type": "multipart/form-data; boundary=x"})
    assert junk.status_code == 403
    assert (await lead.open("/sessions")).status_code == 200
    assert await site.is_valid(await site.token_of(lead))


async def test_a_form_posted_without_a_session_is_not_resubmitted(browser: Callable[[], Browser]) -> None:
    answer = await browser().send("/logout", {"csrf": "x"})
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login")
    assert "logout" not in answer.headers["location"]
