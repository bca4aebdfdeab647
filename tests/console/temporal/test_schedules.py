"""Schedules in a real Temporal: kept as triggers.yaml says, paused and run by people."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import secrets
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from structlog.testing import capture_logs
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleOverlapPolicy,
    ScheduleSpec,
    ScheduleUpdate,
    WorkflowExecutionStatus,
)
from temporalio.common import RawValue
from temporalio.service import RPCError

from console.app import create_app
from console.services import console_orders, job_starter
from console.services.console import build_console
from console.services.console_orders import OrderRequest, record_console_order
from console.services.schedules import set_paused
from console.services.submit_job import SubmittedOrder
from console.temporal import client as temporal_client
from console.temporal import schedule_sync
from console.temporal.client import TemporalUnavailable
from justenough.adapters.payload_codec import ENCODING, WRAPPED_KEY_FIELD
from justenough.domain.approvals.tiers import MAX_WAIT_S, Person
from justenough.domain.contracts.workflow_messages import ScheduleOccasion
from justenough.domain.core.errors import Conflict
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.ledger.events import EventType, build_event
from tests.console.served_console import Served, serve_console
from tests.console.temporal.scheduled_installation import (
    MINUTELY,
    WITHIN,
    Installation,
    end_job,
    past_minutes,
    take_occasions,
    until_known,
)

# Kept as triggers.yaml says.


async def test_schedules_of_the_file_are_in_temporal_and_removed_ones_are_deleted(installation: Installation) -> None:
    await installation.sync_schedules(
        nightly="{cron: '30 2 * * mon-fri', timezone: Europe/Berlin, job: jobs/reconcile.yaml}", other=MINUTELY
    )
    found = await installation.describe("nightly")
    (calendar,) = found.schedule.spec.calendars
    seen = [[(part.start, part.end) for part in field] for field in (calendar.minute, calendar.hour, calendar.day_of_week)]
    assert (seen, found.schedule.spec.time_zone_name) == ([[(30, 30)], [(2, 2)], [(1, 5)]], "Europe/Berlin")
    assert found.schedule.policy.catchup_window == timedelta(hours=1)
    assert found.schedule.action.task_queue == f"{installation.settings.task_queue}-console"

    await until_listed(installation, {"nightly", "other"})
    await installation.sync_schedules(other=MINUTELY)
    with pytest.raises(RPCError):
        await installation.describe("nightly")
    assert (await installation.describe("other")).schedule.state.paused


async def test_a_console_warns_if_another_one_with_another_configuration_changes_its_schedules(installation: Installation) -> None:
    await installation.sync_schedules(nightly=MINUTELY)
    await until_listed(installation, {"nightly"})
    with capture_logs() as logged:
        await installation.console.schedule_sync.reconcile()
        await installation.handle("nightly").delete()
        await installation.console.schedule_sync.reconcile()
    assert [(line["log_level"], line["event"], line["schedule"]) for line in logged] == [
        ("warning", schedule_sync.CHANGED_BY_OTHERS, "nightly")
    ]


async def test_a_schedule_that_failed_and_was_removed_hides_no_change_of_the_others(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(name: str, *_: object, **__: object) -> bool:
        raise TemporalUnavailable(f"{name} failed")

    with monkeypatch.context() as failing:
        failing.setattr(installation.console.gateway, "put_schedule", fail)
        await installation.sync_schedules(broken=MINUTELY)
    assert installation.console.schedule_sync.problem("broken") == "broken failed"
    await installation.sync_schedules(nightly=MINUTELY)
    await installation.handle("nightly").delete()
    with capture_logs() as logged:
        await installation.console.schedule_sync.reconcile()
    assert [line["event"] for line in logged] == [schedule_sync.CHANGED_BY_OTHERS]


async def test_an_unchanged_schedule_is_left_alone_and_a_pause_survives_a_change(installation: Installation) -> None:
    await installation.sync_schedules(nightly="{cron: '0 2 * * *', job: jobs/reconcile.yaml}")
    await installation.handle("nightly").pause(note="an incident")
    await installation.console.schedule_sync.reconcile()
    assert (await installation.describe("nightly")).info.last_updated_at is None

    await installation.sync_schedules(nightly="{cron: '0 3 * * *', job: jobs/reconcile.yaml, overlap: allow}")
    found = await installation.describe("nightly")
    assert found.schedule.spec.calendars[0].hour[0].start == 3
    assert found.schedule.policy.overlap is ScheduleOverlapPolicy.ALLOW_ALL
    assert (found.schedule.state.paused, found.schedule.state.note) == (True, "an incident")


@pytest.mark.parametrize("change", ["times", "argument", "unreadable argument", "runs left"])
async def test_a_schedule_that_somebody_changed_in_temporal_is_restored(installation: Installation, change: str) -> None:
    await installation.sync_schedules(nightly="{cron: '0 2 * * *', job: jobs/reconcile.yaml}")
    await installation.handle("nightly").pause(note="an incident")
    before = (await installation.describe("nightly")).schedule
    broken = {
        "times": dataclasses.replace(before, spec=ScheduleSpec(cron_expressions=["* * * * *"])),
        "argument": dataclasses.replace(before, action=dataclasses.replace(before.action, args=["other"])),
        "unreadable argument": dataclasses.replace(before, action=dataclasses.replace(before.action, args=[Payload(data=b"{")])),
        "runs left": dataclasses.replace(before, state=dataclasses.replace(before.state, limited_actions=True, remaining_actions=0)),
    }[change]
    await installation.handle("nightly").update(lambda _: ScheduleUpdate(broken))
    await installation.console.schedule_sync.reconcile()
    after = (await installation.describe("nightly")).schedule
    assert (after.spec, after.policy, after.state) == (before.spec, before.policy, before.state)
    assert isinstance(after.action, ScheduleActionStartWorkflow)
    assert await installation.temporal.data_converter.decode(after.action.args) == ["nightly"]
    changed_at = (await installation.describe("nightly")).info.last_updated_at
    await installation.console.schedule_sync.reconcile()
    assert (await installation.describe("nightly")).info.last_updated_at == changed_at


@pytest.mark.parametrize("readable", [True, False])
async def test_what_a_schedule_passes_on_is_restored_if_it_was_changed_or_cannot_be_read(
    installation: Installation, readable: bool
) -> None:
    """An older Vault, or one whose key's earlier versions may not be used any more, cannot read what the schedule has stored."""
    await installation.sync_schedules(minutely=MINUTELY, other=MINUTELY)
    before = (await installation.describe("minutely")).schedule
    lost = {"encoding": ENCODING, WRAPPED_KEY_FIELD: f"vault:v1:{base64.b64encode(secrets.token_bytes(60)).decode()}".encode()}
    passed = "other" if readable else RawValue(Payload(metadata=lost, data=secrets.token_bytes(60)))
    broken = dataclasses.replace(before, action=dataclasses.replace(before.action, args=[passed]))
    await installation.handle("minutely").update(lambda _: ScheduleUpdate(broken))
    await installation.console.schedule_sync.reconcile()
    (at,) = past_minutes(1)
    async with take_occasions(installation.console):
        await installation.backfill("minutely", at)
        assert await installation.result("minutely", at) in installation.jobs("minutely")


