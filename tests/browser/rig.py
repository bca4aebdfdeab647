"""Tools of the browser tests: Chromium, monitored pages, axe, screenshots, jobs. Knows no page except the login form."""

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
from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, StorageState, async_playwright, expect

from tests.support.people import ENDED, Human
from worker.stack.doctor.machine import BROWSERS

MISSING = (
    f"none of {', '.join(BROWSERS)} is on PATH, and the tests of the pages drive one: run deploy/setup.sh browser, "
    "or install your system's package 'chromium'"
)
ARGUMENTS = (
    # The tests may run as root, and Chromium's sandbox does not work as root. The browser opens only what the tests serve.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE = 60_000
"""Milliseconds that a page may take for anything, on a busy machine too."""
HEIGHT = 900
SERIOUS = frozenset({"serious", "critical"})
AXE: dict[str, Any] = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
"""Every rule that axe has on by itself, and WCAG 2.2's of how large a target is."""
COLOURS = {"resultTypes": ["violations"], "runOnly": ["color-contrast", "link-in-text-block"]}
"""Those of them that look at colours: a theme changes nothing else, and a width changes everything but them (app.css)."""
LAYOUT = {**AXE, "rules": {**AXE["rules"], **{rule: {"enabled": False} for rule in COLOURS["runOnly"]}}}
DISTINCT = """() => {
  const looks = ["color", "backgroundColor", "backgroundImage", "opacity", "filter", "fontSize", "fontWeight", "textShadow",
    "textDecorationLine", "borderBottomStyle", "display", "position", "visibility"];
  const alike = [];
  const lookOf = (it) => {
    const style = getComputedStyle(it);
    const own = [it.tagName, it.getAttribute("class"), it.ariaDisabled, it.matches(":disabled"), it.control?.matches(":disabled"),
      [...it.childNodes].some((node) => node.nodeType === 3 && node.data.trim()), ...looks.map((name) => style[name])];
    const below = new Set();
    for (const child of it.children) {
      const look = lookOf(child);
      if (below.has(look)) alike.push(child);
      own.push(look);
      below.add(look);
    }
    return `(${own})`;
  };
  lookOf(document.body);
  return alike.length ? { include: [document], exclude: alike } : document;
}"""
"""Returns a page without the elements that look, inside too, like a sibling before them: what holds for its colours holds for theirs."""
LAPTOP = 1280
NARROW_WIDTHS = (360, 390, 640)
MIDDLE_WIDTHS = (740, 834, 900)
"""Of tablets and of half a screen, where lists are tables as on wide screens."""
NARROW_TEXT = """() => {
  const fonts = ["fontFamily", "fontSize", "fontWeight", "fontStyle", "fontStretch", "fontVariantNumeric", "letterSpacing"];
  const leasts = new Map();
  const ruler = document.createElement("span");
  ruler.textContent = "00000000";
  ruler.style.cssText = "position: absolute; visibility: hidden";
  const texts = (it) => [...it.childNodes].filter((node) => node.nodeType === 3 && node.data.trim().length >= 8);
  const lines = (node) => {
    const range = document.createRange();
    range.selectNodeContents(node);
    return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size;
  };
  const room = (box) => {
    const style = getComputedStyle(box);
    return box.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  };
  const least = (box) => {
    const style = getComputedStyle(box);
    const font = fonts.map((name) => style[name]).join();
    if (!leasts.has(font)) {
      box.append(ruler);
      leasts.set(font, ruler.getBoundingClientRect().width);
      ruler.remove();
    }
    return leasts.get(font);
  };
  return [...document.querySelectorAll("main *")].filter((it) => it.checkVisibility({ visibilityProperty: true })).filter((it) => {
    let box = it;
    while (["inline", "contents"].includes(getComputedStyle(box).display)) box = box.parentElement;
    if (box.clientWidth <= 1 || it.closest("thead")?.clientWidth <= 1 || !texts(it).some((node) => lines(node) > 1)) return false;
    return room(box) < least(box) - 1;
  }).map((it) => `${it.tagName.toLowerCase()}.${it.className}: ${texts(it)[0].data.trim().slice(0, 40)}`);
}"""
"""The texts of a page that break into lines because there is no room for eight characters."""
LOOKS = ((360, False), (360, True), (1280, True), (1280, False), (1920, False), (1920, True))
"""Every width, and whether the theme is dark. A page is laid out anew for each width, which takes longer than a theme."""
OPEN_FOLDS = "document.querySelectorAll('details').forEach(it => { it.open = !it.classList.contains('menu'); })"

Open = Callable[..., Awaitable[Page]]
Look = Callable[..., Awaitable[None]]
Launch = Callable[..., Awaitable[dict[str, Any]]]
Foresee = Callable[[Page, str], None]


def chromium_path() -> str:
    """Return the path of Chromium. Fails with install instructions if there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail(MISSING, pytrace=False)
    return found


@asynccontextmanager
async def launch_chromium() -> AsyncIterator[Browser]:
    """The system's Chromium, headless, for one `async with` block."""
    path = chromium_path()
    expect.set_options(timeout=PATIENCE)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS), timeout=2 * PATIENCE)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Watch:
    """Records what our pages must not do: errors in the console, uncaught exceptions, CSP violations, requests to other origins."""

    origins: tuple[str, ...]
    seen: list[str] = field(default_factory=list)
    foreseen: list[str] = field(default_factory=list)

    def attach(self, context: BrowserContext) -> None:
        """Monitor every page of a context from now on."""
        context.on("request", self._check_request)
        context.on("console", self._check_message)
        context.on("weberror", lambda raised: self.seen.append(f"uncaught: {raised.error}"))

    @property
    def problems(self) -> list[str]:
        """Return the problems that the test did not announce."""
        return [line for line in self.seen if not any(re.search(pattern, line) for pattern in self.foreseen)]

    def _check_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        # data: and blob: are not allowed either, as in the pages' CSP.
        if f"{parts.scheme}://{parts.netloc}" not in self.origins:
            self.seen.append(f"request to a foreign origin: {request.url[:200]}")

    def _check_message(self, message: ConsoleMessage) -> None:
        # A CSP violation is also an error in the console. If a page names no icon, Chromium requests a favicon on its own.
        at = message.location.get("url", "")
        if message.type == "error" and not at.endswith("/favicon.ico"):
            self.seen.append(f"console: {message.text} ({at})")


