"""`vault setup` on a real OpenBao and PostgreSQL: what it creates, that a second run changes nothing, and how it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from justenough.adapters.configuration.regular_file import MAX_FILE_BYTES
from justenough.adapters.runtime.private_files import read_json
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.secret import Secret
from tests.support.canned_server import serve_canned_answers
from tests.worker.provisioning.provisioned_shop import PEOPLE, SHOP, Emptied, Session, Shop, config_with
from worker.provisioning.admin_client import AdminClient, AppliedWrite, SetupFailed, VaultNotReady, WriteOutcome
from worker.provisioning.setup import PersonSeed, VaultTarget, plan_vault, provision_vault
from worker.stack.doctor.servers import login_findings

pytestmark = pytest.mark.servers


def outcomes(applied: tuple[AppliedWrite, ...]) -> dict[str, WriteOutcome]:
    return {step.path: step.outcome for step in applied}


def changes(applied: tuple[AppliedWrite, ...]) -> list[str]:
    return [step.path for step in applied if step.outcome in {WriteOutcome.CREATED, WriteOutcome.CHANGED}]


def test_the_first_run_creates_everything_and_reports_it(first_run: tuple[AppliedWrite, ...]) -> None:
    made = outcomes(first_run)
    for path in (
        "sys/mounts/database",
        "database/roles/orders-read-acme",
        "sys/policies/acl/je-worker",
        "identity/entity/name/je-scope-tenant-acme",
    ):
        assert made[path] is WriteOutcome.CREATED


def test_doctor_finds_that_vault_accepts_the_logins_that_setup_wrote(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_ADDR", shop.settings.vault_addr)
    before = shop.admin.list("auth/token/accessors").json()["data"]["keys"]
    assert [(found.what, found.level) for found in login_findings(shop.settings)] == [("worker login", "ok"), ("console login", "ok")]
    after = shop.admin.list("auth/token/accessors").json()["data"]["keys"]
    assert set(after) <= set(before), "no login is left"


def test_a_second_run_reports_everything_unchanged(shop: Shop) -> None:
    files = [shop.settings.worker_approle_file.read_bytes(), shop.settings.console_approle_file.read_bytes()]
    key = shop.admin.read_data("kv/data/tenants/acme/helpdesk")
    again = shop.setup(people=PEOPLE)
    assert {step.outcome for step in again} == {WriteOutcome.UNCHANGED}
    assert [shop.settings.worker_approle_file.read_bytes(), shop.settings.console_approle_file.read_bytes()] == files
    assert shop.admin.read_data("kv/data/tenants/acme/helpdesk") == key


def test_a_manual_change_is_reverted(shop: Shop) -> None:
    shop.admin.write("sys/policies/acl/je-grant-orders-db-read", policy='path "kv/*" { capabilities = ["read"] }')
    shop.admin.write("identity/entity/name/je-scope-tenant-acme", metadata={"tenant": "globex"})
    shop.admin.write("auth/approle/role/je-worker", token_policies=["je-worker", "root-like"])
    assert changes(shop.setup(people=PEOPLE)) == [
        "sys/policies/acl/je-grant-orders-db-read",
        "identity/entity/name/je-scope-tenant-acme",
        "auth/approle/role/je-worker",
    ]
    assert "kv/*" not in str(shop.admin.read_data("sys/policies/acl/je-grant-orders-db-read"))
    assert shop.admin.read_data("identity/entity/name/je-scope-tenant-acme")["metadata"] == {"tenant": "acme"}
    assert shop.admin.read_data("auth/approle/role/je-worker")["token_policies"] == ["je-worker"]


def test_only_their_owner_can_read_the_approle_files(shop: Shop) -> None:
    for file in (shop.settings.worker_approle_file, shop.settings.console_approle_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_secret_id_that_was_revoked_is_replaced(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "worker.approle.json"
    notes = {step.path: step.note for step in shop.setup(worker_approle=file)}
    accessors = shop.admin.list("auth/approle/role/je-worker/secret-id").json()["data"]["keys"]
    earlier = f"earlier ones that stay valid until you destroy them: {len(accessors) - 1} (docs/how-to/rotation.md)"
    assert notes[str(file)] == f"a new secret id; {earlier}"
    before, good = file.read_text(), shop.settings.worker_approle_file.read_text()
    assert before != good
    for accessor in accessors:
        shop.admin.write("auth/approle/role/je-worker/secret-id-accessor/destroy", secret_id_accessor=accessor)
    assert changes(shop.setup(worker_approle=file)) == [str(file)]
    assert file.read_text() != before
    assert shop.approle(file).read("auth/token/lookup-self").status_code == 200
    shop.setup()


def test_a_login_file_that_cannot_be_written_leaves_no_secret_id_behind(shop: Shop) -> None:
    before = shop.admin.list("auth/approle/role/je-worker/secret-id").json()["data"]["keys"]
    with pytest.raises(SetupFailed, match=r"/proc/worker\.json: it cannot be written \(.*\)\. Run this where it can"):
        shop.setup(worker_approle=Path("/proc/worker.json"))
    assert shop.admin.list("auth/approle/role/je-worker/secret-id").json()["data"]["keys"] == before


def test_a_login_by_another_method_is_kept_and_gets_no_approle(shop: Shop, tmp_path: Path) -> None:
    worker, console = tmp_path / "worker.json", tmp_path / "console.json"
    for file in (worker, console):
        file.write_text('{"method": "kubernetes", "role": "je"}')
    before = [worker.read_text(), console.read_text()]
    applied = shop.setup(worker_approle=worker, console_approle=console)
    notes = {step.path: (step.outcome, step.note) for step in applied if step.path in {str(worker), str(console)}}
    assert notes == {
        str(file): (WriteOutcome.KEPT, f"it logs in by kubernetes: give its role at that mount the policy {then}")
        for file, then in ((worker, "je-worker"), (console, "je-console, and make its login an alias of the entity je-console"))
    }
    assert [worker.read_text(), console.read_text()] == before
    assert not any(step.path.startswith("auth/approle/role") for step in applied)
    assert "identity/entity/name/je-console" in {step.path for step in applied}
    shop.setup()


@pytest.mark.parametrize("text", ['{"method": "kubernetes", "rolle": "je"}', '{"role_id": "x", "secret_id_file": 5}'])
def test_a_mistaken_login_file_is_named_and_not_replaced(shop: Shop, tmp_path: Path, text: str) -> None:
    file = tmp_path / "worker.json"
    file.write_text(text)
    with pytest.raises(SetupFailed, match=r"worker\.json is not a login file: .*Correct it, or remove it"):
        shop.setup(worker_approle=file)
    assert file.read_text() == text
    shop.setup()


def test_worker_and_console_tokens_are_renewable_and_periodic_and_have_one_policy(worker: Session, console: Session) -> None:
    for session, policy in ((worker, "je-worker"), (console, "je-console")):
        seen = session.read_data("auth/token/lookup-self")
        assert (seen["policies"], seen["period"], seen["renewable"]) == ([policy], 3600, True)
        assert session.write("auth/token/renew-self").status_code == 200


def test_a_new_tenant_gets_its_identity_roles_and_keys(shop: Shop, tmp_path: Path) -> None:
    config = config_with(tmp_path, "- {tenant: globex}", "- {tenant: globex}\n  - {tenant: initech}")
    try:
        made = changes(shop.setup(config=config))
        assert {
            "identity/entity/name/je-scope-tenant-initech",
            "database/roles/orders-read-initech",
            "kv/data/tenants/initech/export",
        } <= set(made)
    finally:
        left = [step for step in shop.setup() if step.outcome is WriteOutcome.KEPT]
        assert [step.path for step in left] == ["identity/entity/name/je-scope-tenant-initech"]
        shop.admin.delete("identity/entity/name/je-scope-tenant-initech")


def test_an_unused_grant_policy_is_reported_and_kept(shop: Shop) -> None:
    shop.admin.write("sys/policies/acl/je-grant-old-read", policy='path "kv/old" { capabilities = ["read"] }')
    try:
        assert outcomes(shop.setup())["sys/policies/acl/je-grant-old-read"] is WriteOutcome.KEPT
    finally:
        shop.admin.delete("sys/policies/acl/je-grant-old-read")


def test_setup_without_people_creates_none_and_keeps_a_foreign_issuer(shop: Shop) -> None:
    foreign = shop.settings.model_copy(update={"vault_issuer": "https://other.example/v1/identity/oidc"})
    applied = replace(shop, settings=foreign).setup(people=None)
    assert outcomes(applied)["identity/oidc/config"] is WriteOutcome.KEPT
    assert not [step for step in applied if "/users/" in step.path]


@pytest.mark.parametrize("mount", ["people", "pages"])
def test_wrong_passwords_lock_no_name_and_one_addresss_logins_are_counted(shop: Shop, mount: str) -> None:
    assert shop.admin.read_data(f"sys/auth/{mount}/tune")["user_lockout_disable"] is True
    quota = shop.admin.read_data(f"sys/quotas/rate-limit/je-login-{mount}")
    assert (quota["path"], quota["rate"], quota["interval"]) == (f"auth/{mount}/login/*", 600, 60)


@pytest.mark.parametrize(
    "mount, note",
    [
        ("people", "anyone who reaches Vault can lock a person out with wrong passwords: see docs/how-to/lockout.md"),
        ("approle", "five wrong secret ids lock workers or consoles out for 15 minutes: see docs/how-to/lockout.md"),
    ],
)
def test_a_foreign_mount_that_locks_names_is_reported_and_kept(shop: Shop, mount: str, note: str) -> None:
    tune = f"sys/auth/{mount}/tune"
    assert tune not in {step.path for step in shop.setup(people=None)}
    assert shop.admin.write(tune, user_lockout_config={"lockout_disable": False}).is_success
    try:
        [reported] = [step for step in shop.setup(people=None) if step.path == tune]
        one_mount = replace(shop, settings=shop.settings.model_copy(update={"pages_mount": "people"}))
        assert [step.path for step in one_mount.setup(people=None)].count(tune) == 1, "the pages use the people's mount"
        assert shop.admin.read_data(tune)["user_lockout_disable"] is False
    finally:
        shop.admin.write(tune, user_lockout_config={"lockout_disable": True})
    assert (reported.outcome, reported.note) == (WriteOutcome.KEPT, note)


def test_wrong_secret_ids_lock_no_worker_out(shop: Shop) -> None:
    login = read_json(shop.settings.worker_approle_file)
    for _ in range(8):
        assert not shop.admin.write("auth/approle/login", role_id=login["role_id"], secret_id="wrong").is_success
    assert shop.admin.write("auth/approle/login", **login).is_success


def test_a_setup_that_was_interrupted_right_after_it_mounted_approle_is_completed(empty: Emptied) -> None:
    tune = "sys/auth/approle/tune"
    empty.write("sys/auth/approle", type="approle")
    assert tune in empty.changes()
    assert tune in changes(empty.apply())
    assert empty.read(tune)["user_lockout_disable"] is True
    assert empty.changes() == {}


def test_a_person_whose_user_an_interrupted_setup_left_without_an_entity_gets_only_one(shop: Shop) -> None:
    def entities() -> set[str]:
        return set(shop.admin.list("identity/entity/id").json()["data"]["keys"])

    user, before = "auth/people/users/newcomer", entities()
    shop.admin.write(user, password="newcomer-password")
    try:
        shop.setup(people={**PEOPLE, "newcomer": PersonSeed(Secret("newcomer-password"), ())})
        assert [shop.admin.read_data(f"identity/entity/id/{made}")["name"] for made in entities() - before] == ["newcomer"]
    finally:
        for path in (user, "auth/pages/users/newcomer", *(f"identity/entity/id/{made}" for made in entities() - before)):
            shop.admin.delete(path)


def test_what_an_interrupted_setup_left_out_is_planned_although_people_cannot_log_in_yet(shop: Shop, empty: Emptied) -> None:
    target = VaultTarget(empty.settings, admin_token=Secret(shop.admin.token), people=PEOPLE, environment=empty.environment)
    planned = {step.path: step.outcome for step in plan_vault(target)}
    assert planned["sys/auth/people"] is planned["auth/people/users/ops"] is WriteOutcome.CREATED
    assert planned["sys/auth/people/tune"] is WriteOutcome.CHANGED


def test_a_path_in_use_is_not_only_blamed_on_the_catalog(empty: Emptied) -> None:
    """Another setup at the same time mounts it between this one's check and its write, too."""
    empty.write("sys/mounts/kv/deeper", type="kv")
    with pytest.raises(
        SetupFailed, match=r"^sys/mounts/kv: .* path is already in use .* wait for that; otherwise correct it in the catalog"
    ):
        empty.apply()


