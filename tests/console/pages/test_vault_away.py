"""While Vault does not answer, people whom it identified before read the pages and reduce access, and do nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest

from console.concurrency.vault_threads import MAX_CALLS, MAX_THREADS
from justenough.adapters.configuration.settings import Settings
from justenough.domain.ledger.events import EventType
from tests.activities.tcp_door import Door
from tests.console.pages.conftest import serve_site
from tests.console.pages.inbox_requests import read_words, submit_decision, view_of, words_of
from tests.console.pages.plain_browser import Browser
from tests.console.served_console import Human, Served
from tests.support import temporal_client
from tests.support.cheap_passwords import PASSWORDS
from tests.support.plain_http import NO_TLS
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers
UNCACHED = "console.auth.page_sessions.CACHE_TTL_S", "console.auth.vault_directory.CACHE_TTL_S"


@dataclass(frozen=True)
class Cut:
    """A console behind a door to Vault, and a browser of lead's on it."""

    door: Door
    served: Served
    lead: Browser


@pytest.fixture
async def cut(
    stack: Stack, settings: Settings, passwords: dict[str, str], people: dict[str, Human], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Cut]:
    """No earlier answer of Vault is new enough, and callers do not wait for Vault for long."""
    for name in UNCACHED:
        monkeypatch.setattr(name, 0.0)
    monkeypatch.setattr("console.auth.tokens.LAST_KNOWN_AFTER_S", 0.2)
    door = Door(urlsplit(settings.vault_addr).port or 0)
    own = settings.model_copy(update={"vault_addr": f"http://127.0.0.1:{door.port}", "vault_issuer": settings.issuer})
    try:
        async with AsyncExitStack() as opened:
            site = await opened.enter_async_context(serve_site(own, passwords))
            http = await opened.enter_async_context(httpx.AsyncClient(base_url=site.address, timeout=60, trust_env=False, verify=NO_TLS))
            temporal = await temporal_client.connect(stack)
            lead = Browser.create(site, opened)
            assert (await lead.log_in("lead", passwords["lead"])).status_code == 303
            await read_words(lead, "/sessions")
            yield Cut(door, Served(http=http, console=site.console, temporal=temporal, stack=stack, people=people), lead)
            door.open()
    finally:
        door.close()


@pytest.mark.parametrize("how", ["closed", "hanging"])
async def test_people_read_pages_and_stop_jobs(cut: Cut, how: str) -> None:
    served, lead = cut.served, cut.lead
    job = (await served.launch())["id"]
    assert (await served.get(f"/jobs/{job}", "lead")).status_code == 200
    with cut.door.closed() if how == "closed" else cut.door.hanging():
        for page in ("/now", f"/jobs/{job}"):
            await read_words(lead, page)
        assert (await served.get(f"/jobs/{job}", "lead")).status_code == 200
        stopped = await lead.submit(f"/jobs/{job}/kill", f"/jobs/{job}/kill")
        assert stopped.status_code == 303, stopped.text
    assert ("kill", []) in await served.signals(job)


async def test_people_withdraw_approvals(cut: Cut) -> None:
    served, lead = cut.served, cut.lead
    request = await served.launch_and_request()
    served.record_answer(request, "lead")
    with cut.door.closed():
        taken = await submit_decision(lead, request, "withdraw", reason="it was a fake")
        assert taken.status_code == 303, words_of(taken)
        assert "Approval withdrawn." in (await read_words(lead, taken.headers["location"])).text
    entries = served.store.ledger.entries(job=request["job_id"], types=[EventType.APPROVAL_WITHDRAWN]).items
    assert [(entry.data["reason"], entry.data["signed"]) for entry in entries] == [("it was a fake", None)]


