"""Jobs for the pages, recorded as the system would record them, from now on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from justenough.adapters.store import Store
from justenough.domain.core.ids import new_job_id
from tests.adapters.store.event_samples import submission
from tests.console.pages.plain_browser import Browser, hidden_fields

EVIL = '<script>alert("task")</script>\u202eevil'
"""What a stranger may write to deceive: markup, and a character that turns the text around."""
SHOWN = "&lt;script&gt;alert(&#34;task&#34;)&lt;/script&gt;\\u202eevil"
"""How a page may show it."""


def now() -> datetime:
    return datetime.now(UTC)


def ago(**span: float) -> datetime:
    return now() - timedelta(**span)


def record_order(store: Store, person: str, *, name: str = "refund-triage", **changes: Any) -> str:
    """Record the order of a person's job; return its id."""
    job = new_job_id("dev", now=now())
    store.ledger.append([submission(job, at=changes.pop("at", now()), requester=person, name=name, **changes)])
    return job


async def post_fields(who: Browser, path: str, **fields: str) -> httpx.Response:
    """Post fields that no form offers, with the session's CSRF token."""
    mark = hidden_fields((await who.open("/sessions")).text)["csrf"]
    return await who.send(path, {"csrf": mark, **fields})
