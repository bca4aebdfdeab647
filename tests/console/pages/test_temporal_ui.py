"""Temporal's UI, at its own origin, lets the console decrypt payloads with the cookie of whoever is logged in to the pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads

from justenough.adapters.configuration.settings import Settings
from tests.console.pages.conftest import serve_site
from tests.console.pages.plain_browser import Browser, Site

pytestmark = pytest.mark.servers

UI = "https://temporal.example.com"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-namespace"}
CLEAR = Payload(metadata={"encoding": b"json/plain"}, data=b'"pay 4711"')


@pytest.fixture(scope="module")
async def linked(settings: Settings, passwords: dict[str, str]) -> AsyncIterator[Site]:
    """A console that knows Temporal's UI."""
    async with serve_site(settings.model_copy(update={"temporal_ui_url": f"{UI}/"}), passwords) as site:
        yield site


async def ask(site: Site, who: str | None, origin: str | None) -> httpx.Response:
    """Have an encrypted payload decrypted by a script of an origin, in the browser of a person."""
    async with AsyncExitStack() as opened:
        browser = Browser.create(site, opened)
        if who:
            assert (await browser.log_in(who, site.passwords[who])).status_code == 303
        body = json_format.MessageToJson(Payloads(payloads=await site.console.codec.encode([CLEAR])))
        headers = {"Content-Type": "application/json", "X-Namespace": "default"} | ({"Origin": origin} if origin else {})
        return await browser.http.post("/codec/decode", content=body, headers=headers)


async def test_temporals_ui_can_decrypt_payloads_for_a_person_who_reads_everything(linked: Site) -> None:
    answer = await ask(linked, "auditor", UI)
    assert json_format.Parse(answer.text, Payloads()).payloads == [CLEAR]
    assert answer.headers["access-control-allow-origin"] == UI
    assert answer.headers["access-control-allow-credentials"] == "true"
    async with httpx.AsyncClient(base_url=linked.address, trust_env=False) as http:
        allowed = await http.options("/codec/decode", headers={"Origin": UI, **PREFLIGHT})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, UI)


@pytest.mark.parametrize(
    "who, origin, status",
    [
        ("ops", UI, 403),
        (None, UI, 401),
        ("auditor", "https://other.example.com", 401),
        ("auditor", "https://temporal.example.com.evil.example", 401),
        ("auditor", None, 401),
    ],
)
async def test_temporals_ui_cannot_decrypt_payloads_for_anybody_else(
    linked: Site, who: str | None, origin: str | None, status: int
) -> None:
    answer = await ask(linked, who, origin)
    assert answer.status_code == status
    assert "4711" not in answer.text
    # The UI may show why.
    assert answer.headers.get("access-control-allow-origin") == (UI if origin == UI else None)


async def test_other_origins_and_paths_are_not_opened(linked: Site) -> None:
    async with httpx.AsyncClient(base_url=linked.address, trust_env=False) as http:
        stranger = await http.options("/codec/decode", headers={"Origin": "https://other.example.com", **PREFLIGHT})
        elsewhere = await http.options("/api/v1/jobs", headers={"Origin": UI, **PREFLIGHT})
    assert "access-control-allow-origin" not in stranger.headers
    assert "access-control-allow-origin" not in elsewhere.headers