@dataclass
class Pages:
    """Opens monitored pages, each in its own browser context with its own cookies."""

    browser: Browser
    address: str
    """Of the console: what a page's relative addresses are about."""
    passwords: dict[str, str]
    sessions: dict[str, StorageState] = field(default_factory=dict)
    """Cookies by person: one login serves all pages of a person."""
    contexts: list[BrowserContext] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)

    async def visitor(
        self,
        *,
        dark: bool = False,
        width: int = 1280,
        javascript: bool = True,
        scale: float = 1,
        also: Sequence[str] = (),
        session: StorageState | None = None,
    ) -> Page:
        """Open a blank page without a login: `await page.goto("/login")`. `also`: origins that it may contact besides the console's."""
        context = await self.browser.new_context(
            base_url=self.address,
            color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": HEIGHT},
            java_script_enabled=javascript,
            device_scale_factor=scale,
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="UTC",
            storage_state=session,
        )
        context.set_default_timeout(PATIENCE)
        watch = Watch((self.address, *also))
        watch.attach(context)
        self.contexts.append(context)
        self.watches.append(watch)
        return await context.new_page()

    async def person(self, name: str, *, anew: bool = False, **options: Any) -> Page:
        """Open a page as one of the stack's people, who logs in with the form the first time and if `anew`. Takes the same options as `visitor`."""
        known = None if anew else self.sessions.get(name)
        page = await self.visitor(session=known, **options)
        if known is None:
            await page.goto("/login")
            await log_in(page, name, self.passwords[name])
            self.sessions[name] = await page.context.storage_state()
        return page

    def foresee(self, page: Page, pattern: str) -> None:
        """Announce an expected message in a page's console: `foresee(page, "status of 409")` if the test provokes a conflict."""
        self.watches[self.contexts.index(page.context)].foreseen.append(pattern)

    async def close(self) -> list[str]:
        """Close every context and return everything that our pages must not do."""
        for context in self.contexts:
            await context.close()
        return [line for watch in self.watches for line in watch.problems]


async def log_in(page: Page, name: str, password: str) -> None:
    """Fill in and submit the login form, and wait for the redirect."""
    await page.locator("[name=name]").fill(name)
    await page.locator("[name=password]").fill(password)
    # Submit with Enter, so that the page's default button is used.
    await page.locator("[name=password]").press("Enter")
    await expect(page).not_to_have_url(re.compile(r"/login(\?|$)"))


async def check_axe(page: Page, rules: dict[str, Any] = AXE) -> None:
    """Fail if axe finds a serious or critical problem in a page; list each with its rule and its elements."""
    context = DISTINCT if rules is COLOURS else "() => document"
    async with _open_scriptable(page) as seen:
        # Evaluated from outside, because the page's CSP would block a script element.
        if not await seen.evaluate("'axe' in window"):
            await seen.evaluate(AXE_SCRIPT)
        found = await seen.evaluate(f"async rules => (await axe.run(({context})(), rules)).violations", rules)
    told = [_violation_text(violation) for violation in found if violation["impact"] in SERIOUS]
    assert not told, f"axe on {page.url}:\n" + "\n".join(told)


