"""The dashboard: alerts first, counts for everyone with a role, names only of jobs they may read."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from shutil import copytree

import httpx
import pytest

from console.services.dashboard import MAX_FILTERS, DashboardFigures
from console.services.health import CHECK_TIMEOUT_S, HealthMonitor
from justenough.adapters.configuration.folder import ConfigFolder
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store import Store
from justenough.adapters.store.attention import MAX_ITEMS_PER_KIND
from justenough.adapters.vault import Vault
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.readmodel.dashboard import JobFilter
from justenough.domain.readmodel.views import TargetCheck, WorkerView
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import later, part_id
from tests.console.pages.conftest import LogIn
from tests.console.pages.page_text import text_of
from tests.console.pages.plain_browser import Browser, Site
from tests.console.pages.recorded_console import Desk, serve_desk
from tests.console.pages.recorded_jobs import EVIL, SHOWN, ago, now, post_fields, record_order
from tests.console.pages.site_variants import serve_variant
from tests.console.served_console import SHOP
from tests.support.plain_http import NO_TLS

pytestmark = pytest.mark.servers


def number_of(page: str, part: str, before: str) -> int:
    """Return the number before a word in an element of the page."""
    words = text_of(page, part).split()
    return int(words[words.index(before) + 1].replace(",", ""))


@pytest.fixture
async def records(settings: Settings, passwords: dict[str, str], own_store: Path) -> AsyncIterator[Desk]:
    """A console whose store has only this test's jobs. In the other store, more requests wait, and revocations become overdue in time."""
    async with serve_desk(settings, passwords, own_store) as opened:
        yield opened


async def person_of(site: Site, who: Browser) -> str:
    return (await site.console.sessions.session_of(who.cookie)).person.id


async def test_the_root_redirects_to_the_dashboard(logged_in: LogIn) -> None:
    answer = await (await logged_in("lead")).open("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/now")


async def test_a_person_without_a_role_is_told_which_groups_have_one(logged_in: LogIn) -> None:
    answer = await (await logged_in("outsider")).open("/now")
    assert answer.status_code == 403
    assert "Needs one of the groups: auditors, break-glass, chiefs, ops, security, support-leads" in text_of(answer.text)


async def test_an_overdue_revocation_is_at_the_top_with_age_reason_and_advice(records: Desk) -> None:
    lead, ops, mallory = [await records.log_in(name) for name in ("lead", "ops", "mallory")]
    job = record_order(records.store, await records.id_of(ops), name="late-one")
    records.store.ledger.append([samples.job_start(job), samples.issuance(job), samples.revocation_start(job, at=ago(minutes=7))])
    failures = ["leases: <script>alert(1)</script> does not answer"]
    tried = {"by": "compensation", "failures": failures, "attempt": 1, "seen_from": now().isoformat()}
    records.store.ledger.append([build_event(EventType.REVOCATION_OVERDUE, job, at=now(), about="1", **tried)])
    for who in (lead, ops):
        page = (await who.open("/now")).text
        told = text_of(page, "alarms")
        assert "late-one" in told
        assert job in told
        assert "7 min ago" in told
        assert "leases: <script>alert(1)</script> does not answer" in told
        assert "JustEnough retries automatically." in told
        assert "1 credential of 1 job may be active" in told
        assert "write on orders-db" in told
        assert "<title>(1 overdue) Dashboard" in page
        assert "<script>alert" not in page
        assert page.index('id="alarms"') < page.index('id="credentials"')
    page = (await mallory.open("/now")).text
    assert "overdue revocation" in text_of(page, "alarms")
    assert job not in page
    assert "late-one" not in page
    records.store.ledger.append([build_event(EventType.REVOCATION_CONFIRMED, job, at=now(), about="x", by="sweep", proof={})])
    assert job not in (await lead.open("/now")).text


async def test_counts_cover_all_jobs_and_are_current(site: Site, logged_in: LogIn) -> None:
    lead, mallory = await logged_in("lead"), await logged_in("mallory")
    before = (await mallory.open("/now")).text
    alive, runs, failed = (
        number_of(before, "credentials", "active"),
        number_of(before, "jobs", "running"),
        number_of(before, "jobs", "failed"),
    )
    person = await person_of(site, lead)
    running, over = record_order(site.store, person), record_order(site.store, person)
    site.store.ledger.append(
        [
            samples.job_start(running),
            samples.issuance(running, at=now()),
            samples.issuance(running, number=2, at=now()),
            samples.job_end("failed", over, at=now()),
        ]
    )
    for who in (lead, mallory):
        page = (await who.open("/now")).text
        assert number_of(page, "credentials", "active") == alive + 2
        assert number_of(page, "jobs", "running") == runs + 1
        assert number_of(page, "jobs", "failed") == failed + 1
        assert "orders-db" in text_of(page, "credentials")


