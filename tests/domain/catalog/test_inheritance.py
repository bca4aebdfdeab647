"""What `defaults` and a resource say once applies to every action and write that says nothing else, and is validated where it was written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from justenough.domain.catalog.loader import provision_writes, read_catalog, with_settings
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs.states import Action, Revocable, Sensitivity

TARGET = {"postgres": "host=${HOST} dbname=b", "observe": "database/creds/observer", "end": "database/creds/reaper"}
DEFAULTS: dict[str, Any] = {
    "environment": "prod",
    "sensitivity": "internal",
    "owner": "owners",
    "connect": {"host": "${HOST}"},
    "target": TARGET,
    "max_ttl": "10m",
    "review": {"by": "2030-01-31"},
    "provision": {
        "database/": {"db_name": "x", "max_ttl": "1h"},
        "database/roles/": {"db_name": "billing"},
    },
}


SECTIONS = ("scopes", "texts", "tools")


def catalog_of(resource: dict[str, Any], *writes: dict[str, Any], **more: Any) -> Catalog:
    """Return a catalog with this resource. `more`: whole sections, and what else `defaults` has."""
    raw = {
        **{name: more.pop(name) for name in SECTIONS if name in more},
        "defaults": {**DEFAULTS, **more},
        "resources": {"billing": {"title": "Billing", **resource}},
        "provision": list(writes),
    }
    # JSON is YAML, and writes nothing twice by reference.
    return read_catalog(json.dumps(raw))


def read(**more: Any) -> dict[str, Any]:
    return {"issue": {"path": "database/creds/billing-read"}, **more}


def problems_of(resource: dict[str, Any], *writes: dict[str, Any], **defaults: Any) -> dict[str, str]:
    with pytest.raises(InvalidInput) as raised:
        catalog_of(resource, *writes, **defaults)
    return {problem.path: problem.message for problem in raised.value.problems}


def test_a_value_that_is_not_a_mapping_inherits_nothing_and_is_reported_by_its_path() -> None:
    with pytest.raises(InvalidInput) as raised:
        read_catalog(json.dumps({"defaults": DEFAULTS, "resources": {"billing": 5}, "provision": ["x"]}))
    assert {problem.path: problem.message for problem in raised.value.problems} == {
        "resources.billing": "must be a mapping",
        "provision[0]": "must be a mapping",
    }


def test_resources_and_actions_inherit_the_defaults_for_what_they_leave_out() -> None:
    billing = catalog_of({"actions": {"read": read(), "write": read(policy="je-grant-own", max_ttl="5m")}}).resources["billing"]
    assert (billing.environment, billing.sensitivity, billing.owner) == ("prod", Sensitivity.INTERNAL, "owners")
    assert billing.connect == {"host": "${HOST}"}
    first, second = billing.actions[Action.READ], billing.actions[Action.WRITE]
    assert (first.max_ttl, second.max_ttl) == (600, 300)
    assert first.target == second.target
    assert first.target is not None
    assert str(first.review.by) == "2030-01-31"
    assert (first.policy, second.policy) == ("je-grant-billing-read", "je-grant-own")


def test_a_resource_overrides_the_defaults_and_an_action_overrides_both() -> None:
    resource = {"owner": "finance", "max_ttl": "20m", "revocable": "never", "target": None}
    billing = catalog_of({**resource, "actions": {"read": read(), "admin": read(policy="je-grant-x", target=TARGET, revocable="now")}})
    actions = billing.resources["billing"].actions
    assert (billing.resources["billing"].owner, actions[Action.READ].max_ttl) == ("finance", 1200)
    assert (actions[Action.READ].target, actions[Action.READ].revocable) == (None, Revocable.NEVER)
    assert actions[Action.ADMIN].target is not None
    assert actions[Action.ADMIN].revocable is Revocable.NOW


def test_a_write_inherits_data_from_every_parent_path_and_the_longest_path_wins() -> None:
    role = {"path": "database/roles/billing-read", "data": {"max_ttl": "5m"}}
    catalog = catalog_of({"actions": {"read": read()}}, role, {"path": "database/config/x"}, {"path": "kv/data/x", "data": {"a": 1}})
    assert [dict(write.data) for write in catalog.provision] == [
        {"db_name": "billing", "max_ttl": "5m"},
        {"db_name": "x", "max_ttl": "1h"},
        {"a": 1},
    ]


def test_the_role_of_an_action_is_written_to_the_path_that_issues_its_credentials() -> None:
    scopes = [{"tenant": "acme"}, {"tenant": "globex"}]
    per_tenant = {
        "issue": {"path": "database/creds/billing-read-{tenant}"},
        "data_scope": ["tenant"],
        "role": {"creation_statements": ["${CREATE} IN ROLE r_{tenant}"]},
    }
    certificate = {
        "issue": {"path": "own/pki/issue/jobs"},
        "policy": "je-grant-x",
        "role": {"ttl": "5m"},
        "data_scope": ["tenant"],
        "target": None,
    }
    catalog = catalog_of(
        {"actions": {"read": per_tenant, "write": certificate}}, {"path": "kv/data/x"}, scopes=scopes, texts={"CREATE": "CREATE ROLE"}
    )

    assert [(write.path, dict(write.data)) for write in provision_writes(with_settings(catalog, {"HOST": "h"}), {})] == [
        ("kv/data/x", {}),
        *(
            (
                f"database/roles/billing-read-{tenant}",
                {"db_name": "billing", "max_ttl": "1h", "creation_statements": [f"CREATE ROLE IN ROLE r_{tenant}"]},
            )
            for tenant in ("acme", "globex")
        ),
        ("own/pki/roles/jobs", {"ttl": "5m"}),
    ]


@pytest.mark.parametrize(
    "action, where, why",
    [
        (
            {"issue": {"path": "kv/data/billing"}, "role": {}},
            "resources.billing.actions.read",
            "role: needs an issue.path like database/creds/NAME or pki/issue/NAME, which issues from roles/NAME",
        ),
        (
            read(role={"password": "${random}"}),
            "resources.billing.actions.read.role",
            "${random} needs `once: true`, or each setup would change it",
        ),
        (
            read(role={}),
            "resources.billing.actions.read.role",
            "provision[0].data writes database/roles/billing-read too; keep one of them",
        ),
    ],
)
def test_a_role_that_cannot_be_written_is_a_problem(action: dict[str, Any], where: str, why: str) -> None:
    also = {"path": "database/roles/billing-read" if why.startswith("provision") else "kv/data/x"}
    assert problems_of({"actions": {"read": action}}, also)[where] == why


def test_a_missing_setting_of_a_role_is_named_by_its_place() -> None:
    catalog = catalog_of({"actions": {"read": read(role={"creation_statements": ["${NOWHERE}"]})}})
    with pytest.raises(InvalidInput) as raised:
        provision_writes(catalog, {"HOST": "h"})
    assert [(problem.path, problem.message) for problem in raised.value.problems] == [
        ("resources.billing.actions.read.role.creation_statements[0]", "setting NOWHERE is missing: set the environment variable NOWHERE")
    ]


def test_a_tool_connects_to_the_target_of_the_action_that_it_uses() -> None:
    def dsn_of(target: dict[str, str] | None, **sql: str) -> str | None:
        tool = {"description": "Count", "uses": {"resource": "billing", "action": "read"}, "sql": {"statement": "SELECT 1", **sql}}
        catalog = catalog_of({"actions": {"read": read(target=target)}}, tools={"count": tool})
        found = catalog.tools["count"].sql
        return found.dsn if found else None

    assert dsn_of(TARGET) == TARGET["postgres"]
    assert dsn_of(TARGET, dsn="host=replica dbname=b") == "host=replica dbname=b"
    assert dsn_of(None, dsn="host=replica dbname=b") == "host=replica dbname=b"
    with pytest.raises(InvalidInput, match=r"tools\.count\.sql\.dsn: required"):
        dsn_of(None)


def test_settings_are_filled_in_after_inheritance() -> None:
    billing = with_settings(catalog_of({"actions": {"read": read()}}), {"HOST": "db.example"}).resources["billing"]
    target = billing.actions[Action.READ].target
    assert target is not None
    assert (billing.connect["host"], target.postgres) == ("db.example", "host=db.example dbname=b")


def test_a_problem_is_named_where_it_was_written() -> None:
    assert set(problems_of({"actions": {"read": read(), "write": read(policy="je-grant-b")}}, owner="Two Words")) == {"defaults.owner"}
    assert set(problems_of({"actions": {"read": read()}}, max_ttl="2 days")) == {"defaults.max_ttl"}
    assert set(problems_of({"max_ttl": "2 days", "actions": {"read": read()}})) == {"resources.billing.max_ttl"}
    assert problems_of({"actions": {"read": read()}}, sensitivity="secret") == {
        "defaults.sensitivity": "must be one of public, internal, confidential, restricted"
    }
    assert problems_of({"actions": {"read": read()}}, targets={}) == {"defaults.targets": "unknown key; did you mean 'target'?"}


def test_unknown_keys_of_a_default_are_named_once_even_if_there_are_too_many_for_hints() -> None:
    target = {**TARGET, **{f"end{number}": "x" for number in range(15)}}
    actions = {"read": read(), "write": read(policy="je-grant-b")}
    assert set(problems_of({"actions": actions}, target=target)) == {f"defaults.target.end{number}" for number in range(15)}


@pytest.mark.parametrize("broken", [[], "text", {"provision": []}, {"provision": {"database/roles/": 1}}])
def test_malformed_defaults_are_one_problem(broken: object) -> None:
    raw = {"defaults": broken, "resources": {}, "provision": [{"path": "database/roles/x"}]}
    with pytest.raises(InvalidInput) as raised:
        read_catalog(json.dumps(raw))
    assert {problem.path.partition(".")[0] for problem in raised.value.problems} == {"defaults"}


def test_a_catalog_may_be_empty() -> None:
    assert read_catalog("resources: {}").resources == {}
