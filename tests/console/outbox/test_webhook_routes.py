"""What people see and do about outgoing events over the API; and that a console that is killed at the worst moment loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest

from console.auth.vault_keys import SigningSecrets
from console.outbox.dispatcher import Dispatcher
from justenough.adapters.configuration.folder import ConfigFolder
from justenough.adapters.configuration.settings import Settings
from justenough.services.dependencies import utc_now
from tests.adapters.store.event_samples import job_id, submission
from tests.console.outbox_rig import CURRENT, PEOPLE, SECRET, OutboxRig, write_config
from tests.console.pages.page_text import text_of
from tests.console.pages.plain_browser import Browser, hidden_fields
from tests.console.served_console import Human, Served, serve_console
from tests.support.webhook_receiver import HANG, Receiver

pytestmark = pytest.mark.servers

HOOK = {"name": "siem", "events": ["*"], "signing_secret": SECRET, "allow_private": True}


@dataclasses.dataclass(frozen=True)
class Api:
    """A console that serves and delivers by itself."""

    http: httpx.AsyncClient
    people: dict[str, Human]

    async def get(self, path: str, who: str) -> httpx.Response:
        return await self.http.get(f"/api/v1{path}", headers=self.people[who].bearer)

    async def post(self, path: str, who: str) -> httpx.Response:
        return await self.http.post(f"/api/v1{path}", headers=self.people[who].bearer)

    async def until(self, path: str, what: Callable[[Any], bool]) -> Any:
        """Return what a path says, once it says that."""
        async with asyncio.timeout(180):
            while True:
                found = (await self.get(path, "lead")).raise_for_status().json()
                if what(found):
                    return found
                await asyncio.sleep(0.1)  # The API tells of deliveries in no other way.


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver().listen() as found:
        yield found


@pytest.fixture
async def api(served: Served, rig: OutboxRig, receiver: Receiver) -> AsyncIterator[Api]:
    """Serves a webhook, and a notification whose people's addresses nobody has kept."""
    people = {"name": "leads", "on": ["approval.opened"], "to": [PEOPLE], "tiers": [1], "allow_private": True}
    write_config(rig.folder, webhooks=[{**HOOK, "url": receiver.url}], notify=[people])
    await rig.write_secret(PEOPLE, chat=f"json://127.0.0.1:{receiver.port}/canary-of-the-chat")
    deps = dataclasses.replace(rig.deps, config=ConfigFolder(rig.folder), now=utc_now, ticks=monotonic)
    console = dataclasses.replace(served.console, deps=deps, dispatcher=Dispatcher(deps, SigningSecrets(deps.vault)))  # type: ignore[arg-type] # the console's own Vault
    async with serve_console(console) as http:
        found = Api(http, served.people)
        await found.until("/webhooks", lambda said: {item["state"] for item in said["items"]} == {"ok"})
        yield found


async def test_people_who_read_everything_see_the_state_of_each_subscription(api: Api, rig: OutboxRig, receiver: Receiver) -> None:
    receiver.answer = lambda _: 410
    rig.record(submission(job_id(1)))
    said = await api.until("/webhooks", lambda found: [(item["dead"], item["lag_seconds"]) for item in found["items"]] == [(0, 0), (1, 0)])
    people, hook = said["items"]
    assert (people["name"], people["kind"], people["to"], people["tiers"]) == ("leads", "notify", [PEOPLE], [1])
    assert (hook["name"], hook["kind"], hook["to"], hook["events"]) == ("siem", "webhook", [receiver.url], ["*"])
    assert (hook["state"], hook["why"], hook["dead"], hook["pending"], hook["lag_seconds"]) == ("failing", "410 Gone", 1, 0, 0)
    assert (await api.get("/webhooks", "auditor")).json() == said
    listed = (await api.get("/webhooks/siem/deliveries?state=dead", "auditor")).json()
    (dead,) = listed["items"]
    assert (dead["type"], dead["job"], dead["state"], dead["next_at"]) == ("job.submitted", job_id(1), "dead", None)
    assert (await api.get("/webhooks/siem/deliveries?state=pending", "auditor")).json()["items"] == []
    numbers = (await api.http.get("/metrics")).text
    assert 'justenough_webhook_dead{kind="webhook",subscription="siem"} 1.0' in numbers
    assert 'justenough_webhook_pending{kind="webhook",subscription="siem"} 0.0' in numbers
    assert 'justenough_webhook_lag_seconds{kind="notify",subscription="leads"} 0.0' in numbers


