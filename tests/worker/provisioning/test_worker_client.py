"""The worker's client (justenough.adapters.vault) with the worker's policy: each call for a job is allowed, from login to proof."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from justenough.adapters.vault import Vault, VaultDenied
from justenough.domain.catalog.loader import read_catalog, resolve_issue, scope_alias, with_settings
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.states import Action
from tests.worker.provisioning.provisioned_shop import SHOP, Session, Shop, new_job

pytestmark = pytest.mark.servers


@pytest.fixture
def vault(shop: Shop) -> Iterator[Vault]:
    client = Vault(shop.settings.vault_addr)
    client.login_from_file(shop.settings.worker_approle_file)
    yield client
    client.close()


def test_the_policy_allows_every_call_of_a_jobs_life(shop: Shop, vault: Vault) -> None:
    catalog = with_settings(read_catalog((SHOP / "catalog.yaml").read_bytes()), shop.environment)
    definition, scope, job = catalog.resources["orders-db"].actions[Action.READ], {"tenant": "acme"}, new_job()
    vault.open_prefix(job, 900)
    token = vault.create_token(job, policy=definition.policy, alias=scope_alias(definition, scope), ttl=600)
    issued = vault.issue(token, resolve_issue(definition, scope))
    assert issued.lease_id is not None
    assert vault.job_prefixes("dev").count(job) == 1
    assert len(vault.prefix_accessors(job)) == 1
    assert vault.is_lease_alive(issued.lease_id)
    assert vault.is_accessor_alive(token.accessor)
    assert vault.renew_lease(issued.lease_id, 600) > 0
    vault.close_prefix(job)
    vault.revoke_lease(issued.lease_id)
    vault.revoke_lease(issued.lease_id)
    vault.revoke_prefix(job)
    assert vault.prefix_accessors(job) == ()
    assert not vault.is_lease_alive(issued.lease_id)
    assert not vault.is_accessor_alive(token.accessor)
    assert job not in vault.job_prefixes("dev")


def test_people_keys_and_the_workers_own_users_can_be_read(shop: Shop, vault: Vault) -> None:
    login = Session(shop.admin.address).write("auth/people/login/ops", password="ops-password").json()["auth"]
    entity = login["entity_id"]
    Session(shop.admin.address, login["client_token"]).write(f"transit/keys/je-sign-{entity}", type="ed25519")
    person = vault.person(entity, shop.settings.people_mounts)
    assert person is not None
    assert (person.name, person.groups) == ("ops", frozenset({"ops"}))
    assert [len(key) for key in vault.public_keys(entity).values()] == [32]
    reaper = vault.creds("database/creds/je-reaper")
    assert reaper.lease_id is not None
    vault.revoke_lease(reaper.lease_id)


def test_a_login_without_the_right_to_manage_jobs_is_rejected_before_work_begins(shop: Shop, vault: Vault) -> None:
    vault.require_job_rights("dev")
    with pytest.raises(VaultDenied, match=r"manage jobs of the installation other .*give the login the policy je-worker"):
        vault.require_job_rights("other")
    made = shop.admin.write("auth/token/create", policies=["je-person"], no_default_policy=True).json()["auth"]
    vault.login_token(Secret(made["client_token"]))
    with pytest.raises(VaultDenied, match="Vault does not let this login manage jobs of the installation dev"):
        vault.require_job_rights("dev")
