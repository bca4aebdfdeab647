"""The worker's Vault policy on a real server: it allows what a job needs and refuses every known bypass."""

from __future__ import annotations

import pytest

from justenough.domain.catalog.models import ActionDef
from justenough.domain.core.vault_names import HARD_ENDS, hard_end_of, job_role
from tests.worker.provisioning.provisioned_shop import Session, Shop, job_role_body, job_token, new_job, open_prefix
from worker.provisioning.policies import grant_policy

pytestmark = pytest.mark.servers
REFUSED = 403
WIDENED = {
    "every policy": {"allowed_policies_glob": ["*"]},
    "a second glob": {"allowed_policies_glob": ["je-grant-*", "*"]},
    "a comma in the text": {"allowed_policies_glob": "je-grant-x,*"},
    "a comma in the list": {"allowed_policies_glob": ["je-grant-x,*"]},
    "the grant glob as text": {"allowed_policies_glob": "je-grant-*"},
    "a narrower glob with a comma": {"allowed_policies_glob": "je-grant-*,je-worker"},
    "an empty list of globs": {"allowed_policies_glob": []},
    "policies by name": {"allowed_policies": ["superadmin"]},
    "nothing disallowed": {"disallowed_policies": []},
    "the default policy": {"token_no_default_policy": False},
    "batch tokens": {"token_type": "batch"},
    "batch tokens by default": {"token_type": "default-batch"},
    "tokens of either type": {"token_type": "default"},
    "periodic tokens": {"token_period": "700h"},
    "periodic tokens by the old name": {"period": "700h"},
    "tokens used once": {"token_num_uses": 1},
    "a path suffix": {"path_suffix": "elsewhere"},
    "children of the worker": {"orphan": False},
    "every identity": {"allowed_entity_aliases": ["*"]},
    "a person's identity too": {"allowed_entity_aliases": ["je-scope-*", "lead"]},
    "a person's identity by comma": {"allowed_entity_aliases": "je-scope-*,lead"},
    "addresses of its own": {"token_bound_cidrs": ["0.0.0.0/0"]},
    "no renewal": {"renewable": False},
    "another hard end, old name": {"explicit_max_ttl": "700h"},
}
# Each of these gives no hard end, or one after the longest job; `1ns` and `0.5s` count as zero.
NO_HARD_END = [
    None,
    0,
    "0",
    "0s",
    "0m",
    "",
    "00",
    "-1",
    "1ns",
    "1ms",
    "0.5s",
    "1us",
    "193h",
    "700h",
    99999999,
    1800,
    "1h,0",
    ["1h"],
    "1h0m0.0s",
    " 1h",
    "*",
]


@pytest.fixture
def job() -> str:
    return new_job()


@pytest.fixture
def role(job: str) -> str:
    return f"auth/token/roles/{job_role(job)}"


def test_the_worker_opens_a_prefix_issues_under_it_and_closes_it(shop: Shop, worker: Session, job: str, role: str) -> None:
    held = job_token(worker, job, "je-grant-orders-db-read")
    lease = held.read("database/creds/orders-read-acme").json()["lease_id"]
    prefix = f"auth/token/create/{job_role(job)}"
    assert job_role(job) in worker.list("auth/token/roles").json()["data"]["keys"]
    assert f"{job_role(job)}/" in worker.list("sys/leases/lookup/auth/token/create/").json()["data"]["keys"]
    assert len(worker.list(f"sys/leases/lookup/{prefix}/").json()["data"]["keys"]) == 1
    assert worker.write("sys/leases/lookup", lease_id=lease).status_code == 200
    assert worker.delete(role).status_code == 204
    assert worker.write(f"sys/leases/revoke/{lease}", sync=True).status_code == 204
    assert worker.write(f"sys/leases/revoke-prefix/{prefix}", sync=True).status_code == 204
    assert worker.list(f"sys/leases/lookup/{prefix}/").status_code == 404
    assert held.read("database/creds/orders-read-acme").status_code == REFUSED


