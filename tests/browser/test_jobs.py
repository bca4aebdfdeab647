"""Dashboard, jobs, one job and launching a job, in Chromium over the whole stack: live, by keyboard, without JavaScript, on a small screen, in the dark theme."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.rig import OPEN_FOLDS, Launch, Look, Open, check_middle_widths, log_in, wait_for_state
from tests.support.people import Human
from tests.support.shop import access, spec
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

JOB = re.compile(r"/jobs/(j-[a-z0-9-]+)")


async def mark_page(page: Page) -> None:
    """Mark the page, so that `check_not_reloaded` detects a later reload."""
    await page.evaluate("window.stayed = true")


async def check_not_reloaded(page: Page) -> None:
    """Fail if the page was reloaded."""
    assert await page.evaluate("window.stayed === true")


async def preview_job(page: Page, template: str, **params: str) -> None:
    """Choose a template, fill it in and open the policy preview."""
    await page.goto("/jobs/new")
    await page.get_by_role("link", name=f"Choose {template}").click()
    for name, value in params.items():
        await page.get_by_label(name, exact=True).fill(value)
    await page.get_by_label("Reason").fill("Because <b>I</b> can")
    await page.get_by_role("button", name="Preview").click()
    await expect(page.locator("#says")).to_contain_text("Sign and launch")


def job_of(page: Page) -> str:
    found = JOB.search(page.url)
    assert found, page.url
    return found[1]


async def test_a_job_is_launched_watched_while_it_writes_and_killed_without_a_reload(person: Open, ops: Human, axe: Look) -> None:
    page = await person("ops")
    await preview_job(page, "long-running", seconds="500")
    await expect(page.locator("#says")).to_contain_text("read-up-to-confidential")
    await axe(page)
    await page.get_by_role("button", name="Sign and launch").click()
    await expect(page.get_by_role("status")).to_contain_text("Signed and launched.")
    await mark_page(page)
    job = job_of(page)
    head = page.locator("#top")
    await expect(head).to_contain_text("Running. 1 active credential: read on orders-db.")
    await expect(page.locator("[data-alive]")).to_contain_text("Live")
    output = page.locator("pre.log")
    await expect(output).to_contain_text(re.compile(r"(\d+ orders\s+){2}"))
    written = len(await output.inner_text())
    await page.wait_for_function("before => document.querySelector('pre.log').textContent.length > before + 20", arg=written)
    await check_not_reloaded(page)
    await check_timeline(page)
    await axe(page)
    await page.get_by_role("link", name="Kill").click()
    await expect(page.locator("main")).to_contain_text("read on orders-db")
    await axe(page)
    await page.get_by_role("button", name="Kill job").click()
    await mark_page(page)
    await expect(head).to_contain_text("Killed. Its credential is revoked (verified).")
    await expect(page.locator("#credentials")).to_contain_text("revoked (verified)")
    await check_not_reloaded(page)
    assert (await asyncio.to_thread(ops.job, job))["state"] == "killed"
    await expect(page.get_by_role("link", name="Kill")).to_have_count(0)


async def check_timeline(page: Page) -> None:
    """Fail unless the timeline shows the credential's name and a bar that ends at the now line and continues in a pale colour."""
    lane = page.locator(".lane.credential").first
    await expect(lane).to_contain_text("credential read orders-db")
    boxes = [await lane.locator(part).first.bounding_box() for part in ("rect.lasts", "line.now-line", "rect.ahead")]
    lasts, now, ahead = boxes
    assert lasts
    assert now
    assert ahead
    assert lasts["width"] > 0
    assert lasts["x"] + lasts["width"] == pytest.approx(now["x"], abs=3)
    assert ahead["x"] == pytest.approx(now["x"], abs=3)
    assert ahead["width"] > 10


async def test_an_open_list_adds_and_updates_rows(person: Open, launched: Launch, ops: Human, axe: Look) -> None:
    page = await person("lead")
    await page.goto("/jobs")
    await expect(page.locator("[data-alive]")).to_contain_text("Live")
    await mark_page(page)
    job = await launched(spec("sleep 100"), "running")
    row = page.locator("tr", has=page.locator(f'a[href="/jobs/{job["id"]}"]'))
    await expect(row).to_contain_text("running")
    await asyncio.to_thread(ops.api.post, f"jobs/{job['id']}/cancel")
    await expect(row).to_contain_text("cancelled")
    await expect(row).to_contain_text(re.compile("no access left|no access issued"))
    await check_not_reloaded(page)
    await axe(page)