def test_a_new_password_is_set_and_the_old_one_refused(shop: Shop) -> None:
    try:
        written = changes(shop.setup(people={**PEOPLE, "ops": PersonSeed(Secret("another-password"), ("ops",))}))
        assert written == ["auth/people/users/ops", "auth/pages/users/ops"]
        anyone = Session(shop.admin.address)
        for mount in ("people", "pages"):
            assert anyone.write(f"auth/{mount}/login/ops", password="another-password").status_code == 200
            assert anyone.write(f"auth/{mount}/login/ops", password="ops-password").status_code != 200
    finally:
        shop.setup(people=PEOPLE)


def test_a_disabled_person_keeps_their_password_and_setup_has_nothing_to_change(shop: Shop) -> None:
    shop.admin.write("identity/entity/name/ops", disabled=True)
    try:
        assert changes(shop.setup(people=PEOPLE)) == []
    finally:
        shop.admin.write("identity/entity/name/ops", disabled=False)
    assert shop.admin.write("auth/people/login/ops", password="ops-password").status_code == 200


def test_a_group_has_exactly_the_seeded_people(shop: Shop) -> None:
    lead, ops = (shop.admin.read_data(f"identity/entity/name/{name}")["id"] for name in ("lead", "ops"))
    shop.admin.write("identity/group/name/support-leads", member_entity_ids=[lead, ops])
    assert changes(shop.setup(people=PEOPLE)) == ["identity/group/name/support-leads"]
    assert shop.admin.read_data("identity/group/name/support-leads")["member_entity_ids"] == [lead]