def test_the_worker_looks_up_its_jobs_tokens_and_revokes_one_of_them(worker: Session, job: str) -> None:
    made = worker.write(
        open_prefix(worker, job), policies=["je-grant-orders-db-admin"], ttl="5m", display_name=job, renewable=False
    ).json()["auth"]
    assert worker.write("auth/token/lookup-accessor", accessor=made["accessor"]).status_code == 200
    name = worker.list(f"sys/leases/lookup/auth/token/create/{job_role(job)}/").json()["data"]["keys"][0]
    assert worker.write(f"sys/leases/revoke/auth/token/create/{job_role(job)}/{name}", sync=True).status_code == 204
    assert worker.write("auth/token/lookup-accessor", accessor=made["accessor"]).status_code != 200


def test_each_hard_end_that_a_job_can_need_is_accepted(shop: Shop, worker: Session, role: str) -> None:
    for seconds in (1, 60, 61, 3540, 3541, 3600, 24 * 3600, 24 * 3600 + 1, 7 * 24 * 3600 + 3600):
        assert hard_end_of(seconds) in HARD_ENDS
        assert worker.write(role, **job_role_body(token_explicit_max_ttl=hard_end_of(seconds))).status_code == 204
        assert int(str(shop.admin.read_data(role)["token_explicit_max_ttl"])) >= seconds


def test_a_token_of_a_24_hour_job_may_live_24_hours_and_not_longer(worker: Session, job: str, role: str) -> None:
    path = open_prefix(worker, job)
    worker.write(role, **job_role_body(token_explicit_max_ttl=hard_end_of(24 * 3600)))
    for ttl in ("24h", "700h"):
        made = worker.write(path, policies=["je-grant-orders-db-read"], ttl=ttl, display_name=job, renewable=False).json()["auth"]
        assert made["lease_duration"] == 24 * 3600


def test_a_token_of_an_action_that_sends_nothing_can_send_nothing(shop: Shop, worker: Session, job: str) -> None:
    action = {"policy": "je-grant-bare", "issue": {"path": "transit/random", "method": "update"}, "max_ttl": "5m", "revocable": "never"}
    definition = ActionDef.model_validate(action)
    shop.admin.write(f"sys/policies/acl/{definition.policy}", policy=grant_policy(definition))
    held = job_token(worker, job, definition.policy, tenant=None)
    assert held.write("transit/random").status_code == 200
    assert held.write("transit/random", bytes=64).status_code == REFUSED
    shop.admin.delete(f"sys/policies/acl/{definition.policy}")


@pytest.mark.parametrize("widened", WIDENED.values(), ids=WIDENED)
def test_a_job_role_with_wider_rights_is_refused(shop: Shop, worker: Session, role: str, widened: dict[str, object]) -> None:
    assert worker.write(role, **job_role_body()).status_code == 204, "the control: the role itself is allowed"
    assert worker.write(role, **job_role_body(**widened)).status_code == REFUSED
    assert shop.admin.read_data(role)["allowed_policies_glob"] == ["je-grant-*"]


@pytest.mark.parametrize("end", NO_HARD_END, ids=repr)
def test_a_role_without_a_real_hard_end_is_refused(shop: Shop, worker: Session, role: str, end: object) -> None:
    body = job_role_body(token_explicit_max_ttl=end)
    assert worker.write(role, **body).status_code in {400, REFUSED}
    assert shop.admin.read(role).status_code == 404


@pytest.mark.parametrize("field", ["allowed_policies_glob", "orphan", "token_no_default_policy", "token_type", "token_explicit_max_ttl"])
def test_a_role_that_leaves_a_limit_out_is_refused(worker: Session, role: str, field: str) -> None:
    assert worker.write(role, **job_role_body(**{field: None})).status_code == REFUSED


@pytest.mark.parametrize("name", ["je-job-j-prod-01", "je-job-j-devil-01", "je-job-x", "je-job-j-de", "ops", "je-jobs", "../roles/x"])
def test_a_role_outside_this_installations_jobs_is_refused(worker: Session, name: str) -> None:
    assert worker.write(f"auth/token/roles/{name}", **job_role_body()).status_code in {REFUSED, 404, 405}
    assert worker.delete(f"auth/token/roles/{name}").status_code in {REFUSED, 404, 405}


