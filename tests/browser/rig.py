"""What the tests of the pages are made with: a Chromium, pages that are watched, axe, screenshots, jobs to look at. Knows no page but the login's form."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright, expect

from tests.support.people import ENDED, Human

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
MISSING = (
    f"none of {', '.join(PROGRAMS)} is on PATH, and the tests of the pages drive one: run deploy/setup.sh browser, "
    "or install your system's package 'chromium'"
)
ARGUMENTS = (
    # The tests may run as root, where Chromium's own sandbox does not; it opens nothing but what the tests serve.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE = 30_000
"""Milliseconds that a page may take for anything, on a busy machine too."""
HEIGHT = 900
SERIOUS = frozenset({"serious", "critical"})
AXE = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
"""Every rule that axe has on by itself, and WCAG 2.2's of how large a target is."""

Open = Callable[..., Awaitable[Page]]
Look = Callable[[Page], Awaitable[None]]
Shot = Callable[..., Awaitable[Path]]
Launch = Callable[..., Awaitable[dict[str, Any]]]
Foresee = Callable[[Page, str], None]


def program() -> str:
    """Return the Chromium to drive; fail, with what to install, where there is none."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.fail(MISSING, pytrace=False)
    return found


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The system's Chromium, headless, for the length of a block."""
    path = program()
    expect.set_options(timeout=PATIENCE)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS), timeout=2 * PATIENCE)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Watch:
    """Whatever a page says or does that no page of ours may: errors in its console, uncaught exceptions, what its CSP refused, requests to elsewhere."""

    origins: tuple[str, ...]
    seen: list[str] = field(default_factory=list)
    foreseen: list[str] = field(default_factory=list)

    def over(self, context: BrowserContext) -> None:
        """Watch every page of a context from now on."""
        context.on("request", self._asked)
        context.on("console", self._said)
        context.on("weberror", lambda raised: self.seen.append(f"uncaught: {raised.error}"))

    @property
    def problems(self) -> list[str]:
        """What was seen and not foreseen."""
        return [line for line in self.seen if not any(re.search(pattern, line) for pattern in self.foreseen)]

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        # Not data: and blob: either; the pages' CSP allows neither.
        if f"{parts.scheme}://{parts.netloc}" not in self.origins:
            self.seen.append(f"request to a foreign origin: {request.url[:200]}")

    def _said(self, message: ConsoleMessage) -> None:
        # What a CSP refuses is an error in the console, too. A favicon is Chromium's own wish, where a page names no icon.
        at = message.location.get("url", "")
        if message.type == "error" and not at.endswith("/favicon.ico"):
            self.seen.append(f"console: {message.text} ({at})")


@dataclass
class Pages:
    """Opens pages, each in a context of its own (its own cookies), all of them watched."""

    browser: Browser
    address: str
    """Of the console: what a page's relative addresses are about."""
    passwords: dict[str, str]
    contexts: list[BrowserContext] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)

    async def visitor(
        self, *, dark: bool = False, width: int = 1280, javascript: bool = True, scale: float = 1, also: Sequence[str] = ()
    ) -> Page:
        """Open a blank page that nobody has logged in to: `await page.goto("/login")`. `also`: origins that it may ask beside the console's."""
        context = await self.browser.new_context(
            base_url=self.address,
            color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": HEIGHT},
            java_script_enabled=javascript,
            device_scale_factor=scale,
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="UTC",
        )
        context.set_default_timeout(PATIENCE)
        watch = Watch((self.address, *also))
        watch.over(context)
        self.contexts.append(context)
        self.watches.append(watch)
        return await context.new_page()

    async def person(self, name: str, **options: Any) -> Page:
        """Open a page as one of the stack's people, logged in by the form; options as `visitor` takes."""
        page = await self.visitor(**options)
        await page.goto("/login")
        await log_in(page, name, self.passwords[name])
        return page

    def foresee(self, page: Page, pattern: str) -> None:
        """Say what a page's console will rightly say: `foresee(page, "status of 409")` where an answer is to be a conflict."""
        self.watches[self.contexts.index(page.context)].foreseen.append(pattern)

    async def close(self) -> list[str]:
        """Close every context; return what was seen in them that no page of ours may do."""
        for context in self.contexts:
            await context.close()
        return [line for watch in self.watches for line in watch.problems]