async def test_approvers_can_resend_dead_letters(api: Api, rig: OutboxRig, receiver: Receiver) -> None:
    receiver.answer = lambda number: 410 if number < 2 else 204
    rig.record(submission(job_id(1)))
    (dead,) = (await api.until("/webhooks/siem/deliveries?state=dead", lambda found: bool(found["items"])))["items"]
    path = f"/webhooks/siem/deliveries/{dead['id']}/resend"
    assert [(await api.post(path, who)).status_code for who in ("auditor", "ops", "nobody")] == [403, 403, 403]
    answer = await api.post(path, "lead")
    assert (answer.status_code, answer.json()) == (202, {"subscription": "siem", "resent": 1})
    await receiver.until(2)
    await api.until("/webhooks/siem/deliveries?state=dead", lambda found: bool(found["items"]))
    answer = await api.post("/webhooks/siem/resend", "lead")
    assert (answer.status_code, answer.json()) == (202, {"subscription": "siem", "resent": 1})
    await receiver.until(3)
    await api.until("/webhooks/siem/deliveries", lambda found: not found["items"])
    assert (await api.post(path, "lead")).status_code == 404
    assert (await api.post("/webhooks/siem/resend", "lead")).json()["resent"] == 0


async def test_a_test_delivery_is_sent_once_and_its_outcome_is_returned(api: Api, receiver: Receiver) -> None:
    assert (await api.post("/webhooks/siem/test", "auditor")).status_code == 403
    for name in ("siem", "leads"):
        answer = await api.post(f"/webhooks/{name}/test", "lead")
        assert (answer.status_code, answer.json()["arrived"]) == (200, True), answer.text
    assert receiver.events[0]["type"] == "dev.justenough.webhook.tested.v1"
    assert receiver.requests[0].why_not_signed(CURRENT, utc_now()) is None
    assert receiver.events[1]["title"] == "JustEnough test message"
    receiver.answer = lambda _: 500
    for name, why in (("siem", "500 Internal Server Error"), ("leads", "the service did not accept the message")):
        assert (await api.post(f"/webhooks/{name}/test", "lead")).json() == {"subscription": name, "arrived": False, "detail": why}
    assert len(receiver.requests) == 4


async def test_approvers_test_a_webhook_and_resend_its_dead_letters_on_its_page(
    api: Api, rig: OutboxRig, receiver: Receiver, everyone: dict[str, str]
) -> None:
    page, lead = "/operations/deliveries/siem", Browser(api.http)
    receiver.answer = lambda number: 410 if number == 0 else 204
    rig.record(submission(job_id(1)))
    await api.until("/webhooks/siem/deliveries?state=dead", lambda found: bool(found["items"]))
    assert (await lead.log_in("lead", everyone["lead"])).status_code == 303
    assert "Send 1 dead letter again" in (await lead.open(page)).text
    sent = await lead.send(f"{page}/resend", hidden_fields((await lead.open(page)).text))
    assert "1 dead letter will be sent again." in text_of((await lead.open(sent.headers["location"])).text, "main")
    await receiver.until(2)
    assert receiver.events[1]["subject"] == job_id(1)
    receiver.answer = lambda number: 204 if number == 2 else 500
    for said in ("Test event: delivered, 204 No Content", "Test event: not delivered, 500"):
        tested = await lead.send(f"{page}/test", hidden_fields((await lead.open(page)).text))
        assert said in text_of((await lead.open(tested.headers["location"])).text, "main")
    api.http.cookies.clear()
    assert (await lead.log_in("auditor", everyone["auditor"])).status_code == 303
    for action in ("test", "resend"):
        assert (await lead.send(f"{page}/{action}", hidden_fields((await lead.open("/sessions")).text))).status_code == 403
    assert len(receiver.requests) == 4


async def test_unknown_and_removed_subscriptions_are_reported_as_such(api: Api, rig: OutboxRig, receiver: Receiver) -> None:
    for path in ("/webhooks/other/deliveries", "/webhooks/other/deliveries?state=dead"):
        assert (await api.get(path, "lead")).status_code == 404
    for path in ("/webhooks/other/resend", "/webhooks/other/test", "/webhooks/other/deliveries/d-1/resend"):
        assert (await api.post(path, "lead")).status_code == 404
    assert [(await api.get("/webhooks", who)).status_code for who in ("ops", "nobody")] == [403, 403]
    assert (await api.get("/webhooks/siem/deliveries?state=lost", "lead")).status_code == 422
    write_config(rig.folder, webhooks=[{**HOOK, "name": "other", "url": receiver.url}])
    said = await api.until("/webhooks", lambda found: [item["state"] for item in found["items"]] == ["removed", "ok", "removed"])
    assert [item["name"] for item in said["items"]] == ["leads", "other", "siem"]
    answer = await api.post("/webhooks/siem/resend", "lead")
    assert (answer.status_code, "no longer in triggers.yaml" in answer.json()["detail"]) == (409, True)