@pytest.mark.parametrize(
    "body",
    [
        {"policies": ["superadmin"]},
        {"policies": ["root"]},
        {"policies": ["je-grant-orders-db-read", "root"]},
        {"policies": ["je-worker"]},
        {"policies": ["default"]},
        {"policies": None},
        {"entity_alias": "lead"},
        {"entity_alias": "root"},
        {"entity_alias": "je-scope-tenant-nobody-provisioned"},
        {"display_name": "j-prod-01"},
        {"display_name": "ops"},
        {"display_name": None},
        {"ttl": None},
        {"period": "700h"},
        {"type": "batch"},
        {"num_uses": 1},
        {"no_parent": False},
        {"id": "chosen-by-the-worker"},
        {"renewable": True},
        {"explicit_max_ttl": "700h"},
        {"meta": {"username": "lead"}},
        {"no_default_policy": False},
    ],
    ids=str,
)
def test_a_token_with_more_rights_than_a_grant_is_refused(worker: Session, job: str, body: dict[str, object]) -> None:
    plain: dict[str, object] = {
        "policies": ["je-grant-orders-db-read"],
        "ttl": "5m",
        "display_name": job,
        "renewable": False,
        "entity_alias": "je-scope-tenant-acme",
    }
    path = open_prefix(worker, job)
    assert worker.write(path, **plain).status_code == 200, "the control: the token itself is allowed"
    answer = worker.write(path, **{key: value for key, value in {**plain, **body}.items() if value is not None})
    assert answer.status_code in {400, REFUSED}, answer.text


def test_a_comma_in_a_tokens_policies_adds_no_second_policy(worker: Session, job: str) -> None:
    made = worker.write(open_prefix(worker, job), policies="je-grant-orders-db-read,je-worker", ttl="5m", display_name=job, renewable=False)
    assert made.json()["auth"]["token_policies"] == ["je-grant-orders-db-read,je-worker"], "one policy of that name, which does not exist"
    nothing = Session(worker.address, made.json()["auth"]["client_token"])
    assert nothing.read("database/creds/orders-read-acme").status_code == REFUSED
    assert nothing.list("auth/token/roles").status_code == REFUSED


def test_no_token_is_created_without_a_role(worker: Session) -> None:
    for path in (
        "auth/token/create",
        "auth/token/create-orphan",
        "auth/token/create/ops",
        f"auth/token/create/{job_role(new_job('prod'))}",
    ):
        assert worker.write(path, policies=["je-grant-orders-db-read"], ttl="5m", display_name="j-dev-x").status_code == REFUSED


def test_another_installations_jobs_cannot_be_seen_or_revoked(shop: Shop, worker: Session) -> None:
    theirs = job_role(new_job("prod"))
    shop.admin.write(f"auth/token/roles/{theirs}", **job_role_body())
    made = shop.admin.write(f"auth/token/create/{theirs}", policies=["je-grant-orders-db-read"], ttl="5m").json()["auth"]
    assert worker.read(f"auth/token/roles/{theirs}").status_code == REFUSED
    assert worker.list(f"sys/leases/lookup/auth/token/create/{theirs}/").status_code == REFUSED
    assert worker.write(f"sys/leases/revoke-prefix/auth/token/create/{theirs}", sync=True).status_code == REFUSED
    assert worker.write("auth/token/revoke-accessor", accessor=made["accessor"]).status_code == REFUSED
    assert shop.admin.write("auth/token/lookup-accessor", accessor=made["accessor"]).status_code == 200