async def test_pending_requests_are_named_with_their_deadline_to_those_who_may_read_them(records: Desk) -> None:
    lead, ops, mallory = [await records.log_in(name) for name in ("lead", "ops", "mallory")]
    job = record_order(records.store, await records.id_of(ops), name="who-waits")
    begun = ago(minutes=14, seconds=30)
    records.store.ledger.append(
        [
            samples.access_request(job, title=EVIL),
            samples.access_decision("needs_approval", job, tier=1),
            samples.approval_opening(job, at=begun),
        ]
    )
    for who in (lead, ops):
        page = (await who.open("/now")).text
        told = text_of(page, "requests")
        assert "who-waits" in told
        assert "tier 1 (owner)" in told
        assert f'href="/inbox/{part_id(job, "r")}"' in page
        assert "s left" in told
    page = (await mallory.open("/now")).text
    assert "who-waits" not in page
    assert number_of(page, "requests", "approval") == 1


async def test_a_pending_break_glass_review_is_shown(site: Site, logged_in: LogIn) -> None:
    lead, ops, mallory = [await logged_in(name) for name in ("lead", "ops", "mallory")]
    job = record_order(site.store, await person_of(site, ops), name="broken-glass")
    request = part_id(job, "r")
    site.store.ledger.append(
        [samples.access_request(job), samples.access_decision("needs_approval", job, tier=1), samples.approval_opening(job)]
    )
    opening = {"request": request, "person": "e-oncall", "name": "oncall", "tiers": [1], "groups": ["support-leads"], "reason": "night"}
    site.store.ledger.append([build_event(EventType.REVIEW_OPENED, job, at=now(), about=f"{request}/e-oncall", **opening)])
    assert "broken-glass by oncall" in text_of((await lead.open("/now")).text, "alarms")
    page = (await mallory.open("/now")).text
    assert "break-glass review" in text_of(page, "alarms")
    assert "broken-glass" not in page


async def test_a_launcher_sees_their_newest_jobs_and_the_launch_button(site: Site, logged_in: LogIn) -> None:
    ops, lead = await logged_in("ops"), await logged_in("lead")
    mine = record_order(site.store, await person_of(site, ops), name="mine")
    theirs = record_order(site.store, await person_of(site, lead), name="theirs")
    page = (await ops.open("/now")).text
    assert f"/jobs/{mine}" in page
    assert theirs not in page
    assert "/jobs/new" in page
    assert "/jobs/new" not in (await lead.open("/now")).text


async def test_charts_have_tables(logged_in: LogIn) -> None:
    page = (await (await logged_in("lead")).open("/now")).text
    for chart in ("alive-table", "approvals-table", "lifetimes-table"):
        assert f'<details class="more" id="{chart}">' in page
    assert text_of(page, "alive-table").count(":") == 24
    assert "style=" not in page


async def test_the_most_urgent_requests_come_first(site: Site, logged_in: LogIn) -> None:
    late, soon, policy = [record_order(site.store, "e-5", name=name) for name in ("ends-late", "ends-soon", "asks-nobody-yet")]
    site.store.ledger.append(
        [
            samples.access_request(late),
            samples.access_decision("needs_approval", late, tier=1),
            samples.approval_opening(late, at=later(-9_000)),
        ]
    )
    site.store.ledger.append(
        [
            samples.access_request(soon),
            samples.access_decision("needs_approval", soon, tier=1),
            samples.approval_opening(soon, at=later(-9_060)),
        ]
    )
    site.store.ledger.append([samples.access_request(policy)])
    page = (await (await logged_in("lead")).open("/now")).text
    assert page.index("ends-soon") < page.index("ends-late")
    assert "asks-nobody-yet" not in page