def test_a_group_that_nobody_is_seeded_into_any_more_is_emptied_once_and_then_left_to_others(shop: Shop) -> None:
    path, lead = "identity/group/name/night-shift", shop.admin.read_data("identity/entity/name/lead")["id"]
    external = "identity/group/name/from-outside"
    shop.admin.write(external, type="external")
    applied = shop.setup(people={**PEOPLE, "lead": PersonSeed(Secret("lead-password"), ("support-leads", "night-shift", "from-outside"))})
    assert [(step.outcome, step.note) for step in applied if step.path == external] == [
        (WriteOutcome.KEPT, "an external group: its members come from the auth method")
    ]
    shop.admin.delete(external)
    assert changes(shop.setup(people=PEOPLE)) == [path]
    assert not shop.admin.read_data(path)["member_entity_ids"]
    # People sync, or an administrator, writes such an entity.
    shop.admin.write(path, member_entity_ids=[lead])
    assert changes(shop.setup(people=PEOPLE)) == []
    assert shop.admin.read_data(path)["member_entity_ids"] == [lead]
    shop.admin.delete(path)


def test_another_installation_is_refused_with_its_name(shop: Shop) -> None:
    with pytest.raises(SetupFailed, match=r"set up for installation 'dev', not 'prod'.*VAULT_NAMESPACE"):
        shop.setup(installation="prod")


