"""`vault plan` says what `vault apply` then does, and changes nothing itself. In a namespace, which is empty at first."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from justenough.domain.core.errors import InvalidInput
from tests.support.canned_server import serve_canned_answers
from tests.worker.provisioning.provisioned_shop import CHANGES, Emptied, config_with
from worker.provisioning.admin_client import WriteOutcome

pytestmark = pytest.mark.servers


def test_a_plan_says_what_apply_then_does_and_writes_nothing(empty: Emptied, tmp_path: Path) -> None:
    before = empty.policies()
    planned = empty.plan()
    assert empty.policies() == before
    assert list(tmp_path.iterdir()) == [], "no login file either"

    applied = empty.apply()
    # A new mount has defaults at such a path, which a plan cannot see yet.
    late = {("pki/config/auto-tidy", WriteOutcome.CHANGED): WriteOutcome.CREATED}
    results = [(step.path, late.get((step.path, step.outcome), step.outcome)) for step in applied]
    known = [result for result in results if not result[0].startswith("transit/keys/je-sign-")]
    assert [(step.path, step.outcome) for step in planned if not step.path.startswith("transit/keys/je-sign-")] == known
    assert [step.path for step in planned if "je-sign-" in step.path] == ["transit/keys/je-sign-(known after apply)"]

    assert empty.changes() == {}
    assert {step.outcome for step in empty.apply()} <= {WriteOutcome.UNCHANGED, WriteOutcome.KEPT, WriteOutcome.MISSING}


def test_drift_is_shown_value_by_value(empty: Emptied) -> None:
    empty.apply()
    empty.write("auth/approle/role/je-worker", token_policies=["je-worker", "root-like"])
    empty.write("sys/policies/acl/je-person", policy='path "secret/*" {\n  capabilities = ["read"]\n}')
    changes = empty.changes()
    assert set(changes) == {"auth/approle/role/je-worker", "sys/policies/acl/je-person"}
    assert changes["auth/approle/role/je-worker"] == ('- token_policies: ["je-worker","root-like"]', '+ token_policies: ["je-worker"]')
    assert '-path "secret/*" {' in changes["sys/policies/acl/je-person"]
    empty.apply()
    assert empty.changes() == {}


def test_a_plan_shows_no_secret_and_names_where_values_come_from(empty: Emptied) -> None:
    shown = "\n".join("\n".join((step.path, step.note, *step.lines)) for step in empty.plan())
    assert "+ password: (secret)" in shown
    assert "${SHOP_PORT}" in shown
    for name, value in empty._shop.environment.items():
        if name.startswith("SHOP_") and "PASSWORD" in name:
            assert value not in shown, name


def test_a_plan_needs_no_password_and_apply_names_the_one_that_is_missing(empty: Emptied) -> None:
    password = empty.environment.pop("SHOP_VAULT_PASSWORD")
    assert "database/config/shop" in empty.changes()
    with pytest.raises(InvalidInput, match="setting SHOP_VAULT_PASSWORD is missing"):
        empty.apply()

    empty.apply(SHOP_VAULT_PASSWORD=password)
    assert empty.changes() == {}


def test_apply_keeps_the_password_that_vault_has_if_the_environment_has_none(empty: Emptied) -> None:
    empty.apply()
    del empty.environment["SHOP_VAULT_PASSWORD"]
    empty.write("database/config/shop", max_open_connections=3)

    assert {write.path: write.outcome for write in empty.apply()}["database/config/shop"] == "changed"
    assert empty.read("database/creds/je-observer")["username"]


def test_apply_needs_a_password_that_vault_would_lose_without_it(empty: Emptied, tmp_path: Path) -> None:
    written = """
  - {path: sys/mounts/kv1, data: {type: kv, options: {version: "1"}}}
  - {path: kv1/shown, data: {user: "${USER_OF_IT}", password: "${PASSWORD_OF_IT}"}}
  - path: database/config/shop"""
    config = config_with(tmp_path, "\n  - path: database/config/shop", written)
    empty.settings = empty.settings.model_copy(update={"config": config})
    empty.apply(USER_OF_IT="anna", PASSWORD_OF_IT="it-is-kept")
    with pytest.raises(InvalidInput, match="setting PASSWORD_OF_IT is missing"):
        empty.apply(USER_OF_IT="bob")
    assert empty.read("kv1/shown") == {"user": "anna", "password": "it-is-kept"}


def test_apply_needs_no_password_of_a_path_that_it_leaves_as_it_is(empty: Emptied, tmp_path: Path) -> None:
    written = """
  - {path: sys/mounts/rabbitmq, data: {type: rabbitmq}}
  - path: rabbitmq/config/connection
    unless: rabbitmq/roles
    data: {connection_uri: "http://127.0.0.1:1", username: je, password: "${RABBITMQ_VAULT_PASSWORD}", verify_connection: false}
  - {path: rabbitmq/roles/jobs-write, data: {vhosts: '{"/": {"configure": "", "write": ".*", "read": ""}}'}}
  - path: database/config/shop"""
    config = config_with(tmp_path, "\n  - path: database/config/shop", written)
    empty.settings = empty.settings.model_copy(update={"config": config})
    with pytest.raises(InvalidInput, match="setting RABBITMQ_VAULT_PASSWORD is missing"):
        empty.apply()
    empty.apply(RABBITMQ_VAULT_PASSWORD="first")
    assert {write.path: write.outcome for write in empty.apply()}["rabbitmq/config/connection"] == "unchanged"


def test_apply_keeps_the_passwords_of_a_path_for_each_scope(empty: Emptied, tmp_path: Path) -> None:
    written = """
  - {path: sys/auth/office, data: {type: userpass}}
  - {path: "auth/office/users/{tenant}", per_scope: [tenant], data: {password: "${OFFICE_PASSWORD}", token_ttl: 5m}}
  - path: database/config/shop"""
    config = config_with(tmp_path, "\n  - path: database/config/shop", written)
    empty.settings = empty.settings.model_copy(update={"config": config})
    empty.apply(OFFICE_PASSWORD="it-is-kept")
    empty.write("auth/office/users/acme", token_ttl="1m")
    assert {write.path: write.outcome for write in empty.apply()}["auth/office/users/acme"] == "changed"
    assert empty.call("auth/office/login/acme", password="it-is-kept").status_code == 200


def test_apply_keeps_the_token_with_which_vault_logs_in_to_kubernetes(empty: Emptied, tmp_path: Path) -> None:
    with serve_canned_answers() as cluster:
        cluster.status = 403
        written = f"""
  - {{path: sys/mounts/kubernetes, data: {{type: kubernetes}}}}
  - path: kubernetes/config
    data: {{kubernetes_host: "{cluster.address}", disable_local_ca_jwt: true, service_account_jwt: "${{CLUSTER_VAULT_PASSWORD}}"}}
  - path: kubernetes/roles/jobs
    data: {{allowed_kubernetes_namespaces: [default], kubernetes_role_name: view, kubernetes_role_type: ClusterRole}}
  - path: database/config/shop"""
        config = config_with(tmp_path, "\n  - path: database/config/shop", written)
        empty.settings = empty.settings.model_copy(update={"config": config})
        with pytest.raises(InvalidInput, match="setting CLUSTER_VAULT_PASSWORD is missing"):
            empty.apply()
        assert "+ service_account_jwt: (secret)" in empty.changes()["kubernetes/config"]
        empty.apply(CLUSTER_VAULT_PASSWORD="a.token.of-it")
        empty.write("kubernetes/config", kubernetes_host="http://127.0.0.1:1")

        assert set(empty.changes()) == {"kubernetes/config"}
        assert {write.path: write.outcome for write in empty.apply()}["kubernetes/config"] == "changed"
        empty.write("kubernetes/creds/jobs", kubernetes_namespace="default")
        assert {request.headers["Authorization"] for request in cluster.requests} == {"Bearer a.token.of-it"}


def test_rights_to_the_leases_of_others_at_a_former_path_end_as_the_note_says(empty: Emptied) -> None:
    empty.apply()
    policy = "sys/policies/acl/je-worker"
    former = empty.read(policy)["policy"].replace("database/creds/je-observer/", "pki/issue/others/")
    empty.write("pki/roles/others", allow_any_name=True, generate_lease=True)
    empty.write("pki/issue/others", common_name="somebody.example", ttl="5m")
    empty.write(policy, policy=former)

    note = {write.path: write.note for write in empty.apply()}[policy]
    assert "what is left at pki/issue/others, which" in note
    assert f"bao delete {policy}, then apply again" in note
    empty._shop.admin.delete(f"{empty.namespace}/{policy}")
    assert {write.path: write.note for write in empty.apply()}[policy] == ""
    assert "others" not in empty.read(policy)["policy"]


def test_neither_old_nor_new_secrets_are_shown_in_whatever_form_they_are_written(empty: Emptied, tmp_path: Path) -> None:
    written = """
  - {path: kv/data/token, data: {data: {token: "${MINE}", user: "u-${MINE}"}}}
  - {path: sys/policies/acl/note, data: {policy: "# nothing"}}
  - {path: identity/entity/name/note, data: {metadata: {about: "${MINE}"}}}
  - path: database/config/shop"""
    config = config_with(tmp_path, "\n  - path: database/config/shop", written)
    empty.settings = empty.settings.model_copy(update={"config": config})
    empty.apply(MINE="first-secret\nof-two-lines")
    steps = empty.plan(MINE="second-secret\nof-two-lines")
    shown = {step.path: step.lines for step in steps if step.outcome in CHANGES}
    values = 'data: {"token":"(secret)","user":"(secret)"}'
    assert shown["kv/data/token"] == (f"- {values}", f"+ {values}")
    assert '+ metadata: {"about":"${MINE}"}' in shown["identity/entity/name/note"]
    assert "second-secret" not in str(steps)


def test_the_command_prints_the_plan_and_exits_2_if_anything_would_change(empty: Emptied) -> None:
    first, applied, then = (empty.command("vault", *words) for words in (("plan",), ("apply", "--change-shared"), ("plan",)))
    assert first.exit_code == 2
    assert "created   sys/mounts/transit\n    + type: transit\n" in first.stdout
    assert "`justenough vault apply` would write " in first.stdout
    assert applied.exit_code == 0
    assert (then.exit_code, then.stdout.splitlines()[-1].startswith("Nothing that Vault shows would change: ")) == (0, True)


def test_the_settings_file_may_name_the_vault(empty: Emptied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "justenough.toml").write_text(f'vault_addr = "{empty.settings.vault_addr}"\nvault_namespace = "{empty.namespace}"\n')
    monkeypatch.chdir(tmp_path)
    planned = empty.command("vault", "plan", VAULT_ADDR=None, VAULT_NAMESPACE=None)
    assert (planned.exit_code, planned.stdout.splitlines()[-1][:35]) == (2, "`justenough vault apply` would write"[:35]), planned.stderr
    monkeypatch.chdir("/")
    unknown = empty.command("vault", "plan", VAULT_ADDR=None)
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert "set VAULT_ADDR (or vault_addr in justenough.toml) and VAULT_TOKEN" in unknown.stderr


def test_shared_settings_of_vault_are_changed_only_with_the_option_change_shared(empty: Emptied) -> None:
    refused = empty.command("vault", "apply")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "this would change what everybody in this Vault shares: " in refused.stderr
    assert "identity/oidc/config (the issuer of every identity token: - issuer: , + issuer: http://" in refused.stderr
    assert refused.stderr.rstrip().endswith("Nothing was written; if you agree, add --change-shared")
    assert not [name for name in empty.policies() if name.startswith("je-")]
    (planned,) = (step for step in empty.plan() if step.path == "identity/oidc/config")
    assert planned.note == "shared: the issuer of every identity token; needs --change-shared"
    empty.apply()
    # Now the value is right, and the plan no longer mentions it.
    assert empty.command("vault", "apply").exit_code == 0


def test_a_plan_without_an_administrators_token_says_what_to_set(empty: Emptied) -> None:
    refused = empty.command("vault", "plan", VAULT_TOKEN="hvs.wrong")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "The admin token is wrong, has expired or lacks the capabilities" in refused.stderr


def test_a_plan_leaves_login_files_as_they_are(empty: Emptied) -> None:
    empty.apply()
    file = empty.settings.worker_approle_file
    file.chmod(0o640)
    assert str(file) not in empty.changes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    empty.apply()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_only_what_would_change_exits_2(empty: Emptied) -> None:
    refused = empty.command("vault", "plan", JUSTENOUGH_DRAIN="soon")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "setting drain: " in refused.stderr


def test_a_missing_namespace_is_named(empty: Emptied) -> None:
    refused = empty.command("vault", "apply", VAULT_NAMESPACE="nowhere")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "Vault has no namespace 'nowhere'. Correct VAULT_NAMESPACE, or create it: bao namespace create nowhere" in refused.stderr
