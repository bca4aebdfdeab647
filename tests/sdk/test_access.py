"""The SDK inside real jobs: credentials work until they are released, and a denial says who denied and why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.activities.broker.test_runtime_requests import await_request
from tests.activities.broker.test_tool_gateway import tenant_order
from tests.sdk.remote_python import Remote, launch_remote
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Login, Shop
from tests.support.wait import until

pytestmark = pytest.mark.servers
QUERY = """
import psycopg
with je.access("orders-db", "read", reason="Count the orders", ttl="2m") as credential:
    with psycopg.connect(credential.dsn()) as orders:
        (count,) = orders.execute("SELECT count(*) FROM orders").fetchone()
    held = credential
result = [count, held["username"], held["password"], held.id, repr(held)]
"""


def wait_for_request(ops: Human, job: str) -> str:
    """Wait for a running job's request and return it."""
    waiting = until(lambda: [one for one in ops.job(job)["requests"] if one["state"] == "pending"], "the job asks people")
    return str(waiting[0]["id"])


def test_a_credential_works_inside_its_block_and_is_revoked_after_it(ops: Human, job: Remote, shop: Shop) -> None:
    count, user, password, credential, shown = job.run(QUERY)
    assert count > 0
    assert "read on orders-db" in shown
    assert password not in shown
    assert not shop.can_log_in(Login(user, password))
    (seen,) = [one for one in ops.job(job.job)["credentials"] if one["id"] == credential]
    assert seen["state"] == "confirmed"
    used = [entry["data"] for entry in ops.ledger(job.job) if entry["type"] == "credential.used"]
    assert {"credential": credential, "what": "the job released it"} in used


def test_a_credential_is_valid_during_its_block_and_revoked_if_the_block_raises(job: Remote, shop: Shop) -> None:
    login = Login(
        *job.run("held = je.access('orders-db', 'read'); found = held.__enter__(); result = [found['username'], found['password']]")
    )
    assert shop.can_log_in(login)
    raised = job.catch("held.__exit__(ValueError, ValueError('the block failed'), None); raise ValueError('the block failed')")
    assert raised.kind == "ValueError"
    assert not shop.can_log_in(login)


def test_access_without_a_block_stays_until_it_is_released_and_can_be_released_twice(job: Remote, shop: Shop) -> None:
    login = Login(*job.run("found = je.ask('orders-db', 'read'); result = [found['username'], found['password']]"))
    assert shop.can_log_in(login)
    job.run("found.release(); found.release()")
    assert not shop.can_log_in(login)


def test_people_approve_while_the_job_waits(ops: Human, lead: Human, shop: Shop) -> None:
    with launch_remote(ops) as job:
        job.start(
            "import justenough_job as je; c = je.ask('refunds-db', 'write', reason='Refund order 7'); result = [c['username'], c['password']]"
        )
        request = await_request(lead, wait_for_request(ops, job.job))
        assert request["reason"] == "Refund order 7"
        assert lead.answer(request).status_code in ACCEPTED_STATUSES
        login = Login(*job.wait()["result"])
        assert shop.can_log_in(login)
    shop.assert_dead(ops.job(job.job), login)


