"""The worker opens a lock once, whatever happens to the attempts. What a failed attempt left behind ends with the job."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities.issuing.vault_issuer import redeem_control_group
from activities.job_activities import JobActivities
from activities.sweep_activity import SweepActivities
from console.auth.authorization import Caller
from console.services.decide_request import why_approval_refused
from justenough.adapters.store import Store, StoredWrappingToken, StoreUnavailable
from justenough.adapters.store.wrapped_tokens import WrappedTokenRepository
from justenough.adapters.vault import VaultRefused, VaultUnavailable, control_groups
from justenough.domain.approvals.ladder import ApprovalAnswer, GrantTerms, Ladder
from justenough.domain.approvals.statements import OrderStatement, SignedStatement, to_signable
from justenough.domain.catalog.models import ResolvedIssue
from justenough.domain.contracts.workflow_messages import ControlGroupsInput, ControlGroupsResult, JobInput
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.ids import new_job_id, request_id
from justenough.domain.jobs.states import Action
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.services.control_group_votes import why_not_authorized
from justenough.services.dependencies import Deps
from tests.activities.catalog_variants import open_changed_desk
from tests.activities.revocation_calls import revoke_from_outside
from tests.activities.vault_shop import SPEC, Desk, Shop, Someone, copy_config, open_desk

pytestmark = pytest.mark.servers

PAYOUT = {"resource": "payouts-db", "action": "write", "ttl": "5m", "reason": "Pay it out"}
PAYOUT_ISSUE = ResolvedIssue(path="database/creds/payouts-write-acme", method="read", data={})


class FailingTokenRepository(WrappedTokenRepository):
    """The wrapping tokens of a store that goes away once, right before a token would be kept."""

    away = True

    def keep(self, token: StoredWrappingToken, events: Sequence[Event]) -> bool:
        if self.away:
            self.away = False
            message = "away"
            raise StoreUnavailable(message)
        return super().keep(token, events)


class LockedJob:
    """A job that was ordered and decided, and whose lock is to be opened."""

    def __init__(self, at: Desk) -> None:
        self.job, now = new_job_id(at.deps.settings.installation, now=at.clock.now()), at.clock.now().replace(microsecond=0)
        self.request = request_id(self.job, 1)
        self._environment = ActivityEnvironment()
        self._environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=self.job)
        ops, raw = at.shop.sign_in("ops"), {**SPEC, "access": [PAYOUT]}
        fields: dict[str, Any] = {"job": self.job, "spec_digest": digest_of(raw), "bundle": None, "params": {}, "reason": "a test"}
        fields |= {"person": ops.id, "issued_at": now, "expires_at": now + timedelta(hours=1)}
        statement = OrderStatement(**fields)
        self.order = JobInput(job=self.job, spec=raw, order=ops.sign(to_signable(statement)))
        decided = self._environment.run(JobActivities(at.deps).decide_requests, self.order)
        assert decided.refused is None
        (request,) = decided.requests
        assert request.locked
        assert request.ladder is not None
        self.ladder: Ladder = request.ladder

    def open_locks(self, deps: Deps, ladder: Ladder | None = None) -> ControlGroupsResult:
        asked = ControlGroupsInput(order=self.order, ladders={self.request: ladder or self.ladder})
        return self._environment.run(JobActivities(deps).open_locks, asked)


def test_a_second_attempt_reuses_the_lock_that_the_first_one_opened(at: Desk) -> None:
    waiting = LockedJob(at)
    assert "approval.opened" not in at.entry_types(waiting.job), "nobody is asked before it waits in Vault"
    assert waiting.open_locks(at.deps) == waiting.open_locks(at.deps) == ControlGroupsResult()
    told = at.entry_types(waiting.job)
    assert (told.count("lock.opened"), told.count("approval.opened")) == (1, 1)
    assert len(at.deps.vault.prefix_accessors(waiting.job)) == 1


def test_a_lock_whose_tier_has_left_the_configuration_is_not_opened(shop: Shop, tmp_path: Path) -> None:
    folder = copy_config(tmp_path)
    policies, approvals = folder / "policies" / "writes.cedar", folder / "approvals.yaml"
    policies.write_text(policies.read_text().replace("context.approved_tier >= 1", "context.approved_tier >= 3"))
    with open_desk(shop, tmp_path, folder=folder) as at:
        waiting = LockedJob(at)
        assert waiting.ladder.current == 3
        approvals.write_text("".join(line for line in approvals.read_text().splitlines(keepends=True) if not line.startswith("  3:")))
        refused = waiting.open_locks(at.deps).refused
        assert refused is not None
        assert "no tier 3 any more" in refused


def test_a_lock_whose_resource_has_left_the_catalog_is_not_opened(at: Desk, tmp_path: Path) -> None:
    waiting, later_path = LockedJob(at), tmp_path / "later"
    later_path.mkdir()

    def remove_payouts(catalog: dict[str, Any]) -> None:
        del catalog["resources"]["payouts-db"], catalog["tools"]

    with open_changed_desk(at.shop, later_path, remove_payouts) as later:
        refused = waiting.open_locks(replace(at.deps, config=later.deps.config)).refused
    assert refused is not None
    assert "the catalog no longer offers write on payouts-db" in refused


def test_a_token_left_by_a_broken_attempt_opens_nothing_and_ends_with_the_job(at: Desk, tmp_path: Path) -> None:
    waiting, breaking = LockedJob(at), Store(f"sqlite:///{tmp_path / 'store.db'}")
    breaking.wrapped_tokens = FailingTokenRepository(breaking._engine, breaking._commits)
    with pytest.raises(StoreUnavailable):
        waiting.open_locks(replace(at.deps, store=breaking))
    assert at.deps.store.wrapped_tokens.get(waiting.request) is None
    assert waiting.open_locks(replace(at.deps, store=breaking)) == ControlGroupsResult()
    breaking.close()
    assert len(at.deps.vault.prefix_accessors(waiting.job)) == 2
    kept = at.deps.store.wrapped_tokens.get(waiting.request)
    assert kept is not None
    at.shop.sign_in("security").call("POST", "sys/control-group/authorize", {"accessor": kept.accessor})
    wrapping = control_groups.decrypt(at.deps.vault, kept.ciphertext, about=waiting.request)

    # One check is enough, because no session ever had the right to issue.
    assert revoke_from_outside(at, waiting.job).confirmed

    assert at.deps.vault.prefix_accessors(waiting.job) == ()
    assert at.deps.store.wrapped_tokens.get(waiting.request) is None
    with pytest.raises(VaultRefused):
        control_groups.unwrap(at.deps.vault, wrapping, PAYOUT_ISSUE)
    assert at.shop.users_of(waiting.job) == []


def test_no_lock_is_opened_for_a_job_that_has_ended_meanwhile(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, wrapped = LockedJob(at), list[control_groups.WrappingToken]()
    request_issue = control_groups.request_issue

    def note_token(*request: Any) -> control_groups.WrappingToken:
        wrapped.append(request_issue(*request))
        return wrapped[-1]

    monkeypatch.setattr(control_groups, "request_issue", note_token)
    at.deps.store.claims.close(waiting.job, at.clock.now())
    waiting.open_locks(at.deps)
    assert at.deps.vault.prefix_accessors(waiting.job) == ()
    # Otherwise the wrapping token would live for hours, and Vault would list it as the job's, although nobody could unwrap it.
    assert control_groups.read_state(at.deps.vault, wrapped[0].accessor) is None
    assert not {"lock.opened", "approval.opened"} & set(at.entry_types(waiting.job))


def test_the_token_role_that_a_suspended_worker_wrote_after_the_jobs_end_is_deleted_by_the_sweep(at: Desk) -> None:
    waiting, vault, installation = LockedJob(at), at.deps.vault, at.deps.settings.installation
    assert revoke_from_outside(at, waiting.job).confirmed
    ended = build_event(EventType.JOB_ENDED, waiting.job, at=at.deps.now(), state="killed", exit_code=None, reason=None)
    at.deps.store.ledger.append([ended])
    waiting.open_locks(at.deps)
    assert waiting.job in vault.job_prefixes(installation)
    before = at.entry_types(waiting.job)
    assert asyncio.run(SweepActivities(at.deps, cast("Any", None))._check(waiting.job)) is None
    assert waiting.job not in vault.job_prefixes(installation)
    assert at.entry_types(waiting.job) == before, "the proof of the job's end still stands"


def test_no_lock_is_opened_for_a_request_that_differs_from_the_recorded_one(at: Desk) -> None:
    waiting = LockedJob(at)
    other = waiting.ladder.model_copy(update={"digest": f"sha256:{'0' * 64}"})
    assert "the request differs from the recorded one" in str(waiting.open_locks(at.deps, other).refused)
    assert at.deps.vault.prefix_accessors(waiting.job) == ()
    assert "job.refused" in at.entry_types(waiting.job)


def answer_of(
    person: Someone, decision: Literal["approve", "deny", "break_glass"] = "approve", action: Action = Action.WRITE
) -> ApprovalAnswer:
    signed = SignedStatement(statement={}, signature="")
    about: dict[str, Any] = {"person": person.id, "name": person.name, "tier": 2, "at": datetime.now(UTC), "signed": signed}
    return ApprovalAnswer(decision=decision, ttl=300, action=action, reason="", **about)


def why_not(at: Desk, waiting: LockedJob, answer: ApprovalAnswer) -> str | None:
    rejection = why_not_authorized(at.deps, waiting.request, answer)
    return rejection.code if rejection else None


def why_not_redeemed(at: Desk, waiting: LockedJob, issue: ResolvedIssue = PAYOUT_ISSUE) -> str:
    """Return why a locked issue is refused if a worker knows nothing but what Vault and the store say."""
    with pytest.raises(VaultRefused) as refused:
        redeem_control_group(at.deps, waiting.request, issue)
    assert at.shop.users_of(waiting.job) == []
    return str(refused.value).removeprefix(f"{issue.path}: ")


def test_a_locked_issue_is_unwrapped_once_however_many_workers_try(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, take = LockedJob(at), at.deps.store.wrapped_tokens.take
    waiting.open_locks(at.deps)
    kept = at.deps.store.wrapped_tokens.get(waiting.request)
    assert kept is not None
    at.shop.sign_in("security").call("POST", "sys/control-group/authorize", {"accessor": kept.accessor})

    def take_second(request: str) -> StoredWrappingToken | None:
        assert take(request) == kept
        return take(request)

    monkeypatch.setattr(at.deps.store.wrapped_tokens, "take", take_second)
    assert why_not_redeemed(at, waiting) == "the wrapping token has already been unwrapped"


def test_nobody_can_unwrap_again_what_vault_failed_to_issue(at: Desk) -> None:
    waiting, role = LockedJob(at), f"database/roles/{PAYOUT_ISSUE.path.rpartition('/')[2]}"
    waiting.open_locks(at.deps)
    kept = at.deps.store.wrapped_tokens.get(waiting.request)
    assert kept is not None
    at.shop.sign_in("security").call("POST", "sys/control-group/authorize", {"accessor": kept.accessor})

    def is_alive(accessor: str) -> bool:
        """Whether Vault knows a token."""
        return at.shop.status("POST", "auth/token/lookup-accessor", token=at.shop.admin_token, body={"accessor": accessor}) == 200

    assert is_alive(kept.accessor)
    before = at.shop.admin("GET", role)["data"]
    at.shop.admin("POST", role, {**before, "creation_statements": ["SELECT 1/0"]})
    try:
        with pytest.raises(VaultUnavailable, match="sys/wrapping/unwrap"):
            redeem_control_group(at.deps, waiting.request, PAYOUT_ISSUE)
    finally:
        at.shop.admin("POST", role, before)
    assert not is_alive(kept.accessor)


def test_an_approval_of_a_locked_request_counts_only_once_its_person_authorized_it_in_vault(at: Desk) -> None:
    waiting, security = LockedJob(at), at.shop.sign_in("security")
    waiting.open_locks(at.deps)
    kept = at.deps.store.wrapped_tokens.get(waiting.request)
    assert kept is not None
    assert why_not(at, waiting, answer_of(security)) == "control_group_unauthorized"
    assert why_not_redeemed(at, waiting) == "Vault's control group needs more authorizations than it has (0)"
    security.call("POST", "sys/control-group/authorize", {"accessor": kept.accessor})
    other = PAYOUT_ISSUE.model_copy(update={"data": {"ttl": "24h"}})
    assert why_not_redeemed(at, waiting, other) == "the wrapping token in Vault is for a different request"
    assert why_not(at, waiting, answer_of(security)) is None
    assert why_not(at, waiting, answer_of(security, action=Action.READ)) == "locked_action_narrowed"
    assert why_not(at, waiting, answer_of(security, "deny")) is None, "a denial needs no authorization"


def test_break_glass_waits_for_the_authorizations_that_vault_requires(at: Desk, tmp_path: Path) -> None:
    def require_two_chiefs(catalog: dict[str, Any]) -> None:
        catalog["resources"]["payouts-db"]["actions"]["write"]["lock_tier"] = 3

    with open_changed_desk(at.shop, tmp_path, require_two_chiefs, provision=True) as desk:
        waiting = LockedJob(desk)
        waiting.open_locks(desk.deps)
        kept = desk.deps.store.wrapped_tokens.get(waiting.request)
        assert kept is not None
        chiefs = (desk.shop.sign_in("chief"), desk.shop.newcomer("second-chief", "chiefs"))
        second, view = desk.deps.vault.person(chiefs[1].id, ["people"]), desk.deps.store.requests.get(waiting.request)
        assert second is not None
        assert view is not None
        caller = Caller(second, desk.deps.config.current().tiers, expires=0)

        def why_console_refuses() -> str | None:
            rejection = why_approval_refused(desk.deps, caller, view, GrantTerms(action=Action.WRITE, ttl=view.ttl, break_glass=True))
            return rejection.code if rejection else None

        assert why_console_refuses() == "control_group_waiting"
        for person, expected in zip(chiefs, ("control_group_waiting", None), strict=True):
            person.call("POST", "sys/control-group/authorize", {"accessor": kept.accessor})
            assert why_not(desk, waiting, answer_of(person, "break_glass")) == expected
            assert why_console_refuses() is None, "the console counts the caller, who authorizes before it sends the decision"


def test_no_approval_counts_without_a_request_in_vault(at: Desk) -> None:
    waiting, security = LockedJob(at), at.shop.sign_in("security")
    assert why_not(at, waiting, answer_of(security)) == "control_group_gone", "it was never opened"
    assert why_not_redeemed(at, waiting) == "Vault has no wrapping token for this request; it may have expired"
    waiting.open_locks(at.deps)
    kept = at.deps.store.wrapped_tokens.get(waiting.request)
    assert kept is not None
    security.call("POST", "sys/control-group/authorize", {"accessor": kept.accessor})
    (accessor,) = at.deps.vault.prefix_accessors(waiting.job)
    at.shop.admin("POST", "auth/token/revoke-accessor", {"accessor": kept.accessor})
    at.shop.admin("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    assert why_not(at, waiting, answer_of(security)) == "control_group_gone"
