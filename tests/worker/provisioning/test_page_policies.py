"""Vault's configuration for the pages on a real server: logins with only the policy of people, and a key that encrypts their tokens."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.worker.provisioning.provisioned_shop import PEOPLE, Session, Shop

pytestmark = pytest.mark.servers
REFUSED = 403
TOKEN = base64.b64encode(b"s.token").decode()
MINE, ANOTHERS = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))


def log_in(shop: Shop, mount: str, name: str = "lead") -> dict[str, Any]:
    auth: dict[str, Any] = Session(shop.admin.address).write(f"auth/{mount}/login/{name}", password=f"{name}-password").json()["auth"]
    return auth


def test_a_login_to_the_pages_is_personal_and_short_and_has_one_policy(shop: Shop) -> None:
    pages, people = log_in(shop, "pages"), log_in(shop, "people")
    assert pages["entity_id"] == people["entity_id"]
    assert (pages["policies"], pages["lease_duration"], pages["renewable"]) == (["je-person"], 45 * 60, True)
    seen = shop.admin.write("auth/token/lookup", token=pages["client_token"]).json()["data"]
    assert (seen["type"], seen["orphan"]) == ("service", True)


def test_a_person_sees_renews_and_ends_their_own_token_and_no_other(shop: Shop) -> None:
    lead, ops = log_in(shop, "pages"), log_in(shop, "pages", "ops")
    mine = Session(shop.admin.address, lead["client_token"])
    assert mine.read("auth/token/lookup-self").status_code == 200
    assert mine.write("auth/token/renew-self").json()["auth"]["lease_duration"] == 45 * 60
    for path, body in {
        "auth/token/lookup": {"token": ops["client_token"]},
        "auth/token/revoke": {"token": ops["client_token"]},
        "auth/token/lookup-accessor": {"accessor": ops["accessor"]},
        "auth/token/revoke-accessor": {"accessor": ops["accessor"]},
        "transit/decrypt/je-pages": {"ciphertext": "vault:v1:x", "context": MINE},
        "transit/encrypt/je-pages": {"plaintext": TOKEN, "context": MINE},
    }.items():
        assert mine.write(path, **body).status_code == REFUSED, path
    assert mine.write("auth/token/revoke-self").status_code == 204
    assert mine.read("auth/token/lookup-self").status_code == REFUSED


def test_the_console_decrypts_only_with_the_context_of_the_encryption(console: Session) -> None:
    sealed = console.write("transit/encrypt/je-pages", plaintext=TOKEN, context=MINE).json()["data"]["ciphertext"]
    assert console.write("transit/decrypt/je-pages", ciphertext=sealed, context=MINE).json()["data"]["plaintext"] == TOKEN
    assert console.write("transit/decrypt/je-pages", ciphertext=sealed, context=ANOTHERS).status_code == 400
    assert console.write("transit/decrypt/je-pages", ciphertext=sealed).status_code == REFUSED


@pytest.mark.parametrize(
    "path,body",
    [
        ("transit/encrypt/je-pages", {"plaintext": TOKEN}),
        ("transit/encrypt/je-pages", {"plaintext": TOKEN, "context": MINE, "type": "aes256-gcm96"}),
        ("transit/encrypt/je-pages", {"batch_input": [{"plaintext": TOKEN, "context": MINE}]}),
        ("transit/decrypt/je-pages", {"batch_input": [{"ciphertext": "vault:v1:x", "context": MINE}]}),
        ("transit/rewrap/je-pages", {"ciphertext": "vault:v1:x", "context": MINE}),
        ("transit/keys/je-pages/config", {"deletion_allowed": True, "exportable": True}),
        ("transit/keys/je-pages/rotate", {}),
        ("transit/keys/je-other", {"type": "aes256-gcm96"}),
        ("transit/encrypt/je-other", {"plaintext": TOKEN, "context": MINE}),
        ("transit/decrypt/je-payloads", {"ciphertext": "vault:v1:x", "associated_data": MINE}),
        ("transit/decrypt/je-payloads", {"batch_input": [{"ciphertext": "vault:v1:x", "associated_data": MINE}]}),
        ("transit/encrypt/je-payloads", {"plaintext": TOKEN, "associated_data": MINE}),
        ("transit/rewrap/je-payloads", {"ciphertext": "vault:v1:x"}),
        ("transit/keys/je-payloads/rotate", {}),
        ("transit/datakey/plaintext/je-pages", {"context": MINE}),
        ("auth/pages/users/evil", {"password": "x", "token_policies": ["je-worker"]}),
        ("auth/pages/users/lead/password", {"password": "x"}),
        ("auth/token/create", {"policies": ["je-person"]}),
        ("auth/token/revoke-accessor", {"accessor": "x"}),
        ("sys/leases/revoke-prefix/auth/pages/login", {}),
        ("identity/entity-alias", {"name": "evil"}),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value) or "nothing",
)
def test_the_console_can_do_nothing_else_with_the_page_key_or_page_logins(console: Session, path: str, body: dict[str, Any]) -> None:
    assert console.write(path, **body).status_code == REFUSED


def test_the_console_unwraps_data_keys_but_no_locks_wrapping_token(console: Session, shop: Shop) -> None:
    wrapped = console.write("transit/encrypt/je-payloads", plaintext=TOKEN).json()["data"]["ciphertext"]
    assert console.write("transit/decrypt/je-payloads", ciphertext=wrapped).json()["data"]["plaintext"] == TOKEN
    lock = shop.admin.write("transit/encrypt/je-payloads", plaintext=TOKEN, associated_data=MINE).json()["data"]["ciphertext"]
    assert shop.admin.write("transit/decrypt/je-payloads", ciphertext=lock, associated_data=MINE).json()["data"]["plaintext"] == TOKEN
    assert console.write("transit/decrypt/je-payloads", ciphertext=lock).status_code == 400


@pytest.mark.parametrize(
    "path", ["transit/keys/je-pages", "transit/export/encryption-key/je-pages", "transit/backup/je-pages", "auth/pages/users/lead"]
)
def test_the_console_reads_neither_the_page_key_nor_the_page_logins(console: Session, path: str) -> None:
    assert console.read(path).status_code == REFUSED


def test_the_key_is_derived_and_stays_in_vault(shop: Shop) -> None:
    key = shop.admin.read_data("transit/keys/je-pages")
    assert (key["type"], key["derived"], key["exportable"], key["allow_plaintext_backup"]) == ("aes256-gcm96", True, False, False)


def test_a_vault_with_people_but_without_a_login_to_the_pages_is_reported(shop: Shop) -> None:
    said = {step.path: step.note for step in shop.setup(people=None, pages_mount="elsewhere")}
    assert said["sys/auth/elsewhere"].startswith("nobody can log in there yet: enable an auth method at elsewhere/")


def test_with_an_identity_provider_the_default_mount_for_passwords_is_not_missed(shop: Shop) -> None:
    said = {step.path for step in shop.setup(people=None, pages_oidc_mount="people-oidc", people_mounts=("people-oidc",))}
    assert "sys/auth/people-oidc" in said
    assert "sys/auth/pages" not in said


def test_a_mount_that_pages_and_people_share_is_not_changed(shop: Shop) -> None:
    said = {step.path for step in shop.setup(people=PEOPLE, pages_mount="people")}
    assert not {path for path in said if "/pages" in path}
    assert log_in(shop, "people")["lease_duration"] == 8 * 3600
