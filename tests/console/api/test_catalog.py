"""GET /resources/{name}: what a resource offers, what current policy decides, and the people who can decide."""

from __future__ import annotations

import pytest

from tests.console.served_console import Served


async def test_a_resource_names_its_actions_and_who_can_decide_them(served: Served) -> None:
    answer = await served.get("/resources/refunds-db", "ops2")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    actions = {action["action"]: (action["outcome"], action["tier"]) for action in found["actions"]}
    assert actions == {"read": ("allowed", 0), "write": ("needs_approval", 1)}
    assert [(tier["tier"], tier["quorum"]) for tier in found["deciders"]] == [(1, 1), (2, 1), (3, 2)]
    assert found["deciders"][0]["groups"] == [{"group": "support-leads", "names": ["lead"]}]


async def test_only_tiers_that_an_action_may_need_are_listed(served: Served) -> None:
    found = (await served.get("/resources/customers-db", "auditor")).json()
    assert min(tier["tier"] for tier in found["deciders"]) == min(action["tier"] for action in found["actions"] if action["tier"])


@pytest.mark.parametrize("name, hint", [("refund-db", "; did you mean 'refunds-db'?"), ("zzz", "")])
async def test_an_unknown_resource_is_not_found_and_a_similar_one_is_named(served: Served, name: str, hint: str) -> None:
    answer = await served.get(f"/resources/{name}", "ops")
    assert (answer.status_code, answer.json()["detail"]) == (404, f"there is no resource {name} in the catalog{hint}")


async def test_a_person_in_no_group_sees_no_resource(served: Served) -> None:
    assert (await served.get("/resources/refunds-db", "nobody")).status_code == 403
