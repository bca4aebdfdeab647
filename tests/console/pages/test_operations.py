"""Workers, schedules, deliveries and settings: who sees them, what they show, and what people can do there."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from shutil import copytree

import pytest

from console.temporal.client import TemporalGateway
from justenough.adapters.configuration.folder import ConfigFolder
from justenough.adapters.configuration.settings import Settings
from justenough.domain.readmodel.views import WorkerView
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import NOW
from tests.console.pages.conftest import LogIn
from tests.console.pages.page_text import text_of
from tests.console.pages.plain_browser import Site
from tests.console.pages.recorded_console import serve_desk
from tests.console.pages.recorded_jobs import now, post_fields
from tests.console.pages.site_variants import serve_variant
from tests.console.served_console import SHOP

pytestmark = pytest.mark.servers


async def test_the_operations_page_links_to_all_its_subpages(logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    page = (await lead.open("/operations")).text
    assert 'href="/operations/workers" aria-current="true"' in page
    for name in ("workers", "schedules", "deliveries", "settings"):
        assert f'href="/operations/{name}"' in page


async def test_a_launcher_gets_no_link_to_what_only_readers_and_approvers_may_open(logged_in: LogIn) -> None:
    links = {}
    for name in ("ops", "lead"):
        person = await logged_in(name)
        links[name] = {link for path in ("/now", "/inbox", "/operations", "/models") for link in find_links((await person.open(path)).text)}
        for link in links[name]:
            assert (await person.open(link)).status_code == 200, (name, link)
    assert links["lead"] - links["ops"] >= {"/report", "/operations/deliveries", "/operations/settings", "/delegations"}


def find_links(page: str) -> set[str]:
    """Return the links of a page that have neither an id nor a query."""
    return set(re.findall(r'href="(/[a-z/]+)"', page))


async def test_workers_are_shown_with_what_they_have_in_force(site: Site, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.services.health.CACHE_TTL_S", 0)
    lead = await logged_in("lead")
    current = site.console.deps.config.current().digest
    for name, digest, alarm in (("w-same", current, None), ("w-other", "sha256:0", None), ("w-none", None, "catalog.yaml: broken")):
        site.store.workers.report(WorkerView(name=name, version="9.9", config_digest=digest, config_alarm=alarm, last_seen=now()))
    site.store.workers.report(WorkerView(name="w-gone", version="9.9", config_digest=current, config_alarm=None, last_seen=NOW))
    page = text_of((await lead.open("/operations/workers")).text, "workers")
    assert "w-same 9.9 same as this console" in page
    assert "w-other 9.9 differs from this console" in page
    assert "w-none 9.9 none: takes no jobs catalog.yaml: broken" in page
    assert "w-gone" not in page
    for name in ("w-same", "w-other", "w-none", "w-gone"):
        site.store.workers.forget(name)


async def test_queues_that_nobody_polls_are_named_and_so_is_why_that_is_not_known(site: Site, logged_in: LogIn) -> None:
    page = text_of((await (await logged_in("ops")).open("/operations/workers")).text, "queues")
    assert "justenough-dev no worker polls it" in page
    unreachable = site.console.deps.settings.model_copy(update={"temporal_address": "127.0.0.1:1"})
    async with serve_variant(site, person="ops", gateway=await TemporalGateway.connect(unreachable, None)) as ops:
        page = text_of((await ops.open("/operations/workers")).text, "queues")
    assert ("Temporal does not answer" in page, "no worker polls it" in page) == (True, False)


async def test_schedules_are_shown_and_only_launchers_act_on_them(settings: Settings, passwords: dict[str, str], own_store: Path) -> None:
    async with serve_desk(settings, passwords, own_store) as desk:
        ops, lead = await desk.log_in("ops"), await desk.log_in("lead")
        (name, *_) = desk.console.deps.config.current().schedules
        page = (await ops.open("/operations/schedules")).text
        assert name in text_of(page, "main")
        assert re.search(r"(known|\d UTC)\. It has not launched a job yet\.", text_of(page, "main"))
        assert "Run now" in page
        assert "Run now" not in (await lead.open("/operations/schedules")).text
        assert (await post_fields(lead, f"/operations/schedules/{name}/run", reason="")).status_code == 403
        unsaid = await post_fields(ops, f"/operations/schedules/{name}/pause", reason=" ")
        assert (unsaid.status_code, "give a reason" in unsaid.text) == (422, True)
        assert (await post_fields(ops, "/operations/schedules/nowhere/run", reason="")).status_code == 404


async def test_a_schedule_is_run_now_once_however_often_the_button_is_pressed(site: Site, logged_in: LogIn) -> None:
    ops = await logged_in("ops")
    (name, *_) = site.console.deps.config.current().schedules
    answers = [await post_fields(ops, f"/operations/schedules/{name}/run", reason="it was missed", key="page/1") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 303]
    first, second = (answer.headers["location"] for answer in answers)
    assert first == second
    (job, *_) = site.store.jobs.list_launched_by(f"schedule:{name}", limit=1)
    # A launcher may not read the jobs of schedules, so the page with their states is what they get.
    page = (await ops.open(first)).text
    assert f"{name} has launched {job.id}." in text_of(page, "main")
    assert f"/jobs/{job.id}" not in page
    assert f"/jobs/{job.id}" in (await (await logged_in("auditor")).open("/operations/schedules")).text


async def test_a_person_who_may_read_the_job_of_a_schedule_is_led_to_it(site: Site, tmp_path: Path) -> None:
    folder = copytree(SHOP, tmp_path / "shop")
    tiers = (folder / "approvals.yaml").read_text()
    (folder / "approvals.yaml").write_text(tiers.replace("launch: [ops]", "launch: [ops, auditors]"))
    (name, *_) = site.console.deps.config.current().schedules
    async with serve_variant(site, person="auditor", deps=replace(site.console.deps, config=ConfigFolder(folder))) as auditor:
        end_jobs_of(site, name)
        answer = await post_fields(auditor, f"/operations/schedules/{name}/run", reason="")
        (job, *_) = site.store.jobs.list_launched_by(f"schedule:{name}", limit=1)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job.id}")
        end_jobs_of(site, name)


def end_jobs_of(site: Site, schedule: str) -> None:
    """Record the end of each job of a schedule, so that its next one can be launched."""
    for job in site.store.jobs.list_launched_by(f"schedule:{schedule}"):
        if not job.state.ended:
            site.store.ledger.append([samples.job_end(job=job.id, at=now())])


async def test_a_schedule_is_paused_for_a_reason_that_everyone_reads_until_it_continues(site: Site, logged_in: LogIn) -> None:
    ops, lead = await logged_in("ops"), await logged_in("lead")
    await site.console.schedule_sync.reconcile()
    (name, *_) = site.console.deps.config.current().schedules
    paused = await post_fields(ops, f"/operations/schedules/{name}/pause", reason="the books are being closed")
    assert f"{name} is paused." in text_of((await ops.open(paused.headers["location"])).text, "main")
    assert "ops: the books are being closed" in text_of((await lead.open("/operations/schedules")).text, "main")
    assert (await site.console.gateway.schedule_status(name) or pytest.fail("it is gone")).paused
    assert (await post_fields(lead, f"/operations/schedules/{name}/unpause")).status_code == 403
    assert (await post_fields(ops, f"/operations/schedules/{name}/unpause")).status_code == 303
    assert "the books are being closed" not in text_of((await lead.open("/operations/schedules")).text, "main")


async def test_an_unexpected_error_becomes_a_page_without_its_details(logged_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    ops = await logged_in("ops")

    async def fail(_: object) -> None:
        raise ZeroDivisionError("the canary")

    monkeypatch.setattr("console.services.schedules.list_schedules", fail)
    page = await ops.open("/operations/schedules")
    assert (page.status_code, "Something went wrong in the console. Its log has the details." in page.text) == (500, True)
    assert "canary" not in page.text


async def test_deliveries_are_for_those_who_read_everything(site: Site, logged_in: LogIn) -> None:
    lead, ops = await logged_in("lead"), await logged_in("ops")
    assert (await ops.open("/operations/deliveries")).status_code == 403
    store = site.store.outbox
    assert store.acquire_lease("us", now=now(), until=now() + timedelta(minutes=1))
    assert store.keep_subscriptions({"gone-hook": "webhook"}, holder="us", now=now())
    store.release_lease("us")
    assert "gone-hook" in text_of((await lead.open("/operations/deliveries")).text, "main")
    page = (await lead.open("/operations/deliveries/gone-hook")).text
    assert "No failed deliveries." in page
    assert "Send a test event" not in page
    assert (await lead.open("/operations/deliveries/nowhere")).status_code == 404
    removed = await post_fields(lead, "/operations/deliveries/gone-hook/test")
    assert (removed.status_code, "no longer in triggers.yaml" in removed.text) == (409, True)


async def test_settings_show_tiers_and_no_address_with_a_password(site: Site, logged_in: LogIn) -> None:
    page = (await (await logged_in("lead")).open("/operations/settings")).text
    assert "1 · owner support-leads (lead) 1 15m" in text_of(page, "main")
    assert site.console.deps.config.current().digest in page
    assert "database_url" not in page
    assert (await (await logged_in("ops")).open("/operations/settings")).status_code == 403


async def test_only_messages_of_the_persons_own_actions_are_shown(site: Site, logged_in: LogIn) -> None:
    ops, mallory = await logged_in("ops"), await logged_in("mallory")
    planted = "Your login was stolen. Call 555-0100."
    await site.console.schedule_sync.reconcile()
    assert planted not in (await ops.open("/operations/schedules", params={"done": planted})).text
    (name, *_) = site.console.deps.config.current().schedules
    link = (await post_fields(mallory, f"/operations/schedules/{name}/unpause")).headers["location"]
    assert f"{name} continues" in text_of((await mallory.open(link)).text, "main")
    assert f"{name} continues" not in text_of((await ops.open(link)).text, "main")
    assert planted not in (await mallory.open(link, params={"done": planted})).text
