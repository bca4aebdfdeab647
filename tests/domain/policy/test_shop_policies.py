"""The shop's policies, asked about the shop's own catalog: who gets what, at which tier."""

from __future__ import annotations

import pytest

from justenough.domain.catalog.loader import read_catalog
from justenough.domain.jobs.credentials import Decision, HeldAccess
from justenough.domain.jobs.states import Action, Sensitivity
from justenough.domain.policy.cedar_request import JobFacts
from justenough.domain.policy.engine import PolicySet
from tests.support.domain_samples import SHOP, access_context, job

CATALOG = read_catalog((SHOP / "catalog.yaml").read_bytes())
EXTERNAL = [name for name, resource in CATALOG.resources.items() if resource.external]
POLICIES = PolicySet.load(
    {path.name: path.read_text() for path in (SHOP / "policies").glob("*.cedar")},
    (SHOP / "policies" / "schema.cedarschema").read_text(),
    external=EXTERNAL,
)


def decide(name: str, action: str, *, held: HeldAccess | None = None, facts: JobFacts | None = None) -> Decision:
    return POLICIES.decide(facts or job(), name, CATALOG.resources[name], Action(action), context=access_context(held=held or HeldAccess()))


def access_after(*issued: str) -> HeldAccess:
    """Return what a job holds after these were issued, in this order."""
    held = HeldAccess()
    for item in issued:
        name, _, action = item.rpartition(":")
        held = held.with_issued(name, Action(action), CATALOG.resources[name].sensitivity)
    return held


@pytest.mark.parametrize(
    "name, action, outcome, tier, policy",
    [
        ("orders-db", "read", "allowed", 0, "read-up-to-confidential"),
        ("orders-db", "write", "needs_approval", 1, "write-at-tier-1"),
        ("orders-db", "admin", "needs_approval", 2, "admin-at-tier-2"),
        ("refunds-db", "read", "allowed", 0, "read-up-to-confidential"),
        ("refunds-db", "write", "needs_approval", 1, "write-at-tier-1"),
        ("customers-db", "read", "needs_approval", 2, "read-restricted-at-tier-2"),
        ("helpdesk-api", "read", "allowed", 0, "read-up-to-confidential"),
        ("helpdesk-api", "write", "needs_approval", 1, "write-at-tier-1"),
        ("export-api", "write", "needs_approval", 2, "export-at-tier-2"),
        ("warehouse-api", "read", "allowed", 0, "read-up-to-confidential"),
        ("web-servers", "write", "needs_approval", 1, "write-at-tier-1"),
        ("model-api", "read", "allowed", 0, "read-up-to-confidential"),
        ("scratch", "write", "allowed", 0, "write-own-space"),
    ],
)
def test_each_access_of_the_shop_needs_its_tier(name: str, action: str, outcome: str, tier: int, policy: str) -> None:
    decision = decide(name, action)
    assert (decision.outcome, decision.tier, decision.policies) == (outcome, tier, (policy,))


def test_the_table_of_tiers_covers_every_action_of_the_shops_catalog() -> None:
    offered = {f"{name}:{action}" for name, resource in CATALOG.resources.items() for action in resource.actions}
    assert len(offered) == 14


def test_an_action_that_vault_locks_needs_its_lock_tier_whatever_policy_allows() -> None:
    decision = decide("payouts-db", "write")
    assert (decision.outcome, decision.tier, decision.policies) == ("needs_approval", 2, ("write-at-tier-1", "double-lock"))


@pytest.mark.parametrize("name", CATALOG.resources)
@pytest.mark.parametrize("action", Action)
def test_a_job_of_another_environment_gets_nothing(name: str, action: Action) -> None:
    decision = decide(name, action.value, facts=job(environment="staging"))
    assert decision.outcome == "denied"
    assert "same-environment-only" in decision.policies


def test_an_export_is_denied_once_restricted_data_was_issued() -> None:
    decision = decide("export-api", "write", held=access_after("customers-db:read"))
    assert (decision.outcome, decision.policies) == ("denied", ("no-export-after-restricted",))


def test_an_export_stays_denied_after_the_restricted_credential_was_released() -> None:
    held = access_after("customers-db:read", "orders-db:read").with_ended("customers-db", Action.READ)
    assert decide("export-api", "write", held=held).policies == ("no-export-after-restricted",)


def test_restricted_data_is_denied_once_an_export_was_issued() -> None:
    decision = decide("customers-db", "read", held=access_after("export-api:write"))
    assert (decision.outcome, decision.policies) == ("denied", ("no-restricted-after-export",))


def test_restricted_data_stays_denied_after_the_export_credential_was_released() -> None:
    held = access_after("export-api:write").with_ended("export-api", Action.WRITE)
    assert decide("customers-db", "read", held=held).policies == ("no-restricted-after-export",)


def test_a_resource_that_the_catalog_newly_calls_external_is_covered_without_a_new_policy() -> None:
    external = CATALOG.resources["orders-db"].model_copy(update={"external": True})
    assert POLICIES.decide(job(), "orders-db", external, Action.WRITE, context=access_context()).tier == 2
    after_restricted = access_context(held=access_after("customers-db:read"))
    for action in Action.READ, Action.WRITE:
        decision = POLICIES.decide(job(), "orders-db", external, action, context=after_restricted)
        assert (decision.outcome, decision.policies) == ("denied", ("no-export-after-restricted",)), action


def test_confidential_data_and_export_are_allowed_together() -> None:
    assert decide("orders-db", "read", held=access_after("export-api:write")).outcome == "allowed"
    assert decide("export-api", "write", held=access_after("orders-db:read")).tier == 2


def test_reading_restricted_data_is_never_allowed_without_a_person() -> None:
    for sensitivity in Sensitivity:
        resource = CATALOG.resources["customers-db"].model_copy(update={"sensitivity": sensitivity})
        decision = POLICIES.decide(job(), "customers-db", resource, Action.READ, context=access_context())
        assert (decision.tier > 0) == (sensitivity is Sensitivity.RESTRICTED)


def test_every_policy_has_a_comment_that_gives_its_reason() -> None:
    for path in (SHOP / "policies").glob("*.cedar"):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if line.startswith("@id"):
                assert lines[number - 1].startswith("// "), f"{path.name}:{number + 1}"
                assert lines[number - 1].endswith("."), f"{path.name}:{number + 1}"