async def test_people_end_their_sessions(cut: Cut) -> None:
    lead, other, cookie = cut.lead, Browser(cut.served.http), cut.lead.cookie
    assert (await other.log_in("lead", PASSWORDS["lead"])).status_code == 303
    await read_words(other, "/sessions")
    forms = (await read_words(lead, "/sessions")).forms
    ended = (await cut.served.console.sessions.session_of(other.cookie)).row.key
    with cut.door.closed():
        assert (await lead.send("/sessions/end", {**forms["/sessions/end"], "key": ended})).status_code == 303
        assert (await other.open("/sessions")).status_code == 303, "it leads to the login"
        assert (await lead.send("/logout", forms["/logout"])).status_code == 303
    lead.http.cookies.set("je", cookie)
    assert (await lead.open("/sessions")).status_code == 303


async def test_calls_that_wait_for_a_hanging_vault_leave_room_to_stop_jobs(cut: Cut) -> None:
    served, lead = cut.served, cut.lead
    job = (await served.launch())["id"]
    page, threads, is_full, is_over = f"/jobs/{job}/kill", threading.active_count(), asyncio.Event(), asyncio.Event()
    bearer = served.people["security"].bearer

    async def keep_asking(stranger: httpx.AsyncClient) -> set[int]:
        """Ask what needs Vault, as somebody whom the console does not know, again and again."""
        statuses = set()
        while not is_over.is_set():
            statuses.add((await stranger.post("/api/v1/jobs", json={}, headers=bearer)).status_code)
            is_full.set()
            # Enough to keep it full, on a machine that tests something else too.
            await asyncio.sleep(1)
        return statuses

    # On a busy machine, the console may close a connection that it has kept just as a request begins.
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=served.http.base_url, limits=unlimited, timeout=120, trust_env=False, verify=NO_TLS) as stranger:
        with cut.door.hanging():
            flood = [asyncio.create_task(keep_asking(stranger)) for _ in range(MAX_CALLS + 40)]
            # The first to be answered was refused: the others wait.
            await is_full.wait()
            stopped = await lead.submit(page, page)
            assert stopped.status_code == 303, stopped.text
            assert ("kill", []) in await served.signals(job)
            assert threading.active_count() < threads + MAX_THREADS + 80, "threads of the store and of Vault"
            is_over.set()
        assert {status for statuses in await asyncio.gather(*flood) for status in statuses} <= {403, 503}


async def test_nobody_approves_claims_launches_or_logs_in(cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    served, lead = cut.served, cut.lead
    request = await served.launch_and_request()
    claim = f"/inbox/{request['id']}/claim"
    fields = (await read_words(lead, f"/inbox/{request['id']}")).forms[claim]
    batch = {"csrf": fields["csrf"], "decision": "approve", "pick": f"{request['id']} {request['digest']}"}
    with cut.door.closed():
        approved = await submit_decision(lead, request, "approve", reason="please")
        assert (approved.status_code, "please" in approved.text) == (503, True)
        refused = [approved, await lead.send(claim, fields)]
        for path, body in (("/jobs", {}), (f"/requests/{request['id']}/decisions", {}), (f"/requests/{request['id']}/claim", None)):
            refused.append(await served.post(path, "lead", body))
            assert refused[-1].status_code == 503, path
        for name in UNCACHED:
            # Vault confirmed the login before it went away.
            monkeypatch.setattr(name, 600.0)
        refused.append(await lead.send("/inbox/batch", batch))
        assert "not submitted Vault" in words_of(refused[-1])
        told = [answer.text for answer in refused if "Vault" in answer.text]
        assert told
        assert not [text for text in told if "VAULT_ADDR" in text], "this is for whoever runs the console"
    view = view_of(served, request)
    assert (view.state, view.approvals, view.claim) == ("pending", (), None)


async def test_a_person_whom_the_console_has_not_seen_is_refused(cut: Cut) -> None:
    request = await cut.served.launch_and_request()
    with cut.door.closed():
        assert (await cut.served.get("/jobs", "security")).status_code == 503
        assert (await cut.served.post(f"/requests/{request['id']}/withdraw", "security", {"reason": "x"})).status_code == 503
