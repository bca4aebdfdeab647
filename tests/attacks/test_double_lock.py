"""A compromised worker with its own Vault login: it gets nothing that Vault locks without the approvers' authorization."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from justenough.adapters.vault import JobToken, Vault, VaultRefused, control_groups
from justenough.domain.catalog.models import ResolvedIssue
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.vault_names import job_role
from tests.support.people import Human
from tests.support.shop import Shop
from worker.stack.plan import EMBEDDED_WORKER_CIDRS
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

GRANT = "je-grant-payouts-db-write"
PAYOUT = ResolvedIssue(path="database/creds/payouts-write-acme", method="read", data={})
Wrapped = dict[str, Any]


class StolenWorker:
    """The worker's own login, and a job without an order."""

    def __init__(self, stack: Stack, job: str) -> None:
        self.job = job
        login = json.loads((stack.home / "worker.approle.json").read_text())
        self.address = f"{stack.vault}/v1/"
        token = self.call("", "POST", "auth/approle/login", login).json()["auth"]["client_token"]
        self.token = str(token)

    def call(self, token: str, method: str, path: str, body: object = None) -> httpx.Response:
        headers = {"X-Vault-Token": token} if token else {}
        return httpx.request(method, self.address + path, json=body, headers=headers, timeout=180, trust_env=False)

    def call_as_worker(self, method: str, path: str, body: object = None) -> httpx.Response:
        return self.call(self.token, method, path, body)

    def job_token(self, *policies: str, alias: str = "je-scope-tenant-acme") -> str:
        """Open the job's prefix with the widest role that Vault allows, and create a token there."""
        role: dict[str, object] = {
            "allowed_policies_glob": ["je-grant-*"],
            "allowed_entity_aliases": ["je-scope-*"],
            "orphan": True,
            "token_no_default_policy": True,
            "token_type": "service",
            "token_explicit_max_ttl": "192h",
            "token_bound_cidrs": list(EMBEDDED_WORKER_CIDRS),
        }
        assert self.call_as_worker("POST", f"auth/token/roles/{job_role(self.job)}", role).status_code == 204
        body = {"policies": list(policies), "ttl": "192h", "display_name": self.job, "renewable": False, "entity_alias": alias}
        made = self.call_as_worker("POST", f"auth/token/create/{job_role(self.job)}", body)
        assert made.status_code == 200, made.text
        return str(made.json()["auth"]["client_token"])

    def request_credential(self, token: str, **headers: str) -> Wrapped:
        """Request a locked credential; return the pending control group."""
        answer = httpx.get(self.address + PAYOUT.path, headers={"X-Vault-Token": token, **headers}, timeout=180, trust_env=False).json()
        assert answer["data"] is None
        wrapped: Wrapped = answer["wrap_info"]
        return wrapped

    def unwrap(self, wrapped: Wrapped) -> httpx.Response:
        return self.call(wrapped["token"], "POST", "sys/wrapping/unwrap")


@pytest.fixture
def stolen_worker(whole: Stack) -> Iterator[StolenWorker]:
    job = new_job_id("dev", now=datetime.now(UTC))
    worker = StolenWorker(whole, job)
    yield worker
    # The sweep reports such a job and revokes nothing; the worker's own rights suffice.
    worker.call_as_worker("PUT", f"sys/leases/revoke-prefix/auth/token/create/{job_role(job)}", {"sync": True})
    worker.call_as_worker("DELETE", f"auth/token/roles/{job_role(job)}")


def test_a_compromised_worker_gets_only_the_wrapping_token_and_cannot_unwrap_it(
    stolen_worker: StolenWorker, shop: Shop, ops: Human, lead: Human
) -> None:
    token = stolen_worker.job_token(GRANT)
    wrapped = stolen_worker.request_credential(token)
    accessor = {"accessor": wrapped["accessor"]}
    assert stolen_worker.unwrap(wrapped).status_code == 400
    assert stolen_worker.call_as_worker("POST", "sys/wrapping/unwrap", {"token": wrapped["token"]}).status_code in {400, 403}
    # The third is used up by trying.
    for own in (stolen_worker.token, token, stolen_worker.request_credential(token)["token"]):
        assert stolen_worker.call(own, "POST", "sys/control-group/authorize", accessor).status_code == 403
    # Using all grants at once does not help, nor another kind of answer, nor a call without a token.
    assert (
        stolen_worker.unwrap(
            stolen_worker.request_credential(stolen_worker.job_token(GRANT, "je-grant-orders-db-admin", "je-grant-refunds-db-write"))
        ).status_code
        == 400
    )
    assert stolen_worker.unwrap(stolen_worker.request_credential(token, **{"X-Vault-Wrap-TTL": "60s"})).status_code == 400
    # People whom Vault does not ask cannot open it either, least of all the job's launcher.
    for person in (ops, lead):
        assert person.vault.post("sys/control-group/authorize", json=accessor).json()["data"] == {"approved": False}
    assert stolen_worker.unwrap(wrapped).status_code == 400
    assert shop.users_of(stolen_worker.job) == []