async def log_in(page: Page, name: str, password: str) -> None:
    """Fill in the login's form, send it, and wait until it led elsewhere."""
    await page.locator("[name=name]").fill(name)
    await page.locator("[name=password]").fill(password)
    # By its keyboard way: which of a page's buttons sends it is for the page to say.
    await page.locator("[name=password]").press("Enter")
    await expect(page).not_to_have_url(re.compile(r"/login(\?|$)"))


async def check_axe(page: Page) -> None:
    """Fail where axe finds something serious or critical in a page; each finding with its rule and its elements."""
    async with _scripting(page) as seen:
        # Evaluated from outside, which a page's CSP does not hinder, as it would a script element.
        found = (await Axe().run(seen, options=AXE)).response["violations"]
    told = [_finding(violation) for violation in found if violation["impact"] in SERIOUS]
    assert not told, f"axe on {page.url}:\n" + "\n".join(told)


@asynccontextmanager
async def _scripting(page: Page) -> AsyncIterator[Page]:
    """Give a page that axe's scripts can run in: the page itself, or of one without scripts a copy as it stands, whose own scripts do not run."""
    if not await page.evaluate("matchMedia('(scripting: none)').matches"):
        yield page
        return
    dark = await page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    # Scripting would hide what is for those who have none.
    shown = re.sub("(</?)noscript", r"\1div", await page.content())
    assert page.context.browser
    context = await page.context.browser.new_context(
        storage_state=await page.context.storage_state(), color_scheme="dark" if dark else "light", viewport=page.viewport_size
    )
    try:
        copy = await context.new_page()
        unscripted = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": "script-src 'none'"}
        await copy.route(lambda url: url == page.url, lambda route: route.fulfill(body=shown, headers=unscripted))
        await copy.goto(page.url)
        yield copy
    finally:
        await context.close()


def _finding(violation: dict[str, Any]) -> str:
    nodes = [f"    {' '.join(map(str, node['target']))}: {node['html'][:200]}\n      {_why(node)}" for node in violation["nodes"]]
    return "\n".join([f"  {violation['impact']}: {violation['id']}: {violation['help']}", *nodes])


def _why(node: dict[str, Any]) -> str:
    return str(node.get("failureSummary", "")).replace("\n", " ")


async def shoot(page: Page, folder: Path, name: str, *, whole: bool = False) -> Path:
    """Save a screenshot of what is in view, or of the whole page, and return its file."""
    file = folder / f"{name}.png"
    await page.screenshot(path=file, full_page=whole, animations="disabled", caret="hide")
    return file


def reached(human: Human, job: str, *states: str, within: float = 90) -> dict[str, Any]:
    """Return a job once it is in one of these states (default: ended), woken by its events; fails where it is not in time. Blocking."""
    wanted, end, seen = states or ENDED, time.monotonic() + within, "unknown"
    with human.api.stream("GET", f"jobs/{job}/events", timeout=httpx.Timeout(30, read=within)) as answer:
        # Comments keep a silent stream alive, so that we look at the clock too.
        for line in answer.iter_lines():
            assert time.monotonic() < end, f"{job} is {seen}, not {wanted}, after {within:.0f} s"
            if line.startswith("event:"):
                found = human.job(job)
                seen = found["state"]
                if seen in wanted:
                    return found
                assert seen not in ENDED, f"{job} ended {seen} ({found['reason']}), not {wanted}"
    raise AssertionError(f"the stream of {job} ended; it is {seen}, not {wanted}")
