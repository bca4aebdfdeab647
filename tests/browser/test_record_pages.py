"""Credentials, ledger, catalog, policy simulator and report in Chromium over the whole stack: live, without JavaScript, at 360 px, in both themes."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from justenough.domain.ledger.export import verify_export
from tests.browser.rig import Launch, Look, Open
from tests.support.people import Human
from tests.support.shop import access, spec

pytestmark = pytest.mark.servers

PAGES = (
    "/credentials?show=all",
    "/ledger",
    "/ledger/verify",
    "/catalog",
    "/catalog/policies",
    "/catalog/explain",
    "/report",
    "/models",
    "/docs",
    "/docs/glossary",
)
EXPLAINED = "/catalog/explain?how=template&template=jobs/export-customers.yaml"


@pytest.fixture
def open_at(person: Open) -> Open:
    """`await open_at("lead", "/catalog")`: a person's page at this address. Takes the same options as `person`."""

    async def at(name: str, path: str, **options: Any) -> Page:
        page = await person(name, **options)
        await page.goto(path)
        return page

    return at


async def download_text(page: Page, name: str) -> str:
    """Click a download link and return the file's content."""
    async with page.expect_download() as waiting:
        await page.get_by_role("link", name=name).click()
    file = await (await waiting.value).path()
    return await asyncio.to_thread(file.read_text, encoding="utf-8")


async def test_the_search_box_finds_a_job_by_its_database_user(person: Open, launched: Launch) -> None:
    job = await launched(spec("true", access("orders-db", "read")), "succeeded")
    page = await person("lead")
    await page.goto("/now")
    await page.get_by_role("searchbox", name="Search everything").fill(f"XX0bDqLP-token-{job['id']}-orders-read-acm")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"/jobs/{job['id']}$"))
    await expect(page.locator("a[href='/jobs/by-name/" + job["name"] + "']")).to_be_visible()


async def test_a_report_is_generated_and_every_section_opens(open_at: Open, launched: Launch, axe: Look, fits: Look) -> None:
    await launched(spec(), "succeeded")
    page = await open_at("auditor", "/report", width=360)
    await page.get_by_role("button", name="Generate").click()
    await expect(page.get_by_role("table", name="All metrics")).to_be_visible()
    # The first part, "Overview", is the page that is open now.
    sections = page.get_by_role("navigation", name="Parts of the report")
    for name in await sections.get_by_role("link").all_inner_texts():
        await sections.get_by_role("link", name=name, exact=True).click()
        await expect(sections.get_by_role("link", name=name, exact=True)).to_have_attribute("aria-current", "true")
        await fits(page)
        await axe(page)
    assert json.loads(await download_text(page, "JSON"))["sections"]


async def test_a_credential_appears_is_revoked_and_verified_without_a_reload(open_at: Open, launched: Launch, ops: Human) -> None:
    page = await open_at("lead", "/credentials")
    await page.evaluate("window.same = true")
    job = await launched(spec("sleep 300"), "running")
    credential = job["credentials"][0]["id"]
    row = page.locator(f'a[href="/credentials/{credential}"]')
    await expect(row).to_be_visible()
    assert await page.evaluate("window.same")
    await row.click()
    await page.get_by_role("button", name="Revoke").click()
    await expect(page.locator("#standing")).to_contain_text("revoked (verified)")
    await expect(page.get_by_role("button", name="Revoke")).to_have_count(0)
    assert ops.job(job["id"])["state"] == "running"
    await expect(page.locator("#story")).to_contain_text("lead requested revocation")


async def test_a_jobs_access_is_verified_from_the_page(open_at: Open, launched: Launch) -> None:
    job = await launched(spec(), "succeeded")
    page = await open_at("ops", f"/credentials/{job['credentials'][0]['id']}")
    await page.get_by_role("button", name="Verify now").click()
    await expect(page.locator("#proof")).to_contain_text("All access of the job is revoked")


async def test_the_ledger_is_verified_from_the_page_and_its_export_offline(open_at: Open, launched: Launch, ops: Human) -> None:
    job = await launched(spec(), "succeeded")
    page = await open_at("auditor", "/ledger")
    await page.get_by_role("button", name="Verify every chain").click()
    await expect(page.locator("#outcome")).to_contain_text("Intact.")
    await page.goto(f"/ledger?job={job['id']}")
    lines = (await download_text(page, "Export filtered")).splitlines()
    entries = [{name: value for name, value in json.loads(line).items() if name != "text"} for line in lines]
    assert entries == await asyncio.to_thread(ops.ledger, job["id"])
    assert verify_export(lines).sound


async def test_entries_are_selected_and_opened_by_keyboard_while_others_arrive(open_at: Open, launched: Launch, ops: Human) -> None:
    job = (await launched(spec("sleep 300"), "running"))["id"]
    page = await open_at("lead", f"/ledger?job={job}")
    await page.keyboard.press("/")
    await expect(page.get_by_label("Search everything")).to_be_focused()
    await page.keyboard.press("Escape")
    await page.keyboard.press("j")
    newest = page.locator(".entries > li").first
    await expect(newest).to_be_focused()
    chosen = f".entries > li:has(#{await newest.locator('details').get_attribute('id')})"
    await asyncio.to_thread(ops.api.post, f"jobs/{job}/kill")
    await expect(page.locator(".entries .kind", has_text="job.ended")).to_be_visible()
    await expect(page.locator(chosen)).to_be_focused()
    await page.keyboard.press("j")
    await expect(page.locator(f"{chosen} + li")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Previous hash")).to_be_visible()


async def test_everything_works_without_javascript(open_at: Open, launched: Launch) -> None:
    job = await launched(spec("sleep 300", access("orders-db", "read")), "running")
    page = await open_at("lead", "/catalog", anew=True, javascript=False, width=360)
    for path in (*PAGES, EXPLAINED):
        await page.goto(path)
        await expect(page.locator("h1")).to_be_visible()
    await page.goto("/ledger")
    await page.locator("summary.sentence").first.click()
    await expect(page.locator(".entries pre").first).to_be_visible()
    await page.get_by_role("button", name="Verify every chain").click()
    await refresh_until(page, "#outcome", "Intact.")
    await page.goto("/ledger")
    await page.get_by_label("Find by ID").fill(job["credentials"][0]["id"])
    await page.get_by_role("button", name="Find").click()
    await page.get_by_role("button", name="Revoke").click()
    await refresh_until(page, "#standing", "revoked (verified)")
    await page.goto("/catalog/explain")
    await page.get_by_label("Job spec (YAML)").fill(json.dumps(spec("true", access("refunds-db", "write"))))
    await page.locator("form", has=page.get_by_label("Job spec (YAML)")).get_by_role("button", name="Evaluate").click()
    await expect(page.locator("#answer")).to_contain_text("tier 1")


async def refresh_until(page: Page, place: str, words: str) -> None:
    """Click Refresh, as people without JavaScript do, until an element shows the text."""
    while words not in await page.locator(place).inner_text():
        await page.get_by_role("link", name="Refresh").click()
