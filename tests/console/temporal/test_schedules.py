"""Schedules in a real Temporal: kept as triggers.yaml says, fired once per occasion whoever is away meanwhile, paused and run by people."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import itertools
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleBackfill,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    ScheduleSpec,
    ScheduleUpdate,
    WorkflowExecutionStatus,
    WorkflowFailureError,
)
from temporalio.common import RawValue, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.service import RPCError

from console.app import create_app
from console.concurrency.quotas import Quotas
from console.services import console_orders, job_starter
from console.services.console import Console, build_console
from console.services.console_orders import OrderRequest, record_console_order
from console.services.schedules import set_paused
from console.services.submit_job import SubmittedOrder
from console.temporal import client as temporal_client
from console.temporal import schedule_sync
from console.temporal.client import TemporalUnavailable
from console.temporal.fire_workflow import SCHEDULED_START
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.payload_codec import ENCODING, WRAPPED_KEY_FIELD
from justenough.domain.approvals.tiers import MAX_WAIT_S, Person
from justenough.domain.contracts.workflow_messages import ScheduleOccasion
from justenough.domain.core.errors import Conflict, OverQuota
from justenough.domain.core.ids import first_job_id, new_job_id
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.integrations.cloudevents import CloudEvent
from justenough.domain.ledger.events import EventType, build_event
from justenough.services.dependencies import Deps
from tests.adapters.store.event_samples import job_end
from tests.console.served_console import SHOP, Served, serve_console
from tests.support.temporal_client import connect, decrypted_payloads

MINUTELY = "{cron: '* * * * *', job: jobs/hello.yaml, paused: true}"
"""Paused, so that tests do not depend on the clock: what they fire, they fire by a backfill, which is what Temporal does to catch up."""
WITHIN = 60.0


@dataclass(frozen=True)
class Installation:
    """An installation of its own: its configuration folder, its console, and Temporal behind it."""

    console: Console
    settings: Settings
    temporal: Client
    folder: Path

    @property
    def prefix(self) -> str:
        return f"je-{self.settings.installation}-schedule-"

    def write_schedules(self, **schedules: str) -> None:
        """Have triggers.yaml name these schedules, and no others; the console reads it at once."""
        lines = [f"  {name}: {text}\n" for name, text in schedules.items()]
        (self.folder / "triggers.yaml").write_text("schedules:\n" + "".join(lines) if lines else "{}")
        self.console.deps.config._next_check_at = 0.0

    async def sync_schedules(self, **schedules: str) -> None:
        """The same, and bring Temporal to it."""
        self.write_schedules(**schedules)
        await self.console.schedule_sync.reconcile()

    def handle(self, name: str) -> ScheduleHandle:
        return self.temporal.get_schedule_handle(f"{self.prefix}{name}")

    async def describe(self, name: str) -> Any:
        return await self.handle(name).describe()

    async def backfill(self, name: str, *occasions: datetime) -> None:
        """Have Temporal start what it starts at these moments, which it did not do when they were."""
        around = timedelta(seconds=20)
        every = [ScheduleBackfill(at - around, at + around, ScheduleOverlapPolicy.ALLOW_ALL) for at in occasions]
        await self.handle(name).backfill(*every)

    async def result(self, name: str, at: datetime) -> str:
        """Return what came of an occasion; fails where nothing did."""
        which = self.temporal.get_workflow_handle(f"{self.prefix}{name}-{to_rfc3339(at)}", result_type=str)

        async def known() -> str:
            while True:
                with contextlib.suppress(RPCError):
                    found: str = await which.result()
                    return found
                await asyncio.sleep(0.05)

        return await asyncio.wait_for(known(), WITHIN)

    def jobs(self, name: str) -> list[str]:
        """The jobs that a schedule launched in this installation."""
        found = self.console.deps.store.jobs.list_launched_by(f"schedule:{name}")
        return [job.id for job in found if job.id.startswith(f"j-{self.settings.installation}-")]

    def reason(self, job: str) -> str:
        view = self.console.deps.store.jobs.get(job)
        assert view is not None
        return view.order_reason


def past_minutes(count: int) -> list[datetime]:
    """The last whole minutes, the earliest first."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    return [now - timedelta(minutes=ago) for ago in range(count, 0, -1)]


