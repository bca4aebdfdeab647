"""Scheduled runs in a real Temporal: one job per occasion, even if a server is away meanwhile or the run is repeated."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import (
    ScheduleIntervalSpec,
    ScheduleSpec,
    ScheduleUpdate,
    WorkflowExecutionStatus,
    WorkflowFailureError,
)
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ActivityError, ApplicationError

from console.concurrency.quotas import Quotas
from console.services import console_orders, job_starter
from console.services.console import build_console
from console.services.submit_job import SubmittedOrder
from console.temporal.fire_workflow import SCHEDULED_START
from justenough.domain.contracts.workflow_messages import ScheduleOccasion
from justenough.domain.core.errors import OverQuota
from justenough.domain.core.ids import first_job_id
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.integrations.cloudevents import CloudEvent
from justenough.services.dependencies import Deps
from tests.adapters.store.event_samples import job_end
from tests.console.temporal.scheduled_installation import (
    MINUTELY,
    WITHIN,
    Installation,
    end_job,
    past_minutes,
    take_occasions,
    until,
    until_known,
)
from tests.support.temporal_client import decrypted_payloads

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


async def test_a_live_schedule_fires_by_itself_at_its_time(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule fires every second instead of every minute, in Temporal and for the console, so that the test need not wait for minutes."""
    monkeypatch.setattr(console_orders, "why_no_occasion", lambda *_, **__: None)
    await installation.sync_schedules(lively="{cron: '* * * * *', job: jobs/hello.yaml}")

    seconds = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(seconds=1))])
    there = (await installation.describe("lively")).schedule
    async with take_occasions(installation.console):
        await installation.handle("lively").update(lambda _: ScheduleUpdate(dataclasses.replace(there, spec=seconds)))
        (first,) = await until(lambda: installation.jobs("lively"))
        end_job(installation, first)
        second, *_ = await until(lambda: [job for job in installation.jobs("lively") if job != first])
        await installation.handle("lively").pause()
        end_job(installation, second)
    assert installation.reason(first) != installation.reason(second)


# No occasion launches two jobs, whoever asks for it.


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
        # The runs that Temporal starts: both in New York, only the second one in Berlin.
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


# What somebody who can write to Temporal may try.


async def test_a_moment_that_is_not_an_occasion_is_refused_whoever_claims_it(installation: Installation) -> None:
    # The schedule's time is half a day from now, so that no moment of this test is an occasion.
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