async def check_fits(page: Page) -> None:
    """Fail if a page is wider than its window."""
    wide, window = await page.locator("html").evaluate("html => [html.scrollWidth, html.clientWidth]")
    assert wide <= window, (page.url, wide, window)


async def check_navigation(page: Page) -> None:
    """Fail if the navigation of a page is cut off. On a screen that is narrower than a laptop's it can be scrolled."""
    if page.viewport_size and page.viewport_size["width"] >= LAPTOP:
        for wide, room in await page.locator("nav.places").evaluate_all("all => all.map(one => [one.scrollWidth, one.clientWidth])"):
            assert wide <= room, (page.url, page.viewport_size["width"], wide, room)


async def check_text_boxes(page: Page) -> None:
    """Fail if text is in a box narrower than eight characters, at any width of a phone or a small window."""
    size = page.viewport_size
    for width in NARROW_WIDTHS:
        await page.set_viewport_size({"width": width, "height": HEIGHT})
        narrow = await page.evaluate(NARROW_TEXT)
        assert narrow == [], (page.url, width, narrow)
    if size:
        await page.set_viewport_size(size)


async def check_middle_widths(page: Page) -> None:
    """Fail if a page is wider than its window at any width of a tablet."""
    size = page.viewport_size
    for width in MIDDLE_WIDTHS:
        await page.set_viewport_size({"width": width, "height": HEIGHT})
        await check_fits(page)
    if size:
        await page.set_viewport_size(size)


async def check_looks(page: Page, path: str, *, looks: Sequence[tuple[int, bool]] = LOOKS, before: str = "null") -> None:
    """Load a page in the first of these looks, and fail if it is too wide or inaccessible in any of them. `before`: a script to run in each look.

    The rules of axe about colours run once in each theme, the others once at each width.
    """
    for number, (width, dark) in enumerate(looks):
        await page.set_viewport_size({"width": width, "height": HEIGHT})
        await page.emulate_media(color_scheme="dark" if dark else "light")
        if number == 0:
            await page.goto(path)
            await expect(page.locator("h1")).to_be_visible()
        await page.evaluate(before)
        await check_fits(page)
        await check_navigation(page)
        if number == 0:
            await check_text_boxes(page)
            await check_middle_widths(page)
        new_width, new_theme = (value not in {look[at] for look in looks[:number]} for at, value in enumerate((width, dark)))
        if new_width:
            await check_axe(page, LAYOUT)
        if new_theme:
            await check_axe(page, COLOURS)


@asynccontextmanager
async def _open_scriptable(page: Page) -> AsyncIterator[Page]:
    """Yield a page in which axe's scripts can run: the page itself, or, if it has scripts disabled, a static copy whose own scripts do not run."""
    if not await page.evaluate("matchMedia('(scripting: none)').matches"):
        yield page
        return
    dark = await page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    # Scripting would hide the content of <noscript>.
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


def _violation_text(violation: dict[str, Any]) -> str:
    nodes = [f"    {' '.join(map(str, node['target']))}: {node['html'][:200]}\n      {_failure_text(node)}" for node in violation["nodes"]]
    return "\n".join([f"  {violation['impact']}: {violation['id']}: {violation['help']}", *nodes])


def _failure_text(node: dict[str, Any]) -> str:
    return str(node.get("failureSummary", "")).replace("\n", " ")


async def shoot(page: Page, folder: Path, name: str) -> Path:
    """Save a screenshot of the viewport and return its file."""
    file = folder / f"{name}.png"
    await page.screenshot(path=file, animations="disabled", caret="hide")
    return file


def wait_for_state(human: Human, job: str, *states: str, within: float = 90) -> dict[str, Any]:
    """Wait for the job's events and return the job once it is in one of these states (default: ended). Fails on timeout. Blocking."""
    wanted, end, seen = states or ENDED, time.monotonic() + within, "unknown"
    with human.api.stream("GET", f"jobs/{job}/events", timeout=httpx.Timeout(30, read=within)) as answer:
        # Comments keep a silent stream open, so check the deadline here too.
        for line in answer.iter_lines():
            assert time.monotonic() < end, f"{job} is {seen}, not {wanted}, after {within:.0f} s"
            if line.startswith("event:"):
                found = human.job(job)
                seen = found["state"]
                if seen in wanted:
                    return found
                assert seen not in ENDED, f"{job} ended {seen} ({found['reason']}), not {wanted}"
    raise AssertionError(f"the stream of {job} ended; it is {seen}, not {wanted}")
