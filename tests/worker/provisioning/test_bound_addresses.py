"""`worker_cidrs`: a job's token works only from these networks, and no worker can create a token that works from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from justenough.adapters.vault import Vault, VaultDenied
from justenough.domain.core.vault_names import job_role
from tests.worker.provisioning.provisioned_shop import PEOPLE, Session, Shop, job_role_body, new_job

pytestmark = pytest.mark.servers
REFUSED = 403
HERE, ELSEWHERE, FURTHER = "127.0.0.1/32", "192.0.2.0/24", "198.51.100.7/32"
HELPDESK = "kv/data/tenants/acme/helpdesk"
LOOSER = {
    "nothing": None,
    "an empty list": [],
    "an empty text": "",
    "every address": ["0.0.0.0/0"],
    "a wider network": ["192.0.0.0/8"],
    "the network as text": ELSEWHERE,
    "one of the two": [ELSEWHERE],
    "another beside them": [ELSEWHERE, FURTHER, HERE],
    "another by comma": [ELSEWHERE, f"{FURTHER},{HERE}"],
    "the other order": [FURTHER, ELSEWHERE],
    "a glob": ["*"],
}


@contextmanager
def bind_workers(shop: Shop, *cidrs: str) -> Iterator[None]:
    """Set Vault up for workers at these addresses."""
    shop.setup(worker_cidrs=cidrs)
    try:
        yield
    finally:
        shop.setup()


@contextmanager
def log_in_worker(shop: Shop, *cidrs: str) -> Iterator[Vault]:
    """Return a worker whose setting has these addresses."""
    vault = Vault(shop.settings.vault_addr, bound_cidrs=cidrs)
    vault.login_from_file(shop.settings.worker_approle_file)
    yield vault
    vault.close()


def read_status(shop: Shop, vault: Vault) -> int:
    """Return Vault's status for the grant of a new job's token, used from this address."""
    job = new_job()
    vault.open_prefix(job, 600)
    token = vault.create_token(job, policy="je-grant-helpdesk-api-read", alias="je-scope-tenant-acme", ttl=60)
    return Session(shop.admin.address, token.secret.reveal()).read(HELPDESK).status_code


def test_a_jobs_token_works_from_the_workers_address_and_from_no_other(shop: Shop) -> None:
    with bind_workers(shop, HERE), log_in_worker(shop, HERE) as vault:
        assert read_status(shop, vault) == 200
    with bind_workers(shop, ELSEWHERE, FURTHER), log_in_worker(shop, ELSEWHERE, FURTHER) as vault:
        assert read_status(shop, vault) == REFUSED
    with log_in_worker(shop) as vault:
        assert read_status(shop, vault) == 200, "the control: without any the same token works"


def test_a_worker_cannot_write_a_role_whose_tokens_work_from_other_addresses(shop: Shop) -> None:
    with bind_workers(shop, ELSEWHERE, FURTHER):
        worker = shop.approle(shop.settings.worker_approle_file)
        role = f"auth/token/roles/{job_role(new_job())}"
        written = {name: worker.write(role, **job_role_body(token_bound_cidrs=given)).status_code for name, given in LOOSER.items()}
        assert written == dict.fromkeys(LOOSER, REFUSED)
        assert worker.write(role, **job_role_body(bound_cidrs=[ELSEWHERE, FURTHER])).status_code == REFUSED, "a name that is not the role's"
        assert worker.write(role, **job_role_body(token_bound_cidrs=[ELSEWHERE, FURTHER])).status_code == 204, "the control"


def test_a_worker_whose_networks_differ_from_vaults_gets_an_error(shop: Shop) -> None:
    with bind_workers(shop, HERE), log_in_worker(shop, ELSEWHERE) as vault, pytest.raises(VaultDenied, match=r"vault setup.*WORKER_CIDRS"):
        vault.open_prefix(new_job(), 600)


def test_setting_vault_up_again_with_the_same_addresses_changes_nothing(shop: Shop) -> None:
    with bind_workers(shop, HERE):
        assert {step.outcome for step in shop.setup(people=PEOPLE, worker_cidrs=(HERE,))} == {"unchanged"}
        assert HERE in str(shop.admin.read_data("sys/policies/acl/je-worker")["policy"])