def test_a_missing_setting_is_refused_before_anything_is_written(shop: Shop) -> None:
    without = replace(shop, environment={key: value for key, value in shop.environment.items() if key != "SHOP_PORT"})
    with pytest.raises(InvalidInput, match=r"setting SHOP_PORT is missing"):
        without.setup()


def test_a_wrong_database_password_names_path_and_remedy_but_not_the_password(shop: Shop) -> None:
    wrong = replace(shop, environment={**shop.environment, "SHOP_VAULT_PASSWORD": "not-the-password"})
    with pytest.raises(SetupFailed, match=r"database/config/shop: .*Check that the database runs") as failed:
        wrong.setup()
    assert "not-the-password" not in str(failed.value)
    assert failed.value.path == "database/config/shop"


def test_a_wrong_admin_token_is_named_with_its_path_and_never_shown(shop: Shop) -> None:
    with pytest.raises(SetupFailed, match=r"sys/policies/acl/je-worker: Vault answered 403.*admin token") as failed:
        provision_vault(VaultTarget(shop.settings, admin_token=Secret("s.wrong-token"), environment=shop.environment))
    assert "s.wrong-token" not in str(failed.value)


def test_an_address_without_a_vault_is_reported_with_how_to_start_one(shop: Shop) -> None:
    with pytest.raises(VaultNotReady, match=r"127\.0\.0\.1:9 did not answer.*justenough up"):
        provision_vault(
            VaultTarget(
                shop.settings.model_copy(update={"vault_addr": "http://127.0.0.1:9"}),
                admin_token=Secret("s.token"),
                environment=shop.environment,
            )
        )


