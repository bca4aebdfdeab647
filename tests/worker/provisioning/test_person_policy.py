"""The policy `je-person` on a real server: each person signs with their own key and can do nothing else."""

from __future__ import annotations

import pytest

from tests.worker.provisioning.provisioned_shop import Session, Shop

pytestmark = pytest.mark.servers
REFUSED = 403
STATEMENT = "eyJ0eXBlIjoib3JkZXIifQ=="


@pytest.fixture
def people(shop: Shop) -> dict[str, tuple[Session, str]]:
    found = {}
    for name in ("lead", "ops"):
        auth = Session(shop.admin.address).write(f"auth/people/login/{name}", password=f"{name}-password").json()["auth"]
        found[name] = (Session(shop.admin.address, auth["client_token"]), auth["entity_id"])
    return found


def test_a_person_creates_their_own_key_and_signs_with_it(people: dict[str, tuple[Session, str]]) -> None:
    lead, entity = people["lead"]
    assert lead.write(f"transit/keys/je-sign-{entity}", type="ed25519").status_code == 200
    assert lead.write(f"transit/keys/je-sign-{entity}", type="ed25519").status_code == 200, "again is fine"
    signed = lead.write(f"transit/sign/je-sign-{entity}", input=STATEMENT).json()["data"]["signature"]
    assert signed.startswith("vault:v1:")


def test_a_person_cannot_create_or_use_another_persons_key(people: dict[str, tuple[Session, str]]) -> None:
    lead, ops = people["lead"][0], people["ops"][1]
    for path in (
        f"transit/keys/je-sign-{ops}",
        f"transit/sign/je-sign-{ops}",
        "transit/sign/je-jobs",
        "transit/sign/je-ledger",
        "transit/keys/mine",
    ):
        assert lead.write(path, type="ed25519", input=STATEMENT).status_code == REFUSED


@pytest.mark.parametrize(
    "body", [{"type": "aes256-gcm96"}, {}, {"type": "ed25519", "exportable": True}, {"type": "ed25519", "derived": True}], ids=str
)
def test_a_signing_key_is_ed25519_and_never_leaves_vault(people: dict[str, tuple[Session, str]], body: dict[str, object]) -> None:
    ops, entity = people["ops"]
    assert ops.write(f"transit/keys/je-sign-{entity}", **body).status_code == REFUSED
    assert ops.write(f"transit/keys/je-sign-{entity}/config", exportable=True).status_code == REFUSED
    assert ops.read(f"transit/export/signing-key/je-sign-{entity}").status_code == REFUSED


def test_a_persons_token_can_issue_and_change_nothing(people: dict[str, tuple[Session, str]]) -> None:
    lead = people["lead"][0]
    for path in (
        "database/creds/orders-read-acme",
        "kv/data/tenants/acme/helpdesk",
        "identity/entity/name/ops",
        "sys/policies/acl/je-person",
    ):
        assert lead.read(path).status_code == REFUSED
    for path in ("auth/token/create", "identity/group/name/chiefs", "auth/people/users/lead/password", "auth/token/roles/je-job-j-dev-x"):
        assert lead.write(path, policies=["je-person"], password="x").status_code == REFUSED


def test_a_persons_login_lasts_a_working_day_and_can_be_ended(people: dict[str, tuple[Session, str]], shop: Shop) -> None:
    lead = people["lead"][0]
    seen = shop.admin.write("auth/token/lookup", token=lead.token).json()["data"]
    assert (seen["policies"], seen["creation_ttl"]) == (["je-person"], 8 * 3600)
    assert lead.write("auth/token/revoke-self").status_code == 204
    assert lead.read("identity/oidc/token/je-console").status_code == REFUSED
