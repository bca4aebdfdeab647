"""Login with the form: refusals and their messages, redirects, and secrets that are stored nowhere."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest

from console.auth.login_throttle import (
    MAX_KEYS,
    MAX_TRIES,
    MAX_TRIES_PER_ADDRESS,
    MAX_TRIES_PER_NAME,
    WINDOW_S,
    LoginThrottle,
    TooManyAttempts,
)
from console.auth.page_sessions import NoSession, SessionKey
from console.pages.login.login import local_path
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.vault import VaultUnavailable
from tests.console.pages.conftest import LogIn, serve_site
from tests.console.pages.inbox_requests import spec
from tests.console.pages.plain_browser import SAME, Browser, Site, hidden_fields
from tests.console.served_console import Served
from tests.support.plain_http import NO_TLS

pytestmark = pytest.mark.servers

ELSEWHERE = [
    "https://evil.example",
    "//evil.example",
    "/\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "javascript:alert(1)",
    "evil.example",
    "/a\r\nSet-Cookie: x=y",
    "/é",
    "/" + "a" * 5000,
]
REFUSED = "Wrong name or password."


@pytest.fixture
async def away(settings: Settings, passwords: dict[str, str]) -> AsyncIterator[Browser]:
    """A browser at a console whose Vault does not respond."""
    gone = settings.model_copy(update={"vault_addr": "http://127.0.0.1:1"})
    async with serve_site(gone, passwords) as site, AsyncExitStack() as kept:
        yield Browser.create(site, kept)


async def test_a_wrong_password_an_unknown_name_and_a_locked_one_get_the_same_message(
    site: Site, browser: Callable[[], Browser], admin: httpx.AsyncClient
) -> None:
    said = set()
    for name, password in [
        ("lead", "wrong"),
        ("nobody-of-that-name", "wrong"),
        ("..", "wrong"),
        ("a/b?c", "wrong"),
        ("", "x"),
        ("lead", ""),
    ]:
        answer = await browser().log_in(name, password)
        assert answer.status_code == 401
        assert REFUSED in unescape(answer.text)
        said.add(re.sub(r'(?:value|data-now)="[^"]*"| autofocus', "", answer.text))
    assert len(said) == 1
    # Unless its mount is tuned not to, Vault locks a name after five wrong passwords.
    tune = "sys/auth/pages/tune"
    (await admin.post(tune, json={"user_lockout_config": {"lockout_disable": False}})).raise_for_status()
    try:
        for _ in range(5):
            await admin.post("auth/pages/login/guessed", json={"password": "wrong"})
        answer = await browser().log_in("guessed", site.passwords["guessed"])
    finally:
        (await admin.post(tune, json={"user_lockout_config": {"lockout_disable": True}})).raise_for_status()
    assert answer.status_code == 401
    assert "logging in is blocked for a while" in answer.text


async def test_the_form_keeps_the_name_but_not_the_password(browser: Callable[[], Browser]) -> None:
    answer = await browser().log_in('"><script>alert(1)</script>', "my-password", onward="/jobs")
    assert "<script>" not in answer.text
    assert 'value="&#34;&gt;&lt;script&gt;' in answer.text
    assert "my-password" not in answer.text
    assert hidden_fields(answer.text)["next"] == "/jobs"


async def test_guessing_blocks_only_the_guessed_name(site: Site, browser: Callable[[], Browser]) -> None:
    for _ in range(MAX_TRIES):
        assert (await browser().log_in("no-such", "wrong")).status_code == 401
    for name in ("no-such", "NO-SUCH"):
        answer = await browser().log_in(name, "wrong")
        assert answer.status_code == 429
        assert "Too many login attempts; try again in 15 min." in answer.text
    assert (await browser().log_in("ops", site.passwords["ops"])).status_code == 303


@pytest.mark.parametrize("proxies, elsewhere", [(("127.0.0.1/32",), 401), ((), 429)])
async def test_failed_logins_count_by_client_address_which_only_a_trusted_proxy_may_forward(
    settings: Settings, passwords: dict[str, str], proxies: tuple[str, ...], elsewhere: int
) -> None:
    async with serve_site(settings.model_copy(update={"console_proxies": proxies}), passwords) as site, AsyncExitStack() as kept:
        browser = Browser.create(site, kept)
        statuses = []
        for address in (*["203.0.113.1"] * (MAX_TRIES + 1), "203.0.113.2"):
            browser.http.headers["X-Forwarded-For"] = address
            statuses.append((await browser.log_in("no-such", "wrong")).status_code)
    assert statuses == [401] * MAX_TRIES + [429, elsewhere]


async def test_an_unknown_person_is_refused_with_the_reason_and_leaves_no_token(
    site: Site, browser: Callable[[], Browser], admin: httpx.AsyncClient
) -> None:
    await browser().log_in("ops", site.passwords["ops"])
    user = {"password": "stranger-password", "token_policies": ["je-person"], "token_no_default_policy": True}
    (await admin.post("auth/pages/users/stranger", json=user)).raise_for_status()
    answer = await browser().log_in("stranger", "stranger-password")
    assert answer.status_code == 403
    assert "This login is not linked to a JustEnough user" in answer.text
    assert "je=" not in str(answer.headers)
    holders = await token_holders(admin)
    assert "pages-stranger" not in holders
    assert "pages-ops" in holders


async def token_holders(admin: httpx.AsyncClient) -> set[str]:
    """Return the display names of all valid tokens."""
    listed = (await admin.request("LIST", "auth/token/accessors")).raise_for_status().json()["data"]["keys"]
    looks = [await admin.post("auth/token/lookup-accessor", json={"accessor": accessor}) for accessor in listed]
    return {look.json()["data"]["display_name"] for look in looks if look.is_success}


async def test_a_second_factor_is_reported_as_unsupported(browser: Callable[[], Browser], admin: httpx.AsyncClient) -> None:
    user = {"password": "second-password", "token_policies": ["je-person"]}
    (await admin.post("auth/pages/users/second", json=user)).raise_for_status()
    made = await admin.post("identity/mfa/method/totp", json={"issuer": "tests", "generate": False})
    method = made.raise_for_status().json()["data"]["method_id"]
    accessor = (await admin.get("sys/auth")).json()["data"]["pages/"]["accessor"]
    entity = (await admin.post("identity/entity", json={"name": "second"})).json()["data"]["id"]
    alias = {"name": "second", "canonical_id": entity, "mount_accessor": accessor}
    (await admin.post("identity/entity-alias", json=alias)).raise_for_status()
    enforced = {"mfa_method_ids": [method], "identity_entity_ids": [entity]}
    (await admin.post("identity/mfa/login-enforcement/tests", json=enforced)).raise_for_status()
    try:
        answer = await browser().log_in("second", "second-password")
    finally:
        await admin.delete("identity/mfa/login-enforcement/tests")
    assert answer.status_code == 403
    assert "This login needs a second factor" in answer.text


async def test_a_token_that_cannot_sign_is_rejected(browser: Callable[[], Browser], admin: httpx.AsyncClient) -> None:
    user = {"password": "weak-password", "token_policies": ["default"]}
    (await admin.post("auth/pages/users/weak", json=user)).raise_for_status()
    accessor = (await admin.get("sys/auth")).json()["data"]
    entity = (await admin.post("identity/entity", json={"name": "weak"})).json()["data"]["id"]
    for mount in ("people", "pages"):
        alias = {"name": "weak", "canonical_id": entity, "mount_accessor": accessor[f"{mount}/"]["accessor"]}
        (await admin.post("identity/entity-alias", json=alias)).raise_for_status()
    answer = await browser().log_in("weak", "weak-password")
    assert answer.status_code == 403
    assert "This login cannot sign: its token lacks the policy je-person" in answer.text


async def test_an_unavailable_vault_is_not_reported_as_a_wrong_password(away: Browser) -> None:
    for _ in range(MAX_TRIES + 1):
        answer = await away.log_in("lead", "right-or-wrong")
        assert answer.status_code == 503
        assert "Your login was not rejected" in answer.text


async def test_a_login_that_vault_cannot_confirm_now_is_kept(site: Site, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    lead = await logged_in("lead")
    monkeypatch.setattr("console.auth.page_sessions.CACHE_TTL_S", 0.0)

    def fail(*_: object) -> None:
        raise VaultUnavailable("Vault does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(site.console.deps.vault, "unseal", fail)
        answer = await lead.open("/login")
        assert (answer.status_code, "Your login was not rejected" in answer.text) == (503, True)
    assert (await lead.open("/sessions")).status_code == 200


async def test_a_login_form_works_only_in_its_own_browser(site: Site, browser: Callable[[], Browser]) -> None:
    mallory, lead = browser(), browser()
    theirs = hidden_fields((await mallory.open("/login")).text)
    await lead.open("/login")
    planted = {**theirs, "name": "mallory", "password": site.passwords["mallory"]}
    for fields in (planted, {**planted, "csrf": ""}):
        answer = await lead.send("/login", fields)
        assert answer.status_code == 403
        assert "This page has expired. Try again." in answer.text
    no_cookie = await browser().send("/login", planted)
    assert no_cookie.status_code == 403
    from_elsewhere = await mallory.send("/login", planted, {"Sec-Fetch-Site": "cross-site"})
    assert from_elsewhere.status_code == 403
    assert lead.cookie == mallory.cookie == ""
    assert (await mallory.send("/login", planted)).status_code == 303


async def test_a_login_never_redirects_to_another_site(site: Site, browser: Callable[[], Browser]) -> None:
    ops = browser()
    form = hidden_fields((await ops.open("/login")).text)
    for path in ELSEWHERE:
        assert hidden_fields((await ops.open("/login", params={"next": path})).text)["next"] == "/now"
        answer = await ops.send("/login", {**form, "next": path, "name": "ops", "password": site.passwords["ops"]})
        assert (answer.status_code, answer.headers["location"]) == (303, "/now")
        assert (await ops.open("/login", params={"next": path})).headers["location"] == "/now"
        answer = await ops.submit("/login/fresh", "/login/fresh", next=path, password=site.passwords["ops"])
        assert (answer.status_code, answer.headers["location"]) == (303, "/now")
        ops.http.cookies.delete("je", domain="127.0.0.1", path="/")
        form = hidden_fields((await ops.open("/login")).text)


def test_a_local_path_stays_unchanged() -> None:
    for path in ("/now", "/jobs?state=running&cursor=a%2Fb", "/requests/r-dev-1#card"):
        assert local_path(path) == path


async def test_a_link_from_another_site_needs_no_new_login(logged_in: LogIn) -> None:
    lead = await logged_in()
    async with httpx.AsyncClient(base_url=lead.http.base_url, trust_env=False, verify=NO_TLS, follow_redirects=True) as bare:
        arrived = await bare.get("/sessions?x=1", headers={"Sec-Fetch-Site": "cross-site"})
    hop = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', arrived.text)
    assert hop
    assert 'method="post"' not in arrived.text
    assert f'<a href="{hop[1]}">' in arrived.text
    onward = await lead.open(unescape(hop[1]))
    assert (onward.status_code, onward.headers["location"]) == (303, "/sessions?x=1")


async def test_a_browser_without_fetch_metadata_is_redirected_once(browser: Callable[[], Browser]) -> None:
    stranger = browser()
    arrived = await stranger.open("/login?next=/sessions", {})
    hop = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', arrived.text)
    assert hop
    shown = await stranger.open(unescape(hop[1]), {})
    assert "refresh" not in shown.text
    assert hidden_fields(shown.text)["next"] == "/sessions"


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
async def test_with_https_the_cookies_are_limited_to_the_host(settings: Settings, passwords: dict[str, str], scheme: str) -> None:
    secure = settings.model_copy(update={"console_url": f"{scheme}://je.example"})
    async with serve_site(secure, passwords) as site, httpx.AsyncClient(base_url=site.address, trust_env=False, verify=NO_TLS) as http:
        shown = await http.get("/login", headers=SAME)
        cookie = shown.headers["set-cookie"].partition(";")[0]
        assert cookie.startswith("__Host-je-form=")
        fields = {**hidden_fields(shown.text), "name": "lead", "password": passwords["lead"]}
        answer = await http.post("/login", data=fields, headers={"Origin": "https://je.example", "Cookie": cookie})
    sessions = [value for name, value in answer.headers.multi_items() if name == "set-cookie" and value.startswith("__Host-je=")]
    assert len(sessions) == 1
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=strict"} <= {part.strip() for part in sessions[0].split(";")}
    assert "Domain" not in sessions[0]


async def test_a_console_without_pages_takes_no_logins(settings: Settings, passwords: dict[str, str]) -> None:
    async with serve_site(settings.model_copy(update={"pages": "off"}), passwords) as site, AsyncExitStack() as kept:
        browser = Browser.create(site, kept)
        assert [(await browser.open(path)).status_code for path in ("/login", "/sessions", "/livez")] == [404, 404, 200]
        assert (await browser.send("/login", {"name": "lead", "password": passwords["lead"]})).status_code == 404


async def test_neither_password_nor_token_nor_cookie_is_in_logs_store_or_pages(
    site: Site, browser: Callable[[], Browser], capfd: pytest.CaptureFixture[str]
) -> None:
    lead, password = browser(), site.passwords["lead"]
    await lead.log_in("lead", "wrong-canary-password")
    await lead.log_in("lead", password)
    cookie, token = lead.cookie, await site.token_of(lead)
    await lead.open("/sessions")
    await lead.submit("/login/fresh", "/login/fresh", password=password)
    site.clock.forward(minutes=2)
    await lead.open("/sessions")
    await lead.submit("/sessions", "/logout")
    logged = "".join(capfd.readouterr())
    for event in ("login", "login refused", "logout"):
        assert event in logged
    kept = b"".join(file.read_bytes() for file in database_files(site))
    assert SessionKey.from_cookie(cookie).hash.encode() in kept
    for secret in (password, token, cookie, "wrong-canary-password"):
        assert secret not in logged
        assert secret.encode() not in kept
        assert secret not in lead.seen


def database_files(site: Site) -> list[Path]:
    """Return the store's files."""
    return sorted(site.console.deps.settings.home.glob("justenough.db*"))


