"""People of an identity provider that is not Vault: they log in to the pages in Chromium, and its groups decide what they may approve."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route, expect

from console.services.console import build_console
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.secret import Secret
from tests.browser.rig import Launch, Pages, wait_for_state
from tests.console.pages.oidc_provider import TOKEN
from tests.console.served_console import serve_console
from tests.support.identity_provider import IdentityProvider, serve_identity_provider
from tests.support.people import Human
from tests.support.shop import Shop, access, spec
from worker.provisioning.people_source import PersonEntry, ReadPeople
from worker.provisioning.people_sync import sync_people
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

MOUNT, SUBJECT = "people-oidc", "00u1b2c3"
STYLES = "https://cdn.jsdelivr.net"
"""From here the provider's page takes its style sheet. Nothing is fetched from there: the browser gets an empty one."""


@dataclass(frozen=True)
class OutsideLogin:
    """A console whose people log in at the provider."""

    provider: IdentityProvider
    pages: Pages
    shop: Shop

    async def log_in(self, *, ended_at: str = "/sessions") -> Page:
        """Open a browser of somebody who logs in at the provider; return its page once it is at this address."""
        page = await self.pages.visitor(also=[self.provider.address, STYLES])
        self.pages.foresee(page, "status of 40[34]")
        await page.context.route(f"{STYLES}/**", empty_style)
        await page.goto("/login?next=/sessions")
        await page.get_by_role("link", name="Log in with SSO").click()
        await page.get_by_placeholder("sub").fill(SUBJECT)
        await page.get_by_role("button", name="Authorize", exact=True).click()
        # There is one redirect more, from a page of the console itself.
        await page.wait_for_url(re.compile(f"^[^?]*{ended_at}"))
        return page

    def members(self, group: str) -> list[str]:
        """The names of a group's own members in Vault."""
        with self.shop.admin() as vault:
            ids = vault.get(f"identity/group/name/{group}").raise_for_status().json()["data"]["member_entity_ids"] or []
            return [str(vault.get(f"identity/entity/id/{each}").raise_for_status().json()["data"]["name"]) for each in ids]


async def empty_style(route: Route) -> None:
    await route.fulfill(body="", content_type="text/css")


@pytest.fixture
async def outside(browser: Browser, whole: Stack, shop: Shop) -> AsyncIterator[OutsideLogin]:
    """Grace, whose groups only the provider knows. Vault has an external group in `support-leads` for what the provider calls Support Leads."""
    assert whole.vault
    assert whole.temporal
    settings = Settings(
        home=whole.home,
        config=whole.config,
        vault_addr=whole.vault,
        temporal_address=whole.temporal,
        database_url=whole.database_url,
        pages_oidc_mount=MOUNT,
        pages_oidc_role="people",
    )
    async with AsyncExitStack() as opened:
        provider = opened.enter_context(serve_identity_provider())
        console = await opened.enter_async_context(build_console(settings))
        address = str((await opened.enter_async_context(serve_console(console))).base_url).rstrip("/")
        inner = allow_provider(shop, provider, f"{address}/login/oidc/callback")
        grace = {"grace": PersonEntry(logins={MOUNT: SUBJECT})}
        token = Secret(whole.admin_token_file.read_text().strip())
        sync_people(settings, ReadPeople(grace), admin_token=token, remove=False)
        pages = Pages(browser, address, {})
        yield OutsideLogin(provider, pages, shop)
        problems = await pages.close()
        with shop.admin() as vault:
            vault.post("identity/group/name/support-leads", json={"member_group_ids": []}).raise_for_status()
            vault.delete(f"identity/group/id/{inner}").raise_for_status()
            vault.delete(f"sys/auth/{MOUNT}").raise_for_status()
        assert not problems, "\n".join(problems)


def allow_provider(shop: Shop, provider: IdentityProvider, redirect: str) -> str:
    """Set Vault up as docs/how-to/people-oidc.md says; return the id of the external group."""

    def write(path: str, **data: Any) -> dict[str, Any]:
        answer = vault.post(path, json=data)
        assert answer.is_success, answer.text
        return (answer.json().get("data") or {}) if answer.content else {}

    with shop.admin() as vault:
        write(f"sys/auth/{MOUNT}", type="oidc")
        write(f"auth/{MOUNT}/config", oidc_discovery_url=provider.address, oidc_client_id="justenough", oidc_client_secret="any")
        role = {"role_type": "oidc", "user_claim": "sub", "groups_claim": "groups", "allowed_redirect_uris": [redirect]}
        write(f"auth/{MOUNT}/role/people", **role, **TOKEN)
        inner = str(write("identity/group", name="sso-leads", type="external")["id"])
        accessor = vault.get("sys/auth").raise_for_status().json()["data"][f"{MOUNT}/"]["accessor"]
        write("identity/group-alias", name="Support Leads", mount_accessor=accessor, canonical_id=inner)
        write("identity/group/name/support-leads", member_group_ids=[inner])
    return inner


async def test_an_approval_counts_because_of_a_group_that_only_the_provider_knows(
    outside: OutsideLogin, launched: Launch, ops: Human
) -> None:
    outside.provider.set_claims(SUBJECT, groups=["Everybody"])
    job = await launched(spec("true", access("refunds-db", "write", reason="Write the refund")), "awaiting_approval")
    (request,) = job["requests"]

    page = await outside.log_in()
    assert outside.members("sso-leads") == []
    assert await status_of(page, f"/inbox/{request['id']}") == 404, "who approves nothing sees no requests"

    outside.provider.set_claims(SUBJECT, groups=["Everybody", "Support Leads"])
    page = await outside.log_in()
    assert outside.members("sso-leads") == ["grace"]
    async with asyncio.timeout(60):
        # The console keeps what it knows of people for some seconds.
        while await status_of(page, f"/inbox/{request['id']}") == 404:
            await page.wait_for_timeout(500)
    await page.get_by_role("link", name="Approve write").first.click()
    await page.locator("#approve").click()
    await expect(page.get_by_role("status").first).to_contain_text("Approved and recorded.")
    ended = await asyncio.to_thread(wait_for_state, ops, job["id"])
    (approval,) = ended["requests"][0]["approvals"]
    assert (ended["state"], approval["approver"]) == ("succeeded", "grace")

    outside.provider.set_claims(SUBJECT, groups=["Everybody"])
    await outside.log_in()
    assert outside.members("sso-leads") == []


async def test_a_provider_without_the_claim_lets_nobody_in(outside: OutsideLogin) -> None:
    outside.provider.set_claims(SUBJECT)
    page = await outside.log_in(ended_at="/login/oidc/callback")
    await expect(page.get_by_role("alert")).to_contain_text("it may be late or a duplicate, or lack what the mount's role requires")
    assert await status_of(page, "/sessions") == 200
    await expect(page).to_have_url(re.compile("/login"))


async def status_of(page: Page, path: str) -> int:
    """Open a page and return the status of the answer."""
    answer = await page.goto(path)
    assert answer
    return answer.status
