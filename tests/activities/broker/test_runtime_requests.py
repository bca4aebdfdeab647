"""A running job requests access at its broker: credentials that it gets work, released ones are revoked, and refused access is never
issued.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from tests.activities.broker.catalog_edits import edit_catalog
from tests.activities.broker.remote_job import Answer, Puppet, launch_puppet
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Login, Shop
from tests.support.wait import until

pytestmark = pytest.mark.servers


def login_of(answer: Answer) -> Login:
    data = answer.json["data"]
    return Login(data["username"], data["password"])


def entries(ops: Human, job: str, kind: str) -> list[dict[str, Any]]:
    return [entry["data"] for entry in ops.ledger(job) if entry["type"] == kind]


def test_access_that_policy_allows_is_issued_at_once_and_revoked_on_release(ops: Human, shop: Shop) -> None:
    with launch_puppet(ops) as job:
        given = job.request_access("orders-db")
        assert given.status == 200, given.body
        login = login_of(given)
        assert shop.can_log_in(login)
        assert given.json["data"]["dbname"] == "shop"
        assert given.headers["cache-control"] == "no-store"
        (asked,) = entries(ops, job.job, "access.requested")
        assert (asked["reason"], asked["resource"]) == ("a test needs it", "orders-db")
        released = job.call("POST", f"/v1/access/{given.json['credential_id']}/release")
        assert (released.status, released.json["state"]) == (200, "confirmed")
        assert not shop.can_log_in(login)
        (used,) = entries(ops, job.job, "credential.used")
        assert used == {"credential": given.json["credential_id"], "what": "the job released it"}
        again = job.call("POST", f"/v1/access/{given.json['credential_id']}/release")
        assert again.status == 404


def test_secrets_of_the_job_are_redacted_in_the_reasons_that_it_gives(ops: Human) -> None:
    with launch_puppet(ops) as job:
        password = job.request_access("orders-db").json["data"]["password"]
        again = job.request_access("refunds-db", "read", reason=f"psql 'password={password}' failed")
        assert again.status in {200, 202, 403}, again.body
        assert [asked["reason"] for asked in entries(ops, job.job, "access.requested")][-1] == "psql 'password=[redacted]' failed"


def test_access_under_a_live_grant_issues_another_credential_without_a_new_request(ops: Human, shop: Shop) -> None:
    with launch_puppet(ops) as job:
        first, second = job.request_access("orders-db"), job.request_access("orders-db", ttl="1m")
        assert login_of(first) != login_of(second)
        assert first.json["request_id"] == second.json["request_id"]
        assert second.json["credential_id"] == first.json["credential_id"] + ".2"
        assert job.call("POST", f"/v1/access/{first.json['credential_id']}/release").status == 200
        assert not shop.can_log_in(login_of(first))
        assert shop.can_log_in(login_of(second))
        assert len(entries(ops, job.job, "access.requested")) == 1
    seen = ops.job(job.job)
    assert len(seen["credentials"]) == 2
    shop.assert_dead(seen, login_of(first), login_of(second))


def test_access_that_needs_approval_waits_for_people_and_is_issued_once_they_approve(ops: Human, lead: Human, shop: Shop) -> None:
    with launch_puppet(ops) as job:
        pending = job.request_access("refunds-db", "write", reason="Refund order 7")
        assert pending.status == 202, pending.body
        request = pending.json["request_id"]
        assert pending.headers["location"] == f"/v1/requests/{request}"
        waiting = await_request(lead, request)
        assert (waiting["reason"], waiting["current_tier"]) == ("Refund order 7", 1)
        assert ops.job(job.job)["state"] == "running"
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(job.request_access("refunds-db", "write", wait=30)))
        asking.start()
        assert lead.answer(waiting).status_code in ACCEPTED_STATUSES
        asking.join(180)
        (given,) = answers
        assert given.status == 200, given.body
        assert given.json["request_id"] == request
        assert shop.can_log_in(login_of(given))
    shop.assert_dead(ops.job(job.job), login_of(given))


def test_access_that_is_approved_after_its_caller_left_is_not_kept(ops: Human, lead: Human, shop: Shop) -> None:
    with launch_puppet(ops) as job:
        url = httpx.URL(job.env["JUSTENOUGH_BROKER_URL"])
        body = json.dumps({"resource": "refunds-db", "action": "write", "reason": "asked, and gone", "wait": 60})
        head = f"POST /v1/access HTTP/1.1\r\nHost: broker\r\nAuthorization: Bearer {job.env['JUSTENOUGH_BROKER_TOKEN']}\r\n"
        with socket.create_connection((url.host, url.port)) as caller:
            caller.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            request = until(lambda: [each["id"] for each in ops.job(job.job)["requests"]], "the request is made")[0]
            waiting = await_request(lead, request)
        assert lead.answer(waiting).status_code in ACCEPTED_STATUSES
        until(lambda: [each["state"] for each in ops.job(job.job)["credentials"]] == ["confirmed"], "what was issued is found dead")
        assert (ops.job(job.job)["state"], shop.users_of(job.job)) == ("running", [])
        assert entries(ops, job.job, "credential.used") == []


def test_a_denied_request_ends_and_issues_nothing(ops: Human, lead: Human) -> None:
    with launch_puppet(ops) as job:
        request = job.request_access("refunds-db", "write").json["request_id"]
        assert lead.answer(await_request(lead, request), "deny").status_code in ACCEPTED_STATUSES
        seen = job.call("GET", f"/v1/requests/{request}?wait=30")
        assert (seen.status, seen.json["state"]) == (200, "denied")
        refused = job.request_access("refunds-db", "write")
        assert (refused.status, refused.json["outcome"], refused.json["request_id"]) == (403, "denied", request)
        assert ops.job(job.job)["credentials"] == []


def test_a_denial_by_policy_names_the_policies(ops: Human, security: Human) -> None:
    with launch_puppet(ops) as job:
        request = job.request_access("customers-db").json["request_id"]
        assert security.answer(await_request(security, request)).status_code in ACCEPTED_STATUSES
        assert job.request_access("customers-db", wait=30).status == 200
        denied = job.request_access("export-api", "write")
        assert denied.status == 403, denied.body
        assert (denied.json["outcome"], denied.json["policies"]) == ("denied", ["no-export-after-restricted"])
        assert [one["outcome"] for one in entries(ops, job.job, "access.decided") if one["facts"]["resource"] == "export-api"] == ["denied"]


SPARE = """
  spare-db:
    title: A spare
    sensitivity: confidential
    max_ttl: 10m
    data_scope: []
    actions: {read: {issue: {path: database/creds/spare}}, write: {issue: {path: database/creds/spare}}}