def test_a_job_learns_if_approvers_allow_less_than_it_requested(ops: Human, lead: Human, shop: Shop) -> None:
    with launch_remote(ops) as job:
        job.start(
            "import justenough_job as je; c = je.ask('refunds-db', 'write'); result = [c.action, c.resource, c['username'], c['password']]"
        )
        assert lead.answer(await_request(lead, wait_for_request(ops, job.job)), action="read", ttl=60).status_code in ACCEPTED_STATUSES
        action, resource, *login = job.wait()["result"]
        assert (action, resource) == ("read", "refunds-db")
        with shop.connect(Login(*login)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM refunds")


def test_a_persons_denial_ends_the_wait_and_a_denial_by_policy_names_the_policies(ops: Human, lead: Human, security: Human) -> None:
    with launch_remote(ops) as job:
        job.start("import justenough_job as je; je.ask('refunds-db', 'write')")
        request = wait_for_request(ops, job.job)
        assert lead.answer(await_request(lead, request), "deny").status_code in ACCEPTED_STATUSES
        denied = job.wait()
        assert (denied["error"], denied["outcome"], denied["policies"], denied["request_id"]) == ("Denied", "denied", [], request)
        job.start("je.ask('customers-db', 'read')")
        assert security.answer(await_request(security, wait_for_request(ops, job.job))).status_code in ACCEPTED_STATUSES
        assert "error" not in job.wait()
        refused = job.catch("je.ask('export-api', 'write')")
        assert (refused.kind, refused.more["policies"]) == ("Denied", ["no-export-after-restricted"])
        assert "no-export-after-restricted" in refused.says


def test_a_wait_that_timed_out_leaves_the_request_pending(ops: Human, lead: Human) -> None:
    with launch_remote(ops) as job:
        job.run("import justenough_job as je")
        pending = job.catch("je.ask('refunds-db', 'write', wait=0)")
        assert (pending.kind, pending.more["tier"]) == ("Pending", 1)
        request = pending.more["request_id"]
        assert lead.answer(await_request(lead, request)).status_code in ACCEPTED_STATUSES
        assert job.run("result = je.ask('refunds-db', 'write', wait='30s').request_id") == request


def cutoff_error(job: Remote) -> dict[str, Any]:
    """Return the error that a job gets after its access was revoked; nothing before that."""
    told = job._execute("je.catalog()")
    return told if "error" in told else {}


def test_a_job_learns_that_its_access_was_revoked(ops: Human) -> None:
    """A cancel closes the broker while the process still has its grace period."""
    with launch_remote(ops) as polite:
        polite.run(
            "import signal, justenough_job as je; signal.signal(signal.SIGTERM, lambda *_: None); held = je.ask('orders-db', 'read')"
        )
        ops.api.post(f"jobs/{polite.job}/cancel").raise_for_status()
        told = until(lambda: cutoff_error(polite), "the job is told that its access is cut")
        assert told["error"] in {"Closed", "Unavailable"}
        # The credential still works during the process's grace period, so it is not called released.
        assert polite.catch("held.release()").kind in {"Closed", "Unavailable"}
        polite.run("held.release_or_warn()")
    assert ops.job(polite.job)["credentials"][0]["state"] == "confirmed"


@pytest.mark.parametrize(
    "code, kind, says",
    [
        ("je.ask('ordersdb', 'read')", "Invalid", "unknown resource"),
        ("je.ask('orders-db', 'own')", "Invalid", "action"),
        ("je.ask('refunds-db', 'read', ttl='3h')", "Invalid", "longer than"),
        ("je.ask('orders-db', 'read', ttl='soon')", "Invalid", "ttl"),
        ("je.ask('orders-db', 'read', wait='soon')", "ValueError", "'soon' is not a duration: write 30s, 5m, 2h"),
        ("je.ask('payouts-db', 'write')", "Denied", "request it at the start, in the job's spec"),
        ("je.identity('')", "Invalid", "audience"),
    ],
)
def test_an_invalid_request_gets_an_error_with_its_reason(job: Remote, code: str, kind: str, says: str) -> None:
    raised = job.catch(code)
    assert raised.kind == kind
    assert says in raised.says


def test_tools_are_listed_with_their_input_and_their_call_names(job: Remote) -> None:
    found = dict(job.run("result = [[one.name, [one.outcome, one.tier, one.how, sorted(one.input['properties'])]] for one in je.tools()]"))
    assert found["find-order"] == ["allowed", 0, "tools/call find-order at /mcp", ["order_id"]]
    assert found["refund-order"] == ["needs_approval", 1, "tools/call refund-order at /mcp", ["amount", "order_id", "reason", "ticket_id"]]
    ways = dict(job.run("result = [[f'{one.resource}:{one.action}', list(one.how)] for one in je.catalog()]"))
    assert ways["refunds-db:write"] == ["POST /v1/access", "tools/call refund-order at /mcp"]


def test_a_tool_call_is_one_line_and_its_failure_is_an_exception(job: Remote, shop: Shop) -> None:
    answer = job.run("result = je.use('list-tickets', limit=1)")
    assert len(json.loads(answer)["rows"]) == 1
    assert shop.users_of(job.job) == []
    for code, says in (
        ("je.use('find-order', order_id='x')", "order_id: must have type integer"),
        ("je.use('find-order', tool=7)", "unknown: tool"),
        ("je.use('find-order', order_id='\\ud800')", "Parse error"),
        ("je.use('nothing')", "there is no tool 'nothing' for this job"),
    ):
        failed = job.catch(code)
        assert (failed.kind, says in failed.says) == ("Failed", True)


def test_a_call_that_needs_approval_waits_for_it(ops: Human, lead: Human, shop: Shop) -> None:
    order = tenant_order(shop)
    with launch_remote(ops) as job:
        job.start(f"import justenough_job as je; result = je.use('refund-order', order_id={order}, amount=1, reason='in one line')")
        assert lead.answer(await_request(lead, wait_for_request(ops, job.job))).status_code in ACCEPTED_STATUSES
        assert "rows" in job.wait()["result"]


def test_a_job_can_read_the_catalog_and_get_an_identity(job: Remote) -> None:
    offers = dict(job.run("result = [[f'{one.resource}:{one.action}', [one.outcome, one.tier]] for one in je.catalog()]"))
    assert offers["orders-db:read"] == ["allowed", 0]
    assert offers["refunds-db:write"] == ["needs_approval", 1]
    shown, dots = job.run("found = je.identity('https://helpdesk.example'); result = [repr(found), found.token.count('.')]")
    assert dots == 2
    assert "eyJ" not in shown


def test_without_a_socket_the_token_reaches_the_same_broker_on_loopback(job: Remote, shop: Shop) -> None:
    by_address = "{n: v for n, v in os.environ.items() if n != 'JUSTENOUGH_BROKER'}"
    code = "import justenough_job as je; c = je.ask('orders-db', 'read'); print(c['username'], c['password'])"
    said = job.run(
        f"result = subprocess.run([sys.executable, '-c', {code!r}], env={by_address}, capture_output=True, text=True, check=True).stdout"
    )
    assert shop.can_log_in(Login(*said.split()))


def test_a_wrong_token_and_a_missing_broker_are_reported_as_unavailable(job: Remote) -> None:
    wrong = job.catch(
        "from justenough_job.broker import BrokerClient; BrokerClient.from_environment({'JUSTENOUGH_BROKER_URL': os.environ['JUSTENOUGH_BROKER_URL']}).call('GET', '/v1/catalog')"
    )
    assert wrong.kind == "Unavailable"
    assert "JUSTENOUGH_BROKER_TOKEN" in wrong.says
    gone = job.catch(
        """
        from justenough_job import broker
        patience, broker.RETRY_TIMEOUT_S = broker.RETRY_TIMEOUT_S, 0.6
        try:
            BrokerClient(socket="/run/justenough/gone.sock").call("GET", "/v1/catalog")
        finally:
            broker.RETRY_TIMEOUT_S = patience
        """
    )
    assert gone.kind == "Unavailable"
    assert "does not answer at /run/justenough/gone.sock" in gone.says


def test_a_job_without_network_reaches_the_broker_through_its_socket(ops: Human) -> None:
    """This job reports only by its exit code."""
    code = "import justenough_job as je\nwith je.access('orders-db', 'read') as c: assert c['password']\nassert je.catalog()"
    spec = {"name": "alone", "task": "Ask without network", "environment": "prod", "data_scope": {"tenant": "acme"}}
    job = ops.launch({**spec, "beyond": "policy", "run": {"command": ["python3", "-c", code], "network": "none"}})
    assert ops.until(job)["state"] == "succeeded"


@pytest.mark.parametrize(
    "prepare", ["", "justenough_job.broker.SANDBOX_SOCKET = '/' + 300 * 'x'; "], ids=["no socket", "a place that cannot be looked at"]
)
def test_outside_a_job_the_sdk_says_so(prepare: str) -> None:
    code = f"import justenough_job; {prepare}justenough_job.ask('orders-db', 'read')"
    path = Path(__file__).parents[2] / "sdk"
    ran = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(path)}, capture_output=True, text=True, check=False)
    assert "OutsideJob: this program is not running as a JustEnough job" in ran.stderr


