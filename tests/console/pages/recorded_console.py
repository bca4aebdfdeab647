"""A console over the test's own ledger, and readers of its pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx

from console.services.console import Console, build_console
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store import Store
from justenough.domain.core.ids import new_job_id
from justenough.domain.ledger.events import Event
from tests.adapters.store.event_samples import submission
from tests.console.pages.plain_browser import SAME, Browser, hidden_fields
from tests.console.served_console import serve_console
from tests.support.plain_http import NO_TLS

VOID = frozenset({"meta", "link", "input", "br", "use", "path", "circle", "rect"})
HOSTILE = "<script>alert(1)</script>\u202e\u2066 \"' onmouseover=x </code></pre>"
"""What an attacker may write into any text field."""


@dataclass(frozen=True)
class Desk:
    """A console with its own store, and people who use it."""

    console: Console
    address: str
    database: str
    passwords: dict[str, str]
    clients: list[httpx.AsyncClient]

    @property
    def store(self) -> Store:
        return self.console.deps.store

    async def log_in(self, name: str = "lead") -> Browser:
        """Return a browser with a logged-in person."""
        client = httpx.AsyncClient(base_url=self.address, timeout=60, trust_env=False, verify=NO_TLS)
        self.clients.append(client)
        browser = Browser(client)
        answer = await browser.log_in(name, self.passwords[name])
        assert answer.status_code == 303, answer.text
        return browser

    async def id_of(self, browser: Browser) -> str:
        """Return the entity id of the logged-in person."""
        return (await self.console.sessions.session_of(browser.cookie)).person.id

    def record_job(self, *events: Event, requester: str = "e-ops", **changes: Any) -> str:
        """Record a job that a person launched, and further entries; return its id."""
        now = datetime.now(UTC)
        job = new_job_id("dev", now=now)
        self.store.ledger.append([submission(job, at=now, requester=requester, **changes), *events])
        return job


@asynccontextmanager
async def serve_desk(settings: Settings, passwords: dict[str, str], store: Path, **more: Any) -> AsyncIterator[Desk]:
    """Serve a console with this SQLite store."""
    url = f"sqlite:///{store}"
    clients: list[httpx.AsyncClient] = []
    async with build_console(settings.model_copy(update={"database_url": url, **more})) as console, serve_console(console) as http:
        try:
            yield Desk(console, str(http.base_url), url, passwords, clients)
        finally:
            for client in clients:
                await client.aclose()


class RenderedPage(HTMLParser):
    """Reads the visible text of a page. Fails if its tags are not balanced or if it contains a script that is not ours."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._text: list[str] = []
        self.feed(page)
        assert self._open == [], self._open
        scripts = [attributes for tag, attributes in self.tags if tag == "script"]
        assert [bool(one.get("src")) for one in scripts] == [True]
        assert not [name for _, attributes in self.tags for name in attributes if name.startswith("on") or name == "style"]
        ids = self.values("id")
        assert len(ids) == len(set(ids)), sorted(ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    @property
    def text(self) -> str:
        """Return all text on one line."""
        return " ".join(" ".join(self._text).split())

    def values(self, name: str) -> list[str]:
        """Return every value of an attribute."""
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]

    @property
    def links(self) -> list[str]:
        """Return the targets of the page's links."""
        return [attributes.get("href") or "" for tag, attributes in self.tags if tag == "a"]

    @property
    def forms(self) -> list[str]:
        """Return the actions of the page's POST forms."""
        return [attributes.get("action") or "" for tag, attributes in self.tags if tag == "form" and attributes.get("method") == "post"]


async def load_page(browser: Browser, path: str, *, status: int = 200) -> RenderedPage:
    """Open a page and read it."""
    answer = await browser.open(path)
    assert answer.status_code == status, (answer.status_code, answer.headers.get("location"), answer.text[:2000])
    assert "\u202e" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    return RenderedPage(answer.text)


async def submit_form(browser: Browser, page: str, path: str, **fields: str) -> httpx.Response:
    """Submit a form of a page with the page's CSRF token."""
    shown = await browser.open(page)
    mark = {"csrf": hidden_fields(shown.text)["csrf"]}
    return await browser.send(path, mark | fields, SAME)