async def until(found: Callable[[], Any]) -> Any:
    """Wait until something is found, and return it."""
    end = asyncio.get_running_loop().time() + WITHIN
    while not (seen := found()):
        assert asyncio.get_running_loop().time() < end, "it did not come"
        await asyncio.sleep(0.05)
    return seen


@asynccontextmanager
async def take_occasions(*consoles: Console) -> AsyncIterator[None]:
    """Consoles that take occasions."""
    tasks = [asyncio.create_task(job_starter.run_occasions(console)) for console in consoles]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def installation(served: Served, settings: Settings, own_store: Path, tmp_path: Path) -> AsyncIterator[Installation]:
    folder = tmp_path / "shop"
    shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    own = {"config": folder, "installation": f"t{secrets.token_hex(3)}", "database_url": f"sqlite:///{own_store}"}
    own_settings = settings.model_copy(update=own)
    async with build_console(own_settings) as console:
        found = Installation(console, own_settings, await connect(served.stack, own_settings.installation), folder)
        yield found
        await found.sync_schedules()


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
    await installation.handle("nightly").update(lambda _: _update(broken))
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
    await installation.handle("minutely").update(lambda _: _update(broken))
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
    # Its console died before it told Temporal.
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
        # One that never saw a good file: it knows of no schedule at all.
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


def _update(schedule: Schedule) -> Any:

    return ScheduleUpdate(schedule)


# Fired.


async def test_each_occasion_launches_exactly_one_job(installation: Installation) -> None:
    await installation.sync_schedules(minutely=MINUTELY.replace("paused", "overlap: allow, paused"))
    earlier, *occasions = past_minutes(4)
    async with take_occasions(installation.console):
        await installation.backfill("minutely", *occasions)
        launched = [await installation.result("minutely", at) for at in occasions]
        assert sorted(installation.jobs("minutely")) == sorted(launched)
        assert [installation.reason(job) for job in launched] == [f"occasion {to_rfc3339(at)}" for at in occasions]
        descriptions = [await installation.temporal.get_workflow_handle(job).describe() for job in launched]
        assert {description.status for description in descriptions} == {WorkflowExecutionStatus.RUNNING}

        await installation.backfill("minutely", occasions[0], earlier)
        extra = await installation.result("minutely", earlier)
        again = await until_fired_twice(installation, "minutely", occasions[0])
    assert (again, len(installation.jobs("minutely"))) == (launched[0], 4)
    assert extra not in launched


async def until_fired_twice(installation: Installation, name: str, at: datetime) -> str:
    """Return what came of an occasion's second workflow."""
    wanted = f"WorkflowId = '{installation.prefix}{name}-{to_rfc3339(at)}' AND ExecutionStatus = 'Completed'"
    end = asyncio.get_running_loop().time() + WITHIN
    while len(runs := [one async for one in installation.temporal.list_workflows(wanted)]) < 2:
        assert asyncio.get_running_loop().time() < end, runs
        await asyncio.sleep(0.1)
    results: set[str] = {
        await installation.temporal.get_workflow_handle(one.id, run_id=one.run_id, result_type=str).result() for one in runs
    }
    assert len(results) == 1
    return results.pop()


async def test_while_the_last_job_has_not_ended_the_next_occasion_is_skipped(installation: Installation) -> None:
    await installation.sync_schedules(minutely=MINUTELY)
    first, second, third = past_minutes(3)
    async with take_occasions(installation.console):
        await installation.backfill("minutely", first)
        job = await installation.result("minutely", first)
        await installation.backfill("minutely", second)
        assert await installation.result("minutely", second) == f"skipped: {job} has not ended"
        end_job(installation, job)
        await installation.backfill("minutely", third)
        assert await installation.result("minutely", third) == installation.jobs("minutely")[0] != job
    assert [entry.data for entry in installation.console.deps.store.ledger.entries(job=job).items if entry.type == "schedule.skipped"] == [
        {"schedule": "minutely", "occasion": to_rfc3339(second)}
    ]


async def test_an_occasion_missed_while_no_console_ran_is_launched_once_by_the_next_console(installation: Installation) -> None:
    await installation.sync_schedules(minutely=MINUTELY)
    (at,) = past_minutes(1)
    await installation.backfill("minutely", at)
    waiting = installation.temporal.get_workflow_handle(f"{installation.prefix}minutely-{to_rfc3339(at)}")
    await until_known(waiting.describe)
    assert installation.jobs("minutely") == []
    async with build_console(installation.settings) as other, take_occasions(installation.console, other):
        job = await installation.result("minutely", at)
        assert installation.jobs("minutely") == [job]
        await installation.backfill("minutely", at)
        assert await until_fired_twice(installation, "minutely", at) == job
    assert installation.jobs("minutely") == [job]


