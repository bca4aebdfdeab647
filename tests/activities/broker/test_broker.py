"""Only the running job can use its broker. Nothing is issued once its access is closed, and what was issued is revoked with the rest."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from temporalio.client import Client

from activities.broker.server.listener import MAX_PIPELINED_REQUESTS
from activities.issuing.issuer import MAX_LIVE_CREDENTIALS
from activities.process.no_sandbox import FOLDER_PREFIX, MEMORY_FOLDER
from tests.activities.broker.catalog_edits import extend_catalog
from tests.activities.broker.remote_job import Answer, Puppet, launch_puppet
from tests.activities.broker.test_runtime_requests import await_request, entries, login_of
from tests.activities.broker.test_tool_gateway import HEADERS
from tests.support.new_people import log_in_newcomer
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop
from tests.support.wait import until
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

REFUND = {"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "Refund the order", "at": "request"}
DEAF_TO_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


def socket_of(job: str) -> Path:
    (found,) = MEMORY_FOLDER.glob(f"{FOLDER_PREFIX}.{job}.*/broker.sock")
    return found


@pytest.mark.root
def test_the_broker_hangs_up_on_processes_of_other_users(broker_job: Puppet) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.settimeout(10)
        other.connect(str(socket_of(broker_job.job)))
        # Root may open every socket; the broker checks which user connects.
        with pytest.raises(OSError, match=r"reset|Broken pipe"):  # noqa: PT012 - either of the two is the hanging up
            other.sendall(b"GET /v1/catalog HTTP/1.1\r\nHost: broker\r\n\r\n")
            assert other.recv(1000) == b""
            raise BrokenPipeError("Broken pipe")


def test_over_tcp_the_broker_accepts_only_the_jobs_own_token(ops: Human, broker_job: Puppet) -> None:
    url = f"{broker_job.env['JUSTENOUGH_BROKER_URL']}/v1/catalog"
    with launch_puppet(ops) as other, httpx.Client(trust_env=False, timeout=180) as http:
        own, others = (job.env["JUSTENOUGH_BROKER_TOKEN"] for job in (broker_job, other))
        for shown, status in ((f"Bearer {own}", 200), (f"Bearer {others}", 401), (f"Basic {own}", 401), ("Bearer", 401)):
            assert http.get(url, headers={"Authorization": shown}).status_code == status
        refused = http.get(url)
        assert (refused.status_code, "$JUSTENOUGH_BROKER_TOKEN" in refused.text) == (401, True)


def test_a_job_over_its_request_rate_is_told_when_to_retry(ops: Human) -> None:
    with launch_puppet(ops) as job:
        at = urlsplit(job.env["JUSTENOUGH_BROKER_URL"])
        call = f"GET /v1/requests/r-none HTTP/1.1\r\nHost: broker\r\nAuthorization: Bearer {job.env['JUSTENOUGH_BROKER_TOKEN']}\r\n\r\n"
        told: queue.Queue[bytes] = queue.Queue()
        over = threading.Event()
        lines = [socket.create_connection((str(at.hostname), int(at.port or 0)), timeout=60) for _ in range(8)]
        asking = [threading.Thread(target=flood_connection, args=(line, call.encode(), told, over)) for line in lines]
        for each in asking:
            each.start()
        said = told.get(timeout=300)
        over.set()
        for each in asking:
            each.join(180)
        waits = next(line for line in said.lower().splitlines() if line.startswith(b"retry-after:"))
        assert int(waits.split()[1]) >= 1
        assert b"this job sends too many requests; wait and try again" in said


def flood_connection(line: socket.socket, call: bytes, refusals: queue.Queue[bytes], over: threading.Event) -> None:
    """Ask as many at a time as a connection may, until somebody was told to ask later: so even a busy machine asks more often than it may."""
    with line:
        while not over.is_set():
            line.sendall(call * MAX_PIPELINED_REQUESTS)
            answers = b""
            while not (answers.count(b"HTTP/1.1 ") == MAX_PIPELINED_REQUESTS and answers.endswith(b"}")):
                piece = line.recv(65536)
                assert piece, "it is hung up"
                answers += piece
            if b"HTTP/1.1 429" in answers:
                refusals.put(answers[answers.index(b"HTTP/1.1 429") :])
                over.set()


def test_after_a_cancel_the_broker_refuses_every_new_request(ops: Human, shop: Shop) -> None:
    with launch_puppet(ops, before=DEAF_TO_SIGTERM) as job:
        login = login_of(job.request_access("orders-db"))
        assert ops.api.post(f"jobs/{job.job}/cancel").status_code == 202
        # Poll with a call that issues nothing, because a job may hold only a limited number of credentials.
        until(lambda: job.call("GET", "/v1/catalog").status == 410, "the job's door is closed")
        answer = job.request_access("orders-db")
        assert (answer.status, "closed" in answer.body) == (410, True)
        assert job.call("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, **HEADERS).status == 410
    seen = ops.job(job.job)
    shop.assert_dead(seen, login)


def test_a_person_can_revoke_a_credential_of_a_job_that_goes_on_running(ops: Human, lead: Human, shop: Shop) -> None:
    with launch_puppet(ops) as job:
        given = job.request_access("orders-db")
        assert lead.api.post(f"credentials/{given.json['credential_id']}/revoke").status_code in ACCEPTED_STATUSES
        until_dead(shop, given)
        assert ops.job(job.job)["state"] == "running"


def test_a_withdrawn_approval_ends_every_credential_issued_on_it_and_the_next_access_needs_a_new_request(
    ops: Human, lead: Human, shop: Shop
) -> None:
    with launch_puppet(ops) as job:
        request = job.request_access("refunds-db", "write").json["request_id"]
        waiting = await_request(lead, request)
        assert lead.answer(waiting).status_code in ACCEPTED_STATUSES
        given = [job.request_access("refunds-db", "write", wait=30), job.request_access("refunds-db", "write")]
        assert [one.status for one in given] == [200, 200]
        assert lead.answer(waiting, "withdraw").status_code in ACCEPTED_STATUSES
        for one in given:
            until_dead(shop, one)
        again = job.request_access("refunds-db", "write")
        assert (again.status, again.json.get("request_id") != request) == (202, True)


def test_access_that_a_spec_defers_to_runtime_is_requested_only_when_the_job_asks_for_it(ops: Human, lead: Human) -> None:
    with launch_puppet(ops, REFUND) as job:
        assert ops.job(job.job)["requests"] == []
        pending = job.request_access("refunds-db", "write", ttl="2m")
        assert pending.json["request_id"] == f"r{job.job[1:]}-1"
        assert await_request(lead, pending.json["request_id"])["ttl"] == 120


def test_a_job_without_a_network_reaches_its_broker(ops: Human, shop: Shop, tmp_path: Path) -> None:
    script = (
        "import http.client, json, os, socket\n"
        "broker = http.client.HTTPConnection('broker')\n"
        "broker.sock = socket.socket(socket.AF_UNIX)\n"
        "broker.sock.connect(os.environ['JUSTENOUGH_BROKER'])\n"
        "broker.request('POST', '/v1/access', json.dumps({'resource': 'orders-db', 'action': 'read', 'reason': 'look'}))\n"
        "given = json.load(broker.getresponse())\n"
        "assert 'JUSTENOUGH_BROKER_URL' not in os.environ\n"
        "print(given['data']['username'], given['data']['password'])\n"
    )
    run = {"command": ["python3", "-c", script], "network": "none"}
    job = ops.launch(
        {
            "name": "alone",
            "task": "t",
            "environment": "prod",
            "data_scope": {"tenant": "acme"},
            "run": run,
            "access": [],
            "beyond": "policy",
        }
    )
    seen = ops.until(job)
    assert (seen["state"], len(seen["credentials"])) == ("succeeded", 1)
    # A credential that the job got while it ran is redacted in its output like the others.
    assert ops.output(job).endswith(" [redacted]\n")
    shop.assert_dead(seen)


async def test_a_jobs_history_does_not_grow_with_the_credentials_that_it_is_issued(ops: Human, shop: Shop) -> None:
    def use(job: Puppet, times: int) -> None:
        for _ in range(times):
            given = job.request_access("orders-db")
            assert job.call("POST", f"/v1/access/{given.json['credential_id']}/release").status == 200

    client = await Client.connect(str(shop.stack.temporal))

    async def events(job: str) -> int:
        return len((await client.get_workflow_handle(job).fetch_history()).events)

    with launch_puppet(ops) as job:
        await asyncio.to_thread(use, job, 1)
        before = await events(job.job)
        await asyncio.to_thread(use, job, 10)
        assert await events(job.job) == before
    assert await events(job.job) < 30


def test_an_identity_token_needs_an_audience(broker_job: Puppet) -> None:
    answer = broker_job.call("GET", "/v1/identity?audience=https://helpdesk.example")
    assert (answer.status, answer.json["token"].count(".")) == (200, 2)
    assert broker_job.call("GET", "/v1/identity").status == 422


def test_identity_tokens_are_issued_only_for_audiences_that_the_catalog_names_if_it_names_any(
    broker_job: Puppet, ops: Human, shop: Shop
) -> None:
    why = "the catalog's identity.audiences does not name 'https://stranger.example'"
    with extend_catalog(shop, "identity: {audiences: {https://helpdesk.example: {environment: prod}}}\n"):
        # The catalog is read anew now and then.
        until(lambda: broker_job.call("GET", "/v1/identity?audience=https://stranger.example").status != 200, "the catalog names audiences")
        answer = broker_job.call("GET", "/v1/identity?audience=https://stranger.example")
        assert broker_job.call("GET", "/v1/identity?audience=https://helpdesk.example").status == 200
    assert (answer.status, answer.json["detail"], answer.json["outcome"], answer.json["policies"]) == (403, why, "denied", [])
    refused = entries(ops, broker_job.job, "access.refused")[-1]
    assert refused == {"asked": "an identity token", "why": why}


def test_a_job_gets_no_identity_token_while_its_launcher_is_disabled(whole: Stack, shop: Shop, lead: Human) -> None:
    with log_in_newcomer(whole, shop, "broker-leaver", "ops") as leaver, launch_puppet(leaver) as job, shop.admin() as vault:

        def ask() -> Answer:
            return job.call("GET", "/v1/identity?audience=https://helpdesk.example")

        assert ask().status == 200
        vault.post(f"identity/entity/id/{leaver.id}", json={"disabled": True}).raise_for_status()
        try:
            until(lambda: ask().status != 200, "its order is verified again")
            refused = ask()
        finally:
            vault.post(f"identity/entity/id/{leaver.id}", json={"disabled": False}).raise_for_status()
        why = refused.json["detail"]
        assert (refused.status, why.partition(":")[0]) == (403, "its order is no longer valid")
        assert entries(lead, job.job, "access.refused")[-1] == {"asked": "an identity token", "why": why}


def until_dead(shop: Shop, answer: Answer) -> None:
    login = login_of(answer)
    until(lambda: not shop.can_log_in(login), "its login is dead")


def test_a_job_cannot_use_up_its_workers_open_files(ops: Human) -> None:
    opens = (
        "import os, socket\n"
        "kept = []\n"
        "for _ in range(300):\n"
        "    each = socket.socket(socket.AF_UNIX)\n"
        "    each.connect(os.environ['JUSTENOUGH_BROKER'])\n"
        "    kept.append(each)\n"
        "for each in kept[100:]:\n"
        "    each.settimeout(20)\n"
        "    try:\n"
        "        assert each.recv(1) == b''\n"
        "    except ConnectionResetError:\n"
        "        pass\n"
        "del kept, each\n"
    )
    with launch_puppet(ops, before=opens) as job:
        assert job.call("GET", "/v1/catalog").status == 200


def test_a_job_holds_only_a_limited_number_of_live_credentials_at_once(ops: Human, shop: Shop) -> None:
    with launch_puppet(ops) as job:
        given = [job.request_access("helpdesk-api") for _ in range(MAX_LIVE_CREDENTIALS)]
        assert {one.status for one in given} == {200}
        refused = job.request_access("helpdesk-api")
        assert (refused.status, "release some first" in refused.body) == (409, True)
        released = job.call("POST", f"/v1/access/{given[0].json['credential_id']}/release")
        # A value in kv stays valid, so the answer must not say that it is dead.
        assert (released.status, released.json["state"]) == (200, "residual")
        assert job.request_access("helpdesk-api").status == 200
    assert shop.tokens_of(job.job) == []