async def test_a_console_that_has_read_no_valid_configuration_calls_no_subscription_removed(
    api: Api, served: Served, rig: OutboxRig, receiver: Receiver
) -> None:
    (rig.folder / "triggers.yaml").write_text("webhooks: [")
    deps = dataclasses.replace(rig.deps, config=ConfigFolder(rig.folder), now=utc_now, ticks=monotonic)
    async with serve_console(dataclasses.replace(served.console, deps=deps)) as http:
        starting = Api(http, served.people)
        found = (await starting.get("/webhooks", "lead")).json()["items"]
        assert [(item["name"], item["kind"], item["state"]) for item in found] == [
            ("leads", "notify", "unknown"),
            ("siem", "webhook", "unknown"),
        ]
        for path in ("resend", "test"):
            answer = await starting.post(f"/webhooks/siem/{path}", "lead")
            assert (answer.status_code, "has no valid configuration" in answer.json()["detail"]) == (503, True)
    # The console that had read the configuration before goes on.
    assert {item["state"] for item in (await api.get("/webhooks", "lead")).json()["items"]} == {"ok"}
    assert receiver.requests == []


async def test_without_its_secret_a_test_says_what_is_missing(api: Api, rig: OutboxRig, receiver: Receiver) -> None:
    write_config(rig.folder, webhooks=[{**HOOK, "url": receiver.url, "signing_secret": "kv/data/je/webhooks/nobody"}])
    await api.until("/webhooks", lambda found: len(found["items"]) == 2 and found["items"][0]["state"] == "removed")
    answer = await api.post("/webhooks/siem/test", "lead")
    assert (answer.status_code, "kv/data/je/webhooks/nobody" in answer.json()["detail"]) == (503, True)
    assert receiver.requests == []


# A console of its own process.


@contextlib.asynccontextmanager
async def run_console(settings: Settings, rig: OutboxRig, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A console's process, with the rig's store and configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUSTENOUGH_", "VAULT_"))}
    ours = {
        "JUSTENOUGH_HOME": str(settings.home.absolute()),
        "JUSTENOUGH_CONFIG": str(rig.folder),
        "JUSTENOUGH_DATABASE_URL": f"sqlite:///{folder / 'store.db'}",
        "JUSTENOUGH_TEMPORAL_ADDRESS": settings.temporal_address,
        "VAULT_ADDR": settings.vault_addr,
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "console", env={**kept, **ours}, stderr=asyncio.subprocess.DEVNULL)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


# Two consoles start and a lease runs out in it; as the last one here it is charged with ending the servers too.
@pytest.mark.timeout(300)
async def test_a_console_that_is_killed_between_commit_and_delivery_loses_nothing(
    settings: Settings, rig: OutboxRig, receiver: Receiver, tmp_path: Path
) -> None:
    # The console records checkpoints of the ledger too.
    rig.configure(webhooks=[{**HOOK, "url": receiver.url, "events": ["job.submitted"]}])
    receiver.answer = lambda number: HANG if number >= 20 else 204
    async with run_console(settings, rig, tmp_path) as first:
        async with asyncio.timeout(180):
            while not rig.store.outbox.subscription_progress():
                assert first.returncode is None
                await asyncio.sleep(0.1)  # The console's subscriptions show that it runs.
        rig.record(*(submission(job_id(number)) for number in range(1, 41)))
        await receiver.until(21)
        first.send_signal(signal.SIGKILL)
        await first.wait()
    known = {event["subject"] for event in receiver.events}
    assert known < {job_id(number) for number in range(1, 41)}, "it died before it had told everything"
    rig.record(*(submission(job_id(number)) for number in range(41, 51)))
    receiver.answer = lambda _: 204
    last = rig.store.ledger.head().position
    async with run_console(settings, rig, tmp_path), asyncio.timeout(180):
        # The store has the progress, and sends no notification about it.
        while rig.progress_of("siem").position < last:  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.1)
    subjects = {job_id(number) for number in range(1, 51)}
    assert {event["subject"] for event in receiver.events} == subjects
    assert len({(got.headers["webhook-id"], got.json["subject"]) for got in receiver.requests}) == len(subjects), "twice is the same id"
    assert rig.progress_of("siem").pending == 0