"""


@contextmanager
def offer_spare(shop: Shop, ops: Human, job: Puppet) -> Iterator[None]:
    """Have the catalog of worker and console offer `spare-db` for the length of a block."""

    def offers() -> list[bool]:
        return ["spare-db" in answer for answer in (job.call("GET", "/v1/catalog").body, ops.api.get("catalog").text)]

    with edit_catalog(shop, "\nresources:\n", f"\nresources:{SPARE}"):
        until(lambda: all(offers()), "worker and console read the edited catalog")
        yield
    until(lambda: not any(offers()), "worker and console read the catalog again")


def test_access_whose_policy_vault_lacks_is_not_issued_and_the_job_is_told_to_have_vault_applied(ops: Human, shop: Shop) -> None:
    with launch_puppet(ops) as job, offer_spare(shop, ops, job):
        refused = job.request_access("spare-db")
        assert (refused.status, refused.json["title"]) == (409, "Not Issued"), refused.body
        assert "if the catalog is newer than Vault's policy je-grant-spare-db-read, run `justenough vault apply`" in refused.json["detail"]


def test_approved_access_that_left_the_catalog_is_denied_to_the_running_job(ops: Human, lead: Human, shop: Shop) -> None:
    with launch_puppet(ops) as job:
        with offer_spare(shop, ops, job):
            waiting = await_request(lead, job.request_access("spare-db", "write").json["request_id"])
            lead.decide(waiting)
        refused = job.request_access("spare-db", "write", wait=30)
        assert (refused.status, refused.json["outcome"]) == (403, "denied"), refused.body
        assert "the catalog no longer offers write on spare-db" in refused.body
        (recorded,) = entries(ops, job.job, "credential.refused")
        assert recorded["request"] == waiting["id"]
        assert job.request_access("orders-db").status == 200


@pytest.mark.parametrize(
    "old, new, why",
    [
        ("max_ttl: 10m", "max_ttl: 1m", "5m is longer than 1m, the max_ttl of spare-db write"),
        ("data_scope: []", "environment: staging", "spare-db is in environment 'staging', not in 'prod'"),
    ],
)
def test_approved_access_that_the_catalog_would_refuse_by_now_is_denied_to_the_running_job(
    ops: Human, lead: Human, shop: Shop, old: str, new: str, why: str
) -> None:
    with launch_puppet(ops) as job, offer_spare(shop, ops, job):
        waiting = await_request(lead, job.request_access("spare-db", "write", ttl="5m").json["request_id"])
        lead.decide(waiting)
        before = job.call("GET", "/v1/catalog").body
        with edit_catalog(shop, SPARE, SPARE.replace(old, new)):
            until(lambda: job.call("GET", "/v1/catalog").body != before, "the worker reads the edited catalog")
            refused = job.request_access("spare-db", "write", ttl="5m", wait=30)
        assert (refused.status, refused.json["outcome"]) == (403, "denied"), refused.body
        assert why in refused.body


def test_approvals_of_access_that_left_the_catalog_are_refused_with_the_reason(ops: Human, lead: Human, shop: Shop) -> None:
    spare = {"resource": "spare-db", "action": "write", "ttl": "5m", "reason": "a test needs it"}
    with launch_puppet(ops) as puppet, offer_spare(shop, ops, puppet):
        order = {"name": "spare", "task": "Wait", "environment": "prod", "run": {"command": ["true"]}, "data_scope": {"tenant": "acme"}}
        job = ops.launch({**order, "access": [spare, {**spare, "resource": "refunds-db"}]})
        asked = until(lambda: ops.job(job)["requests"], "the job's requests are decided")
        waiting, other = (await_request(lead, request["id"]) for request in asked)
    # Policy decides on the other one as if the first had been issued.
    for refused in (lead.answer(waiting, ttl=60), lead.answer(waiting), lead.answer(other, ttl=60)):
        assert refused.status_code == HTTPStatus.FORBIDDEN, refused.text
        assert "the catalog no longer offers write on spare-db" in refused.text
    assert lead.answer(waiting, "deny").status_code in ACCEPTED_STATUSES
    assert ops.until(job)["state"] == "denied"


def test_every_call_that_waits_for_the_same_request_gets_the_denial_and_none_requests_again(ops: Human, lead: Human) -> None:
    with launch_puppet(ops) as job, ThreadPoolExecutor(3) as pool, httpx.Client(trust_env=False, timeout=180) as http:
        url, token = job.env["JUSTENOUGH_BROKER_URL"], job.env["JUSTENOUGH_BROKER_TOKEN"]
        http.headers["Authorization"] = f"Bearer {token}"
        request = job.request_access("refunds-db", "write").json["request_id"]
        wanted = {"resource": "refunds-db", "action": "write", "reason": "wait", "wait": 30}
        asking = [pool.submit(http.post, f"{url}/v1/access", json=wanted) for _ in range(3)]
        assert lead.answer(await_request(lead, request), "deny").status_code in ACCEPTED_STATUSES
        told = [one.result() for one in asking]
        assert [(one.status_code, one.json()["request_id"]) for one in told] == [(403, request)] * 3
        assert len(entries(ops, job.job, "access.requested")) == 1


def await_request(person: Human, request: str) -> dict[str, Any]:
    """The request once it waits for people."""

    def asked() -> dict[str, Any]:
        found: dict[str, Any] = person.api.get(f"requests/{request}").raise_for_status().json()
        return found if found["expires_at"] else {}

    return until(asked, f"{request} waits for people")


@pytest.mark.parametrize(
    "body, status, says",
    [
        ({"resource": "ordersdb", "action": "read", "reason": "x"}, 404, "unknown resource"),
        ({"resource": "orders-db", "action": "own", "reason": "x"}, 422, "action"),
        ({"resource": "orders-db", "action": "read"}, 422, "reason"),
        ({"resource": "orders-db", "action": "read", "reason": "x", "ttl": "3h"}, 422, "longer than"),
        ({"resource": "orders-db", "action": "read", "reason": "x", "for": "me"}, 422, "unknown key"),
        ({"resource": "payouts-db", "action": "write", "reason": "x"}, 403, "request it at the start, in the job's spec"),
        (
            {"resource": "orders-db", "action": "read", "reason": "x", "through": "tools"},
            422,
            "the order names no tools for read on orders-db",
        ),
    ],
)
def test_an_invalid_access_request_is_refused_with_the_reason(broker_job: Puppet, body: dict[str, Any], status: int, says: str) -> None:
    answer = broker_job.call("POST", "/v1/access", body)
    assert answer.status == status, answer.body
    assert says in answer.body
    assert answer.headers["content-type"] == "application/problem+json"


def test_bodies_that_are_too_large_or_no_json_are_refused(broker_job: Puppet) -> None:
    assert broker_job.call("POST", "/v1/access", raw="x" * 70_000).status == 413
    assert broker_job.call("POST", "/v1/access", raw="{").status == 422
    assert broker_job.call("GET", "/v1/requests/r-dev-01m89fb2ptf3bq4aqv3fd9tnmd-1").status == 404
    assert broker_job.call("GET", "/v1/nothing").status == 404


def test_the_catalog_lists_what_a_job_may_request_and_at_which_tier(broker_job: Puppet) -> None:
    items = {(item["resource"], item["action"]): item for item in broker_job.call("GET", "/v1/catalog").json["items"]}
    assert items["orders-db", "read"]["outcome"] == "allowed"
    assert (items["refunds-db", "write"]["outcome"], items["refunds-db", "write"]["tier"]) == ("needs_approval", 1)
    assert items["customers-db", "read"]["tier"] == 2


def test_a_jobs_environment_names_the_socket_url_and_token_of_its_broker(broker_job: Puppet) -> None:
    assert broker_job.env["JUSTENOUGH_BROKER"] == "/run/justenough/broker.sock"
    assert broker_job.env["JUSTENOUGH_BROKER_URL"].startswith("http://127.0.0.1:")
    assert len(broker_job.env["JUSTENOUGH_BROKER_TOKEN"]) > 40
