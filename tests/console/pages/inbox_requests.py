"""Pending requests on a site whose store the test writes as a worker would, and helpers to read and answer them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from typing import Any

import httpx

from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.readmodel.views import RequestView
from tests.adapters.store import event_samples as samples
from tests.console.pages.plain_browser import Browser
from tests.console.served_console import DIGEST, SPEC, Served, number_of

OTHER_DIGEST = "sha256:" + "e" * 64


class Words(HTMLParser):
    """The text of a page, and the fields of each form by its action."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.forms: dict[str, dict[str, str]] = {}
        self.buttons: set[tuple[str, str]] = set()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._form = ""
        self._quiet = 0
        self._texts: list[str] = []
        self.feed(page)
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.tags.append((tag, known))
        self._quiet += tag in {"script", "style"}
        if tag == "form":
            self._form = known.get("action", "")
            self.forms.setdefault(self._form, {})
        if tag == "input" and known.get("type") == "hidden":
            self.forms[self._form][known["name"]] = known["value"]
        if tag == "button" and "name" in known:
            self.buttons.add((known["name"], known["value"]))

    def handle_endtag(self, tag: str) -> None:
        self._quiet -= tag in {"script", "style"}

    def handle_data(self, data: str) -> None:
        if not self._quiet:
            self._texts.append(data)


async def read_words(browser: Browser, path: str) -> Words:
    """Open a page and return its words. Fails unless the status is 200."""
    answer = await browser.open(path)
    assert answer.status_code == 200, (answer.status_code, answer.text[:500])
    return Words(answer.text)


async def submit_decision(browser: Browser, request: Mapping[str, Any], decision: str, **fields: str) -> httpx.Response:
    """Open a request's page and submit its form with these fields."""
    page = await read_words(browser, f"/inbox/{request['id']}")
    path = f"/inbox/{request['id']}/answer"
    known = page.forms.get(path) or {"digest": request["digest"], "csrf": page.forms["/logout"]["csrf"]}
    return await browser.send(path, {**known, "decision": decision, **fields})


async def decisions(served: Served, job: str) -> list[Any]:
    """Return the signed decisions in the Temporal history of a job."""
    return [arguments[0] for name, arguments in await served.signals(job) if name == "decide"]


def words_of(answer: httpx.Response) -> str:
    """Return the words of a response."""
    return unescape(Words(answer.text).text)


def record_again(served: Served, request: Mapping[str, Any], *, tier: int, policies: list[str]) -> str:
    """Record another evaluation of a request, as the worker would at another phase; return the request's digest after it."""
    digest = served.request_digest(request["job_id"], number_of(request), request, tier=tier)
    decision: dict[str, Any] = {"policies": policies, "policy_digest": DIGEST, "digest": digest, "facts": {}}
    where: dict[str, Any] = {"job": request["job_id"], "number": number_of(request), "phase": "runtime", "at": datetime.now(UTC)}
    served.store.ledger.append([samples.access_decision("needs_approval", tier=tier, **where, **decision)])
    return digest


def break_glass(served: Served, request: Mapping[str, Any], *, at: datetime | None = None, tier: int = 1, name: str = "owner") -> None:
    """Record that oncall used break-glass for a request, and that its review is open."""
    at, job, who = at or datetime.now(UTC), request["job_id"], {"person": served.people["oncall"].id, "name": "oncall"}
    why = {"request": request["id"], "reason": "the shop is down"}
    decision = {"tier": 0, "decision": "break_glass", "verdict": "approved", "ttl": 300, "granted_ttl": 300, "action": "write"}
    signed = {"granted_action": "write", "on_behalf_of": None, "on_behalf_of_name": None, "signed": {"statement": {}, "signature": ""}}
    review = {"tiers": [tier], "tier_names": [name], "groups": ["support-leads"]}
    about = f"{request['id']}/{who['person']}"
    served.store.ledger.append(
        [
            build_event(EventType.REVIEW_OPENED, job, at=at, about=request["id"], **who, **why, **review),
            build_event(EventType.APPROVAL_DECIDED, job, at=at, about=about, **who, **why, **decision, **signed),
        ]
    )


def record_review(served: Served, request: Mapping[str, Any], verdict: str) -> None:
    """Record lead's review of a break-glass."""
    answer = {"person": served.people["lead"].id, "name": "lead", "verdict": verdict, "reason": "I looked", "signed": {}}
    at, name = datetime.now(UTC), request["id"]
    served.store.ledger.append([build_event(EventType.REVIEW_ANSWERED, request["job_id"], at=at, about=name, request=name, **answer)])


def view_of(served: Served, request: Mapping[str, Any]) -> RequestView:
    """Return a request from the store."""
    found = served.store.requests.get(request["id"])
    assert found is not None
    return found


def spec(**changes: Any) -> dict[str, Any]:
    """Return a spec like the shop's refund triage."""
    access = [{"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "Write the refund"}]
    return {**SPEC, "agent": {"name": "refund-agent", "version": "1.4"}, "access": access, **changes}
