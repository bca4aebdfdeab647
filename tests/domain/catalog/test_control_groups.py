"""The arithmetic of the double lock: whom Vault asks, how many of them, for how long; and which catalogs cannot have it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from justenough.domain.approvals.tiers import MAX_WAIT_S, Tier, Tiers
from justenough.domain.catalog.control_groups import (
    WAIT_MARGIN_S,
    control_group_of,
    control_group_problems,
    why_not_narrowable,
)
from justenough.domain.catalog.loader import read_catalog, with_settings
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.vault_names import HARD_END_HOURS
from justenough.domain.jobs.states import Action
from justenough.domain.policy.engine import DOUBLE_LOCK
from justenough.domain.policy.tier_result import TierResult


def tiers(*quorums: int, respond_within: int = 3600) -> Tiers:
    return Tiers(
        tiers={
            number: Tier(name=f"tier-{number}", approvers=(f"group-{number}", "everywhere"), quorum=quorum, respond_within=respond_within)
            for number, quorum in enumerate(quorums, start=1)
        }
    )


def catalog(*, other: dict[str, Any] | None = None, provision: list[dict[str, Any]] | None = None, **locked: Any) -> Catalog:
    """Return a catalog with one locked write, and whatever else."""
    write = {
        "issue": {"path": "database/creds/pay-{tenant}"},
        "max_ttl": "10m",
        "data_scope": ["tenant"],
        "lock": "control_group",
        **locked,
    }
    shape = {"title": "T", "environment": "prod", "sensitivity": "internal", "owner": "g"}
    resources = {"pay-db": {**shape, "actions": {"write": write}}}
    if other:
        resources["other-db"] = {**shape, "actions": {"read": {"max_ttl": "10m", **other}}}
    return read_catalog(yaml.safe_dump({"resources": resources, "scopes": [{"tenant": "acme"}], "provision": provision or []}))


def problems(of: Catalog, against: Tiers) -> list[str]:
    return [str(problem) for problem in control_group_problems(of, against)]


@pytest.mark.parametrize(
    "lock_tier, groups, approvals",
    [
        (None, ("group-1", "everywhere", "group-2", "group-3"), 1),
        (2, ("group-2", "everywhere", "group-3"), 1),
        (3, ("group-3", "everywhere"), 2),
    ],
)
def test_a_lock_needs_the_quorum_of_its_tier_from_the_groups_of_that_tier_and_above(
    lock_tier: int | None, groups: tuple[str, ...], approvals: int
) -> None:
    locked = catalog(lock_tier=lock_tier)
    action = locked.resources["pay-db"].actions[Action.WRITE]
    lock = control_group_of(action, tiers(1, 1, 2))
    assert lock is not None
    assert (lock.groups, lock.approvals, lock.ttl) == (groups, approvals, 3 * 3600 + WAIT_MARGIN_S)
    assert lock.token_ttl(action) == lock.ttl + 600
    assert problems(locked, tiers(1, 1, 2)) == []


def test_the_slowest_tiers_and_the_longest_grant_fit_into_one_vault_token() -> None:
    locked = catalog(max_ttl="24h")
    action = locked.resources["pay-db"].actions[Action.WRITE]
    lock = control_group_of(action, tiers(1, 1, respond_within=MAX_WAIT_S // 2))
    assert lock is not None
    assert lock.token_ttl(action) <= HARD_END_HOURS[-1] * 3600


@pytest.mark.parametrize(
    "resource, requested, granted, code",
    [
        ("pay-db", Action.WRITE, Action.WRITE, None),
        ("pay-db", Action.WRITE, Action.READ, "locked_action_narrowed"),
        # The lock of the narrower action.
        ("pay-db", Action.ADMIN, Action.WRITE, "locked_action_narrowed"),
        ("other-db", Action.WRITE, Action.READ, None),
    ],
)
def test_a_request_is_not_narrowed_if_a_lock_covers_either_action(
    resource: str, requested: Action, granted: Action, code: str | None
) -> None:
    refused = why_not_narrowable(catalog(other={"issue": {"path": "kv/data/x"}}), resource, requested, granted)
    assert (refused.code if refused else None) == code
    if refused:
        assert str(refused) == (
            f"{resource}:{requested.value} cannot be narrowed to {granted.value}, because a Vault control group covers at least one "
            "of them: approve it as requested, or deny it"
        )


def test_an_action_without_a_lock_has_no_control_group_and_no_least_tier() -> None:
    action = catalog(other={"issue": {"path": "kv/data/x"}}).resources["other-db"].actions[Action.READ]
    assert (control_group_of(action, tiers(1)), action.least_tier) == (None, 0)
    with pytest.raises(InvalidInput, match="lock_tier needs `lock: control_group`"):
        catalog(other={"issue": {"path": "kv/data/x"}, "lock_tier": 2})


@pytest.mark.parametrize(
    "changes, against, problem",
    [
        ({"lock_tier": 3}, tiers(1, 1), "resources.pay-db.actions.write.lock_tier: approvals.yaml has no tier 3; it has 1, 2"),
        ({}, tiers(2, 1), "Vault requires 2 people (tier 1's quorum), but tier 2 approves with 1, so Vault would never issue"),
    ],
)
def test_tiers_that_could_never_open_a_lock_are_refused(changes: Any, against: Tiers, problem: str) -> None:
    (found,) = problems(catalog(**changes), against)
    assert problem in found


@pytest.mark.parametrize(
    "others, problem",
    [
        (
            {"other": {"issue": {"path": "database/creds/pay-acme"}}},
            "resources.pay-db.actions.write.issue.path: resources.other-db.actions.read issues from this path too; a locked action needs its own path",
        ),
        (
            {"target": {"postgres": "host=x", "observe": "database/creds/pay-acme", "end": "database/creds/je-reaper"}},
            "resources.pay-db.actions.write.issue.path: the worker uses this path to observe a target",
        ),
        (
            {"provision": [{"path": "sys/policies/acl/je-grant-pay-db-write", "data": {"policy": ""}}]},
            (
                "resources.pay-db.actions.write.policy: a locked action needs the policy that `justenough vault setup` generates; "
                "remove this one from `provision`"
            ),
        ),
    ],
)
def test_a_catalog_with_a_way_around_its_lock_is_refused(others: Any, problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        catalog(**others)
    assert any(problem in str(found) for found in refused.value.problems)


@pytest.mark.parametrize("least, needed", [(1, 1), (2, 2), (3, 3)])
def test_a_lock_forbids_every_tier_below_its_own(least: int, needed: int) -> None:
    weighed = TierResult(permits=(("p",),) * 4).with_least_tier(least, DOUBLE_LOCK)
    assert weighed.needed_tier(3) == needed
    assert weighed.forbids[0] == (DOUBLE_LOCK,)
    # Where fewer tiers have approvers, nobody can approve it.
    assert weighed.needed_tier(least - 1) is None


def test_a_setting_cannot_lead_another_action_to_the_path_of_a_locked_one() -> None:
    both = catalog(other={"issue": {"path": "database/creds/${OTHER}"}})
    assert "other-db" in with_settings(both, {"OTHER": "elsewhere"}).resources
    with pytest.raises(InvalidInput, match="a locked action needs its own path"):
        with_settings(both, {"OTHER": "pay-acme"})
