"""The rig itself detects what it claims to detect, on a small site of its own, and opens the console."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.browser.rig import Launch, Open, Pages, check_axe, check_looks, chromium_path, shoot
from tests.browser.sample_site import PASSWORDS, serve_site
from tests.support.shop import spec

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with serve_site() as address:
        yield address


@pytest.fixture
async def sample_pages(browser: Browser, site: str) -> AsyncIterator[Pages]:
    """Opens pages of the sample site. The test itself checks what is wrong with them."""
    opened = Pages(browser, site, PASSWORDS)
    yield opened
    await opened.close()


async def test_the_consoles_health_is_shown(visitor: Open) -> None:
    page = await visitor()
    await page.goto("/livez")
    await expect(page.locator("body")).to_contain_text("ok")


async def test_a_job_is_launched_and_waited_for(launched: Launch) -> None:
    assert (await launched(spec("true"), "succeeded"))["exit_code"] == 0
    assert (await launched(spec("sleep 300"), "running"))["state"] == "running"


async def test_a_good_page_passes_in_every_variant(sample_pages: Pages) -> None:
    for options in ({}, {"dark": True}, {"width": 360}, {"javascript": False}, {"scale": 2}):
        page = await sample_pages.visitor(**options)
        await page.goto("/good")
        await check_axe(page)
    assert await sample_pages.close() == []


async def test_a_page_has_the_requested_size_theme_and_scripting(sample_pages: Pages) -> None:
    page = await sample_pages.visitor(dark=True, width=360)
    await page.goto("/good")
    assert await page.evaluate("[matchMedia('(prefers-color-scheme: dark)').matches, innerWidth]") == [True, 360]
    await expect(page.locator("p")).to_have_text("With scripts.")
    plain = await sample_pages.visitor(javascript=False)
    await plain.goto("/good")
    await expect(plain.locator("b")).to_be_visible()
    await expect(plain.locator("p")).to_have_text("Nothing is wrong here.")


async def test_a_person_is_logged_in_with_their_own_cookies(sample_pages: Pages) -> None:
    for page, name in (
        (await sample_pages.person("lead"), "lead"),
        (await sample_pages.visitor(), ""),
        (await sample_pages.person("lead"), "lead"),
    ):
        await page.goto("/")
        await expect(page.locator("p")).to_have_text(f"You are {name}.")


@pytest.mark.parametrize("path, javascript", [("/silent-image", True), ("/silent-image", False), ("/plainly-silent", False)])
async def test_axe_names_the_rule_and_the_element(sample_pages: Pages, path: str, javascript: bool) -> None:
    page = await sample_pages.visitor(javascript=javascript)
    await page.goto(path)
    with pytest.raises(AssertionError, match=r"critical: image-alt: .*\n +img: <img src=\"/dot.gif\">"):
        await check_axe(page)


@pytest.mark.parametrize("path, element", [("/pale-at-night", "p"), ("/pale-row", "b")])
async def test_colours_are_checked_in_each_theme(sample_pages: Pages, path: str, element: str) -> None:
    page = await sample_pages.visitor()
    await check_looks(page, path, looks=[(360, False), (1280, False)])
    with pytest.raises(AssertionError, match=rf"serious: color-contrast: .*\n +{element}: "):
        await check_looks(page, path, looks=[(360, False), (360, True)])


async def test_the_other_rules_are_checked_at_each_width(sample_pages: Pages) -> None:
    page = await sample_pages.visitor()
    await check_looks(page, "/silent-when-narrow", looks=[(1280, False), (1280, True)])
    with pytest.raises(AssertionError, match="critical: image-alt: "):
        await check_looks(page, "/silent-when-narrow", looks=[(1280, False), (360, False)])


async def test_a_cut_off_navigation_is_detected_on_a_wide_screen(sample_pages: Pages) -> None:
    page = await sample_pages.visitor()
    await check_looks(page, "/long-navigation", looks=[(360, False)])
    with pytest.raises(AssertionError, match="/long-navigation"):
        await check_looks(page, "/long-navigation", looks=[(1280, False)])


@pytest.mark.parametrize(
    "path, what",
    [
        ("/inline-script", "Content Security Policy"),
        ("/foreign-image", "request to a foreign origin: http://example.invalid/dot.gif"),
        ("/missing", "status of 404"),
        ("/broken", "uncaught: .*broken on purpose"),
    ],
)
async def test_forbidden_behaviour_is_detected_and_can_be_announced(sample_pages: Pages, path: str, what: str) -> None:
    page = await sample_pages.visitor()
    await page.goto(path)
    sample_pages.foresee(page, "something else")
    assert await sample_pages.close() != []
    sample_pages.watches[0].foreseen.append(".")
    assert sample_pages.watches[0].problems == []
    assert [line for line in sample_pages.watches[0].seen if re.search(what, line)] != []


async def test_a_screenshot_is_saved_under_its_name(sample_pages: Pages, tmp_path: Path) -> None:
    page = await sample_pages.visitor(scale=2)
    await page.goto("/good")
    file = await shoot(page, tmp_path / "images", "good")
    assert file == tmp_path / "images" / "good.png"
    assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_without_a_chromium_the_tests_fail_and_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.fail.Exception, match=r"run deploy/setup\.sh browser"):
        chromium_path()