async def test_a_console_that_serves_keeps_schedules_launches_for_them_and_starts_what_was_only_recorded(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_starter, "POLL_INTERVAL_S", 0.2)
    installation.write_schedules(minutely=MINUTELY, other=MINUTELY)
    console, (at, _) = installation.console, past_minutes(2)
    # The console died before it started the job in Temporal.
    earlier = dataclasses.replace(console.deps, now=lambda: datetime.now(UTC) - job_starter.MIN_PENDING_AGE)
    await asyncio.to_thread(console_orders.order_occasion, earlier, console.quotas, ScheduleOccasion(schedule="other", at=at))
    (recorded,) = installation.jobs("other")
    assert not await console.gateway.has_workflow(recorded)

    app = create_app(console)
    async with app.router.lifespan_context(app):
        await until_listed(installation, {"minutely", "other"})
        await installation.backfill("minutely", at)
        assert [await installation.result("minutely", at)] == installation.jobs("minutely")
        end = asyncio.get_running_loop().time() + WITHIN
        while not await console.gateway.has_workflow(recorded):
            assert asyncio.get_running_loop().time() < end, "nobody started it"
            await asyncio.sleep(0.05)


async def test_schedules_of_others_are_not_touched(installation: Installation) -> None:
    names = [f"{installation.prefix.removesuffix('-schedule-')}x-schedule-theirs", f"sweep-{installation.settings.installation}"]
    action = ScheduleActionStartWorkflow("Nothing", id="nothing", task_queue="nowhere")
    handles = [await installation.temporal.create_schedule(name, Schedule(action, ScheduleSpec())) for name in names]
    await installation.sync_schedules(mine=MINUTELY)
    await until_listed(installation, {"mine"})
    await installation.sync_schedules()
    for handle in handles:
        assert (await handle.describe()).id == handle.id
        await handle.delete()


