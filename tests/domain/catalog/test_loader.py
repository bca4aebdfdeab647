"""The catalog: what is read from it, what is refused (everything at once, by YAML path), and which specs it refuses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.catalog.loader import (
    alias_of,
    problems_in_draft,
    problems_in_spec,
    provision_writes,
    read_catalog,
    resolve_issue,
    scope_alias,
    with_settings,
)
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.vault_names import HARD_ENDS, hard_end_of
from justenough.domain.jobs.spec import checked_spec
from justenough.domain.jobs.states import Action, Revocable, Sensitivity
from tests.support.domain_samples import with_value

SHOP = Path(__file__).parents[3] / "examples" / "shop" / "catalog.yaml"
SETTINGS = {"SHOP_HOST": "127.0.0.1", "SHOP_PORT": "5432", "MODEL_URL": "http://127.0.0.1:65535/v1"}
PLAIN: dict[str, Any] = {
    "resources": {
        "orders-db": {
            "title": "Orders",
            "environment": "prod",
            "sensitivity": "confidential",
            "owner": "support-leads",
            "connect": {"host": "${SHOP_HOST}"},
            "actions": {
                "read": {"issue": {"path": "database/creds/orders-read-{tenant}"}, "max_ttl": "30m", "data_scope": ["tenant"]},
                "admin": {"issue": {"path": "database/creds/orders-admin"}, "max_ttl": "10m"},
            },
        }
    },
    "scopes": [{"tenant": "acme"}, {"tenant": "globex"}],
}


def catalog_with(path: str = "", value: Any = None) -> Catalog:
    """PLAIN with one value replaced (None: left out), by its dotted path."""
    return read_catalog(yaml.safe_dump(with_value(PLAIN, path, value)))


def problems_of(path: str, value: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        catalog_with(path, value)
    return "\n".join(map(str, caught.value.problems))


def spec(**changes: Any) -> Any:
    raw: dict[str, Any] = {
        "name": "triage",
        "task": "Look",
        "environment": "prod",
        "data_scope": {"tenant": "acme"},
        "run": {"command": ["true"]},
        "access": [{"resource": "orders-db", "action": "read", "ttl": "10m", "reason": "see"}],
    }
    return checked_spec({**raw, **changes})


def spec_problems(**changes: Any) -> list[str]:
    return [str(problem) for problem in problems_in_spec(spec(**changes), catalog_with())]


def access(**changes: Any) -> list[dict[str, Any]]:
    return [{"resource": "orders-db", "action": "read", "ttl": "10m", "reason": "see", **changes}]


def test_an_action_gets_its_policy_and_defaults_from_the_pattern() -> None:
    read = catalog_with().resources["orders-db"].actions[Action.READ]
    assert (read.policy, read.max_ttl, read.revocable, read.target, read.lock) == (
        "je-grant-orders-db-read",
        1800,
        Revocable.NOW,
        None,
        "none",
    )
    assert catalog_with().resources["orders-db"].sensitivity is Sensitivity.CONFIDENTIAL


def test_the_shops_catalog_has_the_documented_resources_and_actions() -> None:
    catalog = with_settings(read_catalog(SHOP.read_bytes()), SETTINGS)
    found = {
        name: (one.sensitivity.name, one.external, "".join(sorted(action[0] for action in one.actions)))
        for name, one in catalog.resources.items()
    }
    assert found == {
        "orders-db": ("CONFIDENTIAL", False, "arw"),
        "refunds-db": ("CONFIDENTIAL", False, "rw"),
        "payouts-db": ("CONFIDENTIAL", False, "w"),
        "customers-db": ("RESTRICTED", False, "r"),
        "helpdesk-api": ("INTERNAL", False, "rw"),
        "export-api": ("INTERNAL", True, "w"),
        "warehouse-api": ("INTERNAL", False, "r"),
        "web-servers": ("INTERNAL", False, "w"),
        "model-api": ("INTERNAL", False, "r"),
        "scratch": ("INTERNAL", False, "w"),
    }
    actions = [action for one in catalog.resources.values() for action in one.actions.values()]
    assert all(action.max_ttl >= 300 for action in actions)
    assert all(action.revocable is Revocable.NEVER for action in catalog.resources["helpdesk-api"].actions.values())
    assert catalog.resources["web-servers"].actions[Action.WRITE].revocable is Revocable.ON_EXPIRY
    assert catalog.resources["warehouse-api"].actions[Action.READ].crl == "pki"
    assert [name for name, one in catalog.resources.items() for action in one.actions.values() if action.space] == ["orders-db", "scratch"]
    assert {one.environment for one in catalog.resources.values()} == {"prod"}


TARGET = {"postgres": "host=db dbname=shop", "observe": "database/creds/je-observer", "end": "database/creds/je-reaper"}
SPACIOUS: dict[str, Any] = {"issue": {"path": "database/creds/x"}, "max_ttl": "5m", "space": True}
CERTIFIED: dict[str, Any] = {"issue": {"path": "pki/issue/x", "method": "update", "data": {"ttl": "{ttl}s"}}, "max_ttl": "5m", "crl": "pki"}


@pytest.mark.parametrize(
    "path, value, problem",
    [
        ("resources/orders-db/sensitivity", "confidental", "resources.orders-db.sensitivity: must be one of public, internal, confidential, restricted; did you mean 'confidential'?"),
        ("resources/orders-db/titel", "x", "resources.orders-db.titel: unknown key; did you mean 'title'?"),
        ("resources/orders-db/owner", None, "resources.orders-db.owner: required"),
        ("resources/orders-db/actions", {}, "resources.orders-db.actions: "),
        ("resources/orders-db/actions/delete", {}, "resources.orders-db.actions.delete"),
        ("resources/orders-db/actions/admin/max_ttl", "48h", "resources.orders-db.actions.admin.max_ttl"),
        ("resources/orders-db/actions/admin/max_ttl", "soon", "write a duration like"),
        ("resources/orders-db/actions/admin/policy", "root", "resources.orders-db.actions.admin.policy"),
        ("resources/orders-db/actions/admin/policy", "je-grant-a,root", "resources.orders-db.actions.admin.policy"),
        ("resources/orders-db/actions/admin/policy", "je-grant-orders-db-read", "each action needs its own policy"),
        ("resources/orders-db/actions/admin/data_scope", ["region"], "no entry of `scopes` has exactly the keys region"),
        ("resources/orders-db/actions/admin/lock", "twice", "resources.orders-db.actions.admin.lock"),
        ("resources/orders-db/actions/admin/revocable", "maybe", "resources.orders-db.actions.admin.revocable"),
        ("resources/orders-db/actions/admin/issue/data", {"a": "b"}, "data needs `method: update`"),
        ("resources/Orders", {}, "resources.Orders"),
        ("resources", None, "resources: required"),
        ("scopes", [{"tenant": "acme"}, {"tenant": "ACME"}], "scopes[1]: its identity je-scope-tenant-acme is the same as that of scopes[0]"),
        ("scopes", [{"tenant": ".."}], "scopes[0].tenant: '..' must not be only dots"),
        ("scopes", [{"tenant": "a/b"}], "scopes[0].tenant"),
        ("scopes", [], "resources.orders-db.actions.read.data_scope: no entry of `scopes` has exactly the keys tenant"),
        ("tools", {"find-order": {}}, "tools.find-order.uses: required"),
        ("tools", [], "tools: "),
        ("identity", {"audience": []}, "identity.audience: unknown key"),
        ("identity", {"audiences": {"https://a.example": {}}}, "identity.audiences.https://a.example.environment: required"),
        ("identity", {"audiences": {" a": {"environment": "prod"}}}, "must be 1 to 255 printable characters"),
        ("provision", [{"path": "kv/{tenant}", "data": {}}], "provision[0].path: {tenant} is not in per_scope"),
        ("provision", [{"path": "kv/x", "data": {"a": "${random}"}}], "provision[0].data: ${random} needs `once: true`"),
        ("provision", [{"path": "kv/x", "per_scope": ["region"]}], "provision[0].per_scope: no entry of `scopes`"),
        ("provision", [{"path": "/sys/x"}], "provision[0].path"),
        ("provision", [{"path": "ssh/config/ca", "once": True, "unless": "ssh/issuers"}], "provision[0]: once and unless are mutually exclusive"),
        ("provision", [{"path": "ssh/config/ca", "unless": "ssh"}], "provision[0].unless"),
        ("resources/orders-db/actions/admin/crl", "pki", "crl: must be the pki mount that issues it, but issue.path is not under pki/"),
        ("resources/orders-db/actions/admin/crl", "database/../pki", "resources.orders-db.actions.admin.crl"),
        ("resources/orders-db/actions/admin", {**CERTIFIED, "revocable": "on_expiry"}, "crl: needs `revocable: now`"),
        ("resources/orders-db/actions/admin", SPACIOUS, "resources.orders-db.actions.admin: space: needs a `target`, so that its removal can be verified"),
        ("resources/orders-db/actions/admin", {**SPACIOUS, "target": TARGET, "revocable": "on_expiry"}, "space: needs `revocable: now`, because it is dropped when access ends"),
        ("resources/orders-db/actions/admin", {**SPACIOUS, "target": TARGET, "space": "schema"}, "resources.orders-db.actions.admin.space"),
        ("resources/orders-db/actions/admin", {**CERTIFIED, "data_scope": ["ttl"]}, "data_scope: {ttl} is filled in from the job itself"),
        ("resources/orders-db/actions/admin", {**CERTIFIED, "issue": {"path": "pki/issue/{job}"}}, "issue.path: {job} is not in data_scope"),
        ("resources/orders-db/actions/admin", {**CERTIFIED, "lock": "control_group"}, "with `lock: control_group` the call to Vault is fixed before the issue; it cannot contain {ttl}"),
        ("resources/orders-db/actions/admin", {**CERTIFIED, "lock": "control_group", "issue": {**CERTIFIED["issue"], "data": {"name": "{job}"}}}, "it cannot contain {job}"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_its_path(path: str, value: Any, problem: str) -> None:
    assert problem in problems_of(path, value)


@pytest.mark.parametrize("path", ["database/static-creds/ledger", "openldap/static-cred/ledger", "shelf/code/ledger"])
def test_credentials_that_vault_issues_without_a_lease_cannot_be_declared_revocable_now(path: str) -> None:
    raw = copy.deepcopy(PLAIN)
    raw["provision"] = [{"path": "sys/mounts/shelf", "data": {"type": "totp"}}]
    action = raw["resources"]["orders-db"]["actions"]["admin"]
    action["issue"] = {"path": path}
    with pytest.raises(InvalidInput) as caught:
        read_catalog(yaml.safe_dump(raw))
    (problem,) = caught.value.problems
    assert problem.path == "resources.orders-db.actions.admin.revocable"
    assert problem.message == (
        f"Vault gives no lease at {path}, so nothing can revoke what it issues there: use `on_expiry` if it ends by itself, otherwise `never`"
    )
    for revocable in ("on_expiry", "never"):
        action["revocable"] = revocable
        assert read_catalog(yaml.safe_dump(raw)).resources["orders-db"].actions[Action.ADMIN].revocable == revocable


def test_stored_values_must_be_declared_as_never_revocable() -> None:
    raw = copy.deepcopy(PLAIN)
    raw["provision"] = [{"path": "sys/mounts/shelf", "data": {"type": "kv", "options": {"version": "2"}}}]
    action = raw["resources"]["orders-db"]["actions"]["admin"]
    action["issue"] = {"path": "shelf/data/ledger"}
    for revocable in ("now", "on_expiry"):
        action["revocable"] = revocable
        with pytest.raises(InvalidInput) as caught:
            read_catalog(yaml.safe_dump(raw))
        (problem,) = caught.value.problems
        why = "what is stored at shelf/data/ledger stays valid until somebody changes it: use `never`"
        assert (problem.path, problem.message) == ("resources.orders-db.actions.admin.revocable", why)
    action["revocable"] = "never"
    read_catalog(yaml.safe_dump(raw))


@pytest.mark.parametrize(
    "issue",
    ["sys/mounts", "auth/token/create", "cubbyhole/x", "creds", "a/../b", "a//b", "a/*", "a/+", "a/b,c", "a/b?x=1", "a/{{name}}", "a/{Tenant}", "a/{region}", "/a/b", "a/b/", "a/b c", "a/b\n", "a/$b}"],
)  # fmt: skip
def test_an_issue_path_that_is_not_a_plain_path_is_refused(issue: str) -> None:
    assert "resources.orders-db.actions.admin" in problems_of("resources/orders-db/actions/admin/issue/path", issue)


@pytest.mark.parametrize(
    "path, why",
    [
        ("identity/oidc/token/je-console", "identity/ belongs to Vault itself and issues nothing to jobs"),
        ("transit/sign/je-sign-7b1f", "keys named je-… are JustEnough's"),
        ("transit/export/signing-key/je-ledger", "keys named je-… are JustEnough's"),
    ],
)
def test_no_action_issues_from_what_people_and_consoles_prove_themselves_with(path: str, why: str) -> None:
    assert why in problems_of("resources/orders-db/actions/admin/issue/path", path)
    catalog_with("resources/orders-db/actions/admin/issue/path", "transit/sign/orders")


@pytest.mark.parametrize("path, tenant", [("transit/sign/{tenant}", "je-ledger"), ("{tenant}/oidc/token/je-console", "identity")])
def test_no_action_issues_from_there_by_way_of_a_placeholder(path: str, tenant: str) -> None:
    raw = with_value(PLAIN, "scopes", [{"tenant": "acme"}, {"tenant": tenant}])
    read = {"issue": {"path": path}, "max_ttl": "30m", "data_scope": ["tenant"], "revocable": "never"}
    with pytest.raises(InvalidInput, match=path.replace("{tenant}", tenant)):
        read_catalog(yaml.safe_dump(with_value(raw, "resources/orders-db/actions/read", read)))


def test_every_problem_of_a_catalog_is_reported_at_once() -> None:
    raw = copy.deepcopy(PLAIN)
    raw["resources"]["orders-db"] |= {"sensitivity": "secret", "colour": "red"}
    raw["resources"]["orders-db"]["actions"]["read"]["max_ttl"] = "never"
    raw["tools"] = {"find": {"uses": {"resource": "orders-db"}}}
    with pytest.raises(InvalidInput) as caught:
        read_catalog(yaml.safe_dump(raw))
    paths = [problem.path for problem in caught.value.problems]
    orders = "resources.orders-db"
    assert sorted(paths) == sorted(
        ["tools.find.uses.action", f"{orders}.sensitivity", f"{orders}.colour", f"{orders}.actions.read.max_ttl"]
    )


@pytest.mark.parametrize("text", ["", "[]", "resources: &a {b: *a}", "a: 1\na: 2", "\x00", "resources: {"])
def test_a_text_that_is_not_a_catalog_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_catalog(text)


def test_settings_are_filled_in_and_each_missing_one_is_named_with_its_path() -> None:
    assert with_settings(catalog_with(), SETTINGS).resources["orders-db"].connect == {"host": "127.0.0.1"}
    with pytest.raises(InvalidInput, match=r"resources\.orders-db\.connect\.host: setting SHOP_HOST is missing"):
        with_settings(catalog_with(), {})


def test_a_setting_cannot_widen_a_path_in_vault() -> None:
    catalog = catalog_with("resources/orders-db/actions/admin/issue/path", "database/creds/${ROLE}")
    with pytest.raises(InvalidInput, match="must be a path in Vault"):
        with_settings(catalog, {**SETTINGS, "ROLE": "*"})


def test_the_secrets_of_provision_are_needed_only_for_the_setup_of_vault() -> None:
    catalog = catalog_with("provision", [{"path": "kv/data/x", "data": {"password": "${SECRET}"}}])
    assert with_settings(catalog, SETTINGS).provision == catalog.provision
    assert provision_writes(catalog, {"SECRET": "s"})[0].data == {"password": "s"}
    with pytest.raises(InvalidInput, match=r"provision\[0\]\.data\.password: setting SECRET is missing"):
        provision_writes(catalog, {})


def test_a_write_per_scope_becomes_one_write_per_value_and_keeps_vaults_own_templates() -> None:
    write = {
        "path": "database/roles/orders-{tenant}",
        "per_scope": ["tenant"],
        "data": {"sql": ['CREATE ROLE "{{name}}" IN ROLE r_{tenant}']},
    }
    writes = provision_writes(catalog_with("provision", [write]), {})
    assert [(one.path, one.data["sql"]) for one in writes] == [
        ("database/roles/orders-acme", ['CREATE ROLE "{{name}}" IN ROLE r_acme']),
        ("database/roles/orders-globex", ['CREATE ROLE "{{name}}" IN ROLE r_globex']),
    ]


def test_an_issue_is_resolved_with_the_jobs_scope_and_tied_to_its_identity() -> None:
    resource = catalog_with().resources["orders-db"]
    read, admin = resource.actions[Action.READ], resource.actions[Action.ADMIN]
    assert resolve_issue(read, {"tenant": "acme", "other": "x"}).path == "database/creds/orders-read-acme"
    assert scope_alias(read, {"tenant": "acme", "other": "x"}) == "je-scope-tenant-acme"
    assert (resolve_issue(admin, {}).path, scope_alias(admin, {})) == ("database/creds/orders-admin", None)
    for ask in (resolve_issue, scope_alias):
        with pytest.raises(InvalidInput, match="tenant: required"):
            ask(read, {})


def test_an_identitys_name_does_not_depend_on_the_order_of_its_keys() -> None:
    assert alias_of({"tenant": "acme", "region": "eu"}) == alias_of({"region": "eu", "tenant": "acme"}) == "je-scope-region-eu-tenant-acme"


def test_a_spec_that_matches_the_catalog_has_no_problems() -> None:
    assert spec_problems() == []


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"access": access(resource="order-db")}, "access[0].resource: unknown resource 'order-db'; did you mean 'orders-db'?"),
        ({"access": access(resource="moon")}, "access[0].resource: unknown resource 'moon'"),
        ({"access": access(action="write")}, "access[0].action: orders-db does not offer write; it offers admin, read"),
        ({"access": access(ttl="31m")}, "access[0].ttl: 31m is longer than 30m, the max_ttl of orders-db read"),
        ({"environment": "test"}, "environment: orders-db is in environment 'prod', not in 'test'"),
        ({"data_scope": {}}, "data_scope.tenant: required by orders-db read"),
        (
            {"data_scope": {"tenant": "acmee"}},
            "data_scope.tenant: no scope 'tenant-acmee' is provisioned for orders-db read; did you mean 'acme'?",
        ),
    ],
)
def test_a_spec_that_requests_something_unknown_is_refused_by_its_path(changes: dict[str, Any], problem: str) -> None:
    assert spec_problems(**changes) == [problem]


def test_a_combination_that_does_not_exist_suggests_no_value_that_it_has_already() -> None:
    raw = with_value(PLAIN, "scopes", [{"ward": "k1", "study": "atlas"}, {"ward": "o1", "study": "hope"}])
    read = {"issue": {"path": "database/creds/orders-{ward}-{study}"}, "max_ttl": "30m", "data_scope": ["ward", "study"]}
    catalog = read_catalog(yaml.safe_dump(with_value(raw, "resources/orders-db/actions/read", read)))
    problems = problems_in_spec(spec(data_scope={"ward": "k1", "study": "hop"}), catalog)

    assert [str(problem) for problem in problems] == [
        "data_scope.ward: no scope 'study-hop-ward-k1' is provisioned for orders-db read",
        "data_scope.study: no scope 'study-hop-ward-k1' is provisioned for orders-db read; did you mean 'hope'?",
    ]


def test_every_problem_of_a_spec_against_the_catalog_is_reported_at_once() -> None:
    asked = [*access(ttl="2h"), *access(resource="nothing"), *access(action="write")]
    found = [line.partition(":")[0] for line in spec_problems(environment="test", data_scope={}, access=asked)]
    assert found == ["environment", "access[0].ttl", "data_scope.tenant", "access[1].resource", "access[2].action"]


@given(st.integers(min_value=1, max_value=8 * 24 * 3600))
def test_a_hard_end_is_one_that_the_policy_lists_and_never_shorter_than_requested(seconds: int) -> None:
    text = hard_end_of(seconds)
    given_seconds = int(text[:-1]) * {"m": 60, "h": 3600}[text[-1]]
    assert text in HARD_ENDS
    assert seconds <= given_seconds < seconds + (60 if text.endswith("m") else 3600)


@pytest.mark.parametrize("seconds", [0, -1, 8 * 24 * 3600 + 1])
def test_a_hard_end_beyond_the_longest_job_is_refused(seconds: int) -> None:
    with pytest.raises(ValueError, match="maximum ttl must be from 1 s to 192 h"):
        hard_end_of(seconds)


def draft_problems(**changes: Any) -> list[str]:
    raw: dict[str, Any] = {"environment": "prod", "data_scope": {"tenant": "acme"}, **changes}
    return [str(problem) for problem in problems_in_draft(raw, catalog_with())]


ASKED: dict[str, Any] = {"resource": "orders-db", "action": "read", "ttl": "10m"}


@pytest.mark.parametrize(
    "changes,expected",
    [
        ({"access": [ASKED]}, []),
        ({"access": [{**ASKED, "resource": "order-db"}]}, ["access[0].resource: unknown resource 'order-db'; did you mean 'orders-db'?"]),
        ({"access": [7, {**ASKED, "ttl": "2h"}]}, ["access[1].ttl: 2h is longer than 30m, the max_ttl of orders-db read"]),
        (
            {"access": [{**ASKED, "ttl": "soon", "action": "write"}]},
            ["access[0].action: orders-db does not offer write; it offers admin, read"],
        ),
        (
            {"access": [{**ASKED, "action": "drop", "ttl": "2h"}]},
            [],
        ),
        ({"access": [ASKED], "environment": "test"}, ["environment: orders-db is in environment 'prod', not in 'test'"]),
        ({"access": [ASKED], "environment": 7}, []),
        ({"access": [ASKED], "data_scope": {}}, ["data_scope.tenant: required by orders-db read"]),
        ({"access": [ASKED], "data_scope": {"tenant": "a{b}"}}, []),
        ({"access": [{**ASKED, "action": None}], "data_scope": {}}, []),
        ({"access": "all"}, []),
    ],
)
def test_the_readable_parts_of_an_invalid_spec_are_checked_against_the_catalog(changes: dict[str, Any], expected: list[str]) -> None:
    assert draft_problems(**changes) == expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["access", "resource", "action", "ttl", "environment", "data_scope", "tenant"]), inner)
        ),
    )
)
def test_no_draft_of_a_spec_makes_the_check_raise(raw: Any) -> None:
    problems_in_draft(raw, catalog_with())


def test_job_id_and_ttl_are_filled_in_at_issue_and_stay_placeholders_in_what_approvers_sign() -> None:
    warehouse = with_settings(read_catalog(SHOP.read_bytes()), SETTINGS).resources["warehouse-api"].actions[Action.READ]
    name = "{job}.acme.jobs.shop.internal"
    assert resolve_issue(warehouse, {"tenant": "acme"}).data == {"common_name": name, "ttl": "{ttl}s"}
    # Whatever a job calls the keys of its data scope.
    assert resolve_issue(warehouse, {"tenant": "acme", "job": "another", "ttl": "999"}).data["common_name"] == name
    issued = resolve_issue(warehouse, {"tenant": "acme", "job": "another"}, issue_values={"job": "j-dev-1", "ttl": "300"})
    assert issued.data == {"common_name": name.replace("{job}", "j-dev-1"), "ttl": "300s"}