@pytest.mark.parametrize("status", [200, 404])
def test_a_page_of_a_proxy_is_not_taken_for_a_vault_that_has_nothing_yet(shop: Shop, status: int) -> None:
    with serve_canned_answers() as proxy:
        proxy.set_response(status, b"<html>Back in a moment</html>", media="text/html")
        settings = shop.settings.model_copy(update={"vault_addr": proxy.address})
        with pytest.raises(VaultNotReady, match=rf"sys/health: {status}: .* does not answer as Vault does; check VAULT_ADDR"):
            provision_vault(VaultTarget(settings, admin_token=Secret("s.token"), environment=shop.environment))


@pytest.mark.parametrize(
    "status, path, error, remedy",
    [
        (404, "kv/config", "no", "No engine is mounted there: add a write to sys/mounts/kv before it in the catalog's `provision`."),
        (405, "kv/config", "no", "This Vault does not support this operation: check the path in the catalog's `provision`."),
        (500, "kv/config", "no", "See Vault's own log, then run `justenough vault setup` again: it continues where it stopped."),
        (
            500,
            "database/config/shop",
            "no",
            "Check that the database runs at the catalog's address and that its user and password are right.",
        ),
        (
            *(500, "database/config/shop", "transaction commit failed"),
            "See Vault's own log, then run `justenough vault setup` again: it continues where it stopped.",
        ),
        (400, "kv/config", "no", "Correct it in the catalog's `provision`, then run the same command again."),
        (400, "identity/group/name/ops", "no", "Correct it in Vault, or in the list of people, then run the same command again."),
    ],
)
def test_each_refusal_of_a_write_has_its_own_remedy(status: int, path: str, error: str, remedy: str) -> None:
    with serve_canned_answers() as vault:
        vault.set_response(status, {"errors": [f"{error}, s.token"]})
        with AdminClient(vault.address, Secret("s.token")) as admin, pytest.raises(SetupFailed) as failed:
            admin.write(path, {})
    assert str(failed.value) == f"{path}: Vault answered {status}: {error}, …. {remedy}"


@pytest.mark.parametrize(
    "body, says", [(b'{"errors": ["Vault is sealed"]}', "Vault is sealed"), (b"<html>No server is available</html>", "Service Unavailable")]
)
def test_a_vault_that_is_sealed_meanwhile_is_named_with_how_to_go_on(body: bytes, says: str) -> None:
    with serve_canned_answers() as vault:
        vault.set_response(503, body)
        why = f"Vault at {vault.address} is sealed or not active: {says}. Unseal it, or wait until a node is active; then run the same command"
        with AdminClient(vault.address, Secret("s.token")) as admin:
            for call in (admin.write, admin.has_path):
                with pytest.raises(VaultNotReady, match=re.escape(why)):
                    call("sys/policies/acl/je-worker", {})


def test_a_vault_that_does_not_answer_while_it_logs_in_to_a_database_is_not_taken_for_one_that_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        admin = AdminClient(f"http://127.0.0.1:{silent.getsockname()[1]}", Secret("s.token"))
        with pytest.raises(VaultNotReady, match=r"For database/config/shop it logs in to the database: check that the database answers"):
            admin.write("database/config/shop", {})


