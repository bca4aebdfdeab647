"""Records the histories that tests/workflows/test_replay.py replays: `python -m tests.histories.record [NAME …]`, from the repository's root.

Real server, fake activities, short tiers. A changed workflow needs a scene of its own here, whose history is added to the old ones. An existing
file is never overwritten, because only a history of older code shows that the jobs of that time still replay. The histories without a scene
are of steps that today's code no longer takes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from temporalio.client import WorkflowHistory
from temporalio.common import SearchAttributePair, TypedSearchAttributes

from console.temporal.fire_workflow import SCHEDULED_START
from justenough.domain.approvals.tiers import Tier, Tiers
from tests.workflows import session_scripts
from tests.workflows.history_files import FOLDER, to_stable_text
from tests.workflows.known_jobs import Need
from tests.workflows.servers import QUEUE, Bench, StartedJob, run_real_server

QUICK = Tiers(
    tiers={
        1: Tier(name="owner", approvers=("support-leads",), respond_within=1),
        2: Tier(name="security", approvers=("security",), respond_within=1),
        3: Tier(name="chief", approvers=("chiefs",), quorum=2, respond_within=2),
    }
)
Scene = Callable[[Bench], Awaitable[StartedJob]]


async def auto_approved(bench: Bench) -> StartedJob:
    """No person is needed."""
    return await bench.start()


async def approved(bench: Bench) -> StartedJob:
    """A person approves; a guard stands beside it; a junk answer came first."""
    job = await bench.start(needs=(Need(), Need(1)))
    await job.handle.signal("decide", "junk")
    await job.answer("lead", number=2)
    return job


async def climbed_and_expired(bench: Bench) -> StartedJob:
    """Nobody answers at any tier."""
    return await bench.start(needs=(Need(1),))


async def climbed_and_approved(bench: Bench) -> StartedJob:
    """The second tier answers."""
    job = await bench.start(needs=(Need(1),))
    await job.known.until(lambda known: "climbed to 2" in known.ledger)
    await job.answer("security")
    return job


async def answered_between_escalations(bench: Bench) -> StartedJob:
    """The second of two requests is answered while the first cannot be escalated; then the second tier answers for the first."""
    job = await bench.start(needs=(Need(1), Need(2)), down={"climb"})
    await job.known.until(lambda known: known.tried["climb"] > 3)
    await job.answer("security", number=2)
    job.known.down.clear()
    await job.known.until(lambda known: "climbed to 2" in known.ledger)
    await job.answer("security")
    return job


async def denied(bench: Bench) -> StartedJob:
    """One of two requests is denied, the other withdrawn."""
    job = await bench.start(needs=(Need(3), Need(3)))
    await job.wait_for_timer()
    await job.answer("chief", decision="deny")
    return job


async def refused(bench: Bench) -> StartedJob:
    """The session finds that the order does not hold."""
    return await bench.start(session=session_scripts.refuses)


async def cancelled_waiting(bench: Bench) -> StartedJob:
    """Cancelled before anybody answered."""
    job = await bench.start(needs=(Need(3),))
    await job.wait_for_timer()
    await job.handle.cancel()
    return job


async def cancelled_running(bench: Bench) -> StartedJob:
    """Cancelled while its process runs."""
    job = await bench.start(session=session_scripts.stays)
    await job.wait_for_issue()
    await job.handle.cancel()
    return job


async def cancelled_then_killed(bench: Bench) -> StartedJob:
    """Its process takes too long over a cancel."""
    job = await bench.start(session=session_scripts.lingers)
    await job.wait_for_issue()
    await job.handle.cancel()
    await job.known.until(lambda known: "asked to end" in known.ledger)
    await job.handle.signal("kill")
    return job


async def killed(bench: Bench) -> StartedJob:
    """One credential is ended, then the job is killed."""
    job = await bench.start(session=session_scripts.stays, unrecordable=True)
    await job.wait_for_issue()
    await job.handle.signal("revoke_credential", f"c{job.known.job[1:]}-1")
    await job.known.until(lambda known: "revoked 1" in known.ledger)
    await job.handle.signal("kill")
    return job


async def killed_deciding(bench: Bench) -> StartedJob:
    """Killed while it cannot be decided."""
    job = await bench.start(down={"decide_requests"})
    await job.known.until(lambda known: known.tried["decide_requests"] > 3)
    await job.handle.signal("kill")
    return job


async def patient(bench: Bench) -> StartedJob:
    """The steps after the session cannot be done at first."""
    job = await bench.start(session=session_scripts.breaks, refusing={"revoke_job"}, down={"close"})
    await job.known.until(lambda known: known.tried["revoke_job"] > 0)
    job.known.refusing.clear()
    await job.known.until(lambda known: known.tried["close"] > 3)
    job.known.down.clear()
    return job


async def locked(bench: Bench) -> StartedJob:
    """One of its requests is locked in Vault too; it is stopped while it waits, and what waited is ended."""
    job = await bench.start(needs=(Need(), Need(2, locked=True)))
    await job.wait_for_timer()
    await job.handle.cancel()
    return job


async def taken_back(bench: Bench) -> StartedJob:
    """An approval is taken back while its job runs."""
    job = await bench.start(needs=(Need(1),), session=session_scripts.stays)
    await job.answer("lead")
    await job.wait_for_issue()
    await job.answer("lead", decision="withdraw")
    await job.known.until(lambda known: "revoked 1" in known.ledger)
    await job.handle.cancel()
    return job


async def asked(bench: Bench) -> StartedJob:
    """A running job asks for two more; one is approved, for the other nobody answers before it ends."""
    job = await bench.start(session=session_scripts.stays, asked={2: 1, 3: 3})
    await job.wait_for_issue()
    for number in (2, 3):
        await job.handle.signal("ask", job.known.request(number))
    await job.known.until(lambda known: "opened 3" in known.ledger)
    await job.answer("lead", number=2)
    await job.known.until(lambda known: "approve by lead" in known.ledger)
    await job.handle.cancel()
    return job


async def refused_escalation(bench: Bench) -> StartedJob:
    """The escalation of a running job's request is refused; another request is opened afterwards.

    abandoned-approvals.json is of an earlier release, which then opened none.
    """
    job = await bench.start(session=session_scripts.stays, asked={2: 1, 3: 3}, refusing={"climb"})
    await job.wait_for_issue()
    await job.handle.signal("ask", job.known.request(2))
    await job.known.until(lambda known: known.tried["climb"] > 0)
    await job.handle.signal("ask", job.known.request(3))
    await job.known.until(lambda known: "opened 3" in known.ledger)
    await job.handle.cancel()
    return job


async def overdue_escalation(bench: Bench) -> StartedJob:
    """The escalation of a running job's request cannot be done until the job is cancelled."""
    job = await bench.start(session=session_scripts.stays, asked={2: 1}, down={"climb"})
    await job.wait_for_issue()
    await job.handle.signal("ask", job.known.request(2))
    await job.known.until(lambda known: known.tried["climb"] > 3)
    await job.handle.cancel()
    return job


