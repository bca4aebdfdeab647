"""Behaviour that needs a real browser: after a link from another site or an identity provider, SameSite=Strict cookies still arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.async_api import Browser as Chromium
from playwright.async_api import Page, Route, expect

from justenough.domain.ledger.events import EventType
from tests.adapters.store.event_samples import credential_confirmation, credential_event, issuance, job_start, part_id
from tests.browser.rig import check_fits, launch_chromium
from tests.console.pages.inbox_requests import decisions, spec
from tests.console.pages.oidc_provider import Provider
from tests.console.pages.plain_browser import Site
from tests.console.pages.provider_site import Front
from tests.console.pages.recorded_jobs import record_order
from tests.console.served_console import Served

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Chromium]:
    async with launch_chromium() as browser:
        yield browser


@asynccontextmanager
async def open_page(chromium: Chromium, site: Site, *, scripts: bool = False) -> AsyncIterator[Page]:
    """Yield a page of a browser, by default without JavaScript."""
    context = await chromium.new_context(
        base_url=site.address, java_script_enabled=scripts, color_scheme="light", timezone_id="Asia/Tokyo", locale="en-GB"
    )
    yield await context.new_page()
    await context.close()


@asynccontextmanager
async def serve_link(link: str) -> AsyncIterator[str]:
    """Serve a page of another site with this link; yields its address."""
    body = f'<!doctype html><title>Mail</title><a href="{link}">the card</a>'.encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://localhost:{server.sockets[0].getsockname()[1]}/"


async def log_in(page: Page, site: Site, name: str = "lead") -> None:
    await page.goto("/login?next=/sessions")
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(site.passwords[name])
    await page.get_by_role("button", name="Log in").click()
    await expect(page).to_have_url(f"{site.address}/sessions")


async def test_login_and_logout_work_without_javascript(site: Site, chromium: Chromium) -> None:
    async with open_page(chromium, site) as page:
        await log_in(page, site)
        cookies = await page.context.cookies()
        assert [(cookie["name"], cookie["httpOnly"], cookie["sameSite"]) for cookie in cookies] == [("je", True, "Strict")]
        await page.get_by_role("row").filter(has_text="current session").get_by_role("button").click()
        await expect(page.get_by_label("Password")).to_be_visible()
        assert "je" not in {cookie["name"] for cookie in await page.context.cookies()}
        await page.goto("/sessions")
        assert urlsplit(page.url).path == "/login"


async def test_a_link_from_another_site_opens_the_page_for_a_logged_in_person(site: Site, chromium: Chromium) -> None:
    async with open_page(chromium, site) as page, serve_link(f"{site.address}/sessions?card=1") as mail:
        await log_in(page, site)
        await page.goto(mail)
        await page.get_by_text("the card").click()
        await expect(page).to_have_url(f"{site.address}/sessions?card=1")
        await expect(page.get_by_text("current session")).to_be_visible()


async def test_a_link_from_another_site_leads_others_through_the_login(site: Site, chromium: Chromium) -> None:
    async with open_page(chromium, site) as page, serve_link(f"{site.address}/sessions?card=1") as mail:
        await page.goto(mail)
        await page.get_by_text("the card").click()
        await page.get_by_label("Name").fill("ops")
        await page.get_by_label("Password").fill(site.passwords["ops"])
        await page.get_by_role("button", name="Log in").click()
        await expect(page).to_have_url(f"{site.address}/sessions?card=1")


async def test_login_works_with_an_identity_provider_on_another_site(
    oidc_site: tuple[Site, Provider], front: Front, chromium: Chromium
) -> None:
    site, provider = oidc_site
    front.token = await provider.log_in("lead")
    async with open_page(chromium, site) as page:
        await page.goto("/login?next=/sessions")
        await page.get_by_role("link", name="Log in with SSO").click()
        await page.get_by_role("link", name="Allow").click()
        await expect(page).to_have_url(f"{site.address}/sessions")
        await expect(page.get_by_text("SSO (current session)")).to_be_visible()


SHIFTS = """(() => {
  window.shifts = 0;
  new PerformanceObserver((list) => { for (const shift of list.getEntries()) if (!shift.hadRecentInput) window.shifts += shift.value; })
    .observe({ type: "layout-shift", buffered: true });
})()"""
"""Sums the layout shifts that no input caused: https://web.dev/cls."""


@pytest.mark.parametrize("width", [390, 1280])
async def test_nothing_moves_once_a_page_is_shown(site: Site, chromium: Chromium, width: int) -> None:
    async with open_page(chromium, site, scripts=True) as page:
        await page.set_viewport_size({"width": width, "height": 844})
        await page.add_init_script(SHIFTS)
        # Events may move things on the page; the page's own script may not.
        await page.route("**/live*", lambda route: route.abort())
        await log_in(page, site)
        for path in ("/now", "/inbox", "/jobs", "/credentials", "/ledger"):
            await page.goto(path)
            await expect(page.locator("[data-alive]")).to_contain_text("Disconnected", timeout=30_000)
            assert await page.evaluate("window.shifts") <= 0.02, path