def test_the_body_cannot_redirect_a_revocation_to_another_lease(shop: Shop, worker: Session, job: str) -> None:
    """Vault prefers `lease_id` in the body to the lease in the path."""
    shop.admin.write(
        "database/roles/payroll", db_name="shop", creation_statements=["CREATE ROLE \"{{name}}\" PASSWORD '{{password}}'"], default_ttl="5m"
    )
    shop.admin.write("database/config/shop", allowed_roles=["*"])
    theirs = shop.admin.read("database/creds/payroll").json()["lease_id"]
    held = job_token(worker, job, "je-grant-orders-db-read")
    ours = held.read("database/creds/orders-read-acme").json()["lease_id"]
    for path in (
        f"sys/leases/revoke/{ours}",
        "sys/leases/revoke/database/creds/orders-read-acme/x",
        "sys/leases/revoke",
        f"sys/leases/revoke/{theirs}",
    ):
        assert worker.write(path, lease_id=theirs, sync=True).status_code == REFUSED
    for path in (
        "sys/leases/revoke-prefix/database/creds",
        "sys/leases/revoke-prefix/database/creds/orders-read-acme",
        "sys/leases/revoke-force/database",
    ):
        assert worker.write(path, sync=True).status_code == REFUSED
    for path in ("sys/leases/lookup", "sys/leases/renew"):
        assert worker.write(path, lease_id=theirs).status_code == REFUSED
        assert worker.write(path, lease_id=ours).status_code == 200
    assert shop.admin.write("sys/leases/lookup", lease_id=theirs).status_code == 200
    shop.admin.write(f"sys/leases/revoke/{theirs}", sync=True)
    shop.setup()


def test_identities_cannot_be_changed_borrowed_or_created(shop: Shop, worker: Session) -> None:
    scope = shop.admin.read_data("identity/entity/name/je-scope-tenant-acme")
    lead = shop.admin.read_data("identity/entity/name/lead")
    mount = shop.admin.read_data("sys/auth")["token/"]
    attempts: list[tuple[str, dict[str, object]]] = [
        (f"identity/entity/id/{scope['id']}", {"metadata": {"tenant": "globex"}}),
        ("identity/entity/name/je-scope-tenant-acme", {"metadata": {"tenant": "globex"}}),
        ("identity/entity", {"name": "je-scope-tenant-evil", "metadata": {"tenant": "globex"}}),
        ("identity/entity-alias", {"name": "je-scope-x", "canonical_id": lead["id"], "mount_accessor": mount["accessor"]}),  # type: ignore[index] # a mount's table
        ("identity/entity/merge", {"from_entity_ids": [lead["id"]], "to_entity_id": scope["id"]}),
        ("identity/group", {"name": "chiefs", "member_entity_ids": [scope["id"]]}),
        ("identity/group/name/support-leads", {"member_entity_ids": [scope["id"]]}),
        ("identity/lookup/entity", {"name": "lead"}),
    ]
    for path, body in attempts:
        assert worker.write(path, **body).status_code == REFUSED, path
    assert shop.admin.read_data("identity/entity/name/je-scope-tenant-acme")["metadata"] == {"tenant": "acme"}


def test_the_worker_reads_people_groups_and_public_keys_but_cannot_sign_for_a_person(shop: Shop, worker: Session) -> None:
    login = Session(shop.admin.address).write("auth/people/login/lead", password="lead-password").json()["auth"]
    key = f"je-sign-{login['entity_id']}"
    Session(shop.admin.address, login["client_token"]).write(f"transit/keys/{key}", type="ed25519")
    entity = worker.read_data(f"identity/entity/id/{login['entity_id']}")
    assert [worker.read_data(f"identity/group/id/{group}")["name"] for group in list(entity["group_ids"])] == ["support-leads"]  # type: ignore[call-overload] # a list of ids
    assert "public_key" in str(worker.read_data(f"transit/keys/{key}"))
    for path in (
        f"transit/sign/{key}",
        f"transit/hmac/{key}",
        f"transit/keys/{key}/rotate",
        f"transit/keys/{key}/config",
        "transit/keys/je-sign-new",
    ):
        assert worker.write(path, input="aGk=", type="ed25519", deletion_allowed=True, exportable=True).status_code == REFUSED, path
    for path in (f"transit/export/signing-key/{key}", f"transit/backup/{key}"):
        assert worker.read(path).status_code == REFUSED
    for path in (
        "transit/sign/je-ledger",
        "transit/sign/je-payloads",
        "transit/hmac/je-payloads",
        "transit/rewrap/je-payloads",
        "transit/keys/je-payloads/rotate",
    ):
        assert worker.write(path, input="aGk=").status_code == REFUSED


