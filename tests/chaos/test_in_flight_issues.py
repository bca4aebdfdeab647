"""An issue that is in flight while its job ends: the credential arrives late, and is revoked all the same or recorded to end with its time."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.chaos.administrator import Administrator
from tests.chaos.rig import Rig
from tests.support.people import Human
from tests.support.shop import Shop, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers

ROLE_DELAY_S = 2
"""That making a user takes while roles are slow: many times what ending a job takes. Vault makes one after the other."""
NOBODY_KNOWS = "its lease is not known and its target cannot be searched"


@contextmanager
def slow_roles(shop: Shop, *roles: str) -> Iterator[None]:
    """Have Vault's making of users under these roles take its time. No two of these configurations are alike."""
    with shop.admin() as vault:
        before = {role: vault.get(f"database/roles/{role}").raise_for_status().json()["data"] for role in roles}
        for role, data in before.items():
            statements = [f"SELECT pg_sleep({ROLE_DELAY_S}), '{uuid.uuid4()}'", *data["creation_statements"]]
            vault.post(f"database/roles/{role}", json={**data, "creation_statements": statements}).raise_for_status()
        try:
            yield
        finally:
            for role, data in before.items():
                vault.post(f"database/roles/{role}", json=data).raise_for_status()


@dataclass(frozen=True)
class OrphanedIssues:
    """Jobs whose worker died while Vault made their users: one whose user is found by its name, and one whose target cannot be searched."""

    named: str
    nameless: str


def until_in_flight(rig: Rig, jobs: Iterable[str], role: str = "orders-read-globex") -> None:
    """Return once Vault has been asked for a user of each job."""
    for job in jobs:
        until(partial(rig.gate.has_sent, job, f"/v1/database/creds/{role}"), "an issue is in flight")


def globex_spec(**more: Any) -> dict[str, Any]:
    return {**spec("sleep 300", access(**more)), "data_scope": {"tenant": "globex"}}


def confirmed_view(ops: Human, job: str) -> dict[str, Any]:
    """Return the job once its revocation and each of its credentials are confirmed, and nothing before."""
    seen = ops.job(job)
    states = {seen["revocation"]["state"], *(item["state"] for item in seen["credentials"])}
    return seen if states == {"confirmed"} else {}


def assert_landed_and_dead(rig: Rig, shop: Shop, seen: dict[str, Any]) -> None:
    logins = rig.gate.logins(seen["id"])
    assert len(logins) == 1, "the issue landed after its job's end had begun"
    shop.assert_dead(seen, *logins)


def trust_search(ops: Human, **more: Any) -> list[dict[str, Any]]:
    """Have a user found under the roles that the worker knows: only then a search by job id counts. The job's ledger entries."""
    job = ops.launch({**globex_spec(), "run": spec("true")["run"], **more})
    assert ops.until(job)["state"] == "succeeded"
    return ops.ledger(job)


def trust_search_under_new_roles(ops: Human) -> None:
    """Have a user found under roles that were just changed. A worker may know the earlier ones for some seconds more."""

    def is_found() -> bool:
        return any(entry["type"] == "credential.found" and entry["data"]["search_digest"] for entry in trust_search(ops))

    until(is_found, "a search under the new roles is trusted")


@pytest.fixture(scope="module")
def orphaned(rig: Rig, ops: Human, shop: Shop) -> OrphanedIssues:
    """Kill a worker whose issues are in flight, and start another. Its second looks take place while other tests run."""
    worker = rig.ensure_worker()
    # A search counts if it is trusted as Vault was configured at the issue, and as it is when the search is made. So nobody else slows this role.
    acme = spec("true")
    trust_search(ops, **acme)
    with slow_roles(shop, "orders-read-acme", "archive-read"):
        orphaned = OrphanedIssues(ops.launch(spec("sleep 300")), ops.launch(globex_spec(resource="archive-db", ttl="20s")))
        until_in_flight(rig, [orphaned.named], "orders-read-acme")
        until_in_flight(rig, [orphaned.nameless], "archive-read")
        worker.kill()
    rig.ensure_worker()
    return orphaned


