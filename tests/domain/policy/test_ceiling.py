"""The order as a ceiling, by tables: which access it names, and which tier any other needs."""

from __future__ import annotations

from typing import Any

import pytest

from justenough.domain.jobs.spec import Access, checked_spec
from justenough.domain.jobs.states import BEYOND_ORDER, Action, Beyond
from justenough.domain.policy.ceiling import beyond_of, with_ceiling
from justenough.domain.policy.tier_result import TierResult
from justenough.domain.tools.call import CallAccess, ToolCall
from tests.support.policy_samples import CATALOG

TOOLS = {"find-order": {"arguments": {"order_id": {"maximum": 5}}}}
ORDER: dict[str, Any] = {
    "name": "triage",
    "task": "t",
    "environment": "prod",
    "data_scope": {"tenant": "acme"},
    "run": {"command": ["true"]},
    "access": [
        {"resource": "refunds-db", "action": "read", "ttl": "5m", "reason": "r"},
        {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "r", "at": "request", "tools": TOOLS},
    ],
    "model": {"name": "default", "requests": 1, "tokens": 1},
}


def request(resource: str, action: Action = Action.READ, *, ttl: int = 300, **more: Any) -> Access:
    return Access(resource=resource, action=action, ttl=ttl, reason="r", at="request", **more)


def call(tool: str, resource: str, action: Action = Action.READ) -> CallAccess:
    return CallAccess(**dict(request(resource, action, ttl=3600)), call=ToolCall(tool=tool, arguments={}))


@pytest.mark.parametrize(
    "access, is_named",
    [
        (request("refunds-db"), True),
        (request("refunds-db", ttl=301), False),
        (request("refunds-db", Action.WRITE), False),
        (request("customers-db"), False),
        (call("any-reader", "refunds-db"), True),
        (call("refund-order", "refunds-db", Action.WRITE), False),
        (request("orders-db", tools=TOOLS), True),
        (request("orders-db"), False),
        (request("orders-db", tools={"list-tickets": {}}), False),
        (call("find-order", "orders-db"), True),
        (call("list-tickets", "orders-db"), False),
        (request("model-api", ttl=3600), True),
        (call("a-tool", "model-api"), False),
    ],
)
def test_an_order_names_an_action_for_a_time_and_by_its_tools(access: Access, is_named: bool) -> None:
    spec = checked_spec(ORDER)
    assert beyond_of(spec, access, CATALOG) == (None if is_named else "ask")
    assert all(beyond_of(spec, item, CATALOG) is None for item in spec.access)


@pytest.mark.parametrize("said, expected", [("none", "none"), ("ask", "ask"), ("policy", "policy")])
def test_a_spec_states_what_happens_beyond_it_unless_it_predates_that_field(said: str, expected: str) -> None:
    assert checked_spec({**ORDER, "beyond": said}).beyond == expected
    assert checked_spec(ORDER).beyond == "ask"
    assert checked_spec(ORDER, before_ceiling=True).beyond == "policy"


@pytest.mark.parametrize(
    "beyond, lowest_permitted, needed",
    [(None, 0, 0), ("policy", 0, 0), ("ask", 0, 1), ("ask", 1, 1), ("ask", 2, 2), ("none", 0, None), ("none", 2, None)],
)
def test_beyond_the_order_people_are_asked_at_tier_1_or_higher_or_nothing_is_allowed(
    beyond: Beyond | None, lowest_permitted: int, needed: int | None
) -> None:
    permits = tuple(("p",) if tier >= lowest_permitted else () for tier in range(4))
    result = with_ceiling(TierResult(permits=permits), beyond)
    assert result.needed_tier(3) == needed
    assert (BEYOND_ORDER in result.forbids[0]) is (beyond in {"ask", "none"})
    # Where nobody can be asked, nothing is allowed.
    assert beyond != "ask" or result.needed_tier(0) is None