class Ticks:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_attempts_are_counted_before_the_response_and_expire() -> None:
    clock = Ticks()
    throttle = LoginThrottle(clock=clock)
    for _ in range(MAX_TRIES):
        throttle.record_try("lead", "10.0.0.1")
    with pytest.raises(TooManyAttempts, match="try again in 15 min"):
        throttle.record_try("Lead", "10.0.0.1")
    clock.now = WINDOW_S - 60
    with pytest.raises(TooManyAttempts, match="try again in 1 min"):
        throttle.record_try("lead", "10.0.0.1")
    clock.now = WINDOW_S
    throttle.record_try("lead", "10.0.0.1")


def test_guessing_from_one_address_does_not_block_the_name_elsewhere() -> None:
    throttle = LoginThrottle(clock=Ticks())
    for _ in range(MAX_TRIES):
        throttle.record_try("oncall", "10.0.0.1")
    throttle.record_try("oncall", "10.0.0.2")
    with pytest.raises(TooManyAttempts):
        throttle.record_try("oncall", "10.0.0.1")


def test_guessing_from_many_addresses_blocks_a_name_only_where_it_never_logged_in() -> None:
    throttle = LoginThrottle(clock=Ticks())
    throttle.record_try("oncall", "192.0.2.1")
    throttle.record_success("OnCall", "192.0.2.1")
    for number in range(MAX_TRIES_PER_NAME):
        throttle.record_try("oncall", f"10.0.0.{number // MAX_TRIES}")
    with pytest.raises(TooManyAttempts):
        throttle.record_try("oncall", "10.0.1.1")
    for _ in range(MAX_TRIES):
        throttle.record_try("oncall", "192.0.2.1")
    with pytest.raises(TooManyAttempts):
        throttle.record_try("oncall", "192.0.2.1")