async def test_a_broken_file_changes_and_deletes_nothing_and_a_fixed_one_is_applied(installation: Installation) -> None:
    await installation.sync_schedules(one=MINUTELY)
    await until_listed(installation, {"one"})
    (installation.folder / "triggers.yaml").write_text("schedules: [")
    async with build_console(installation.settings) as other:
        # A console that never read a valid file knows no schedule.
        keeping = asyncio.create_task(other.schedule_sync.run())
        assert other.deps.config.alarm
        assert other.deps.config.current().schedules == {}
        installation.write_schedules(one=MINUTELY, two=MINUTELY)
        await until_listed(installation, {"one", "two"})
        keeping.cancel()
    assert (await installation.describe("one")).info.created_at < (await installation.describe("two")).info.created_at


async def test_a_run_waits_while_the_console_that_takes_it_has_no_valid_configuration(installation: Installation) -> None:
    await installation.sync_schedules(minutely=MINUTELY)
    (at,) = past_minutes(1)
    (installation.folder / "triggers.yaml").write_text("schedules: [")
    async with build_console(installation.settings) as other, take_occasions(other):
        await installation.backfill("minutely", at)
        fire = installation.temporal.get_workflow_handle(f"{installation.prefix}minutely-{to_rfc3339(at)}")
        end = asyncio.get_running_loop().time() + WITHIN
        while True:
            with contextlib.suppress(RPCError):
                described = (await fire.describe()).raw_description
                assert WorkflowExecutionStatus(described.workflow_execution_info.status) is WorkflowExecutionStatus.RUNNING
                if any(pending.attempt > 1 for pending in described.pending_activities):
                    break
            assert asyncio.get_running_loop().time() < end, "nobody took it"
            await asyncio.sleep(0.1)
        installation.write_schedules(minutely=MINUTELY)
        assert [await installation.result("minutely", at)] == installation.jobs("minutely")


async def until_listed(installation: Installation, names: Iterable[str]) -> None:
    """Wait until Temporal's list, which is late, has exactly these."""
    end = asyncio.get_running_loop().time() + WITHIN
    while (found := await installation.console.gateway.schedule_names()) != set(names):
        assert asyncio.get_running_loop().time() < end, found
        await asyncio.sleep(0.1)


# People.