def test_a_failed_release_is_a_warning_and_the_credential_ends_with_the_job(ops: Human, shop: Shop) -> None:
    code = """
    import warnings, justenough_job as je
    from justenough_job.broker import BrokerClient
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with je.access("orders-db", "read") as credential:
            credential._broker = BrokerClient(socket="/run/justenough/gone.sock")
            done = "the work is done"
    result = [done, credential["username"], credential["password"], *[[one.category.__name__, str(one.message)] for one in said]]
    """
    with launch_remote(ops) as job:
        done, user, password, (kind, message) = job.run(code)
        assert (done, kind) == ("the work is done", "NotReleased")
        assert "or the job's end" in message
        assert password not in message
        assert shop.can_log_in(Login(user, password))
    shop.assert_dead(ops.job(job.job), Login(user, password))


def test_a_request_is_retried_a_limited_number_of_times_if_the_broker_closes_the_connection(ops: Human) -> None:
    crowd = """
    import os, socket, threading, justenough_job as je
    from justenough_job import broker
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(64)]
    for one in crowd:
        one.connect(os.environ["JUSTENOUGH_BROKER"])
    """
    leave = """
    broker.RETRY_TIMEOUT_S = 15
    threading.Timer(1, lambda: [one.close() for one in crowd]).start()
    result = len(je.catalog())
    """
    with launch_remote(ops) as job:
        job.run(crowd)
        refused = job.catch("broker.RETRY_TIMEOUT_S = 0.6; je.catalog()")
        assert refused.kind == "Unavailable"
        assert "does not answer at /run/justenough/broker.sock" in refused.says
        assert job.run(leave) > 0


def test_many_waiting_threads_poll_no_more_often_than_necessary(ops: Human) -> None:
    code = """
    import threading, justenough_job as je
    from justenough_job.broker import BrokerClient
    calls, whole = [], BrokerClient.call
    BrokerClient.call = lambda *given, **more: (calls.append(given[1]), whole(*given, **more))[1]
    ends = []
    def wait():
        try:
            je.ask("refunds-db", "write", wait=4)
        except je.Pending as error:
            ends.append(error.request_id)
    threads = [threading.Thread(target=wait) for _ in range(12)]
    for each in threads: each.start()
    for each in threads: each.join()
    result = [len(ends), len(set(ends)), len(calls)]
    """
    with launch_remote(ops) as job:
        ended, requests, calls = job.run(code)
        assert (ended, requests) == (12, 1)
        assert calls < 12 * 8