@pytest.mark.parametrize(
    "method, path, body",
    [
        ("POST", f"sys/policies/acl/{GRANT}", {"policy": f'path "{PAYOUT.path}" {{ capabilities = ["read"] }}'}),
        ("POST", "sys/policies/acl/je-grant-mine", {"policy": f'path "{PAYOUT.path}" {{ capabilities = ["read"] }}'}),
        ("DELETE", f"sys/policies/acl/{GRANT}", None),
        ("GET", PAYOUT.path, None),
        ("POST", "identity/group/name/security", {"member_entity_ids": []}),
        ("POST", "identity/entity-alias", {"name": "je-worker"}),
        ("POST", "auth/people/users/me", {"password": "x", "token_policies": ["je-person"]}),
        ("POST", "sys/wrapping/wrap", {"a": "b"}),
    ],
)
def test_a_compromised_worker_cannot_change_the_approvers(stolen_worker: StolenWorker, method: str, path: str, body: object) -> None:
    assert stolen_worker.call_as_worker(method, path, body).status_code == 403


def test_a_wrapping_token_works_once_and_only_for_its_own_request(
    stolen_worker: StolenWorker, whole: Stack, shop: Shop, security: Human
) -> None:
    vault = Vault(str(whole.vault), bound_cidrs=EMBEDDED_WORKER_CIDRS)
    vault.login_from_file(whole.home / "worker.approle.json")
    vault.open_prefix(stolen_worker.job, 3600)
    token: JobToken = vault.create_token(stolen_worker.job, policy=GRANT, alias="je-scope-tenant-acme", ttl=600)
    wrapped = control_groups.request_issue(vault, token, PAYOUT)
    ciphertext = control_groups.encrypt(vault, wrapped.secret, about="r-1")
    assert wrapped.secret.reveal() not in ciphertext
    with pytest.raises(VaultRefused):
        control_groups.decrypt(vault, ciphertext, about="r-2")
    with pytest.raises(VaultRefused):
        control_groups.unwrap(vault, wrapped.secret, PAYOUT)
    assert security.vault.post("sys/control-group/authorize", json={"accessor": wrapped.accessor}).json()["data"] == {"approved": True}
    state = control_groups.read_state(vault, wrapped.accessor)
    assert state is not None
    assert (state.approved, state.authorized, state.is_for(PAYOUT)) == (True, frozenset({security.id}), True)
    with pytest.raises(VaultRefused, match="is for another path"):
        control_groups.unwrap(vault, wrapped.secret, PAYOUT.model_copy(update={"path": "database/creds/payouts-write-globex"}))
    issued = control_groups.unwrap(vault, control_groups.decrypt(vault, ciphertext, about="r-1"), PAYOUT)
    assert issued.lease_id
    control_groups.revoke_token(vault, wrapped.secret)
    with pytest.raises(VaultRefused):
        control_groups.unwrap(vault, wrapped.secret, PAYOUT)
    assert control_groups.read_state(vault, wrapped.accessor) is None
    # The credential that was unwrapped lives until its job ends, and its user has the job's id in its name.
    assert len(shop.users_of(stolen_worker.job)) == 1
    vault.revoke_lease(issued.lease_id)
    assert shop.users_of(stolen_worker.job) == []
    vault.close()


def test_an_authorized_wrapping_token_opens_nothing_without_the_token_that_requested_it(
    stolen_worker: StolenWorker, shop: Shop, security: Human
) -> None:
    wrapped = stolen_worker.request_credential(stolen_worker.job_token(GRANT))
    security.vault.post("sys/control-group/authorize", json={"accessor": wrapped["accessor"]}).raise_for_status()
    stolen_worker.call_as_worker(
        "PUT", f"sys/leases/revoke-prefix/auth/token/create/{job_role(stolen_worker.job)}", {"sync": True}
    ).raise_for_status()
    assert stolen_worker.unwrap(wrapped).status_code == 403
    assert shop.users_of(stolen_worker.job) == []