def test_an_address_has_more_attempts_than_a_name_but_not_unlimited() -> None:
    throttle = LoginThrottle(clock=Ticks())
    for number in range(MAX_TRIES_PER_ADDRESS):
        throttle.record_try(f"name{number}", "10.0.0.1")
    with pytest.raises(TooManyAttempts):
        throttle.record_try("another", "10.0.0.1")
    throttle.record_try("another", "10.0.0.2")


@pytest.mark.parametrize(
    "address, page",
    [
        ("/inbox/{request}/answer", "/inbox/{request}"),
        ("/inbox/{request}/review", "/inbox/{request}"),
        ("/inbox/batch?show=mine", "/inbox?show=mine"),
        ("/jobs/{job}/prove", "/jobs/{job}"),
        ("/jobs/selected/kill", "/jobs"),
        ("/credentials/selected/revoke", "/credentials"),
    ],
)
async def test_a_login_leads_back_from_the_response_to_a_form_to_the_page_of_the_form(
    site: Site, served: Served, browser: Callable[[], Browser], address: str, page: str
) -> None:
    job = (await served.launch(spec()))["id"]
    known = {"job": job, "request": served.record_request(job)["id"]}
    address, page, lead = address.format(**known), page.format(**known), browser()
    sent = await lead.send(address, {}, {**SAME, "Referer": f"{lead.http.base_url}{address}"})
    onward = parse_qs(urlsplit(sent.headers["location"]).query)["next"][0]
    back = (await lead.log_in("lead", site.passwords["lead"], onward=quote(onward))).headers["location"]
    shown = await lead.http.get(back, headers=SAME, follow_redirects=True)
    assert (shown.status_code, shown.url.raw_path.decode()) == (200, page)