async def answered_before_opened(bench: Bench) -> StartedJob:
    """A running job's request is asked for and answered while an earlier answer cannot be examined.

    rejected-before-opened.json is of an earlier release, which then rejected the answer.
    """
    job = await bench.start(session=session_scripts.stays, asked={2: 3, 3: 3}, down={"take_answers"})
    await job.wait_for_issue()
    await job.handle.signal("ask", job.known.request(2))
    await job.known.until(lambda known: "opened 2" in known.ledger)
    await job.answer("chief", number=2)
    await job.known.until(lambda known: known.tried["take_answers"] > 3)
    await job.handle.signal("ask", job.known.request(3))
    await job.answer("chief", number=3)
    job.known.down.clear()
    await job.known.until(lambda known: "opened 3" in known.ledger)
    await job.handle.cancel()
    return job


async def terminated(bench: Bench) -> StartedJob:
    """The job's workflow is terminated; the recorded history is its guard's."""
    job = await bench.start(needs=(Need(1),), session=session_scripts.stays)
    await job.answer("lead")
    await job.wait_for_issue()
    await job.handle.terminate()
    return job


async def without_place(bench: Bench) -> StartedJob:
    """It waits for a place, takes one at the fourth attempt, and runs."""
    job = await bench.start(lacks_place=True, down={"take_place"}, session=session_scripts.stays)
    await job.known.until(lambda known: known.tried["take_place"] > 3)
    job.known.down.clear()
    await job.wait_for_issue()
    await job.handle.cancel()
    return job


async def worker_lost(bench: Bench) -> StartedJob:
    """Its worker falls silent."""
    return await bench.start(session=session_scripts.vanishes)


SCENES: tuple[Scene, ...] = (
    auto_approved,
    approved,
    climbed_and_expired,
    climbed_and_approved,
    answered_between_escalations,
    denied,
    refused,
    cancelled_waiting,
    cancelled_running,
    cancelled_then_killed,
    killed,
    killed_deciding,
    patient,
    locked,
    taken_back,
    asked,
    refused_escalation,
    overdue_escalation,
    answered_before_opened,
    terminated,
    without_place,
    worker_lost,
)
FIRE = "fire"
GUARDED = (approved, climbed_and_approved, terminated)


async def main() -> None:
    """Record these scenes, or every one."""
    wanted = [scene for scene in SCENES if not sys.argv[1:] or _name(scene) in sys.argv[1:]]
    async with run_real_server(QUICK) as bench, bench.worker():
        await asyncio.gather(*(_record(bench, scene) for scene in wanted))
        if FIRE in sys.argv[1:] or not sys.argv[1:]:
            await _record_fire(bench)


async def _record_fire(bench: Bench) -> None:
    """An occasion of a schedule, which is taken at the second attempt."""
    attributes = TypedSearchAttributes([SearchAttributePair(SCHEDULED_START, datetime(2026, 1, 31, 2, tzinfo=UTC))])
    handle = await bench.client.start_workflow("Fire", "nightly", id=FIRE, task_queue=QUEUE, search_attributes=attributes)
    await handle.result()
    _keep(FIRE, await handle.fetch_history())


async def _record(bench: Bench, scene: Scene) -> None:
    job, name = await scene(bench), _name(scene)
    if scene is not terminated:
        _ = await job.result()
        _keep(name, await job.handle.fetch_history())
    if scene in GUARDED:
        guard = bench.client.get_workflow_handle(f"{job.known.job}-guard")
        await guard.result()
        _keep(f"{name}-guard", await guard.fetch_history())


def _name(scene: Scene) -> str:
    return scene.__name__.replace("_", "-")


def _keep(name: str, history: WorkflowHistory) -> None:
    text, file = to_stable_text(history), FOLDER / f"{name}.json"
    if is_new := not file.exists():
        file.write_text(text)
    print(f"{name}: {len(history.events)} events, {len(text)} bytes" if is_new else f"{name}: {file} stays as it is")  # noqa: T201 - a script's output


if __name__ == "__main__":
    asyncio.run(main())
