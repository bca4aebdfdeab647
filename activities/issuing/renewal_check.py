"""Whether what a job holds may be held on: decided again before each renewal, from Vault, store and files as they are now. Ends nothing.

What people signed needs only have been current when it was counted: a job may run longer than its order's hour. Who they are, which groups
they are in and what the policies say is asked anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from justenough.domain.approvals.ladder import Ladder
from justenough.domain.approvals.verification import Rejection
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.jobs.credentials import CredentialHandle, Decision, HeldAccess
from justenough.domain.jobs.spec import Access
from justenough.domain.ledger.events import Event
from justenough.domain.policy.cedar_request import DecisionFacts
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import evaluate_request
from justenough.services.job_history import approval_withdrawers
from justenough.services.ledger_events import access_decided_event
from justenough.services.verify_order import VerifiedOrder, build_approval_verifier, verify_order


@dataclass(frozen=True, slots=True)
class IssueBasis:
    """What a credential was issued on."""

    decision: Decision
    digest: str
    at: datetime
    ladder: Ladder | None = None
    """With the answers that counted; None where nobody had to agree."""

    @property
    def tier(self) -> int:
        """The tier whose approvers agreed; 0 where nobody had to."""
        return self.ladder.current if self.ladder else 0

    @property
    def broke_glass(self) -> bool:
        """Whether somebody passed the tier alone."""
        return self.ladder is not None and self.ladder.broke_glass


@dataclass(frozen=True, slots=True)
class EndReason:
    """A credential is not to be held on: why, and what is to be recorded of it."""

    why: str
    events: tuple[Event, ...] = ()


class RenewalCheck:
    """Decides again about each credential of one job."""

    def __init__(self, deps: Deps, order: JobInput, verified: VerifiedOrder) -> None:
        self._deps = deps
        self._order = order
        self._verified = verified
        self._recorded: dict[str, tuple[int, Decision]] = {}
        """By credential: how many changes were recorded of it, and the last one."""

    def reason_to_end(self, credential: CredentialHandle, access: Access, basis: IssueBasis, *, held: HeldAccess) -> EndReason | None:
        """Return why a credential may not be held on; None where it may, a change being recorded. Raises RetryLater where a server is away."""
        verified = verify_order(self._deps, self._order, now=self._verified.at)
        if isinstance(verified, Rejection):
            return EndReason(f"its order does not hold any more: {verified.why}")
        resource = self._deps.config.current().catalog.resources.get(access.resource)
        if resource is None or access.action not in resource.actions:
            return EndReason(f"the catalog does not offer {access.action} on {access.resource} any more")
        decision, facts = evaluate_request(
            self._deps, self._order.job, verified, access, held=held, phase="renewal", break_glass=basis.broke_glass
        )
        change = self._changed_events(credential, basis, decision, facts)
        why = self._why_not_renewed(basis, decision)
        if why:
            return EndReason(why, change)
        if change:
            self._deps.store.ledger.append(change)
            self._recorded[credential.id] = self._recorded_changes(credential) + 1, decision
        return None

    def why_not_approved(self, basis: IssueBasis) -> str:
        """Return why the approvals of a grant make no quorum any more; empty where they do, or where nobody had to agree."""
        return self._why_not_approved(basis.ladder, basis.at) if basis.ladder else ""

    def _changed_events(
        self, credential: CredentialHandle, basis: IssueBasis, decision: Decision, facts: DecisionFacts
    ) -> tuple[Event, ...]:
        """Return the event of a decision that is another than the last one recorded; what is the same again is not worth an entry a minute."""
        _, last = self._recorded.get(credential.id, (0, basis.decision))
        if (decision.outcome, decision.tier, decision.policies) == (last.outcome, last.tier, last.policies):
            return ()
        request, about = credential.request_id, f"renewal-{self._recorded_changes(credential) + 1}"
        now = self._deps.now()
        return (access_decided_event(self._order.job, request, decision, basis.digest, facts=facts, phase="renewal", at=now, about=about),)

    def _recorded_changes(self, credential: CredentialHandle) -> int:
        return self._recorded[credential.id][0] if credential.id in self._recorded else 0

    def _why_not_renewed(self, basis: IssueBasis, decision: Decision) -> str:
        if decision.outcome == "denied":
            return f"policy denies it now ({', '.join(decision.policies)})"
        if decision.tier > basis.tier:
            rules = ", ".join(decision.policies)
            return f"policy asks for tier {decision.tier} now ({rules}), and it was issued at tier {basis.tier}"
        if basis.ladder is None:
            return ""
        taken_back = approval_withdrawers(self._deps.store.ledger, basis.ladder.request)
        if taken_back:
            return f"its approval was taken back by {', '.join(taken_back)}"
        return self._why_not_approved(basis.ladder, basis.at) if decision.tier else ""

    def _why_not_approved(self, ladder: Ladder, at: datetime) -> str:
        asked, given = ladder.model_copy(update={"answers": ()}), [answer.signed for answer in ladder.answers]
        left, refused = build_approval_verifier(self._deps, now=at).recount_answers(self._order.job, asked, given)
        if left.verdict(self._deps.config.current().tiers) == "approved":
            return ""
        lost = "; ".join(f"{ladder.answers[number - 1].name}: {refusal.why}" for number, refusal in refused)
        return f"its approvals make no quorum at tier {ladder.current} any more ({lost or 'it needs more of them now'})"