def test_an_ipv6_network_has_as_many_attempts_as_one_address() -> None:
    throttle = LoginThrottle(clock=Ticks())
    for number in range(MAX_TRIES_PER_ADDRESS):
        throttle.record_try(f"name{number}", f"2001:db8::{number:x}")
    with pytest.raises(TooManyAttempts):
        throttle.record_try("another", "2001:db8::ffff:1:1")
    throttle.record_try("another", "2001:db8:0:1::1")
    for number in range(MAX_TRIES_PER_ADDRESS):
        throttle.record_try(f"more{number}", "::ffff:10.0.0.1")
    throttle.record_try("another", "::ffff:10.0.0.2")


def test_a_right_password_and_an_unanswered_attempt_no_longer_count() -> None:
    throttle = LoginThrottle(clock=Ticks())
    for _ in range(3 * MAX_TRIES_PER_ADDRESS):
        throttle.record_try("lead", "10.0.0.1")
        throttle.record_success("lead", "10.0.0.1")
        throttle.record_try("lead", "10.0.0.1")
        throttle.undo_try("lead", "10.0.0.1")
    for _ in range(2):
        for _ in range(MAX_TRIES):
            throttle.record_try("oncall", "10.0.0.2")
        throttle.record_success("oncall", "10.0.0.2")


