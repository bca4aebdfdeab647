"""A console of the tests' site with some parts replaced, such as its policies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx

from tests.console.pages.plain_browser import Browser, Site
from tests.console.served_console import serve_console
from tests.support.plain_http import NO_TLS


@asynccontextmanager
async def serve_variant(site: Site, *, person: str = "lead", **changes: object) -> AsyncIterator[Browser]:
    """A browser in which this person is logged in at such a console."""
    console = replace(site.console, **changes)  # type: ignore[arg-type] # whatever parts a test changes
    async with serve_console(console) as http:
        made = Browser(httpx.AsyncClient(base_url=str(http.base_url), timeout=60, trust_env=False, verify=NO_TLS))
        try:
            assert (await made.log_in(person, site.passwords[person])).status_code == 303
            yield made
        finally:
            await made.http.aclose()