async def test_a_page_counts_as_disconnected_only_after_its_stream_has_been_missing_for_a_while(site: Site, chromium: Chromium) -> None:
    chip_text = "document.querySelector('[data-alive]:not(.waiting)')?.textContent ?? ''"
    async with open_page(chromium, site, scripts=True) as page:
        await log_in(page, site)
        await page.clock.install()
        await page.clock.pause_at(datetime.now(UTC) + timedelta(minutes=1))
        answered = asyncio.Event()

        async def hold(route: Route) -> None:
            await answered.wait()
            await route.continue_()

        await page.route("**/live*", hold)
        await page.goto("/jobs")
        await page.clock.fast_forward(2_000)
        assert await page.evaluate(chip_text) == "", "the stream is being opened"
        await page.clock.fast_forward(5_000)
        await expect(page.locator("[data-alive]")).to_have_text("Disconnected, retrying…")
        # The same page, left and restored from the back/forward cache.
        await page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
        await page.clock.fast_forward(60_000)
        assert await page.evaluate(chip_text) == "", "the navigation closed the stream"
        await page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
        await page.clock.fast_forward(2_000)
        assert await page.evaluate(chip_text) == "", "the stream is being opened again"
        answered.set()
        await page.clock.resume()
        await expect(page.locator("[data-alive]")).to_contain_text("Live")


@pytest.mark.parametrize("width", [320, 360, 390])
async def test_both_decisions_on_a_tool_call_are_on_the_screen_of_a_phone(
    site: Site, served: Served, chromium: Chromium, width: int
) -> None:
    call = {"tool": "refund-order", "arguments": {"order_id": 100063, "amount": 449.5}}
    request = served.record_request((await served.launch())["id"], call=call)
    async with open_page(chromium, site) as page:
        await page.set_viewport_size({"width": width, "height": 844})
        await log_in(page, site)
        await page.goto(f"/inbox/{request['id']}")
        await check_fits(page)
        for name in ("Deny…", "Approve one call of refund-order: write, 5 min ›"):
            button = await page.locator("#thumb").get_by_role("link", name=name).bounding_box()
            assert button
            assert (button["x"] >= 0, button["x"] + button["width"] <= width, button["height"] < 100) == (True, True, True), (name, button)


async def background_of(page: Page) -> str:
    colour: str = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    return colour


async def test_a_person_chooses_colours_and_switches_single_key_shortcuts_off(site: Site, chromium: Chromium) -> None:
    async with open_page(chromium, site, scripts=True) as page:
        await log_in(page, site)
        light = await background_of(page)
        await page.keyboard.press("/")
        await expect(page.get_by_label("Search everything")).to_be_focused()
        await page.get_by_label("Colours").select_option("dark")
        await page.get_by_role("combobox", name="Keyboard shortcuts").select_option("off")
        await page.get_by_role("button", name="Save").click()
        await expect(page.locator("html[data-theme=dark]")).to_be_attached()
        assert urlsplit(page.url).path == "/sessions"
        assert await background_of(page) != light
        await page.keyboard.press("/")
        await expect(page.get_by_label("Search everything")).not_to_be_focused()


async def test_the_persons_menu_closes_by_escape_and_by_a_click_elsewhere(site: Site, chromium: Chromium) -> None:
    async with open_page(chromium, site, scripts=True) as page:
        await log_in(page, site)
        menu, summary = page.locator("#person-menu[open]"), page.locator("#person-menu > summary")
        await summary.click()
        await expect(menu).to_be_attached()
        await page.keyboard.press("Escape")
        await expect(menu).not_to_be_attached()
        await expect(summary).to_be_focused()
        await summary.click()
        await page.locator("h1").click()
        await expect(menu).not_to_be_attached()


async def test_times_show_the_local_time_on_hover(site: Site, chromium: Chromium) -> None:
    async with open_page(chromium, site, scripts=True) as page:
        await log_in(page, site)
        time = page.locator("main time[data-tick]").first
        utc = await time.get_attribute("data-local")
        assert utc is not None
        title = await time.get_attribute("title")
        assert title is not None
        assert title.endswith(f"local time, {utc}")


async def test_an_idle_login_is_announced_before_it_ends_and_can_be_extended(site: Site, chromium: Chromium) -> None:
    idle = site.console.deps.settings.pages_idle
    async with open_page(chromium, site, scripts=True) as page:
        await page.clock.install()
        await log_in(page, site)
        warning = page.locator("#idle")
        await page.clock.fast_forward((idle - 185) * 1000)
        await expect(warning).to_be_hidden()
        await page.clock.fast_forward(10_000)
        await expect(warning).to_be_visible()
        await expect(warning).to_contain_text("You will be logged out in 1 min")
        await page.get_by_role("button", name="Stay logged in").click()
        await expect(warning).to_be_hidden()


