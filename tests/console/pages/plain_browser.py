"""A browser without JavaScript, and the console that it opens."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import httpx

from console.services.console import Console
from justenough.adapters.store import Store
from tests.support.plain_http import NO_TLS

SAME = {"Sec-Fetch-Site": "same-origin"}


class Clock:
    """The clock of the console's sessions."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def forward(self, **span: float) -> None:
        """Move the clock forward."""
        self._ahead += timedelta(**span)


@dataclass
class Browser:
    """Keeps cookies and submits forms with their hidden fields, as a browser does."""

    http: httpx.AsyncClient
    seen: str = field(default="", repr=False)
    """Every page that was shown."""

    @classmethod
    def create(cls, site: Site, stack: AsyncExitStack) -> Browser:
        """Yield a new browser; close it at the end."""
        client = httpx.AsyncClient(base_url=site.address, timeout=60, trust_env=False, verify=NO_TLS)
        stack.push_async_callback(client.aclose)
        return cls(client)

    async def open(self, path: str, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        """Open a page without following redirects."""
        answer = await self.http.get(path, headers=SAME if headers is None else headers, **options)
        self.seen += answer.text
        return answer

    async def arrive(self, path: str) -> httpx.Response:
        """Follow a link from another site: the browser sends none of our cookies, because they are SameSite=Strict."""
        async with httpx.AsyncClient(base_url=self.http.base_url, trust_env=False, verify=NO_TLS) as bare:
            answer = await bare.get(path, headers={"Sec-Fetch-Site": "cross-site"})
        self.seen += answer.text
        return answer

    async def send(self, path: str, fields: dict[str, str], headers: dict[str, str] | None = None) -> httpx.Response:
        """Post these fields."""
        answer = await self.http.post(path, data=fields, headers=SAME if headers is None else headers)
        self.seen += answer.text
        return answer

    async def submit(self, page: str, path: str, **fields: str) -> httpx.Response:
        """Open a page and post its form with its hidden fields."""
        shown = await self.open(page)
        assert shown.status_code == 200, (shown.status_code, shown.headers)
        return await self.send(path, hidden_fields(shown.text, path) | fields)

    async def log_in(self, name: str, password: str, *, onward: str = "/sessions") -> httpx.Response:
        """Log in with the form."""
        return await self.submit(f"/login?next={onward}", "/login", name=name, password=password)

    @property
    def cookie(self) -> str:
        """Return the session cookie."""
        return self.http.cookies.get("je") or ""


@dataclass(frozen=True)
class Site:
    """A console, its clock and its address."""

    console: Console
    clock: Clock
    address: str
    passwords: dict[str, str] = field(repr=False)

    @property
    def store(self) -> Store:
        return self.console.deps.store

    async def token_of(self, browser: Browser) -> str:
        """Return the Vault token of a browser's session."""
        return (await self.console.sessions.token(await self.console.sessions.session_of(browser.cookie))).reveal()

    async def is_valid(self, token: str) -> bool:
        """Whether Vault says that a token is valid."""
        async with httpx.AsyncClient(base_url=self.console.deps.vault.address, trust_env=False, verify=NO_TLS) as vault:
            answer = await vault.get("/v1/auth/token/lookup-self", headers={"X-Vault-Token": token})
        assert answer.status_code in {200, 403}, answer.text
        return answer.status_code == 200


def hidden_fields(page: str, action: str | None = None) -> dict[str, str]:
    """Return the hidden fields of the form with this action, by default of the first form that posts any."""
    found = _Forms()
    found.feed(page)
    return next(fields for goes_to, fields in found.forms if (fields if action is None else goes_to == action))


class _Forms(HTMLParser):
    """The forms of a page: action and hidden fields."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append((given.get("action", ""), {}))
        elif tag == "input" and given.get("type") == "hidden" and self.forms:
            self.forms[-1][1][given["name"]] = given.get("value", "")
