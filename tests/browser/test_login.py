"""The login page."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.rig import Foresee, Look, Open
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers


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