def test_a_credential_that_nobody_can_find_is_overdue_and_not_proven_dead(orphaned: OrphanedIssues, ops: Human) -> None:
    ops.until(orphaned.nameless, "revoking")
    until(lambda: ops.job(orphaned.nameless)["revocation"]["state"] == "overdue", "the nameless one is shown as overdue")
    waiting = ops.job(orphaned.nameless)
    assert any(NOBODY_KNOWS in why for why in waiting["revocation"]["failures"])
    assert [(item["accessor"], item["state"]) for item in waiting["credentials"]] == [(None, "overdue")]
    proof = ops.api.post(f"jobs/{orphaned.nameless}/prove")
    assert proof.json()["dead"] is False, proof.text


@pytest.mark.usefixtures("worker")
def test_a_credential_issued_while_its_job_is_stopped_is_revoked_when_the_job_is_closed(
    rig: Rig, ops: Human, shop: Shop, administrator: Administrator
) -> None:
    trust_search(ops)
    with slow_roles(shop, "orders-read-globex"):
        trust_search_under_new_roles(ops)
        jobs = {how: ops.launch(globex_spec()) for how in ("cancelled", "killed", "lost")}
        until_in_flight(rig, jobs.values())
        assert ops.api.post(f"jobs/{jobs['cancelled']}/cancel").status_code == 202
        assert ops.api.post(f"jobs/{jobs['killed']}/kill").status_code == 202
        administrator.terminate(jobs["lost"])
        ended = {how: ops.until(job) for how, job in jobs.items()}
    assert {how: seen["state"] for how, seen in ended.items()} == {how: how for how in jobs}
    for job in jobs.values():
        # On a busy machine a job may end before the search for the late credential is repeated.
        assert_landed_and_dead(rig, shop, until(partial(confirmed_view, ops, job), f"{job} and what landed late are confirmed"))


def test_a_request_that_reaches_vault_after_its_token_was_revoked_is_refused(rig: Rig, ops: Human, shop: Shop) -> None:
    rig.ensure_worker()
    trust_search(ops)
    order = ops.order(globex_spec())
    hold = rig.gate.hold(r"/v1/database/creds/orders-read-globex", job=order["id"])
    assert ops.api.post("jobs", json=order).status_code == 201
    hold.until_held()
    assert ops.api.post(f"jobs/{order['id']}/kill").status_code == 202
    until(lambda: shop.tokens_of(order["id"]) == [], "the job's token is dead")
    hold.release()
    seen = ops.until(order["id"])
    assert (seen["state"], seen["credentials"]) == ("killed", [])
    shop.assert_dead(seen)
    assert rig.gate.logins(order["id"]) == []
    refused = [entry["data"]["why"] for entry in ops.ledger(order["id"]) if entry["type"] == "credential.refused"]
    assert any(re.search("permission denied|denied|403", why) for why in refused), refused


def test_a_credential_issued_after_its_worker_died_is_found_by_its_name_or_awaited(
    orphaned: OrphanedIssues, rig: Rig, ops: Human, shop: Shop
) -> None:
    found = ops.until(orphaned.named)
    assert (found["state"], found["reason"]) == ("failed", "worker_lost")
    assert_landed_and_dead(rig, shop, found)

    ended = ops.until(orphaned.nameless)
    assert [item["state"] for item in ended["credentials"]] == ["expired"]
    (login,) = rig.gate.logins(orphaned.nameless)
    assert not shop.can_log_in(login)
    told = [entry["type"] for entry in ops.ledger(orphaned.nameless)]
    assert (told.count("credential.doubted"), told.count("credential.expired"), told.count("job.ended")) == (1, 1, 1)
