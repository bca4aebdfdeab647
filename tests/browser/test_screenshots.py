"""The login page, and the README's pictures of the Approvals page with the shop's job, as its approver sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import yaml
from playwright.async_api import expect

from justenough.adapters.configuration.bundle_packer import pack_folder
from tests.browser.rig import Foresee, Look, Open, Shot, wait_for_state
from tests.console.served_console import SHOP
from tests.support.people import Human
from worker.stack import Stack

pytestmark = pytest.mark.servers


@pytest.fixture
async def refund(ops: Human) -> AsyncIterator[dict[str, Any]]:
    """The pending request of the shop's refund job."""
    file = SHOP / "jobs" / "refund-triage.yaml"
    raw = yaml.safe_load(file.read_text())
    content = pack_folder(file.parent, raw["run"]["workdir"])
    sent = await asyncio.to_thread(ops.api.post, "bundles", content=content, headers={"Content-Type": "application/gzip"})
    digest = sent.raise_for_status().json()["digest"]
    params = {"ticket": "4712"}
    job = await asyncio.to_thread(lambda: ops.launch(raw, bundle=digest, params=params, reason="the customer was charged twice"))
    yield await asyncio.to_thread(wait_for_state, ops, job, "awaiting_approval")
    await asyncio.to_thread(ops.api.post, f"jobs/{job}/kill")


async def test_a_wrong_password_is_reported_and_the_right_one_logs_in(visitor: Open, whole: Stack, axe: Look, foresee: Foresee) -> None:
    page = await visitor()
    foresee(page, "status of 401")
    await page.goto("/jobs?state=failed")
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    await axe(page)
    for password in ("not mine", whole.users["chief2"].password):
        await page.get_by_label("Name").fill("chief2")
        await page.get_by_label("Password").fill(password)
        await page.get_by_role("button", name="Log in").click()
        if password == "not mine":
            await expect(page.get_by_role("alert")).to_contain_text("Wrong name or password.")
            await axe(page)
    await expect(page).to_have_url(f"{whole.console}/jobs?state=failed")
    await page.get_by_role("banner").get_by_text("chief2").click()
    await page.get_by_role("button", name="Log out").click()
    await page.goto("/jobs")
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()


@pytest.mark.screenshots
async def test_pictures_of_the_inbox(person: Open, refund: dict[str, Any], shot: Shot) -> None:
    (asked,) = [request for request in refund["requests"] if request["state"] == "pending" and request["action"] == "write"]
    page = await person("lead", scale=2)
    await page.goto(f"/inbox/{asked['id']}")
    await expect(page.get_by_role("link", name="Approve write").first).to_be_visible()
    await shot(page, "card")
    phone = await person("lead", scale=2, width=360, dark=True)
    await phone.goto(f"/inbox/{asked['id']}")
    await expect(phone.locator("#thumb").get_by_role("link", name="Approve write")).to_be_visible()
    await shot(phone, "card-phone")
