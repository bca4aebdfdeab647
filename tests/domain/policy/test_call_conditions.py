"""What policies can say about a call's arguments: a number's size, a value in a list, the beginning of a text; and no argument passes by
rounding.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs.states import Action
from justenough.domain.policy.cedar_request import DecisionFacts, decimal_text
from justenough.domain.policy.engine import PolicySet
from justenough.domain.tools.call import ToolCall
from tests.support.domain_samples import SCHEMA, access_context, job, policies, resource

SMALL = """
@id("small") permit (principal, action, resource)
when {
  context.tool == "refund-order" && context.call.hasTag("amount")
  && context.call.getTag("amount").lessThanOrEqual(decimal("100.0"))
  && context.arguments.containsAny(["order_id=4711", "order_id=4712"])
};
"""
LARGE = """
@id("all") permit (principal, action, resource);
@id("not-large") forbid (principal, action, resource)
when { context.call.hasTag("amount") && context.call.getTag("amount").greaterThan(decimal("100.0")) };
"""
BOUNDED = policies(SMALL), policies(LARGE)


def outcome_of(rules: PolicySet, arguments: dict[str, Any] | None) -> tuple[str, tuple[str, ...]]:
    call = ToolCall(tool="refund-order", arguments=arguments) if arguments is not None else None
    about = access_context(tool=call.tool, arguments=call.pairs, numbers=call.numbers) if call else access_context()
    decided = rules.decide(job(), "refunds-db", resource(), Action.WRITE, context=about)
    assert decided.errors == ()
    # Asked again from what is recorded of it, it is the same.
    kept = DecisionFacts.model_validate_json(DecisionFacts.of(job(), "refunds-db", resource(), Action.WRITE, about).model_dump_json())
    assert rules.decide(job(), "refunds-db", resource(), Action.WRITE, context=kept.to_context(about.reason)) == decided
    return decided.outcome, decided.policies


@pytest.mark.parametrize(
    "arguments, allowed",
    [
        ({"order_id": 4711, "amount": 100}, True),
        ({"order_id": 4712, "amount": 99.99}, True),
        ({"order_id": 4713, "amount": 1}, False),
        ({"order_id": 4711, "amount": 100.00001}, False),
        ({"order_id": 4711, "amount": 1e300}, False),
        ({"order_id": 4711, "amount": "1"}, False),
        ({"order_id": 4711, "amount": True}, False),
        ({"order_id": 4711}, False),
        (None, False),
    ],
)
def test_a_policy_binds_numbers_by_size_and_others_by_lists(arguments: dict[str, Any] | None, *, allowed: bool) -> None:
    assert outcome_of(policies(SMALL), arguments)[0] == ("allowed" if allowed else "denied")


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53) + 1, 2**53 - 1))
def test_no_number_above_what_a_policy_allows_gets_past_it(amount: float) -> None:
    small, large = (outcome_of(rules, {"order_id": 4711, "amount": amount})[0] for rules in BOUNDED)
    assert small == large == ("allowed" if amount <= 100 else "denied")


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_is_rounded_up_to_cedars_precision_within_its_range(number: Decimal) -> None:
    said = Decimal(decimal_text(str(number)))
    assert abs(said) <= Decimal("922337203685477.5807")
    if abs(number) < Decimal(922337203685477):
        # Compared, not subtracted: a difference is rounded.
        assert said - Decimal("0.0001") < number <= said


def test_a_schema_may_omit_calls_but_may_not_define_them_differently() -> None:
    without = SCHEMA.replace("entity Call tags decimal;", "").replace("call: Call,", "")
    assert PolicySet.load({"only.cedar": '@id("all") permit (principal, action, resource);'}, without).ids == ("all",)
    wrong = SCHEMA.replace("entity Call tags decimal;", "entity Call tags Long;")
    with pytest.raises(InvalidInput, match="tags of type decimal"):
        PolicySet.load({"only.cedar": '@id("all") permit (principal, action, resource);'}, wrong)
