"""How pages look for a person: only choices that the form offers are accepted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.requests import Request

from console.pages.look import COOKIE, Look, look_of
from console.pages.rendering import template_environment
from console.pages.static import CACHE_FOREVER, static_url
from tests.console.pages.conftest import LogIn
from tests.console.pages.plain_browser import Browser
from tests.console.pages.recorded_jobs import post_fields


@pytest.mark.parametrize(
    "cookie, look",
    [("", Look()), ("dark.off", Look("dark", keys=False)), ("light.on", Look("light")), ("x.y", Look()), (".off", Look(keys=False))],
)
def test_an_invalid_choice_of_look_is_read_as_the_default(cookie: str, look: Look) -> None:
    request = Request({"type": "http", "headers": [(b"cookie", f"{COOKIE}={cookie}".encode())]})
    assert look_of(request) == look
    assert look_of(Request({"type": "http", "headers": [(b"cookie", f"{COOKIE}={look.to_cookie()}".encode())]})) == look


@pytest.mark.parametrize(
    "text, shown",
    [
        ("raise `run.timeout`, or `a<b`", "raise <code>run.timeout</code>, or <code>a&lt;b</code>"),
        ("a ` & <i>", "a ` &amp; &lt;i&gt;"),
        ("", ""),
    ],
)
def test_a_message_shows_text_between_backticks_as_code(text: str, shown: str) -> None:
    assert str(template_environment().filters["message"](text)) == shown


@pytest.mark.servers
@pytest.mark.parametrize("theme, keys", [("pink", "on"), ("dark", "maybe"), ("dark", "")])
async def test_a_choice_that_is_not_offered_changes_nothing(logged_in: LogIn, theme: str, keys: str) -> None:
    answer = await post_fields(await logged_in("lead"), "/look", theme=theme, keys=keys)
    assert (answer.status_code, "choose light, dark or the system" in answer.text) == (422, True)
    assert COOKIE not in answer.headers.get("set-cookie", "")


@pytest.mark.servers
async def test_only_the_files_of_this_version_are_kept_by_browsers(browser: Callable[[], Browser]) -> None:
    known, older = static_url("app.css"), "/static/0123456789abcdef/app.css"
    found = [await browser().open(path) for path in (known, older, older.replace("app", "none"))]
    assert [answer.status_code for answer in found] == [200, 200, 404]
    assert [answer.headers["cache-control"] for answer in found[:2]] == [CACHE_FOREVER, "no-store"]


@pytest.mark.servers
async def test_the_choice_is_kept_in_a_cookie_of_the_browser(logged_in: LogIn) -> None:
    answer = await post_fields(await logged_in("lead"), "/look", theme="dark", keys="on")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sessions")
    assert "je-look=dark.on" in answer.headers["set-cookie"]
