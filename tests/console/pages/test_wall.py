"""The dashboard on a wall: who sees it, with what, and that its token opens nothing else."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from playwright.async_api import expect

from tests.adapters.store import event_samples as samples
from tests.browser.rig import launch_chromium
from tests.console.pages.conftest import LogIn
from tests.console.pages.page_text import text_of
from tests.console.pages.plain_browser import Site
from tests.console.pages.recorded_jobs import EVIL, SHOWN, now, record_order
from tests.console.served_console import serve_console

pytestmark = pytest.mark.servers


async def admit(http: httpx.AsyncClient, token: str) -> httpx.Response:
    return await http.post("/wall", data={"token": token}, headers={"Sec-Fetch-Site": "same-origin"})


class TokenFile:
    """The file with the token, which tests exchange."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write(secrets.token_hex(32))

    def write(self, token: str | None) -> None:
        self.token = token or ""
        if token is None:
            self.path.unlink()
        else:
            self.path.write_text(f"{token}\n")


@pytest.fixture
def token_file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "wall-token")


async def test_a_screen_with_the_token_sees_the_wall_and_nothing_else(site: Site, token_file: TokenFile) -> None:
    job = record_order(site.store, "e-5", name=EVIL)
    site.store.ledger.append([samples.job_end("failed", job, at=now())])
    deps = site.console.deps
    settings = deps.settings.model_copy(update={"wall_token_file": token_file.path})
    async with serve_console(replace(site.console, deps=replace(deps, settings=settings))) as http:
        before = await http.get("/wall")
        assert (before.status_code, "Token for this installation’s screens" in before.text) == (401, True)
        refused = await admit(http, "x" * 64)
        assert (refused.status_code, "This is not the token" in refused.text) == (403, True)
        foreign = await http.post("/wall", data={"token": token_file.token}, headers={"Sec-Fetch-Site": "cross-site"})
        assert foreign.status_code == 403
        admitted = await admit(http, token_file.token)
        assert (admitted.status_code, admitted.headers["location"]) == (303, "/wall")
        cookie = admitted.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert token_file.token not in cookie
        page = await http.get("/wall")
        assert page.status_code == 200
        assert "jobs in progress" in text_of(page.text, "wall-figures")
        assert SHOWN in page.text
        assert "<a " not in page.text
        for path in ("/now", "/jobs", "/api/v1/jobs"):
            assert (await http.get(path)).status_code in {303, 401}
        token_file.write(secrets.token_hex(32))
        assert (await http.get("/wall")).status_code == 401


async def test_a_screen_that_is_locked_out_shows_nothing_any_more(site: Site, token_file: TokenFile) -> None:
    deps = site.console.deps
    settings = deps.settings.model_copy(update={"wall_token_file": token_file.path})
    async with (
        serve_console(replace(site.console, deps=replace(deps, settings=settings))) as http,
        launch_chromium() as browser,
        await browser.new_page(base_url=str(http.base_url)) as screen,
    ):
        await screen.goto("/wall")
        await screen.get_by_label("Token").fill(token_file.token)
        await screen.get_by_role("button", name="Show the dashboard").click()
        await expect(screen.get_by_text("jobs in progress")).to_be_visible()

        token_file.write(secrets.token_hex(32))
        await expect(screen.get_by_label("Token")).to_be_visible()
        await expect(screen.get_by_text("jobs in progress")).to_have_count(0)


@pytest.mark.parametrize("content", ["too-short", None])
async def test_a_token_that_cannot_be_used_admits_nobody(site: Site, token_file: TokenFile, content: str | None) -> None:
    deps = site.console.deps
    settings = deps.settings.model_copy(update={"wall_token_file": token_file.path})
    async with serve_console(replace(site.console, deps=replace(deps, settings=settings))) as http:
        assert (await admit(http, token_file.token)).status_code == 303
        token_file.write(content)
        assert (await http.get("/wall")).status_code == 401, "nor a screen that it admitted before"
        answer = await admit(http, content or "")
        assert (answer.status_code, "The console cannot use its wall token. Its log says why." in answer.text) == (403, True)
        assert str(token_file.path) not in answer.text


async def test_without_a_token_only_people_who_may_read_all_jobs_see_the_wall(site: Site, logged_in: LogIn) -> None:
    del site
    lead, ops = await logged_in("lead"), await logged_in("ops")
    assert (await lead.open("/wall")).status_code == 200
    answer = await ops.open("/wall")
    assert answer.status_code == 401
    assert "has no token for screens (JUSTENOUGH_WALL_TOKEN_FILE)" in answer.text
    # The login page would lead them back here.
    assert "You are logged in as ops, who may not read all jobs." in answer.text
    assert "Log in instead" not in answer.text
