"""The worker's Vault client against a real Vault: what it returns, how it fails, how it keeps its login."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from justenough.adapters.vault import (
    ConnectionRefused,
    IssuedSecret,
    JobToken,
    Vault,
    VaultDenied,
    VaultRefused,
    VaultSealed,
    VaultUnavailable,
    connection,
    control_groups,
    pki,
    user_login,
)
from justenough.adapters.vault.errors import refusal
from justenough.domain.catalog.models import ActionDef, ResolvedIssue
from justenough.domain.core.secret import Secret
from tests.activities.vault_shop import Desk, Shop, admin_vault, secret_values
from tests.support.canned_server import serve_canned_answers

pytestmark = pytest.mark.servers
NOWHERE = "00000000-0000-0000-0000-000000000000"


def test_a_job_token_reads_its_own_grant_in_its_own_scope_and_nothing_else(at: Desk) -> None:
    job = at.job()
    secret = at.issue(job, 3).token.secret.reveal()
    own, others = (
        "kv/data/tenants/acme/helpdesk",
        ("kv/data/tenants/globex/helpdesk", "kv/data/tenants/acme/export", "database/creds/orders-admin"),
    )
    assert at.shop.status("GET", own, token=secret) == 200
    assert [at.shop.status("GET", path, token=secret) for path in others] == [403, 403, 403]


def test_a_secret_from_kv_is_read_as_its_fields_without_a_lease(at: Desk) -> None:
    issued = at.issue(at.job(), 3).issued
    assert list(issued.fields) == ["token"]
    assert issued.lease_id is None
    assert issued.ttl is None


def test_a_database_credential_names_the_job_in_the_target(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    assert f"-token-{job}-" in held.issued.fields["username"].reveal()
    assert held.issued.lease_id == held.credential.lease_id
    assert held.issued.ttl is not None


def test_no_token_is_created_without_a_role_or_for_a_foreign_policy_or_identity(at: Desk) -> None:
    job, vault = at.job(), at.deps.vault
    with pytest.raises(VaultRefused):
        vault.create_token(job, policy="je-grant-orders-db-read", alias=None, ttl=60)
    vault.open_prefix(job, 600)
    for policy, alias in (("je-worker", None), ("je-grant-orders-db-read", "ops")):
        with pytest.raises((VaultRefused, VaultDenied)):
            vault.create_token(job, policy=policy, alias=alias, ttl=60)
    vault.close_prefix(job)


def test_a_policy_name_with_a_comma_stays_one_name(at: Desk) -> None:
    job = at.job()
    at.deps.vault.open_prefix(job, 600)
    token = at.deps.vault.create_token(job, policy="je-grant-a,je-worker", alias=None, ttl=60).secret.reveal()
    assert at.shop.status("LIST", "auth/token/roles", token=token) == 403


def test_a_job_token_cannot_outlive_its_hard_end(at: Desk) -> None:
    job = at.job()
    at.deps.vault.open_prefix(job, 60)
    token = at.deps.vault.create_token(job, policy="je-grant-orders-db-read", alias="je-scope-tenant-acme", ttl=3600)
    assert at.shop.admin("POST", "auth/token/lookup-accessor", {"accessor": token.accessor})["data"]["ttl"] <= 60
    assert (token.expires - at.clock.now()).total_seconds() <= 60


def test_an_opened_prefix_is_listed_until_it_is_closed(at: Desk) -> None:
    job, vault = at.job(), at.deps.vault
    vault.open_prefix(job, 600)
    assert job in vault.job_prefixes("dev")
    assert vault.job_prefixes("other") == ()
    token = vault.create_token(job, policy="je-grant-helpdesk-api-read", alias="je-scope-tenant-acme", ttl=60)
    assert len(vault.prefix_accessors(job)) == 1
    assert vault.is_accessor_alive(token.accessor)
    vault.close_prefix(job)
    assert job in vault.job_prefixes("dev"), "its token lives"
    vault.revoke_prefix(job)
    assert job not in vault.job_prefixes("dev")
    assert not vault.is_accessor_alive(token.accessor)


def test_revoking_a_prefix_or_lease_that_does_not_exist_is_no_error(at: Desk) -> None:
    job, vault = at.job(), at.deps.vault
    vault.close_prefix(job)
    vault.revoke_prefix(job)
    vault.revoke_lease("database/creds/orders-read-acme/nobody")
    assert not vault.is_lease_alive("database/creds/orders-read-acme/nobody")


@pytest.mark.parametrize("job", ["", "j-dev-short", "../roles", "j-dev-00000000000000000000000000/..", "j-dev-0000000000000000000000000*"])
def test_a_text_that_is_not_a_job_id_never_becomes_part_of_a_path(at: Desk, job: str) -> None:
    for call in (at.deps.vault.close_prefix, at.deps.vault.revoke_prefix, at.deps.vault.prefix_accessors):
        with pytest.raises(VaultRefused):
            call(job)


@pytest.mark.parametrize("lease", ["database/creds/../../sys/x", "a?b", "a%2e%2e/b", "../x", "/a", "a//b", ""])
def test_a_forged_lease_id_is_refused(at: Desk, lease: str) -> None:
    with pytest.raises(VaultRefused):
        at.deps.vault.revoke_lease(lease)


def test_the_worker_can_renew_a_lease(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    assert held.issued.lease_id is not None
    assert at.deps.vault.renew_lease(held.issued.lease_id, 120) > 0
    at.deps.vault.revoke_lease(held.issued.lease_id)


# People.


def test_a_person_is_read_with_their_current_login_name_and_groups(at: Desk) -> None:
    shop, vault = at.shop, at.deps.vault
    someone = shop.newcomer("nina", "support-leads")
    person = vault.person(someone.id, ["people"])
    assert person is not None
    assert (person.name, set(person.groups)) == ("nina", {"support-leads"})
    shop.leave(someone, "support-leads")
    left = vault.person(someone.id, ["people"])
    assert left is not None
    assert left.groups == frozenset()
    shop.admin("POST", f"identity/entity/id/{someone.id}", {"disabled": True})
    assert vault.person(someone.id, ["people"]) is None


def test_an_entity_without_a_login_on_a_people_mount_is_not_a_person(at: Desk) -> None:
    scope = at.shop.admin("GET", "identity/entity/name/je-scope-tenant-acme")["data"]["id"]
    ops = at.shop.sign_in("ops")
    assert at.deps.vault.person(scope, ["people"]) is None
    assert at.deps.vault.person(ops.id, ["elsewhere"]) is None
    assert at.deps.vault.person(ops.id, ["elsewhere", "people"]) is not None


@pytest.mark.parametrize("entity", ["", "x", "../group/id/x", NOWHERE, NOWHERE.replace("0", "A"), "{" + NOWHERE + "}"])
def test_a_text_that_is_not_an_entity_id_names_no_person(at: Desk, entity: str) -> None:
    assert at.deps.vault.person(entity, ["people"]) is None
    assert at.deps.vault.public_keys(entity) == {}


def test_public_keys_are_read_as_raw_bytes_by_version(at: Desk) -> None:
    lead = at.shop.sign_in("lead")
    keys = at.deps.vault.public_keys(lead.id)
    held = at.shop.admin("GET", f"transit/keys/je-sign-{lead.id}")["data"]["keys"]["1"]["public_key"]
    assert keys == {1: base64.b64decode(held)}


def test_what_a_person_signs_right_after_a_rotation_is_valid(at: Desk) -> None:
    person = at.shop.newcomer("rotated")
    before = set(at.deps.vault.public_keys(person.id))
    at.shop.admin("POST", f"transit/keys/je-sign-{person.id}/rotate")
    assert set(at.deps.vault.public_keys(person.id)) == {*before, max(before) + 1}


# Jobs' identities.


def test_the_newest_version_of_the_key_signs_and_every_version_verifies(at: Desk) -> None:
    console, worker = admin_vault(at.shop), at.deps.vault

    def asked(version: int) -> bytes:
        return f"version {version}".encode()

    signed = [worker.sign_identity(asked)]
    at.shop.admin("POST", "transit/keys/je-jobs/rotate")
    # A worker that started after the rotation uses the new version, too.
    signed += [worker.sign_identity(asked), worker.sign_identity(asked), at.shop.worker_vault().sign_identity(asked)]
    assert [message for message, _ in signed] == [b"version 1", *[b"version 2"] * 3]
    keys = console.identity_keys()
    for message, signature in signed:
        Ed25519PublicKey.from_public_bytes(keys[int(message.split()[1])]).verify(signature, message)


# The login.


def test_a_login_whose_token_was_revoked_is_made_again_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MIN_RELOGIN_AGE_S", 0.0)
    vault = shop.worker_vault()
    shop.admin("PUT", "sys/leases/revoke-prefix/auth/approle/login", {"sync": True})
    vault.job_prefixes("dev")
    vault.close()


def test_a_call_that_the_workers_policy_forbids_is_denied(at: Desk) -> None:
    with pytest.raises(VaultDenied):
        at.deps.vault.call_own("get", "sys/mounts")


def test_the_login_is_renewed_or_replaced_before_it_ends(shop: Shop, tmp_path: Path) -> None:
    shop.admin(
        "POST",
        "auth/approle/role/brief",
        {"token_policies": ["je-worker"], "token_no_default_policy": True, "token_ttl": "2s", "token_max_ttl": "3s"},
    )
    role = shop.admin("GET", "auth/approle/role/brief/role-id")["data"]["role_id"]
    secret = shop.admin("POST", "auth/approle/role/brief/secret-id", {})["data"]["secret_id"]
    kept, left = Vault(shop.settings.vault_addr), Vault(shop.settings.vault_addr)
    file = tmp_path / "approle.json"
    file.write_text(json.dumps({"role_id": role, "secret_id": secret}))
    for vault in (kept, left):
        vault.login_from_file(file)
    kept.clock.note(time.time() + 3600, sent=kept.clock.steady())
    kept.keep_alive()
    left._log_in = None
    deadline = time.monotonic() + 4.5
    while time.monotonic() < deadline:
        kept.job_prefixes("dev")
        threading.Event().wait(0.2)
    with pytest.raises(VaultDenied):
        left.job_prefixes("dev")
    assert abs(kept.clock.now().timestamp() - time.time()) < 60
    kept.close()
    left.close()


@pytest.mark.parametrize("content", ["", "[]", "{}", "hvs.secretsecret"])
def test_an_approle_file_without_its_two_ids_is_refused_without_quoting_it(shop: Shop, tmp_path: Path, content: str) -> None:
    file = tmp_path / "approle.json"
    file.write_text(content)
    with pytest.raises(VaultDenied, match="must be JSON with role_id and secret_id") as refused:
        Vault(shop.settings.vault_addr).login_from_file(file)
    assert "hvs.secretsecret" not in str(refused.value)


def test_a_wrong_secret_id_is_denied_and_the_error_does_not_show_it(shop: Shop, tmp_path: Path) -> None:
    role = json.loads(shop.settings.worker_approle_file.read_text())["role_id"]
    file = tmp_path / "approle.json"
    file.write_text(json.dumps({"role_id": role, "secret_id": "wrong-secret-id-4711"}))
    with pytest.raises(VaultDenied) as refused:
        Vault(shop.settings.vault_addr).login_from_file(file)
    assert "4711" not in f"{refused.value} {refused.value.__cause__}"


# Failing.


def test_a_vault_that_is_not_there_is_unavailable() -> None:
    vault = Vault("http://127.0.0.1:1")
    vault.login_token(Secret("hvs.canary-canary-canary"))
    with pytest.raises(ConnectionRefused) as error:
        vault.close_prefix("j-dev-00000000000000000000000000")
    chain = f"{error.value!r} {error.value.__cause__!r}"
    assert "canary" not in chain


@pytest.mark.parametrize(
    "status, body, kind",
    [
        (503, '{"errors": ["Vault is sealed"]}', VaultSealed),
        (501, "{}", VaultSealed),
        (500, '{"errors": ["internal"]}', VaultUnavailable),
        (500, '{"errors": ["dial tcp 127.0.0.1:5432: connect: connection refused"]}', ConnectionRefused),
        (502, "<html>", VaultUnavailable),
        (429, "", VaultUnavailable),
        (307, "", VaultUnavailable),
        (400, '{"errors": ["no"]}', VaultRefused),
        (400, '{"errors": ["failed to persist accessor index entry: leadership lost while committing log"]}', VaultUnavailable),
        (400, '{"errors": ["failed to persist lease entry: node is not the leader"]}', VaultUnavailable),
        (400, '{"errors": ["context canceled"]}', VaultUnavailable),
        (403, '{"errors": ["permission denied"]}', VaultDenied),
        (404, '{"errors": []}', VaultUnavailable),
    ],
)
def test_each_error_response_of_vault_becomes_the_error_that_says_what_to_do(status: int, body: str, kind: type[Exception]) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    vault = Vault(f"http://127.0.0.1:{server.server_port}")
    vault.login_token(Secret("t"))
    with pytest.raises(kind) as error:
        vault.is_lease_alive("database/creds/x/y")
    assert type(error.value) is kind
    vault.close()
    server.shutdown()
    server.server_close()


def test_a_403_that_only_says_that_the_handle_is_unknown_means_gone() -> None:
    # HashiCorp's Vault answers so, OpenBao with 400.
    from justenough.adapters.vault.errors import UnknownHandle

    assert isinstance(refusal(403, "POST auth/token/lookup-accessor", {"errors": ["1 error occurred: * invalid accessor"]}), UnknownHandle)


@pytest.mark.parametrize(
    "said",
    ["syntax error near 'A1a-canarycanary42'", 'near "canary"', "A1a-canarycanary42", "hvs.canary0canary0canary", r'"near \"canary\""'],
)
def test_an_error_of_vault_is_passed_on_without_anything_that_looks_like_a_secret(said: str) -> None:
    message = str(refusal(500, "GET database/creds/x", {"errors": [f"role could not be made: {said}"]}))
    assert "canary" not in message
    assert "role could not be made" in message


@pytest.mark.parametrize(
    "said, fault",
    [
        (
            "id_token failed verification: oidc: token is expired (Token Expiry: 2026-12-01 06:43:41 +0000 UTC): token is expired",
            "token is expired",
        ),
        (
            "current time 2026-12-01 06:49:36 before the iat (issued at) time 2026-12-01 06:51:06: invalid issued at (iat)",
            "invalid issued at",
        ),
        (r"unable to exchange auth code with provider: oauth2: \"invalid_grant\" \"canary\"", "invalid_grant"),
    ],
)
def test_vaults_reason_for_refusing_a_provider_is_passed_on_without_the_rest(said: str, fault: str) -> None:
    answer = {"errors": [f'OpenBao login failed. Error exchanging oidc code: "Provider.Exchange: {said}".']}
    message = str(refusal(400, "GET auth/people-oidc/oidc/callback", answer))
    assert message.endswith(f" {fault})")
    assert "canary" not in message
    assert "2026" not in message


def test_a_failing_issue_names_the_path_and_no_secret(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    with pytest.raises(VaultDenied) as refused:
        at.deps.vault.issue(held.token, ResolvedIssue(path="database/creds/orders-admin", method="read", data={}))
    assert "database/creds/orders-admin" in str(refused.value)
    assert [value for value in secret_values(held) if value in repr(refused.value)] == []


def test_no_issued_secret_is_in_the_repr_of_its_credential(at: Desk) -> None:
    held = at.issue(at.job())
    assert [value for value in secret_values(held) if value in repr(held)] == []


TOKEN = JobToken(accessor="a", secret=Secret("t"), expires=datetime.max.replace(tzinfo=UTC))
RESOLVED = ResolvedIssue(path="database/creds/x", method="read", data={})


def create_token(vault: Vault) -> object:
    return vault.create_token("j-dev-00000000000000000000000000", policy="je-grant-x", alias=None, ttl=60)


@pytest.mark.parametrize(
    "call, answer, why",
    [
        (
            create_token,
            {"auth": {"token_policies": ["je-grant-x", "root"], "orphan": True}},
            "is not an orphan token with je-grant-x as its only",
        ),
        (create_token, {"auth": {"token_policies": ["je-grant-x"], "orphan": False}}, "is not an orphan token with je-grant-x as its only"),
        (create_token, {}, "is not an orphan token with je-grant-x as its only"),
        (
            lambda vault: vault.issue(TOKEN, RESOLVED),
            {"wrap_info": {"token": "t"}},
            "creds/x: an approver must authorize it in Vault itself",
        ),
        (lambda vault: vault.issue(TOKEN, RESOLVED), {}, "creds/x: Vault has nothing at this path"),
        (lambda vault: pki.is_unrevoked(vault, "pki/cert/01"), {"data": {"revocation_time": 1}}, "pki/cert/crl: Vault returned no CRL"),
        (
            lambda vault: vault.sign_report(b"x"),
            {"data": {"signature": "x"}},
            "transit/sign/je-jobs: Vault returned no signature; `justenough vault setup`",
        ),
        (
            lambda vault: vault.sign_for_ledger(b"x"),
            {"data": {"signature": "vault:v1:AA=="}},
            "does not show the version 1 that it signed with",
        ),
        (lambda vault: vault.wrap_data_key(Secret("k")), {"data": {"x": "y"}}, "Vault returned no ciphertext; `justenough vault apply`"),
        (lambda vault: control_groups.read_state(vault, "a"), {"auth": None}, "this Vault has no control groups"),
        (lambda vault: user_login.sign(vault, Secret("t"), NOWHERE, b"x"), {"data": {}}, "Vault returned no signature"),
    ],
)
def test_an_answer_that_lacks_what_was_asked_for_is_no_success(call: Callable[[Vault], object], answer: Any, why: str) -> None:
    with serve_canned_answers() as server, closing(Vault(server.address)) as vault:
        server.set_response(200, answer)
        vault.login_token(Secret("t"))
        with pytest.raises(VaultRefused, match=why):
            call(vault)


def test_the_token_of_a_locked_issue_that_vault_did_not_lock_is_revoked_at_once() -> None:
    with serve_canned_answers() as server, closing(Vault(server.address)) as vault:
        server.set_response(200, {"data": {"username": "u", "password": "p"}, "lease_id": "database/creds/x/1"})
        vault.login_token(Secret("own"))
        with pytest.raises(VaultRefused, match="creds/x: Vault issues this without authorization; run `justenough vault setup`"):
            control_groups.request_issue(vault, TOKEN, RESOLVED)
    assert [request.path for request in server.requests][-2:] == ["/v1/database/creds/x", "/v1/auth/token/revoke"]
    assert json.loads(server.requests[-1].body) == {"token": "t"}


def test_a_payload_key_that_vault_does_not_decrypt_now_is_an_error_and_not_a_foreign_key() -> None:
    with serve_canned_answers() as server, closing(Vault(server.address)) as vault:
        vault.login_token(Secret("t"))
        for said, is_foreign in (("invalid ciphertext: no prefix", True), ("no handler for route", False)):
            server.set_response(400, {"errors": [said]})
            with nullcontext() if is_foreign else pytest.raises(VaultRefused, match=said):
                assert vault.unwrap_data_key("vault:v1:x") is None


def test_an_issue_that_is_not_as_the_catalog_says_is_unfit() -> None:
    action = ActionDef.model_validate(
        {"issue": {"path": "pki/issue/x"}, "policy": "je-grant-x", "max_ttl": "1h", "revocable": "now", "crl": "pki"}
    )
    issued = IssuedSecret(lease_id="pki/issue/x/1", ttl=60, fields={"private_key": Secret("k")})
    why = "the catalog has a `crl`, but what Vault issued is not a certificate"
    assert pki.why_unfit(action, issued, grant_ends=datetime.now(UTC)) == why


def test_a_connection_that_a_firewall_has_forgotten_costs_no_call_the_longest_timeout(at: Desk) -> None:
    """Only the kernel notices it, so these are the kernel's own limits."""
    vault: Any = at.deps.vault
    vault.read_data("get", "auth/token/lookup-self")
    pools = vault._session.get_adapter(vault.address).poolmanager.pools
    links = [each.sock for key in pools.keys() for each in pools[key].pool.queue if each and each.sock]  # noqa: SIM118 - it is no mapping
    asked = (socket.TCP_NODELAY, socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    assert links
    for link in links:
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert [link.getsockopt(socket.IPPROTO_TCP, option) for option in asked] == [1, 5_000, 10, 5, 4]


def test_a_page_of_a_proxy_is_no_success() -> None:
    with serve_canned_answers() as proxy, closing(Vault(proxy.address)) as vault:
        proxy.set_response(200, b"<html>Back in a moment</html>", media="text/html")
        vault.login_token(Secret("t"))
        with pytest.raises(VaultUnavailable, match="does not answer as Vault does"):
            vault.revoke_lease("database/creds/orders-read-acme/x")
