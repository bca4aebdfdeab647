"""Approval arithmetic: distinct people, the right tier, escalation, and an end at the first denial."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder, has_quorum
from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.approvals.tiers import MAX_WAIT_S, Tier, Tiers, read_tiers, seconds_to_pass
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import Bounds
from tests.domain.jobs.test_tool_bounds import CALLS, TOOLS, is_allowed
from tests.support.domain_samples import NOW, SHOP

TIERS = read_tiers((SHOP / "approvals.yaml").read_bytes())
REQUESTER = "ops"


def answer(person: str, tier: int, decision: str = "approve", ttl: int = 600) -> ApprovalAnswer:
    signed = SignedStatement(statement={"person": person}, signature="vault:v1:x")
    return ApprovalAnswer.model_validate(
        {"person": person, "name": person, "tier": tier, "decision": decision, "ttl": ttl, "reason": "", "at": NOW, "signed": signed}
    )


def ladder(needed: int = 1, *answers: ApprovalAnswer) -> Ladder:
    made = Ladder(request="r-1", digest="sha256:x", requester=REQUESTER, needed=needed, current=needed, respond_by=NOW, ttl=600)
    for one in answers:
        made = add_answer(made, one)
    return made


def add_answer(before: Ladder, one: ApprovalAnswer) -> Ladder:
    after = before.with_answer(one)
    assert isinstance(after, Ladder), after
    return after


@given(TOOLS, st.lists(st.none() | TOOLS, min_size=1, max_size=3))
def test_bounds_set_by_several_approvers_allow_only_what_all_of_them_allow(
    asked: dict[str, Bounds], said: list[dict[str, Bounds] | None]
) -> None:
    answers = tuple(answer(f"person-{number}", 3).model_copy(update={"tools": one}) for number, one in enumerate(said))
    made = ladder(3).model_copy(update={"tools": asked, "answers": answers})
    bound, granted = [one for one in said if one is not None], made.grant.tools
    assert granted is not None
    for name in ("find", "file"):
        for arguments in CALLS:
            expected = all(is_allowed(one, name, arguments, 0) for one in (asked, *bound))
            assert is_allowed(granted, name, arguments, 0) == expected
    assert made.is_narrowed == (granted != asked)
    assert bound or not made.is_narrowed


def test_a_person_who_withdrew_an_answer_cannot_answer_again() -> None:
    after = ladder(1, answer("lead", 1)).without_answer_of("lead").with_answer(answer("lead", 1))
    assert isinstance(after, Rejection)
    assert after.code == "answer_withdrawn"


def test_a_person_and_their_delegate_cannot_both_answer() -> None:
    own, for_lead = answer("lead", 1), answer("lead2", 1).model_copy(update={"on_behalf_of": "lead"})
    for first, second in ((own, for_lead), (for_lead, own)):
        after = ladder(1, first).with_answer(second)
        assert isinstance(after, Rejection)
        assert after.code == "already_answered"
        assert after.message == f"{'this person' if second is own else 'the delegate or the absent person'} has answered already"


@pytest.mark.parametrize("person", ["a", "b", "c"])
def test_a_withdrawal_removes_exactly_that_persons_answer(person: str) -> None:
    after = ladder(3, *(answer(name, 3) for name in "abc")).without_answer_of(person)
    assert {one.person for one in after.answers} == {"a", "b", "c"} - {person}
    assert after.taken_back == {person}


@pytest.mark.parametrize(
    "asked, allowed, is_narrowed",
    [
        (Action.ADMIN, Action.READ, True),
        (Action.ADMIN, Action.WRITE, True),
        (Action.ADMIN, Action.ADMIN, False),
        (Action.WRITE, Action.READ, True),
        (Action.WRITE, Action.WRITE, False),
        (Action.READ, Action.READ, False),
        (Action.WRITE, None, False),
        (None, Action.READ, False),
    ],
)
def test_a_grant_is_narrowed_if_an_approver_allows_a_lesser_action(
    asked: Action | None, allowed: Action | None, *, is_narrowed: bool
) -> None:
    made = ladder(3, answer("chief", 3).model_copy(update={"action": allowed})).model_copy(update={"action": asked})
    assert made.is_narrowed is is_narrowed


@pytest.mark.parametrize("ttl, is_narrowed", [(1, True), (599, True), (600, False), (9000, False)])
def test_a_grant_is_narrowed_if_an_approver_gives_less_time(ttl: int, *, is_narrowed: bool) -> None:
    assert ladder(3, answer("chief", 3, ttl=ttl)).is_narrowed is is_narrowed


def test_bounds_on_tools_that_nobody_requested_bind_nothing() -> None:
    made = ladder(3, answer("chief", 3).model_copy(update={"tools": {"find": Bounds()}}))
    assert (made.grant.tools, made.is_narrowed) == (None, False)


def test_the_shops_tiers_file_is_read() -> None:
    assert (TIERS.top, TIERS.tiers[3].quorum, TIERS.tiers[1].respond_within) == (3, 2, 900)
    assert TIERS.approver_groups == {"support-leads", "security", "chiefs"}
    assert (TIERS.roles.launch, TIERS.roles.read) == (("ops",), ("auditors",))


@pytest.mark.parametrize(
    "groups, tier",
    [(set(), 0), ({"ops"}, 0), ({"support-leads"}, 1), ({"security", "support-leads"}, 2), ({"chiefs"}, 3), ({"chiefs", "ops"}, 3)],
)
def test_a_person_decides_at_the_highest_tier_of_their_groups(groups: set[str], tier: int) -> None:
    assert TIERS.tier_of(frozenset(groups)) == tier


@pytest.mark.parametrize(
    "needed, answers, verdict",
    [
        (1, [], "pending"),
        (1, [("lead", 1)], "approved"),
        (1, [("chief", 3)], "approved"),
        (2, [("security", 2)], "approved"),
        (3, [("chief", 3)], "pending"),
        (3, [("chief", 3), ("chief2", 3)], "approved"),
        (1, [("lead", 1, "deny")], "denied"),
        (3, [("chief", 3), ("chief2", 3, "deny")], "denied"),
    ],
)
def test_a_quorum_of_distinct_people_approves_and_one_denial_ends(needed: int, answers: list[Any], verdict: str) -> None:
    assert ladder(needed, *(answer(*one) for one in answers)).verdict(TIERS) == verdict


@pytest.mark.parametrize(
    "before, one, why",
    [
        (ladder(1), answer(REQUESTER, 3), "launched"),
        (ladder(1), answer(REQUESTER, 3, "deny"), "launched"),
        (ladder(2), answer("lead", 1), "tier 2"),
        (ladder(2), answer("lead", 1, "deny"), "tier 2"),
        (ladder(3, answer("chief", 3)), answer("chief", 3), "already"),
        (ladder(3, answer("chief", 3)), answer("chief", 3, "deny"), "already"),
    ],
)
def test_an_answer_that_does_not_count_says_why_and_changes_nothing(before: Ladder, one: ApprovalAnswer, why: str) -> None:
    after = before.with_answer(one)
    assert isinstance(after, Rejection)
    assert why in after.message


def test_a_request_escalates_to_the_top_tier_and_no_further() -> None:
    at = ladder(1)
    for tier in (2, 3):
        climbed = at.to_next_tier(TIERS, now=NOW)
        assert climbed is not None
        assert (climbed.current, climbed.needed) == (tier, 1)
        assert climbed.respond_by == NOW + timedelta(seconds=TIERS.tiers[tier].respond_within)
        at = climbed
    assert at.to_next_tier(TIERS, now=NOW) is None


def test_a_request_above_the_remaining_tiers_does_not_escalate() -> None:
    one = Tiers(tiers={1: Tier(name="one", approvers=("a",), respond_within=60)})
    assert ladder(3).to_next_tier(one, now=NOW) is None


@pytest.mark.parametrize("decision", ["deny", "break_glass"])
def test_only_approvals_make_a_quorum(decision: str) -> None:
    given_answers = (answer("lead", 1, decision),)
    assert not has_quorum(given_answers, tiers=TIERS, tier=1)


def test_a_denial_neither_breaks_glass_nor_narrows_what_others_allow() -> None:
    made = ladder(3, answer("chief", 3), answer("chief2", 3, "deny", ttl=60))
    assert (made.broke_glass, made.grant.ttl, made.is_narrowed) == (False, 600, False)


def test_after_an_escalation_lower_tiers_can_neither_decide_nor_count() -> None:
    two = Tier(name="two", approvers=("a",), quorum=2, respond_within=60)
    tiers = Tiers(tiers={1: two, 2: two, 3: two})
    before = ladder(1, answer("lead", 1))
    climbed = before.to_next_tier(tiers, now=NOW)
    assert climbed is not None
    assert climbed.answers == ()
    assert isinstance(climbed.with_answer(answer("lead2", 1)), Rejection)
    assert add_answer(climbed, answer("security", 2)).verdict(tiers) == "pending"


@pytest.mark.parametrize("early", [answer("security", 2), answer("chief2", 3)])
def test_an_early_approval_of_a_higher_tier_still_counts_after_an_escalation(early: ApprovalAnswer) -> None:
    two = Tier(name="two", approvers=("a",), quorum=2, respond_within=60)
    tiers = Tiers(tiers={1: two, 2: two, 3: two})
    climbed = ladder(1, early).to_next_tier(tiers, now=NOW)
    assert climbed is not None
    assert add_answer(climbed, answer("chief", 3)).verdict(tiers) == "approved"


def test_the_least_time_that_any_approver_gave_is_granted() -> None:
    assert ladder(3).grant.ttl == 600
    assert ladder(3, answer("chief", 3, ttl=300), answer("chief2", 3, ttl=60)).grant.ttl == 60
    assert ladder(1, answer("lead", 1, ttl=9000)).grant.ttl == 600


people = st.sampled_from([REQUESTER, "lead", "lead2", "security", "chief", "chief2"])
answers = st.lists(st.builds(answer, people, st.integers(0, 3), st.sampled_from(["approve", "approve", "approve", "deny"])), max_size=8)
tier_sets = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(
    lambda quorums: Tiers(
        tiers={n: Tier(name=f"t{n}", approvers=(f"g{n}",), quorum=quorum, respond_within=60) for n, quorum in enumerate(quorums, start=1)}
    )
)


@given(
    tier_sets,
    st.data(),
    st.lists(st.one_of(st.none(), st.builds(answer, people, st.integers(0, 3), st.sampled_from(["approve", "deny"]))), max_size=10),
)
def test_no_sequence_of_answers_and_escalations_approves_without_enough_distinct_people(
    tiers: Tiers, data: st.DataObject, steps: list[ApprovalAnswer | None]
) -> None:
    at = ladder(data.draw(st.integers(1, tiers.top)))
    said: list[ApprovalAnswer] = []
    for step in steps:
        if at.verdict(tiers) != "pending":
            break
        after = at.to_next_tier(tiers, now=NOW) if step is None else at.with_answer(step)
        if isinstance(after, Ladder):
            at = after
            said += [step] if step else []
    verdict = at.verdict(tiers)
    # Counted anew, from what was said alone: at the tier that the request stands at, by others than the requester.
    counted = {one.person for one in said if one.person != REQUESTER and one.tier >= at.current and one.decision == "approve"}
    denied = any(one.decision == "deny" for one in said)
    assert at.current >= at.needed
    assert (verdict == "denied") == denied
    if verdict == "approved":
        assert len(counted) >= tiers.tiers[at.current].quorum
    assert REQUESTER not in {one.person for one in at.answers}


@given(answers, tier_sets)
def test_repeated_answers_of_the_same_people_do_not_change_the_quorum(given_answers: list[ApprovalAnswer], tiers: Tiers) -> None:
    for tier in range(5):
        assert has_quorum(tuple(given_answers), tiers=tiers, tier=tier) == has_quorum(tuple(given_answers * 2), tiers=tiers, tier=tier)


TIER = "{name: a, approvers: [x], respond_within: 1m}"


def tiers_that_take(*waits: str) -> str:
    tiers = (f"{number}: {TIER.replace('1m', wait)}" for number, wait in enumerate(waits, start=1))
    return f"tiers: {{{', '.join(tiers)}}}"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("tiers: {}", []),
        ("[]", [""]),
        ("{}", ["tiers"]),
        ("tiers: []", ["tiers"]),
        (f"tiers: {{2: {TIER}}}", ["tiers"]),
        (f"tiers: {{1: {TIER}, 3: {TIER}}}", ["tiers"]),
        (f"tiers: {{1: {TIER}, 4: {TIER}}}", ["tiers.4"]),
        (f"tiers: {{1: {TIER}, 01: {TIER}}}", ["tiers.01"]),
        (f"tiers: {{0: {TIER}}}", ["tiers.0"]),
        (tiers_that_take("6d"), []),
        (tiers_that_take("518401s"), ["tiers.1.respond_within"]),
        (tiers_that_take("72h", "48h", "24h"), []),
        (tiers_that_take("72h", "48h", "86401s"), ["tiers"]),
        (f"tiers: {{one: {TIER}}}", ["tiers.one"]),
        (
            "tiers: {1: {name: A, approvers: [], quorum: 0, respond_within: soon, x: 1}}",
            [f"tiers.1.{name}" for name in ("name", "approvers", "quorum", "respond_within", "x")],
        ),
        ("tiers: {}\nroles: {lanch: [ops]}", ["roles.lanch"]),
        (
            "tiers: {5: {}, 1: {}}\nroles: {launch: ops}",
            ["tiers.5", "roles.launch", "tiers.1.name", "tiers.1.approvers", "tiers.1.respond_within"],
        ),
    ],
)
def test_every_problem_of_the_tiers_file_is_reported_by_path(text: str, expected: list[str]) -> None:
    if not expected:
        assert 0 <= seconds_to_pass(read_tiers(text).tiers) <= MAX_WAIT_S
        return
    with pytest.raises(InvalidInput) as caught:
        read_tiers(text)
    found = [problem.path for problem in caught.value.problems]
    assert found == expected


def test_tiers_that_outlast_every_signature_are_refused_with_the_sum_and_the_limit() -> None:
    with pytest.raises(InvalidInput, match="respond_within add up to 10d, more than 6d: signatures are valid for 7 days, and the job must"):
        read_tiers(tiers_that_take("5d", "5d"))
