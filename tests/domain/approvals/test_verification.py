"""Which signed answers and withdrawals count, and who may answer for whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder, has_quorum
from justenough.domain.approvals.statements import DelegationStatement, SignedStatement
from justenough.domain.approvals.tiers import Person, Roles, Tier, Tiers
from justenough.domain.approvals.verification import ApprovalVerifier, RequestTally, Withdrawal
from justenough.domain.core.canonical_json import to_canonical_json
from justenough.domain.core.rejection import Rejection
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import Bounds, tools_to_json
from tests.support.domain_samples import NOW
from tests.support.signing_keys import public_key, vault_signature

JOB, REQUEST, DIGEST = "j-1", "r-1", "sha256:" + "0" * 64
GROUPS = {
    "lead": {"leads"},
    "lead2": {"leads"},
    "chief": {"chiefs"},
    "chief2": {"chiefs"},
    "requester": {"leads", "ops"},
    "forebear": {"leads"},
    "launcher": {"ops"},
    "hero": {"heroes"},
    "outsider": {"cooks"},
}
TIERS = Tiers(
    roles=Roles(launch=("ops",), break_glass=("heroes",)),
    tiers={
        1: Tier(name="owner", approvers=("leads",), respond_within=3600),
        2: Tier(name="chief", approvers=("chiefs",), quorum=2, respond_within=3600),
    },
)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class KnownPeople:
    """People in groups, each with a key of their own, and the delegations that they signed."""

    delegations: Mapping[tuple[str, str], SignedStatement] = field(default_factory=dict)

    def person(self, entity: str) -> Person | None:
        return Person(id=entity, name=entity, groups=frozenset(GROUPS[entity])) if entity in GROUPS else None

    def public_keys(self, entity: str) -> Mapping[int, bytes]:
        return {1: public_key(entity)}

    def delegation(self, person: str, delegate: str, *, at: datetime) -> SignedStatement | None:
        del at  # Nobody ends one here.
        return self.delegations.get((person, delegate))


def sign(statement: Mapping[str, Any], signer: str) -> SignedStatement:
    return SignedStatement(statement=dict(statement), signature=vault_signature(signer, to_canonical_json(dict(statement))))


def decide(person: str = "lead", decision: str = "approve", *, signer: str | None = None, **changes: Any) -> SignedStatement:
    """Return a decision that is valid but for the changes."""
    statement = {
        "type": "decision",
        "job": JOB,
        "request": REQUEST,
        "digest": DIGEST,
        "decision": decision,
        "ttl": 600,
        "action": "write",
        "reason": "needed",
        "person": person,
        "issued_at": to_rfc3339(NOW),
        "expires_at": to_rfc3339(NOW + HOUR),
        **changes,
    }
    return sign(statement, signer or person)


def delegate(person: str, to: str, *, signer: str | None = None, at: timedelta = -HOUR, until: timedelta = HOUR) -> SignedStatement:
    statement = DelegationStatement(delegate=to, reason="away", person=person, issued_at=NOW + at, expires_at=NOW + until)
    return sign(statement.model_dump(mode="json"), signer or person)


def ladder(tier: int = 1, **changes: Any) -> Ladder:
    made = {"request": REQUEST, "digest": DIGEST, "action": Action.WRITE, "requester": "requester", "forebears": frozenset({"forebear"})}
    return Ladder.model_validate({**made, "needed": tier, "current": tier, "respond_by": NOW + HOUR, "ttl": 600, **changes})


def verifier(*delegations: tuple[str, str, SignedStatement]) -> ApprovalVerifier:
    return ApprovalVerifier(KnownPeople({(person, to): signed for person, to, signed in delegations}), TIERS, NOW)


def code_of(outcome: object) -> str | None:
    return outcome.code if isinstance(outcome, Rejection) else None


TOOLS = {"find-order": Bounds(), "refund-order": Bounds(calls=3)}
FIND_ORDER = tools_to_json({"find-order": Bounds()})


@pytest.mark.parametrize(
    "signed, at, code",
    [
        (decide(), ladder(), None),
        (decide(job="j-2"), ladder(), "other_job"),
        (decide(job="j-0"), ladder(), "other_job"),
        (decide(request="r-2"), ladder(), "other_request"),
        (decide(request="r-0"), ladder(), "other_request"),
        (decide(digest="sha256:" + "1" * 64), ladder(), "other_digest"),
        (decide(action="read"), ladder(), None),
        (decide(action="admin"), ladder(), "other_action"),
        (decide(decision="deny", action="read"), ladder(), "other_action"),
        (decide(ttl=1), ladder(), None),
        (decide(ttl=601), ladder(), "ttl_out_of_range"),
        (decide(ttl=0), ladder(), "ttl_out_of_range"),
        (decide(reason=" "), ladder(), None),
        (decide(decision="deny", reason=" "), ladder(), "reason_missing"),
        (decide("chief", reason=" "), ladder(2), "reason_missing"),
        (decide("hero", "break_glass", reason=""), ladder(), "reason_missing"),
        (decide("requester"), ladder(), "own_job"),
        (decide("forebear"), ladder(), "own_descendant_job"),
        (decide(issued_at=to_rfc3339(NOW + HOUR), expires_at=to_rfc3339(NOW + 2 * HOUR)), ladder(), "statement_from_future"),
        (decide(issued_at=to_rfc3339(NOW - HOUR), expires_at=to_rfc3339(NOW)), ladder(), "statement_expired"),
        (decide(expires_at=to_rfc3339(NOW + timedelta(days=8))), ladder(), "statement_lives_too_long"),
        (decide("stranger"), ladder(), "person_unknown"),
        (decide(signer="lead2"), ladder(), "signature_mismatch"),
        (decide("outsider"), ladder(), "not_entitled"),
        (decide("launcher"), ladder(), "not_entitled"),
        (decide("chief", "break_glass"), ladder(), "not_entitled"),
        (decide("hero", "break_glass"), ladder(2), None),
        (decide("hero"), ladder(), "not_entitled"),
        (decide(), ladder(2), "tier_too_low"),
        (decide("chief"), ladder(1), None),
        (decide(decision="withdraw"), ladder(), "not_an_answer"),
        (decide(colour="red"), ladder(), "statement_unreadable"),
        (decide(ttl="600"), ladder(), "statement_not_canonical"),
        (decide(ttl=True), ladder(), "statement_not_canonical"),
        (decide(tools=FIND_ORDER), ladder(tools=TOOLS), None),
        (decide(tools=FIND_ORDER), ladder(), "bounds_not_applicable"),
        (decide(decision="deny", tools=FIND_ORDER), ladder(tools=TOOLS), "bounds_not_applicable"),
        (decide(tools=tools_to_json({"drop-order": Bounds()})), ladder(tools=TOOLS), "bounds_of_other_tools"),
        (decide(), ladder(taken_back=frozenset({"lead"})), "answer_withdrawn"),
    ],
)
def test_an_answer_counts_only_if_it_breaks_no_rule(signed: SignedStatement, at: Ladder, code: str | None) -> None:
    assert code_of(verifier().count_answer(JOB, at, signed)) == code


def test_an_answer_whose_bounds_leave_no_call_does_not_count() -> None:
    requested, signed = (
        {"find-order": Bounds.model_validate({"arguments": {"status": {"one_of": [status]}}})} for status in ("open", "closed")
    )
    assert code_of(verifier().count_answer(JOB, ladder(tools=requested), decide(tools=tools_to_json(signed)))) == "bounds_leave_nothing"


@pytest.mark.parametrize(
    "person, absent, appointment, tier, decision, code",
    [
        ("lead2", "lead", delegate("lead", "lead2"), 1, "approve", None),
        ("lead2", "lead", None, 1, "approve", "not_delegated"),
        # Appointed by somebody else, or somebody else was.
        ("lead2", "lead", delegate("chief", "lead2"), 1, "approve", "not_delegated"),
        ("lead2", "lead", delegate("lead", "chief"), 1, "approve", "not_delegated"),
        ("lead2", "lead", delegate("requester", "lead2"), 1, "approve", "not_delegated"),
        ("lead2", "lead", delegate("lead", "outsider"), 1, "approve", "not_delegated"),
        # Something else that they signed.
        ("lead2", "lead", decide("lead"), 1, "approve", "not_delegated"),
        ("lead2", "lead", delegate("lead", "lead2"), 1, "deny", None),
        # They may answer for more than this tier.
        ("lead2", "chief", delegate("chief", "lead2"), 1, "approve", None),
        ("lead2", "lead", delegate("lead", "lead2", signer="lead2"), 1, "approve", "signature_mismatch"),
        ("lead2", "lead", delegate("lead", "lead2", until=-timedelta(minutes=1)), 1, "approve", "delegation_not_current"),
        ("lead2", "requester", delegate("requester", "lead2"), 1, "approve", "own_job"),
        ("lead2", "forebear", delegate("forebear", "lead2"), 1, "approve", "own_descendant_job"),
        # A delegate gets nobody's tier who has none.
        ("chief", "lead", delegate("lead", "chief"), 2, "approve", "tier_too_low"),
        ("hero", "lead", delegate("lead", "hero"), 1, "break_glass", "break_glass_by_delegate"),
    ],
)
def test_a_delegate_answers_only_for_who_named_them_and_could_answer(
    person: str, absent: str, appointment: SignedStatement | None, tier: int, decision: str, code: str | None
) -> None:
    known = ((absent, person, appointment),) if appointment else ()
    outcome = verifier(*known).count_answer(JOB, ladder(tier), decide(person, decision, on_behalf_of=absent))
    assert code_of(outcome) == code
    if isinstance(outcome, Ladder):
        assert outcome.answers[-1].represented_people == {person, absent}


@pytest.mark.parametrize(
    "signed, message",
    [
        (decide("outsider"), "outsider is in no group that approves requests"),
        (decide("outsider", "break_glass"), "outsider is in none of the groups that may use break-glass (heroes)"),
    ],
)
def test_a_person_who_may_not_decide_is_told_which_group_is_missing(signed: SignedStatement, message: str) -> None:
    outcome = verifier().verify_answer(JOB, ladder(), signed)
    assert isinstance(outcome, Rejection)
    assert outcome.message == message


def test_a_person_and_their_delegate_do_not_make_a_quorum() -> None:
    trusting = verifier(("chief", "chief2", delegate("chief", "chief2")))
    first = trusting.count_answer(JOB, ladder(2), decide("chief"))
    assert isinstance(first, Ladder)
    assert code_of(trusting.count_answer(JOB, first, decide("chief2", on_behalf_of="chief"))) == "already_answered"


@pytest.mark.parametrize(
    "at, until, why",
    [
        (-HOUR, HOUR, None),
        # Prolonged while a job runs whose approval was counted before: its renewals ask about then.
        (HOUR, 2 * HOUR, None),
        (-2 * HOUR, -HOUR, "the delegation is not valid now: the statement has expired"),
        (0 * HOUR, timedelta(days=91), "the delegation is not valid now: the statement is valid for longer than 90 days"),
    ],
)
def test_a_delegation_is_valid_until_its_end_however_late_it_was_prolonged(at: timedelta, until: timedelta, why: str | None) -> None:
    rejection = verifier().why_not_delegate("lead", "lead2", delegate("lead", "lead2", at=at, until=until))
    assert (rejection.message if rejection else None) == why


def tally_after(tally: RequestTally, *signed: SignedStatement) -> RequestTally | Rejection:
    """Return the state after these statements, or the first rejection."""
    for one in signed:
        updated = tally.with_signed(verifier(), JOB, one)
        if isinstance(updated, Rejection):
            return updated
        tally = updated
    return tally


@pytest.mark.parametrize(
    "tier, signed, verdict",
    [
        (1, [decide()], "approved"),
        (1, [decide(decision="deny")], "denied"),
        (2, [decide("chief")], "pending"),
        (2, [decide("chief"), decide("chief2")], "approved"),
        (2, [decide("hero", "break_glass")], "approved"),
        (1, [decide(), decide(decision="withdraw")], "withdrawn"),
        # Launchers and approvers may take back what others approved, even for their own job.
        (1, [decide(), decide("requester", "withdraw")], "withdrawn"),
        # So may people who may use break-glass, as they may stop any job.
        (1, [decide(), decide("hero", "withdraw")], "withdrawn"),
        (1, [decide("hero", "break_glass"), decide("hero", "withdraw")], "withdrawn"),
        (2, [decide("chief"), decide("chief", "withdraw")], "pending"),
    ],
)
def test_the_verdict_of_a_tally_follows_from_its_answers_and_withdrawals(tier: int, signed: list[SignedStatement], verdict: str) -> None:
    tally = tally_after(RequestTally(ladder(tier)), *signed)
    assert isinstance(tally, RequestTally), tally
    assert tally.verdict == verdict
    assert tally.last is not None
    assert tally.last.signed == signed[-1]


@pytest.mark.parametrize(
    "tier, signed, code",
    [
        (1, [decide(), decide("lead2")], "request_not_waiting"),
        (1, [decide(decision="deny"), decide(decision="withdraw")], "request_not_waiting"),
        (1, [decide(), decide(decision="withdraw"), decide("lead2")], "request_not_waiting"),
        (1, [decide(), decide("outsider", "withdraw")], "not_entitled"),
        # Somebody who launches jobs, but did not launch this one.
        (1, [decide(), decide("launcher", "withdraw")], "not_entitled"),
        (1, [decide(), decide("requester", "withdraw", signer="outsider")], "signature_mismatch"),
        (1, [decide(), decide("requester", "withdraw", reason=" ")], "reason_missing"),
        (2, [decide("chief", "withdraw")], "nothing_to_withdraw"),
        (2, [decide("chief"), decide("chief2", "withdraw")], "nothing_to_withdraw"),
        (2, [decide("chief2"), decide("chief", "withdraw")], "nothing_to_withdraw"),
        (2, [decide("chief"), decide("chief", "withdraw"), decide("chief")], "answer_withdrawn"),
    ],
)
def test_an_answer_that_changes_nothing_in_a_tally_is_rejected(tier: int, signed: list[SignedStatement], code: str) -> None:
    assert code_of(tally_after(RequestTally(ladder(tier)), *signed)) == code


def test_a_recorded_answer_of_a_person_who_may_no_longer_answer_counts_no_more() -> None:
    """The ledger says who launched an ancestor or withdrew an answer, and may have learned it after the answer was counted."""
    counted = tally_after(RequestTally(ladder(2)), decide("chief"))
    assert isinstance(counted, RequestTally)
    assert isinstance(counted.last, ApprovalAnswer)
    again = RequestTally(ladder(2)).with_recorded(counted.last, "pending")
    assert isinstance(again, RequestTally)
    assert again == counted
    for barred in ({"forebears": frozenset({"chief"})}, {"taken_back": frozenset({"chief"})}):
        tally = RequestTally(ladder(2).with_barred(**{"forebears": frozenset(), "taken_back": frozenset(), **barred}))
        assert isinstance(tally.with_recorded(counted.last, "pending"), Rejection)


def test_an_answer_that_has_lapsed_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tally_after(RequestTally(ladder(2)), decide("chief"))
    assert isinstance(first, RequestTally)
    monkeypatch.setitem(GROUPS, "chief", {"cooks"})
    monkeypatch.setitem(GROUPS, "outsider", {"chiefs"})
    second = tally_after(first, decide("chief2"))
    assert isinstance(second, RequestTally)
    assert (second.verdict, [answer.person for answer, _ in second.lapsed]) == ("pending", ["chief"])
    third = tally_after(second, decide("outsider", "deny"))
    assert isinstance(third, RequestTally)
    assert (third.verdict, third.lapsed) == ("denied", ())


def test_only_a_withdrawal_withdraws() -> None:
    assert code_of(verifier().verify_withdrawal(JOB, ladder(), decide())) == "not_a_withdrawal"
    assert isinstance(verifier().verify_withdrawal(JOB, ladder(), decide(decision="withdraw")), Withdrawal)
    own = ladder(requester="launcher")
    assert isinstance(verifier().verify_withdrawal(JOB, own, decide("launcher", "withdraw")), Withdrawal)


def test_answers_are_recounted_with_what_each_breaks() -> None:
    recounted, rejections = verifier().recount_answers(JOB, ladder(2), [decide("chief"), decide("lead"), decide("chief2", ttl=300)])
    assert [answer.person for answer in recounted.answers] == ["chief", "chief2"]
    assert [(number, rejection.code) for number, rejection in rejections] == [(2, "tier_too_low")]
    assert recounted.grant.ttl == 300


TWO_AT_TIER_1 = TIERS.model_copy(update={"tiers": {**TIERS.tiers, 1: TIERS.tiers[1].model_copy(update={"quorum": 2})}})
"""At tier 1 two leads or chiefs decide."""


def ladder_after_escalation(at_count: ApprovalVerifier, early: SignedStatement) -> Ladder:
    """Let one chief approve at tier 1, and nobody else before it escalates to the chiefs, of whom a second one approves. Check that both count,
    also when they are recounted. Return the ladder between the two.
    """
    late = decide("chief2")
    first = RequestTally(ladder()).with_signed(at_count, JOB, early)
    assert isinstance(first, RequestTally)
    higher = first.ladder.to_next_tier(TWO_AT_TIER_1, now=NOW)
    assert higher is not None
    second = RequestTally(higher).with_signed(at_count, JOB, late)
    assert isinstance(second, RequestTally)
    recounted, rejections = at_count.recount_answers(JOB, ladder(needed=1, current=2), [early, late])
    assert (second.verdict, recounted.verdict(TWO_AT_TIER_1), rejections) == ("approved", "approved", ())
    return higher


def test_an_approval_that_needed_no_reason_still_counts_after_the_request_has_escalated() -> None:
    early, at_count = decide("chief", reason=""), replace(verifier(), tiers=TWO_AT_TIER_1)

    higher = ladder_after_escalation(at_count, early)

    assert code_of(at_count.count_answer(JOB, higher, decide("chief2", reason=""))) == "reason_missing"
    assert [code_of(why) for _, why in at_count.recount_answers(JOB, ladder(2), [early])[1]] == ["reason_missing"]


def test_an_approval_on_behalf_of_somebody_of_a_lower_tier_still_counts_after_the_request_has_escalated() -> None:
    # The lead is away.
    early = decide("chief", on_behalf_of="lead")
    at_count = replace(verifier(("lead", "chief", delegate("lead", "chief"))), tiers=TWO_AT_TIER_1)

    ladder_after_escalation(at_count, early)

    assert [code_of(why) for _, why in at_count.recount_answers(JOB, ladder(2), [early])[1]] == ["tier_too_low"]


def test_a_further_check_is_applied_only_after_the_ordinary_rules() -> None:
    def refuse(request: str, answer: ApprovalAnswer) -> Rejection | None:
        return Rejection("not_authorized", f"{request}: {answer.person}")

    strict = ApprovalVerifier(KnownPeople(), TIERS, NOW, further_check=refuse)
    assert code_of(strict.count_answer(JOB, ladder(), decide())) == "not_authorized"
    assert code_of(strict.count_answer(JOB, ladder(), decide("outsider"))) == "not_entitled"


def test_people_who_took_an_answer_back_stay_barred_when_others_are_barred() -> None:
    barred = ladder().with_barred(forebears=frozenset(), taken_back=frozenset({"lead"})).with_barred(forebears=frozenset({"lead2"}))
    assert code_of(verifier().count_answer(JOB, barred, decide())) == "answer_withdrawn"
    assert code_of(verifier().count_answer(JOB, barred, decide("lead2"))) == "own_descendant_job"
    assert code_of(verifier().count_answer(JOB, barred, decide("forebear"))) is None


def test_a_quorum_counts_approvals_of_its_tier_or_a_higher_one_only() -> None:
    approved = verifier().recount_answers(JOB, ladder(), [decide("lead"), decide("chief")])[0].answers
    assert has_quorum(approved, tiers=TIERS, tier=1)
    assert not has_quorum(approved, tiers=TIERS, tier=2)