def test_the_worker_signs_jobs_identities_and_can_do_nothing_else_with_their_key(worker: Session) -> None:
    sign, key = "transit/sign/je-jobs", "transit/keys/je-jobs"
    assert worker.write(sign, input="aGk=").json()["data"]["signature"].startswith("vault:v")
    for body in ({}, {"input": "aGk=", "key_version": 1}, {"input": "aGk=", "context": "aGk="}, {"batch_input": [{"input": "aGk="}]}):
        assert worker.write(sign, **body).status_code == REFUSED, body
    for path in (
        f"{sign}/sha2-256",
        "transit/hmac/je-jobs",
        "transit/sign/je-jobs-x",
        f"{key}/rotate",
        f"{key}/config",
        f"{key}/trim",
        key,
    ):
        assert worker.write(path, input="aGk=", type="ed25519", deletion_allowed=True, exportable=True).status_code == REFUSED, path
    for path in (key, "transit/export/signing-key/je-jobs", "transit/backup/je-jobs"):
        assert worker.read(path).status_code == REFUSED, path
    assert worker.delete(key).status_code == REFUSED


def test_the_console_reads_the_key_that_verifies_jobs_identities_and_cannot_sign_with_it(console: Session) -> None:
    assert "public_key" in str(console.read_data("transit/keys/je-jobs"))
    for path in ("transit/sign/je-jobs", "transit/keys/je-jobs/rotate", "transit/keys/je-jobs"):
        assert console.write(path, input="aGk=").status_code == REFUSED
    assert console.read("transit/export/signing-key/je-jobs").status_code == REFUSED


def test_the_console_signs_with_the_ledgers_key_and_lists_the_keys_that_verify_it(console: Session) -> None:
    sign, key = "transit/sign/je-ledger", "transit/keys/je-ledger"
    assert console.write(sign, input="aGk=").json()["data"]["signature"].startswith("vault:v")
    assert "public_key" in str(console.read_data(key))
    for body in ({}, {"input": "aGk=", "key_version": 1}, {"batch_input": [{"input": "aGk="}]}):
        assert console.write(sign, **body).status_code == REFUSED, body
    for path in (f"{key}/rotate", f"{key}/config", f"{key}/trim", key):
        assert console.write(path, input="aGk=", type="ed25519", deletion_allowed=True, exportable=True).status_code == REFUSED, path
    for path in ("transit/export/signing-key/je-ledger", "transit/backup/je-ledger"):
        assert console.read(path).status_code == REFUSED


@pytest.mark.parametrize(
    "path",
    [
        *(
            "sys/policies/acl/je-grant-evil",
            "sys/policies/acl/je-grant-orders-db-read",
            "sys/policies/acl/je-worker",
            "sys/policy/je-worker",
        ),
        *(
            "sys/mounts/evil",
            "sys/auth/evil",
            "sys/auth/token/tune",
            "sys/mounts/database/tune",
            "sys/audit/evil",
            "sys/seal",
            "sys/step-down",
        ),
        *(
            "sys/capabilities-accessor",
            "sys/generate-root/attempt",
            "sys/rotate",
            "sys/raw/x",
            "sys/leases/renew",
            "sys/leases/tidy",
            "sys/wrapping/wrap",
            "sys/control-group/authorize",
        ),
        *("auth/approle/role/je-worker", "auth/approle/role/je-worker/secret-id", "auth/approle/role/je-console/secret-id"),
        *("auth/approle/role/je-worker/policies", "auth/people/users/evil", "auth/people/users/lead/password"),
        *(
            "auth/token/renew",
            "auth/token/revoke",
            "auth/token/revoke-orphan",
            "auth/token/lookup",
            "auth/token/renew-accessor",
            "auth/token/tidy",
        ),
        *("database/roles/orders-read-acme", "database/config/shop", "database/rotate-root/shop", "database/reset/shop"),
        *("pki/issue/warehouse-read", "pki/sign/warehouse-read", "pki/revoke", "pki/roles/warehouse-read", "pki/config/crl", "pki/tidy"),
        *("ssh/issue/deploy", "ssh/sign/deploy", "ssh/roles/deploy", "ssh/config/ca"),
        *(
            "kv/data/tenants/acme/helpdesk",
            "identity/oidc/role/je-console",
            "identity/oidc/key/je",
            "identity/oidc/config",
            "identity/oidc/introspect",
        ),
    ],
)
def test_the_worker_can_write_no_policy_mount_or_other_configuration(worker: Session, path: str) -> None:
    # 405: the server offers this to no client.
    assert worker.write(path, policy='path "*" { capabilities = ["sudo"] }', type="kv", password="x").status_code in {REFUSED, 405}
    assert worker.delete(path).status_code in {REFUSED, 405}