@pytest.fixture
async def http(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    # A busy machine is slow: Temporal may take longer than people should wait for a page.
    monkeypatch.setattr(schedule_sync, "STATUS_TIMEOUT_S", 60.0)
    monkeypatch.setattr(temporal_client, "RPC_TIMEOUT", timedelta(seconds=60))
    async with serve_console(installation.console) as client:
        yield client


async def test_everyone_with_a_role_sees_the_schedules_and_their_results(
    installation: Installation, http: httpx.AsyncClient, served: Served
) -> None:
    await installation.sync_schedules(nightly="{cron: '0 2 * * *', timezone: Asia/Tokyo, job: jobs/reconcile.yaml}", minutely=MINUTELY)
    auditor = served.people["auditor"].bearer
    items = (await http.get("/api/v1/schedules", headers=auditor)).json()["items"]
    assert [(item["name"], item["paused"], len(item["next"])) for item in items] == [("minutely", True, 5), ("nightly", False, 5)]
    nightly = items[1]
    assert {moment[11:] for moment in nightly["next"]} == {"17:00:00Z"}
    said = {"cron": "0 2 * * *", "timezone": "Asia/Tokyo", "job": "jobs/reconcile.yaml", "overlap": "skip", "params": {}}
    stands = {
        "name": "nightly",
        "paused": False,
        "note": None,
        "missed": 0,
        "problem": None,
        "jobs": [],
        "skipped": [],
        "more_skipped": False,
    }
    assert nightly == {**said, **stands, "next": nightly["next"]}
    assert (await http.get("/api/v1/schedules/weekly", headers=auditor)).status_code == 404
    assert (await http.get("/api/v1/schedules", headers=served.people["nobody"].bearer)).status_code == 403


async def test_the_newest_skipped_runs_are_shown_and_whether_there_are_more(
    installation: Installation, http: httpx.AsyncClient, served: Served
) -> None:
    await installation.sync_schedules(minutely=MINUTELY)
    (at,) = past_minutes(1)
    deps, occasion = installation.console.deps, ScheduleOccasion(schedule="minutely", at=at)
    order = await asyncio.to_thread(console_orders.order_occasion, deps, installation.console.quotas, occasion)
    assert isinstance(order, SubmittedOrder)
    skipped = [to_rfc3339(at + timedelta(minutes=minute)) for minute in range(1, 102)]
    for count, is_more in ((100, False), (101, True)):
        deps.store.ledger.append(
            build_event(EventType.SCHEDULE_SKIPPED, order.job.id, at=deps.now(), about=each, schedule="minutely", occasion=each)
            for each in skipped[:count]
        )
        item = (await http.get("/api/v1/schedules/minutely", headers=served.people["auditor"].bearer)).json()
        assert (item["skipped"], item["more_skipped"]) == (skipped[:count][-100:], is_more)


async def test_a_launcher_can_pause_and_resume_a_schedule_and_both_are_recorded_in_the_ledger(
    installation: Installation, http: httpx.AsyncClient, served: Served
) -> None:
    await installation.sync_schedules(nightly="{cron: '0 2 * * *', job: jobs/reconcile.yaml}")
    ops, url = served.people["ops"], "/api/v1/schedules/nightly"
    for _ in range(2):
        answer = await http.post(f"{url}/pause", json={"reason": "the books are being closed"}, headers=ops.bearer)
        assert (answer.status_code, answer.json()["paused"], answer.json()["note"]) == (200, True, "ops: the books are being closed")
    assert (await installation.describe("nightly")).schedule.state.paused
    await installation.console.schedule_sync.reconcile()
    answer = await http.post(f"{url}/unpause", headers=ops.bearer)
    assert (answer.status_code, answer.json()["paused"], answer.json()["note"]) == (200, False, None)
    assert not (await installation.describe("nightly")).schedule.state.paused

    entries = installation.console.deps.store.ledger.entries(job="-").items
    assert [(entry.type, entry.data["name"], entry.data.get("reason")) for entry in entries] == [
        ("schedule.paused", "ops", "the books are being closed"),
        ("schedule.unpaused", "ops", None),
    ]


async def test_a_paused_schedule_that_temporal_lost_or_the_file_lacked_for_a_while_comes_back_paused(
    installation: Installation, http: httpx.AsyncClient, served: Served
) -> None:
    nightly, ops, url = "{cron: '0 2 * * *', job: jobs/reconcile.yaml}", served.people["ops"], "/api/v1/schedules/nightly"
    await installation.sync_schedules(nightly=nightly, nightly2=nightly)
    (await http.post(f"{url}/pause", json={"reason": "an incident"}, headers=ops.bearer)).raise_for_status()
    await until_listed(installation, {"nightly", "nightly2"})

    await installation.sync_schedules()
    await installation.sync_schedules(nightly=nightly, nightly2=nightly)

    states = [(await installation.describe(name)).schedule.state for name in ("nightly", "nightly2")]
    assert [(state.paused, state.note or None) for state in states] == [(True, "ops: an incident"), (False, None)]

    (await http.post(f"{url}/unpause", headers=ops.bearer)).raise_for_status()
    await installation.handle("nightly").delete()
    await installation.console.schedule_sync.reconcile()
    assert not (await installation.describe("nightly")).schedule.state.paused


async def test_a_pause_that_is_in_temporal_but_not_in_the_ledger_is_recorded_when_somebody_pauses_again(installation: Installation) -> None:
    """The store may have failed after Temporal paused the schedule, or somebody paused it there."""
    nightly, ops = "{cron: '0 2 * * *', job: jobs/reconcile.yaml}", Person(id="e-ops", name="ops")
    await installation.sync_schedules(nightly=nightly)
    for reason in ("an incident", None):
        handle = installation.handle("nightly")
        await (handle.unpause() if reason is None else handle.pause())
        await set_paused(installation.console, "nightly", ops, reason=reason)
        await handle.delete()
        await installation.console.schedule_sync.reconcile()
        assert (await installation.describe("nightly")).schedule.state.paused is (reason is not None)


async def test_a_run_that_still_waits_when_somebody_pauses_its_schedule_launches_nothing(installation: Installation) -> None:
    (at,) = past_minutes(1)
    await installation.sync_schedules(nightly=f"{{cron: '{at.minute} {at.hour} * * *', job: jobs/reconcile.yaml}}")
    await installation.backfill("nightly", at)
    await until_known(installation.temporal.get_workflow_handle(f"{installation.prefix}nightly-{to_rfc3339(at)}").describe)
    await set_paused(installation.console, "nightly", Person(id="e-ops", name="ops"), reason="an incident")
    async with take_occasions(installation.console):
        assert await installation.result("nightly", at) == "paused by ops: an incident"
    assert installation.jobs("nightly") == []


@pytest.mark.parametrize("what, body", [("pause", {"reason": "x"}), ("unpause", None), ("run", {})])
async def test_only_launchers_can_pause_resume_or_run_a_schedule(
    installation: Installation, http: httpx.AsyncClient, served: Served, what: str, body: dict[str, str] | None
) -> None:
    await installation.sync_schedules(nightly="{cron: '0 2 * * *', job: jobs/reconcile.yaml}")
    for who in ("lead", "auditor", "nobody"):
        answer = await http.post(f"/api/v1/schedules/nightly/{what}", json=body, headers=served.people[who].bearer)
        assert (answer.status_code, answer.json()["detail"]) == (403, "needs one of the groups: ops")
    missing = await http.post(f"/api/v1/schedules/weekly/{what}", json=body, headers=served.people["ops"].bearer)
    assert (missing.status_code, missing.json()["detail"]) == (404, "there is no schedule weekly")
    assert (installation.jobs("nightly"), (await installation.describe("nightly")).schedule.state.paused) == ([], False)


async def test_a_pause_needs_a_reason_and_a_schedule_in_temporal(
    installation: Installation, http: httpx.AsyncClient, served: Served
) -> None:
    installation.write_schedules(nightly="{cron: '0 2 * * *', job: jobs/reconcile.yaml}")
    answer = await http.post("/api/v1/schedules/nightly/pause", json={"reason": "x"}, headers=served.people["ops"].bearer)
    assert (answer.status_code, answer.json()["detail"]) == (503, "not created in Temporal yet")
    await installation.sync_schedules(nightly="{cron: '0 2 * * *', job: jobs/reconcile.yaml}")
    for body in ({}, {"reason": ""}, {"reason": "x", "until": "tomorrow"}):
        answer = await http.post("/api/v1/schedules/nightly/pause", json=body, headers=served.people["ops"].bearer)
        assert answer.status_code == 422
    assert not (await installation.describe("nightly")).schedule.state.paused


async def test_a_launcher_can_run_a_schedule_now_but_not_twice_at_once(
    installation: Installation, http: httpx.AsyncClient, served: Served
) -> None:
    await installation.sync_schedules(nightly="{cron: '0 2 * * *', job: jobs/reconcile.yaml, paused: true}")
    ops, url = served.people["ops"], "/api/v1/schedules/nightly/run"
    answer = await http.post(url, json={"reason": "after the repair"}, headers={**ops.bearer, "Idempotency-Key": "one"})
    assert (answer.status_code, answer.json()["state"]) == (201, "pending"), answer.text
    job = answer.json()["id"]
    again = await http.post(url, json={"reason": "after the repair"}, headers={**ops.bearer, "Idempotency-Key": "one"})
    assert (again.status_code, again.json()["id"]) == (200, job)
    refused = await http.post(url, json={}, headers=ops.bearer)
    assert (refused.status_code, job in refused.json()["detail"]) == (409, True)

    assert installation.reason(job) == "run now by ops: after the repair"
    order = installation.console.deps.store.jobs.order(job)
    assert order is not None
    statement = order.order.statement
    assert (statement["origin"], statement["asked_by"]) == ("schedule:nightly", ops.id)
    issued, expires = (datetime.fromisoformat(statement[name]) for name in ("issued_at", "expires_at"))
    assert expires - issued > timedelta(seconds=MAX_WAIT_S), "its job may wait for every tier"
    end_job(installation, job)
    shown = (await http.get("/api/v1/schedules/nightly", headers=ops.bearer)).json()["jobs"]
    assert [(one["id"], one["state"], one["order_reason"]) for one in shown] == [(job, "succeeded", "run now by ops: after the repair")]
    assert (await http.post(url, json={}, headers=ops.bearer)).status_code == 201
    assert len(installation.jobs("nightly")) == 2


async def test_without_temporal_the_list_of_schedules_answers_soon_and_runs_are_accepted(
    installation: Installation, served: Served
) -> None:
    await installation.sync_schedules(nightly="{cron: '0 2 * * *', job: jobs/reconcile.yaml}")
    away = installation.settings.model_copy(update={"temporal_address": "127.0.0.1:1"})
    async with build_console(away) as console, serve_console(console) as http:
        ops = served.people["ops"].bearer
        began = asyncio.get_running_loop().time()
        answer = await http.get("/api/v1/schedules", headers=ops)
        assert asyncio.get_running_loop().time() - began < 15
        (item,) = answer.json()["items"]
        assert (item["paused"], item["next"], "Temporal does not answer" in item["problem"]) == (None, [], True)
        paused = await http.post("/api/v1/schedules/nightly/pause", json={"reason": "x"}, headers=ops)
        assert paused.status_code == 503
        assert (await http.post("/api/v1/schedules/nightly/run", json={}, headers=ops)).status_code == 201
        with pytest.raises(TemporalUnavailable):
            await console.schedule_sync.reconcile()
    assert not (await installation.describe("nightly")).schedule.state.paused


async def test_an_order_whose_schedule_is_gone_is_a_conflict_and_nothing_is_recorded(installation: Installation) -> None:
    installation.write_schedules(minutely=MINUTELY)
    timed = console_orders.configured_schedule(installation.console.deps, "minutely")
    installation.write_schedules()
    wish = OrderRequest("schedule:minutely", timed, {}, "gone")
    entity = installation.console.deps.vault.own_entity()
    with pytest.raises(Conflict, match="this configuration has no schedule:minutely"):
        await asyncio.to_thread(
            record_console_order, installation.console.deps, installation.console.quotas, wish, job=new_job(installation), entity=entity
        )
    assert installation.jobs("minutely") == []


def new_job(installation: Installation) -> str:
    """Return a new id of this installation."""
    return new_job_id(installation.settings.installation, now=datetime.now(UTC))