def test_an_issuer_that_cannot_be_vaults_is_refused(shop: Shop) -> None:
    with pytest.raises(
        SetupFailed, match=r"identity/oidc/config: Vault cannot be the issuer 'https://x'\. Set JUSTENOUGH_VAULT_ISSUER to an"
    ):
        shop.setup(vault_issuer="https://x")


def test_something_else_mounted_at_our_path_is_left_alone(shop: Shop, tmp_path: Path) -> None:
    config = config_with(tmp_path, "{type: kv, options", "{type: transit, options")
    with pytest.raises(SetupFailed, match=r"sys/mounts/kv: something else is mounted there already"):
        shop.setup(config=config)


def test_a_mount_below_a_folder_is_planned_created_and_then_left_alone(empty: Emptied, tmp_path: Path) -> None:
    nested = "  - {path: sys/mounts/team/keys, data: {type: kv, options: {version: '2'}}}\n"
    nested += "  - {path: sys/auth/team/cert, data: {type: cert}}\n"
    first = "  - {path: sys/mounts/database, "
    empty.settings = empty.settings.model_copy(update={"config": config_with(tmp_path, first, nested + first)})
    paths = ("sys/mounts/team/keys", "sys/auth/team/cert")
    for expected in (WriteOutcome.CREATED, WriteOutcome.UNCHANGED):
        for steps in (empty.plan(), empty.apply()):
            assert [step.outcome for step in steps if step.path in paths] == [expected, expected]
    empty.settings = empty.settings.model_copy(update={"config": config_with(tmp_path, first, nested.replace("kv,", "transit,") + first)})
    with pytest.raises(SetupFailed, match="sys/mounts/team/keys: something else is mounted there already"):
        empty.plan()


def test_a_mount_that_is_tuned_differently_is_reported_with_its_values(empty: Emptied, tmp_path: Path) -> None:
    first, mount = "  - {path: sys/mounts/database, ", "sys/mounts/short"
    short = f"  - {{path: {mount}, data: {{type: kv, config: {{default_lease_ttl: 5m, max_lease_ttl: 10m}}}}}}\n"
    empty.settings = empty.settings.model_copy(update={"config": config_with(tmp_path, first, short + first)})

    def outcomes() -> set[tuple[WriteOutcome, str]]:
        return {(step.outcome, step.note) for steps in (empty.plan(), empty.apply()) for step in steps if step.path == mount}

    assert outcomes() == {(WriteOutcome.CREATED, "")}
    assert outcomes() == {(WriteOutcome.UNCHANGED, "")}
    empty.write(f"{mount}/tune", max_lease_ttl="768h")
    note = f"its max_lease_ttl is 2764800, not 10m as in the catalog; write it to {mount}/tune, or correct the catalog"
    assert outcomes() == {(WriteOutcome.KEPT, note)}


def test_a_missing_catalog_is_reported_with_the_setting_of_its_folder(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="JUSTENOUGH_CONFIG"):
        shop.setup(config=tmp_path)