async def until_known(describe: Callable[[], Any]) -> None:
    end = asyncio.get_running_loop().time() + WITHIN
    while True:
        with contextlib.suppress(RPCError):
            await describe()
            return
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.05)


async def test_a_live_schedule_fires_by_itself_at_its_time(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule fires every second instead of every minute, in Temporal and for the console, so that the test need not wait for minutes."""
    monkeypatch.setattr(console_orders, "why_no_occasion", lambda *_, **__: None)
    await installation.sync_schedules(lively="{cron: '* * * * *', job: jobs/hello.yaml}")

    seconds = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(seconds=1))])
    there = (await installation.describe("lively")).schedule
    async with take_occasions(installation.console):
        await installation.handle("lively").update(lambda _: _update(dataclasses.replace(there, spec=seconds)))
        (first,) = await until(lambda: installation.jobs("lively"))
        end_job(installation, first)
        second, *_ = await until(lambda: [job for job in installation.jobs("lively") if job != first])
        await installation.handle("lively").pause()
        end_job(installation, second)
    assert installation.reason(first) != installation.reason(second)


def end_job(installation: Installation, job: str) -> None:
    """End a job, as its worker would."""

    installation.console.deps.store.ledger.append(
        [build_event(EventType.JOB_ENDED, job, at=datetime.now(UTC), state="succeeded", exit_code=0, reason=None)]
    )


# Never twice, whoever asks.


@pytest.mark.parametrize("overlap, most", [("skip", 1), ("allow", 4)])
async def test_concurrent_occasions_launch_no_more_jobs_than_the_overlap_policy_allows(
    installation: Installation, overlap: str, most: int
) -> None:
    installation.write_schedules(minutely=MINUTELY.replace("paused", f"overlap: {overlap}, paused"))
    occasions = [ScheduleOccasion(schedule="minutely", at=at) for at in past_minutes(4)]
    deps = installation.console.deps
    found = await asyncio.gather(
        *(
            asyncio.to_thread(console_orders.order_occasion, deps, installation.console.quotas, occasion)
            for occasion in itertools.chain(occasions, occasions, occasions)
        )
    )
    launched = {one.job.id for one in found if isinstance(one, SubmittedOrder)}
    assert (set(installation.jobs("minutely")), len(launched)) == (launched, most)
    again = [await asyncio.to_thread(console_orders.order_occasion, deps, installation.console.quotas, occasion) for occasion in occasions]
    assert {one.job.id for one in again if isinstance(one, SubmittedOrder)} == launched


@pytest.mark.parametrize(
    "zone, occasions",
    [
        # What Temporal starts: both times in New York, only the second one in Berlin.
        ("America/New_York", ["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z"]),
        ("Europe/Berlin", ["2026-10-25T01:30:00Z"]),
    ],
)
async def test_a_time_that_a_clock_change_repeats_launches_one_job(installation: Installation, zone: str, occasions: list[str]) -> None:
    hour = {"America/New_York": 1, "Europe/Berlin": 2}[zone]
    installation.write_schedules(daily=f"{{cron: '30 {hour} * * *', timezone: {zone}, job: jobs/hello.yaml, overlap: allow, paused: true}}")

    async def take(at: datetime) -> object:
        deps = dataclasses.replace(installation.console.deps, now=lambda: at)
        return await asyncio.to_thread(
            console_orders.order_occasion, deps, installation.console.quotas, ScheduleOccasion(schedule="daily", at=at)
        )

    found = [await take(datetime.fromisoformat(at)) for at in [*occasions, occasions[-1]]]
    launched = {one.job.id for one in found if isinstance(one, SubmittedOrder)}
    assert (len(found), len(launched), set(installation.jobs("daily"))) == (len(occasions) + 1, 1, launched)


async def test_a_run_waits_until_it_is_due_if_temporals_clock_is_ahead(installation: Installation) -> None:
    installation.write_schedules(minutely=MINUTELY)
    (at,) = past_minutes(1)

    def take(*, ahead: timedelta) -> object:
        deps = dataclasses.replace(installation.console.deps, now=lambda: at - ahead)
        return console_orders.order_occasion(deps, installation.console.quotas, ScheduleOccasion(schedule="minutely", at=at))

    with pytest.raises(console_orders.NotDueYet):
        await asyncio.to_thread(take, ahead=timedelta(minutes=10))
    with pytest.raises(console_orders.NoOccasion, match="in the future"):
        await asyncio.to_thread(take, ahead=timedelta(hours=2))
    assert isinstance(await asyncio.to_thread(take, ahead=timedelta(minutes=1)), SubmittedOrder)


def quotas_of(installation: Installation, *, open_jobs: int) -> Quotas:
    settings = installation.settings.model_copy(update={"quota_open_jobs": open_jobs})
    return Quotas(dataclasses.replace(installation.console.deps, settings=settings))


async def test_the_jobs_of_a_schedule_count_for_the_schedule_and_for_nobody_else(installation: Installation) -> None:
    overlapping = MINUTELY.replace("paused", "overlap: allow, paused")
    installation.write_schedules(minutely=overlapping, other=overlapping)
    deps, quotas = installation.console.deps, quotas_of(installation, open_jobs=1)
    earlier, last = past_minutes(2)

    async def take(schedule: str, at: datetime) -> object:
        return await asyncio.to_thread(console_orders.order_occasion, deps, quotas, ScheduleOccasion(schedule=schedule, at=at))

    first = await take("minutely", earlier)
    assert isinstance(first, SubmittedOrder)
    with pytest.raises(OverQuota, match="1 of schedule:minutely's jobs in prod have not ended"):
        await take("minutely", last)
    assert isinstance(await take("other", last), SubmittedOrder)
    # A repeated occasion has its job already; the one that was refused is launched once there is room.
    assert await take("minutely", earlier) == dataclasses.replace(first, new=False)
    deps.store.ledger.append([job_end("succeeded", first.job.id, at=datetime.now(UTC))])
    assert isinstance(await take("minutely", last), SubmittedOrder)


async def test_an_order_that_was_refused_for_want_of_room_gets_an_id_of_the_time_at_which_there_is_room(installation: Installation) -> None:
    """Lists sort jobs by their ids, which contain their time, and a job that failed is hidden by a later one of its name that did not."""
    installation.write_schedules(minutely=MINUTELY.replace("paused", "overlap: allow, paused"))
    file = installation.folder / "triggers.yaml"
    trigger = "{on: {type: ticket}, signing_secret: kv/data/je/triggers/ticket-created, job: jobs/hello.yaml}"
    file.write_text(f"triggers:\n  ticket: {trigger}\n{file.read_text()}")
    deps = installation.console.deps
    full, room = quotas_of(installation, open_jobs=0), quotas_of(installation, open_jobs=1000)
    (at,), triggered = past_minutes(1), deps.config.current().triggers["ticket"]
    event = CloudEvent(id=secrets.token_hex(8), source="/test", type="ticket", structured=True)
    orders: tuple[Callable[[Deps, Quotas], object], ...] = (
        lambda deps, quotas: console_orders.order_occasion(deps, quotas, ScheduleOccasion(schedule="minutely", at=at)),
        lambda deps, quotas: console_orders.order_event(deps, quotas, "ticket", triggered, event, delivery=event.id),
    )
    later = datetime.now(UTC) + timedelta(minutes=30)
    for order in orders:
        with pytest.raises(OverQuota):
            await asyncio.to_thread(order, deps, full)
        launched = await asyncio.to_thread(order, dataclasses.replace(deps, now=lambda: later), room)
        assert isinstance(launched, SubmittedOrder)
        assert launched.job.id >= first_job_id(installation.settings.installation, since=later)


async def test_each_occasion_launches_a_job_after_a_clock_that_was_ahead_is_set_back(installation: Installation) -> None:
    installation.write_schedules(minutely=MINUTELY)
    deps, launched = installation.console.deps, list[str]()
    for at, ahead in zip(past_minutes(4), (timedelta(minutes=30), timedelta(), timedelta(), timedelta()), strict=True):
        now = datetime.now(UTC) + ahead
        order = await asyncio.to_thread(
            console_orders.order_occasion,
            dataclasses.replace(deps, now=lambda now=now: now),  # type: ignore[misc]
            installation.console.quotas,
            ScheduleOccasion(schedule="minutely", at=at),
        )
        assert isinstance(order, SubmittedOrder)
        launched.append(order.job.id)
        deps.store.ledger.append([job_end("succeeded", order.job.id, at=now)])
    assert len(set(launched)) == 4
    assert installation.jobs("minutely") == launched[::-1]


async def test_an_occasion_left_half_done_by_a_console_that_died_is_finished_later(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.write_schedules(minutely=MINUTELY)
    earlier, last = past_minutes(2)
    occasion, deps = ScheduleOccasion(schedule="minutely", at=last), installation.console.deps
    with monkeypatch.context() as patched:
        patched.setattr(console_orders, "record_console_order", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(console_orders.order_occasion, deps, installation.console.quotas, occasion)
    assert installation.jobs("minutely") == []
    first = await asyncio.to_thread(
        console_orders.order_occasion, deps, installation.console.quotas, ScheduleOccasion(schedule="minutely", at=earlier)
    )
    second = await asyncio.to_thread(console_orders.order_occasion, deps, installation.console.quotas, occasion)
    assert isinstance(first, SubmittedOrder)
    assert isinstance(second, SubmittedOrder)
    assert installation.jobs("minutely") == [first.job.id] == [second.job.id]


# What whoever can write to Temporal may try.


async def test_a_moment_that_is_not_an_occasion_is_refused_whoever_claims_it(installation: Installation) -> None:
    # Half a day from now, so that no moment of this test is one.
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    far = now + timedelta(hours=12)
    await installation.sync_schedules(daily=f"{{cron: '0 {far.hour} * * *', job: jobs/hello.yaml, paused: true}}")
    attempts = {
        "is not a scheduled time": ("daily", now),
        "is in the future": ("daily", far),
        "too long ago": ("daily", far - timedelta(days=1)),
        "there is no schedule other": ("other", far),
    }
    async with take_occasions(installation.console):
        for why, (name, at) in attempts.items():
            assert why in await refusal(installation, name, TypedSearchAttributes([SearchAttributePair(SCHEDULED_START, at)]))
        assert "this workflow was not started by a schedule" in await refusal(installation, "daily", TypedSearchAttributes.empty)
        await installation.handle("daily").trigger()
        (triggered,) = await workflows_of(installation, "daily")
        with pytest.raises(WorkflowFailureError):
            await installation.temporal.get_workflow_handle(triggered).result()
    assert installation.jobs("daily") == []


async def workflows_of(installation: Installation, name: str) -> list[str]:
    """Return the workflows that a schedule has started, once there is one."""
    end = asyncio.get_running_loop().time() + WITHIN
    while not (found := (await installation.describe(name)).info.recent_actions):
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.1)
    return [one.action.workflow_id for one in found]


async def refusal(installation: Installation, name: str, attributes: TypedSearchAttributes) -> str:
    """Start what a schedule would start, with arguments of one's own; return why it comes to nothing."""
    with pytest.raises(WorkflowFailureError) as told:
        await installation.temporal.execute_workflow(
            "Fire",
            name,
            id=f"forged-{secrets.token_hex(4)}",
            task_queue=f"{installation.settings.task_queue}-console",
            search_attributes=attributes,
            execution_timeout=timedelta(seconds=WITHIN),
        )
    cause: BaseException | None = told.value.cause
    cause = cause.cause if isinstance(cause, ActivityError) else cause
    assert isinstance(cause, ApplicationError), cause
    return str(cause)


async def test_temporal_stores_no_detail_of_an_error_in_the_console(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fails(*_: object) -> None:
        loop.call_soon_threadsafe(failed.set)
        message = "secret-detail"
        raise RuntimeError(message)

    await installation.sync_schedules(minutely=MINUTELY)
    (at,) = past_minutes(1)
    with monkeypatch.context() as patched:
        patched.setattr(job_starter, "order_occasion", fails)
        async with take_occasions(installation.console):
            await installation.backfill("minutely", at)
            await asyncio.wait_for(failed.wait(), WITHIN)
    async with take_occasions(installation.console):
        job = await installation.result("minutely", at)
    history = await installation.temporal.get_workflow_handle(f"{installation.prefix}minutely-{to_rfc3339(at)}").fetch_history()
    decrypted = await decrypted_payloads(history, installation.console.codec)
    kept = b"".join((*(item.SerializeToString() for item in history.events), *decrypted))
    assert job.encode() in kept
    assert b"secret-detail" not in kept


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

    return new_job_id(installation.settings.installation, now=datetime.now(UTC))