@pytest.mark.parametrize(
    "path",
    [
        *("database/creds/orders-read-acme", "database/creds/refunds-write-acme", "database/creds/orders-admin", "database/config/shop/x"),
        *(
            "kv/data/tenants/acme/helpdesk",
            "kv/data/tenants/acme/export",
            "kv/data/anything",
            "cubbyhole/x",
            "identity/oidc/token/je-console",
        ),
        *("sys/policies/acl/je-worker", "sys/mounts", "sys/auth", "sys/audit", "sys/config/state/sanitized", "sys/storage/raft/snapshot"),
        *("auth/approle/role/je-worker/role-id", "auth/token/accessors", "auth/people/users/lead", "identity/entity/name/lead"),
    ],
)
def test_the_worker_reads_no_secret_and_no_configuration_with_its_own_token(worker: Session, path: str) -> None:
    """The worker issues only with a job's token, so that each credential has a job, a prefix and a hard end."""
    assert worker.read(path).status_code == REFUSED


def test_the_worker_reads_how_users_are_named_and_changes_nothing_of_it(worker: Session) -> None:
    connection = worker.read("database/config/shop")
    assert ".DisplayName" in connection.json()["data"]["connection_details"]["username_template"]
    assert "password" not in connection.json()["data"]["connection_details"]
    assert worker.read("database/roles/orders-read-acme").json()["data"]["db_name"] == "shop"
    for path in ("database/config/shop", "database/roles/orders-read-acme"):
        assert worker.write(path).status_code == REFUSED


@pytest.mark.parametrize(
    "path",
    [
        "pki/certs",
        "pki/certs/revoked",
        "identity/entity/id",
        "identity/group/id",
        "auth/token/accessors",
        "kv/metadata/tenants",
        "sys/policies/acl",
        "sys/leases/lookup",
    ],
)
def test_the_worker_cannot_list_any_other_path(worker: Session, path: str) -> None:
    assert worker.list(path).status_code == REFUSED


def test_the_worker_issues_only_observer_and_reaper_with_its_own_token_and_revokes_them(worker: Session) -> None:
    for name in ("je-observer", "je-reaper"):
        drawn = worker.read(f"database/creds/{name}").json()
        assert drawn["data"]["username"]
        assert worker.write(f"sys/leases/revoke/{drawn['lease_id']}", sync=True).status_code == 204


def test_the_console_reads_people_and_issues_nothing(shop: Shop, console: Session) -> None:
    lead = shop.admin.read_data("identity/entity/name/lead")
    assert console.read_data(f"identity/entity/id/{lead['id']}")["name"] == "lead"
    assert lead["id"] in list(console.read_data("identity/group/name/support-leads")["member_entity_ids"])  # type: ignore[call-overload] # a list of ids
    assert console.write("identity/group/name/support-leads", member_entity_ids=[lead["id"]]).status_code == REFUSED
    # The console may read who authorized a request (there is none here), and may not authorize one.
    assert console.write("sys/control-group/request", accessor="none").status_code == 400
    assert console.write("sys/control-group/authorize", accessor="none").status_code == REFUSED
    for path in (
        "database/creds/orders-read-acme",
        "database/creds/je-reaper",
        "kv/data/tenants/acme/helpdesk",
        "auth/token/roles/je-job-j-dev-x",
    ):
        assert console.read(path).status_code == REFUSED
    for path in (
        f"auth/token/roles/{job_role(new_job())}",
        "auth/token/create",
        "sys/policies/acl/je-console",
        f"transit/sign/je-sign-{lead['id']}",
    ):
        assert console.write(path, **job_role_body()).status_code == REFUSED