def test_a_catalog_that_never_ends_is_refused(shop: Shop, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.yaml"
    os.mkfifo(catalog)
    with pytest.raises(InvalidInput, match="cannot be read: not a regular file; set JUSTENOUGH_CONFIG"):
        shop.setup(config=tmp_path)
    catalog.unlink()
    with catalog.open("wb") as large:
        large.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(InvalidInput, match="has more than 4,194,304 bytes"):
        shop.setup(config=tmp_path)


def test_a_field_of_a_role_that_vault_does_not_know_is_named(empty: Emptied, tmp_path: Path) -> None:
    config = config_with(tmp_path, "      revocation_statements: [", "      revocation_statement: [")
    empty.settings = empty.settings.model_copy(update={"config": config})
    role, note = (
        "database/roles/orders-admin",
        "Vault does not show revocation_statement and probably ignored what was written: check the spelling",
    )
    first, second = (next(write for write in empty.apply() if write.path == role) for _ in range(2))
    assert (first, second) == (AppliedWrite(role, WriteOutcome.CREATED, note), AppliedWrite(role, WriteOutcome.UNCHANGED, note))
    planned = {write.path: (write.outcome, write.note) for write in empty.plan() if write.note.startswith("Vault does not show ")}
    assert planned[role] == (WriteOutcome.UNCHANGED, note)
    assert all(path.startswith("database/roles/") for path in planned)
    assert f"unchanged {role}  ({note})" in empty.command("vault", "plan").stdout


def test_the_seeded_keys_are_distinct_and_not_placeholders(shop: Shop) -> None:
    paths = [f"kv/data/tenants/{tenant}/{name}" for tenant in ("acme", "globex") for name in ("helpdesk", "helpdesk-write", "export")]
    tokens = [str(shop.admin.read_data(path)["data"]) for path in paths]
    assert len(set(tokens)) == len(paths)
    assert not any("random" in token for token in tokens)


def test_identity_tokens_name_person_groups_audience_and_issuer(shop: Shop) -> None:
    login = Session(shop.admin.address).write("auth/people/login/lead", password="lead-password").json()["auth"]
    drawn = Session(shop.admin.address, login["client_token"]).read_data("identity/oidc/token/je-console")
    claims = _claims(str(drawn["token"]))
    assert claims["iss"] == shop.settings.issuer
    assert (claims["aud"], claims["sub"], claims["name"], claims["groups"]) == ("je-console", login["entity_id"], "lead", ["support-leads"])
    keys = httpx.get(f"{claims['iss']}/.well-known/keys", trust_env=False).json()["keys"]
    assert keys[0]["crv"] == "Ed25519"


def _claims(jwt: str) -> dict[str, object]:
    import base64
    import json

    found: dict[str, object] = json.loads(base64.urlsafe_b64decode(jwt.split(".")[1] + "=="))
    return found


def test_a_lock_needs_the_groups_of_its_tier_and_above(shop: Shop) -> None:
    text = str(shop.admin.read_data("sys/policies/acl/je-grant-payouts-db-write")["policy"])
    for part in ('group_names = ["security", "chiefs"]', "approvals = 1", 'controlled_capabilities = ["read"]', 'ttl = "26100s"'):
        assert part in text
    assert "control_group" not in str(shop.admin.read_data("sys/policies/acl/je-grant-refunds-db-write")["policy"])


def test_an_old_policy_that_bypasses_a_lock_is_refused(shop: Shop) -> None:
    path = "sys/policies/acl/je-grant-from-before"
    shop.admin.write(path, policy='path "database/creds/payouts-write-acme" { capabilities = ["read"] }')
    try:
        with pytest.raises(
            SetupFailed,
            match=r"allows database/creds/payouts-write-\{tenant\}, which requires a control group.*bao policy delete je-grant-from-before",
        ):
            shop.setup()
    finally:
        shop.admin.delete(path)


@pytest.mark.parametrize(
    "tiers, why", [(None, "defines who can authorize the catalog's control groups"), (1, "approvals.yaml has no tier 2; it has 1")]
)
def test_a_lock_without_approvers_is_not_set_up(shop: Shop, tmp_path: Path, tiers: int | None, why: str) -> None:
    config = config_with(tmp_path, "max_ttl: 30m", "max_ttl: 30m")
    (config / "approvals.yaml").unlink()
    if tiers:
        (config / "approvals.yaml").write_text("tiers: {1: {name: owner, approvers: [support-leads], respond_within: 15m}}")
    with pytest.raises(InvalidInput, match=why):
        shop.setup(config=config)


def test_sql_that_could_run_a_jobs_function_is_not_set_up(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"it calls je_open_space\(…\) without a schema"):
        shop.setup(config=config_with(tmp_path, "public.je_open_space", "je_open_space"))
    assert "public.je_open_space" in str(shop.admin.read_data("database/roles/scratch-write"))


def test_a_vault_without_control_groups_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    # This server has control groups, so the test uses a path that it does not have.
    monkeypatch.setattr("worker.provisioning.setup.CONTROL_GROUP_PATH", "sys/no-such-thing/request")
    with pytest.raises(SetupFailed, match=r"this Vault has no control groups\. Use OpenBao 2\.7 or later, or Vault Enterprise"):
        shop.setup()


def test_the_console_has_its_own_identity_and_key_even_if_it_logged_in_before(shop: Shop) -> None:
    def login() -> str:
        answer = shop.admin.write("auth/approle/login", **read_json(shop.settings.console_approle_file)).json()
        return str(answer["auth"]["entity_id"])

    entity = shop.admin.read_data("identity/entity/name/je-console")
    assert login() == entity["id"]
    # In a Vault that was set up before the console had an identity, the console's login creates an entity.
    shop.admin.delete("identity/entity/name/je-console")
    assert login() != entity["id"]
    shop.setup()
    renewed = shop.admin.read_data("identity/entity/name/je-console")["id"]
    assert login() == renewed
    assert shop.admin.read_data(f"transit/keys/je-sign-{renewed}")["type"] == "ed25519"
    # After a theft the role is deleted, so that no earlier secret id works. The new role must log in as the same entity.
    shop.admin.delete("auth/approle/role/je-console")
    shop.setup()
    assert login() == renewed
    assert {one.outcome for one in shop.setup(people=PEOPLE)} <= {WriteOutcome.UNCHANGED, WriteOutcome.KEPT}


def test_the_console_reads_exactly_the_secrets_that_the_triggers_name(shop: Shop, tmp_path: Path) -> None:
    console = shop.approle(shop.settings.console_approle_file)
    secret = console.read("kv/data/je/triggers/ticket-created").json()["data"]["data"]["secret"]
    assert re.fullmatch(r"whsec_[A-Za-z0-9]{44}", secret)
    folder = tmp_path / "shop"
    shutil.copytree(SHOP, folder)
    (folder / "triggers.yaml").unlink()
    try:
        shop.setup(config=folder)
        assert console.read("kv/data/je/triggers/ticket-created").status_code == 403
    finally:
        shop.setup()
    assert console.read("kv/data/je/triggers/ticket-created").status_code == 200


def test_the_console_reads_exactly_the_secrets_of_its_event_receivers(shop: Shop, tmp_path: Path) -> None:
    console = shop.approle(shop.settings.console_approle_file)
    folder = tmp_path / "shop"
    shutil.copytree(SHOP, folder)
    hook = {"url": "https://siem.example.com/", "events": ["*"], "signing_secret": "kv/data/je/webhooks/siem"}
    people = {"on": ["approval.opened"], "to": ["kv/data/je/notify/leads", "kv/data/je/notify/chiefs"]}
    (folder / "triggers.yaml").write_text(json.dumps({"webhooks": [hook], "notify": [people]}))
    named = ("kv/data/je/webhooks/siem", "kv/data/je/notify/leads", "kv/data/je/notify/chiefs")
    others = (
        "kv/data/je/webhooks/other",
        "kv/data/je/notify/leads/more",
        "kv/data/je/triggers/ticket-created",
        "kv/metadata/je/notify/leads",
    )
    for path in (*named, *others[:2]):
        shop.admin.write(path, data={"secret": "x"})
    assert {console.read(path).status_code for path in named} == {403}
    try:
        shop.setup(config=folder)
        assert {console.read(path).status_code for path in named} == {200}
        assert {console.read(path).status_code for path in others} == {403}
        assert {console.write(path, data={"secret": "y"}).status_code for path in named} == {403}
    finally:
        shop.setup()


def test_a_vault_that_refuses_more_requests_is_not_called_sealed(empty: Emptied, shop: Shop) -> None:
    quota = f"sys/quotas/rate-limit/{empty.namespace}"
    made = shop.admin.call("POST", quota, {"path": f"{empty.namespace}/", "rate": 1, "interval": "1h"})
    assert made.is_success, made.text
    try:
        with pytest.raises(VaultNotReady, match=r"refuses more requests for now: .*quota exceeded.*sys/quotas/rate-limit"):
            empty.plan()
    finally:
        shop.admin.delete(quota)
