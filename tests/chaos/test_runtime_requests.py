"""Access that a running job got from its broker is revoked like its first access, and an unavailable server only makes it wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.activities.broker.remote_job import Answer, launch_puppet
from tests.activities.broker.test_runtime_requests import await_request, login_of
from tests.chaos.administrator import Administrator
from tests.chaos.rig import Rig
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Login, Shop, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def job_of_dead_worker(rig: Rig, ops: Human, lead: Human, shop: Shop) -> Iterator[tuple[str, list[Login]]]:
    """A job that got access while it ran, and whose worker was then killed. Tests continue until another worker notices."""
    worker = rig.ensure_worker()
    with launch_puppet(ops) as job:
        request = job.request_access("refunds-db", "write").json["request_id"]
        assert lead.answer(await_request(lead, request)).status_code in ACCEPTED_STATUSES
        logins = [
            login_of(job.request_access("refunds-db", "write", wait=30)),
            *(login_of(job.request_access("orders-db")) for _ in range(3)),
        ]
        assert all(map(shop.can_log_in, logins))
        worker.kill()
        rig.ensure_worker()
        yield job.job, logins


def test_a_decision_sent_when_a_worker_died_is_handled_soon_by_another(
    rig: Rig, ops: Human, lead: Human, administrator: Administrator
) -> None:
    worker = rig.ensure_worker()
    job = ops.launch(spec("true", access(action="write")))
    request = ops.until(job, "awaiting_approval")["requests"][0]
    rig.start()
    worker.kill()
    assert lead.answer(request).status_code in ACCEPTED_STATUSES
    assert ops.until(job)["state"] == "succeeded"
    # By default Temporal keeps the job's next task for ten seconds for the worker that had it in its cache.
    assert administrator.longest_task_wait(job) < 8


@pytest.mark.usefixtures("job_of_dead_worker")
def test_a_request_while_temporal_is_unavailable_is_answered_once_it_is_back(rig: Rig, ops: Human, lead: Human, shop: Shop) -> None:
    rig.ensure_worker()
    with launch_puppet(ops) as job:
        with rig.temporal.closed():
            pending = job.request_access("refunds-db", "write")
            assert pending.status == 202
            # Access that policy allows needs no Temporal.
            given = job.request_access("orders-db")
            assert given.status == 200
        assert lead.answer(await_request(lead, pending.json["request_id"])).status_code in ACCEPTED_STATUSES
        assert job.request_access("refunds-db", "write", wait=60).status == 200
    shop.assert_dead(ops.job(job.job), login_of(given))


@pytest.mark.usefixtures("job_of_dead_worker")
def test_access_is_revoked_before_a_call_that_hangs_has_ended(rig: Rig, ops: Human, shop: Shop) -> None:
    worker = rig.ensure_worker()
    with launch_puppet(ops) as job:
        login = login_of(job.request_access("orders-db"))
        hold = rig.gate.hold(r"/v1/database/creds/", job=job.job)
        job.start_call("POST", "/v1/access", {"resource": "orders-db", "action": "read", "reason": "a test"})
        hold.until_held()
        assert shop.can_log_in(login)
        assert ops.api.post(f"jobs/{job.job}/cancel").status_code == 202
        # The worker's client gives the call up after twelve seconds.
        until(lambda: not shop.can_log_in(login), "its login fails")
        assert [line for line in worker.log.read_text().splitlines() if job.job in line and "access is revoked before" in line]
        rig.gate.release_all()
        seen = ops.until(job.job)
    assert seen["state"] == "cancelled"
    shop.assert_dead(seen, login)


@pytest.mark.usefixtures("job_of_dead_worker")
def test_a_request_while_vault_is_unavailable_gets_an_error_and_succeeds_later(rig: Rig, ops: Human, shop: Shop) -> None:
    rig.ensure_worker()
    with launch_puppet(ops) as job:
        assert job.request_access("orders-db").status == 200
        answers: list[Answer] = []
        with rig.freeze("vault"):
            asking = threading.Thread(target=lambda: answers.append(job.request_access("orders-db")))
            asking.start()
            asking.join(180)
        assert [answer.status for answer in answers] == [503], answers
        again = job.request_access("orders-db")
        assert again.status == 200
    shop.assert_dead(ops.job(job.job), login_of(again))


def test_a_job_that_starts_while_its_database_restarts_gets_its_login_a_little_later(rig: Rig, ops: Human) -> None:
    worker = rig.ensure_worker()
    with rig.postgres.closed():
        job = ops.launch(spec("true"))

        def was_refused() -> bool:
            return any(job in line and "a server refuses connections" in line for line in worker.log.read_text().splitlines())

        until(was_refused, "it was refused")
    seen = ops.until(job)
    assert (seen["state"], seen["revocation"]["state"]) == ("succeeded", "confirmed")


def test_a_credential_issued_while_a_job_ran_is_revoked_after_its_worker_died(
    job_of_dead_worker: tuple[str, list[Login]], ops: Human, shop: Shop
) -> None:
    job, logins = job_of_dead_worker
    seen = ops.until(job)
    assert (seen["state"], seen["reason"], seen["revocation"]["state"]) == ("failed", "worker_lost", "confirmed")
    assert len(seen["credentials"]) == 4
    shop.assert_dead(seen, *logins)