async def test_an_idle_login_has_not_ended_before_its_page_says_so(site: Site, chromium: Chromium) -> None:
    idle = site.console.deps.settings.pages_idle
    async with open_page(chromium, site, scripts=True) as page:
        await page.clock.install()
        await log_in(page, site)
        site.clock.forward(seconds=30)
        await page.goto("/sessions")  # So soon after the login that the console does not record it as use.
        site.clock.forward(seconds=idle - 29)
        await page.clock.fast_forward((idle - 29) * 1000)
        await expect(page.locator("#idle")).to_contain_text("You will be logged out in 0 s")
        await page.get_by_role("button", name="Stay logged in").click()
        await expect(page.get_by_text("you were inactive")).to_be_visible()


async def test_an_update_keeps_the_focus_on_the_row_that_the_keyboard_reached(site: Site, chromium: Chromium) -> None:
    older, newer = (record_order(site.store, "e-1", name="focused") for _ in range(2))
    async with open_page(chromium, site, scripts=True) as page:
        await log_in(page, site)
        await page.goto("/jobs?name=focused")
        await expect(page.locator("[data-alive]")).to_contain_text("Live")
        row, link = (page.locator(what, has=page.locator(f"a[href='/jobs/{older}']")) for what in ("tr", "th .cell"))
        await page.keyboard.press("j")
        await page.keyboard.press("j")
        await expect(row).to_be_focused()
        site.store.ledger.append([job_start(newer)])
        await expect(page.locator("#rows")).to_contain_text("running")
        await expect(row).to_be_focused()
        await link.locator("a").focus()
        site.store.ledger.append([job_start(older)])
        await expect(row).to_contain_text("running")
        await expect(link.locator("a")).to_be_focused()


async def test_an_update_removes_what_the_page_no_longer_has_and_takes_over_colours(site: Site, chromium: Chromium) -> None:
    job = record_order(site.store, "e-1", name="updated")
    site.store.ledger.append([job_start(job), issuance(job, at=datetime.now(UTC))])
    async with open_page(chromium, site, scripts=True) as page:
        await log_in(page, site)
        await page.goto(f"/credentials/{part_id(job, 'c', 1)}")
        await expect(page.locator("[data-alive]")).to_contain_text("Live")
        standing, revoke = page.locator("#standing"), page.get_by_role("button", name="Revoke")
        await expect(revoke).to_be_visible()
        site.store.ledger.append(
            [credential_event(EventType.CREDENTIAL_OVERDUE, job, by="sweep", failures=["the target does not answer"], attempt=1)]
        )
        await expect(standing).to_contain_text("the target does not answer")
        await expect(standing).to_contain_class("bad")
        site.store.ledger.append([credential_confirmation(job, at=datetime.now(UTC))])
        await expect(standing).to_contain_text("revoked (verified)")
        await expect(standing).not_to_contain_class("bad")
        await expect(revoke).to_have_count(0)


async def test_an_update_that_failed_is_tried_again(site: Site, chromium: Chromium) -> None:
    job = record_order(site.store, "e-1", name="retried")
    failures = ["abort", "429"]

    async def fail_twice(route: Route) -> None:
        if "x-look-again" not in route.request.headers or not failures:
            await route.continue_()
        elif failures.pop() == "abort":
            await route.abort()
        else:
            await route.fulfill(status=429)

    async with open_page(chromium, site, scripts=True) as page:
        await log_in(page, site)
        await page.route("**/jobs?name=retried", fail_twice)
        await page.goto("/jobs?name=retried")
        await expect(page.locator("[data-alive]")).to_contain_text("Live")
        site.store.ledger.append([job_start(job)])
        await expect(page.locator("#rows")).to_contain_text("running")
        assert not failures


async def test_the_longest_names_make_no_page_wider_than_its_window(site: Site, chromium: Chromium) -> None:
    name, agent = "n" * 63, {"name": "a" * 63, "version": "v" * 64, "model": "m" * 64, "owner": "o" * 64}
    job = record_order(site.store, "e-1", name=name, task="t" * 400, requester_name="r" * 200, agent=agent)
    columns = "columns=access,environment,requester,agent,launched,duration"
    (entry,) = site.store.ledger.entries(job=job).items
    pages = (f"/jobs/{job}", f"/jobs?name={name}&{columns}", f"/jobs/by-name/{name}", f"/search?q={name[:20]}", "/now")
    async with open_page(chromium, site, scripts=True) as page:
        await log_in(page, site)
        for width in (390, 834, 1280, 1920):
            await page.set_viewport_size({"width": width, "height": 900})
            for path in (*pages, f"/ledger/entry?{urlencode({'id': entry.id})}"):
                await page.goto(path)
                await check_fits(page)


@pytest.mark.parametrize("scripts", [True, False])
async def test_enter_on_a_ticked_request_signs_nothing(site: Site, served: Served, chromium: Chromium, *, scripts: bool) -> None:
    job = (await served.launch(spec(name="ticked")))["id"]
    request, _ = [served.record_request(job, number=number) for number in (1, 2)]
    async with open_page(chromium, site, scripts=scripts) as page:
        await log_in(page, site)
        await page.goto("/inbox?show=mine&job=ticked")
        pick = page.locator(f"#pick-{request['id']}")
        await pick.check()
        await pick.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("Press Approve selected or Deny selected.")
        await expect(pick).to_be_checked()
        assert await decisions(served, request["job_id"]) == []