@contextmanager
def serve_silence() -> Iterator[str]:
    """The address of a server that accepts every connection and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def test_the_page_does_not_wait_for_a_system_that_does_not_respond(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_silence() as nobody:
        async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
            health = HealthMonitor(replace(site.console.deps, vault=Vault(nobody)), site.console.gateway, client)
            async with serve_variant(site, health=health) as lead:
                began = time.monotonic()
                first = text_of((await lead.open("/now")).text, "systems")
                assert time.monotonic() - began < CHECK_TIMEOUT_S
                assert first.startswith("Systems Store checking Temporal checking Vault checking")
                while "no answer in 2 s" not in (told := text_of((await lead.open("/now")).text, "systems")):
                    assert time.monotonic() - began < 30, told
                    await asyncio.sleep(0.1)
                assert "Store healthy" in told
                assert "Vault unhealthy" in told
                # The next check is still running, so the page shows the previous result.
                assert "Vault unhealthy" in text_of((await lead.open("/now")).text, "systems")
                # Unless that is old.
                monkeypatch.setattr("console.services.health.MAX_REPORT_AGE_SHOWN", timedelta())
                while "Vault checking" not in (told := text_of((await lead.open("/now")).text, "systems")):
                    assert time.monotonic() - began < 60, told
                    await asyncio.sleep(0.1)


async def test_a_target_that_no_sweep_reaches_is_named_among_the_systems(site: Site) -> None:
    async with serve_variant(site) as lead:
        at = site.console.deps.now()
        down = TargetCheck(name="db.example.com:5432/shop", failure="ConnectionTimeout", since=ago(minutes=7), checked_at=at)
        site.console.deps.store.targets.record([down, down.model_copy(update={"name": "other:5432/x", "failure": None})])
        began = time.monotonic()
        while "1 of 2 can be revoked" not in (told := text_of((await lead.open("/now")).text, "systems")):
            assert time.monotonic() - began < 30, told
            await asyncio.sleep(0.1)
        assert "db.example.com:5432/shop unhealthy" in told
        assert "ConnectionTimeout, first seen 7 min ago" in told
        site.console.deps.store.targets.record([])


async def test_a_broken_configuration_raises_an_alarm(site: Site, tmp_path: Path) -> None:
    folder = copytree(SHOP, tmp_path / "shop")
    (folder / "policies" / "reads.cedar").write_text("permit (<script>")
    deps = replace(site.console.deps, config=ConfigFolder(folder))
    async with serve_variant(site, deps=deps) as lead:
        page = (await lead.open("/now")).text
        assert "The configuration has errors" in text_of(page, "alarms")
        assert "reads.cedar" in text_of(page, "alarms")
        assert "<script>" not in page


async def test_a_worker_with_a_broken_configuration_raises_an_alarm(site: Site) -> None:
    async with serve_variant(site) as lead:
        broken = WorkerView(
            name="host-7", version="1", config_digest=None, config_alarm="<script> is missing", last_seen=site.console.deps.now()
        )
        site.console.deps.store.workers.report(broken)
        began = time.monotonic()
        try:
            while "worker host-7" not in text_of(page := (await lead.open("/now")).text, "alarms"):
                assert time.monotonic() - began < 30, page
                await asyncio.sleep(0.1)
        finally:
            site.console.deps.store.workers.forget("host-7")
        assert "The configuration has errors" in text_of(page, "alarms")
        assert "<script> is missing" not in page


async def test_the_page_is_small_and_follows_all_events(logged_in: LogIn) -> None:
    answer = await (await logged_in("lead")).open("/now")
    assert len(answer.content) < 100_000
    assert 'data-stream="/live?after=' in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")


async def test_a_job_that_needs_attention_is_labelled_with_its_state(site: Site, logged_in: LogIn) -> None:
    for state in ("failed", "timed_out", "lost"):
        job = record_order(site.store, "e-9", name=f"ends-{state.replace('_', '-')}")
        site.store.ledger.append([samples.job_end(state, job, at=now(), exit_code=None)])
    found = text_of((await (await logged_in("lead")).open("/now")).text, "attention")
    for label in ("failed ends-failed: failed", "timed out ends-timed-out: timed out", "lost ends-lost: lost"):
        assert label in found, found


async def test_what_needs_attention_is_listed_until_somebody_takes_care_of_it(site: Site, logged_in: LogIn) -> None:
    lead, ops, mallory, auditor = [await logged_in(name) for name in ("lead", "ops", "mallory", "auditor")]
    job = record_order(site.store, await person_of(site, ops), name="reconcile-books")
    site.store.logs.append(job, 0, f"{EVIL}\n", now())
    site.store.ledger.append([samples.job_end("failed", job, at=now())])
    for who in (lead, ops, auditor):
        page = (await who.open("/now")).text
        assert "reconcile-books" in text_of(page, "attention")
        assert SHOWN in page
    assert "reconcile-books" not in (await mallory.open("/now")).text
    fields = {"item": f"failed/{job}", "note": "I restart it", "team": "support"}
    assert (await post_fields(auditor, "/now/acknowledge", **fields)).status_code == 403
    assert (await post_fields(mallory, "/now/acknowledge", **fields)).status_code == 404
    too_long = await post_fields(lead, "/now/acknowledge", **{**fields, "note": "x" * 501})
    assert (too_long.status_code, "is longer than 500 characters" in too_long.text) == (422, True)
    taken = await post_fields(lead, "/now/acknowledge", **fields)
    assert (taken.status_code, taken.headers["location"]) == (303, "/now?team=support")
    page = (await ops.open("/now")).text
    assert "lead is taking care of it, acknowledged" in text_of(page, "taken")
    assert "I restart it" in text_of(page, "taken")
    assert "lead is taking care of failed/" in (await lead.open(f"/jobs/{job}")).text
    again = await post_fields(lead, "/now/acknowledge", **{**fields, "item": "failed/j-none"})
    assert (again.status_code, "no longer needs attention" in again.text) == (404, True)


async def test_a_system_that_keeps_revocations_waiting_is_acknowledged_by_those_who_may_stop_any_job(site: Site, logged_in: LogIn) -> None:
    lead, ops = await logged_in("lead"), await logged_in("ops")
    job = record_order(site.store, await person_of(site, ops), name="waits-for-crm")
    site.store.ledger.append([samples.job_start(job), samples.issuance(job), samples.revocation_start(job, at=ago(minutes=7))])
    tried = {"by": "compensation", "failures": ["target crm: refused"], "attempt": 1, "seen_from": now().isoformat()}
    site.store.ledger.append([build_event(EventType.REVOCATION_OVERDUE, job, at=now(), about="1", **tried)])
    assert (await post_fields(ops, "/now/acknowledge", item="overdue/Target crm", note="")).status_code == 404
    assert (await post_fields(lead, "/now/acknowledge", item="overdue/Target crm", note="CRM is down")).status_code == 303
    assert "lead is taking care of it, acknowledged" in text_of((await lead.open("/now")).text, "alarms")
    site.store.ledger.append([build_event(EventType.REVOCATION_CONFIRMED, job, at=now(), about="x", by="sweep", proof={})])


async def test_a_filter_limits_figures_and_lists_and_is_offered_to_those_who_read_everything(site: Site, logged_in: LogIn) -> None:
    lead, ops = await logged_in("lead"), await logged_in("ops")
    job = record_order(site.store, "e-5", name="billing-fails", labels={"team": "billing"})
    site.store.ledger.append([samples.job_end("failed", job, at=now())])
    page = (await lead.open("/now?team=billing")).text
    assert "billing-fails" in text_of(page, "attention")
    assert "0 of 1" in text_of(page, "headline")
    assert '<option value="billing" selected>' in page
    assert "billing-fails" not in text_of((await lead.open("/now?team=support")).text, "attention")
    assert '<option value="&lt;none&gt;" selected>' in (await lead.open("/now?team=<none>")).text
    assert 'name="team"' not in (await ops.open("/now")).text


async def test_what_a_filtered_dashboard_lists_can_be_acknowledged_there(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    job = record_order(site.store, "e-5", name="filtered-fails", labels={"team": "filtered"})
    site.store.ledger.append([samples.job_end("failed", job, at=now())])
    for number in range(MAX_ITEMS_PER_KIND):
        other = record_order(site.store, "e-5", name=f"unfiltered-fails-{number}")
        site.store.ledger.append([samples.job_end("failed", other, at=now())])
    assert "filtered-fails" in text_of((await lead.open("/now?team=filtered")).text, "attention")
    fields = {"item": f"failed/{job}", "note": "I restart it"}
    assert (await post_fields(lead, "/now/acknowledge", **fields, team="filtered")).status_code == 303
    assert "lead is taking care of it" in text_of((await lead.open("/now?team=filtered")).text, "taken")


def test_the_figures_of_filters_that_people_once_chose_do_not_stay_in_memory(site: Site) -> None:
    figures = DashboardFigures(site.console.deps)
    for number in range(MAX_FILTERS + 5):
        for read in (figures.current_counts, figures.attention, figures.results):
            read(JobFilter(team=str(number)))
    assert max(len(cache._slots) for cache in (figures._counts, figures._attention, figures._results)) <= MAX_FILTERS


async def test_an_installation_without_jobs_says_what_to_do_first(site: Site, logged_in: LogIn, tmp_path: Path) -> None:
    del logged_in
    with closing(Store(f"sqlite:///{tmp_path / 'new.db'}")) as store:
        store.migrate()
        deps = replace(site.console.deps, store=store)
        async with serve_variant(site, dashboard=DashboardFigures(deps), deps=deps) as lead:
            page = (await lead.open("/now")).text
            assert "Nothing has run here yet" in page
            assert 'href="/operations/settings"' in page
            record_order(store, "e-5")
            assert "Nothing has run here yet" not in (await lead.open("/now")).text