async def test_lists_fit_the_window_of_a_tablet(person: Open, launched: Launch) -> None:
    agent = {"name": "customer-refund-agent", "version": "1.4"}
    await launched({**spec("true", access("refunds-db", "write")), "name": "refund-triage", "agent": agent}, "awaiting_approval")
    ended = await launched({**spec("true", access("orders-db", "read")), "name": "order-status", "agent": agent}, "succeeded")
    page = await person("lead")
    for path in ("/jobs", "/credentials?show=all", f"/jobs/{ended['id']}", "/now"):
        await page.goto(path)
        await page.evaluate(OPEN_FOLDS)
        await check_middle_widths(page)


async def test_a_focused_button_of_a_list_keeps_the_focus_when_a_row_is_added(person: Open, launched: Launch) -> None:
    await launched(spec("true"), "succeeded")
    page = await person("lead")
    await page.goto("/jobs")
    await expect(page.locator("[data-alive]")).to_contain_text("Live")
    await page.get_by_role("button", name="Kill…").focus()
    job = await launched(spec("true"))
    await expect(page.locator(f'#rows a[href="/jobs/{job["id"]}"]')).to_be_visible()
    await expect(page.get_by_role("button", name="Kill…")).to_be_focused()


async def test_the_keyboard_moves_through_the_list_and_to_the_search(person: Open, launched: Launch) -> None:
    job = await launched(spec("true"), "succeeded")
    await launched(spec("true"), "succeeded")
    page = await person("lead")
    await page.goto("/jobs")
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"/jobs/{job['id']}$"))
    await page.goto("/jobs")
    await page.keyboard.press("/")
    await page.keyboard.type(job["id"].removeprefix("j-dev-"))
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"/jobs/{job['id']}$"))


async def test_what_was_typed_for_one_template_is_filled_into_no_other_form_and_outlives_two_logins(person: Open, whole: Stack) -> None:
    page = await person("ops")
    await preview_job(page, "long-running", seconds="500")
    reason = page.get_by_label("Reason")
    await reason.fill("The nightly run was late")
    await page.context.clear_cookies()
    await page.get_by_role("button", name="Preview").click()
    await log_in(page, "ops", whole.users["ops"].password)
    # The address of a preview does not name its template, so a template must be chosen again.
    await page.get_by_role("link", name="Choose long-writing").click()
    await expect(page.get_by_role("heading", name="Launch long-writing")).to_be_visible()
    await expect(reason).to_have_value("")
    await page.goto("/jobs/new")
    await page.get_by_role("link", name="Choose long-running").click()
    await expect(reason).to_have_value("The nightly run was late")
    await page.context.clear_cookies()
    await page.get_by_role("button", name="Preview").click()
    await log_in(page, "ops", whole.users["ops"].password)
    await expect(reason).to_have_value("The nightly run was late")
    await expect(page.get_by_label("seconds", exact=True)).to_have_value("500")


async def test_everything_works_without_javascript_on_a_phone(person: Open, ops: Human, axe: Look, fits: Look) -> None:
    page = await person("ops", javascript=False, width=360)
    await preview_job(page, "long-writing", seconds="300")
    await expect(page.locator("#says")).to_contain_text("tier 1 (owner)")
    await fits(page)
    await page.get_by_role("button", name="Sign and launch").click()
    job = job_of(page)
    await asyncio.to_thread(wait_for_state, ops, job, "awaiting_approval")
    await page.goto(f"/jobs/{job}")
    await expect(page.locator("#top")).to_contain_text("Waiting for approval: write on refunds-db at tier 1 (owner).")
    await fits(page)
    await axe(page)
    await page.get_by_text("Show table").first.click()
    await expect(page.locator("#timeline-table")).to_contain_text("Deadline")
    await fits(page)
    await page.get_by_role("link", name="Cancel").click()
    await expect(page.get_by_role("button", name="Cancel job")).to_be_visible()
    await fits(page)
    await page.get_by_role("button", name="Cancel job").click()
    # A banner says so, too, unless the job has ended by then.
    await expect(page.locator("#top")).to_contain_text("Cancel requested by ops")
    assert (await asyncio.to_thread(wait_for_state, ops, job))["state"] == "cancelled"
    await page.goto(f"/jobs/{job}")
    await expect(page.locator("#top")).to_contain_text("Cancelled. No credentials issued.")
    await page.goto("/now")
    await expect(page.locator("#own")).to_contain_text("long-writing")
    await fits(page)
    await axe(page)


async def test_a_verification_checks_again_and_shows_its_findings(person: Open, launched: Launch, axe: Look) -> None:
    job = await launched(spec("true", access("orders-db", "read")), "succeeded")
    page = await person("lead")
    await page.goto(f"/jobs/{job['id']}")
    await page.get_by_role("button", name="Verify now").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("no active access")
    await expect(page.locator("main")).to_contain_text("gone")
    await axe(page)