def test_the_number_of_counted_keys_is_bounded() -> None:
    throttle = LoginThrottle(clock=Ticks())
    for number in range(MAX_KEYS + 1):
        name, address = f"name{number}", f"10.0.{number >> 8}.{number & 255}"
        throttle.record_try(name, address)
        throttle.record_success(name, address)
        throttle.record_try(name, address)
    assert len(throttle._tries) <= MAX_KEYS
    assert len(throttle._familiar) <= MAX_KEYS


def test_many_other_attempts_do_not_free_a_guesser() -> None:
    throttle = LoginThrottle(clock=Ticks())
    for _ in range(MAX_TRIES - 1):
        throttle.record_try("oncall", "192.0.2.1")
    keys_per_name = 3
    for number in range((MAX_KEYS - keys_per_name) // keys_per_name):
        throttle.record_try(f"name{number}", f"10.0.{number >> 8}.{number & 255}")
    throttle.record_try("oncall", "192.0.2.1")
    for name in ("last", *["another"] * MAX_TRIES):
        throttle.record_try(name, "192.0.2.2")
    for name, address in (("oncall", "192.0.2.1"), ("another", "192.0.2.2")):
        with pytest.raises(TooManyAttempts):
            throttle.record_try(name, address)


def test_many_other_logins_do_not_make_an_address_unfamiliar_that_is_still_used() -> None:
    throttle = LoginThrottle(clock=Ticks())
    for name in ("oncall", *(f"name{number}" for number in range(MAX_KEYS - 1)), "oncall", "another"):
        throttle.record_success(name, "192.0.2.1")
    for name in ("oncall", "another"):
        for number in range(MAX_TRIES_PER_NAME):
            throttle.record_try(name, f"10.0.0.{number // MAX_TRIES}")
        throttle.record_try(name, "192.0.2.1")


def test_a_malformed_cookie_is_ignored() -> None:
    for cookie in ("", "\xff" * 43, "a" * 42, "a" * 44, "=" * 43, "a" * 42 + "!"):
        with pytest.raises(NoSession):
            SessionKey.from_cookie(cookie)
    key = SessionKey.new()
    assert SessionKey.from_cookie(key.secret.reveal()) == key
    assert repr(SessionKey.new()) == "SessionKey(secret=Secret(…))"
