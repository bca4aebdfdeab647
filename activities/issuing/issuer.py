"""Where a session decides and issues: everything is verified again here, right before each issue, whatever the workflow said.

One lock per job; `held` is this session's own record. What a running job asks for beyond its start is a request of its own: allowed by policy it
is a grant at once, else it waits for people, whom the workflow asks. Blocking: runs in threads.
"""

from __future__ import annotations

import threading
from datetime import timedelta

from activities.issuing.authorization import IssueAuthorizer
from activities.issuing.grants import AccessGrant, HeldCredentials, JobGrants, is_withdrawn
from activities.issuing.renewal_check import EndReason, RenewalCheck
from activities.issuing.results import (
    AccessDenied,
    IssuedCredential,
    NotIssued,
    NotPermitted,
    PendingApproval,
    ToolAccess,
    issued_event,
    record_refusal,
)
from activities.issuing.runtime_requests import RuntimeRequests
from activities.issuing.tool_bounds import ToolBounds
from activities.issuing.vault_issuer import VaultIssuer, build_credential
from activities.revocation import revoke
from justenough.adapters.vault import pki
from justenough.domain.approvals.ladder import ApprovalAnswer
from justenough.domain.catalog.loader import ActionDef
from justenough.domain.contracts.workflow_messages import GrantedRequest, JobInput
from justenough.domain.core.ids import request_id, request_number_of
from justenough.domain.jobs.credentials import CredentialHandle, HeldAccess
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import RequestState, Revocable
from justenough.domain.policy.cedar_request import Phase
from justenough.domain.tools.call import ToolCall, access_for_call, call_of
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import compute_request_digest, evaluate_request
from justenough.services.inherited_limits import why_exceeds_ancestors
from justenough.services.job_history import APPROVAL_EVENTS, JobHistory, build_job_history, is_counted_answer, read_entries
from justenough.services.ledger_events import access_decided_event, access_requested_event
from justenough.services.verify_order import VerifiedOrder

MAX_LIVE_CREDENTIALS = 100
"""Credentials that one job holds at once."""


class Issuer:
    """Issues one job's credentials, each just before its use."""

    def __init__(self, deps: Deps, order: JobInput, verified: VerifiedOrder, history: JobHistory, *, owner: str) -> None:
        self._deps = deps
        self._order = order
        self._verified = verified
        self._history = history
        self._lock = threading.Lock()
        self._holdings = HeldCredentials()
        self._authorizer = IssueAuthorizer(deps, order, verified)
        self._renewal_check = RenewalCheck(deps, order, verified)
        self._vault_issuer = VaultIssuer(deps, order.job, verified, owner=owner)
        self._requests = RuntimeRequests(deps, verified)
        self._grants = JobGrants(deps, order.job)
        self.tool_bounds = ToolBounds(deps, verified)
        """What binds the calls of tools."""

    @property
    def held_access(self) -> HeldAccess:
        """What the job holds and has touched."""
        return self._holdings.held

    @property
    def live_credentials(self) -> tuple[CredentialHandle, ...]:
        """Every credential that Vault gave, recorded or not, and that is not known to be dead."""
        return self._holdings.alive

    @property
    def settled(self) -> bool:
        """Whether every issue that was asked for has been answered: then nothing can land after the revocation."""
        return self._vault_issuer.settled

    @property
    def spaces(self) -> frozenset[tuple[str, str]]:
        """Resource and action of all that was to give the job a space, also where nothing came of it: a space outlives what gave it."""
        return self._holdings.spaces

    def issue(self, granted: GrantedRequest) -> IssuedCredential:
        """Verify, decide, record, issue, record. Raises NotIssued, Closed, or RetryLater; then nothing usable has left this function."""
        found = self._issue_at_start(granted)
        assert isinstance(found, IssuedCredential), "what is no access through tools is issued"
        return found

    def allow(self, granted: GrantedRequest) -> ToolAccess:
        """Verify, decide and record access through tools; nothing is issued before the first call. Raises as `issue` does."""
        found = self._issue_at_start(granted)
        assert isinstance(found, ToolAccess), "nothing is issued for access through tools"
        return found

    def through_tools(self, access: Access, *, waited_for: str = "") -> ToolAccess | PendingApproval:
        """Return what a running job may call tools within, or which request waits for people; `wanted` names the tools. Raises as `access` does."""
        found = self._obtain(access, waited_for)
        assert not isinstance(found, IssuedCredential), "nothing is issued for access through tools"
        return found

    def access(self, access: Access, *, waited_for: str = "") -> IssuedCredential | PendingApproval:
        """Issue what a running job asks for, under a grant that it has or by a request of its own; or say which request waits for people.

        `waited_for`: the request that whoever asks has waited for. Several may have; each gets its answer, and none makes a new one of it.

        Raises Denied, NotIssued, Closed, or RetryLater; then nothing usable has left this function.
        """
        found = self._obtain(access, waited_for)
        assert not isinstance(found, ToolAccess), "what is no access through tools is issued"
        return found

    def _issue_at_start(self, granted: GrantedRequest) -> IssuedCredential | ToolAccess:
        asked = self._verified.spec.access[granted.number - 1]
        with self._lock:
            return self._issue_first(granted, asked, phase="start", history=self._history)

    def _obtain(self, requested_access: Access, waited_for: str) -> IssuedCredential | ToolAccess | PendingApproval:
        if (
            call_of(requested_access) is None
            and requested_access.tools is None
            and self.tool_bounds.order_items(requested_access.resource, requested_access.action)
        ):
            raise NotPermitted(
                f"the order allows {requested_access.action} on {requested_access.resource} through its tools only, and no credential for it"
            )
        with self._lock:
            if len(self._holdings.alive) >= MAX_LIVE_CREDENTIALS:
                raise NotIssued(f"the job holds {MAX_LIVE_CREDENTIALS} credentials: give some back first")
            if requested_access.tools is not None and (had := self._grants.through_tools(requested_access)):
                return ToolAccess(request_id(self._order.job, had.number), had.access)
            # No grant of another kind stands for tools: nothing is issued where they are asked for.
            for grant in self._grants.find_covering(requested_access) if requested_access.tools is None else ():
                if issuance := self._issue_again(grant, requested_access):
                    return issuance
            for request, access in self._requests.waiting.items():
                if _is_same_request(access, requested_access):
                    return self._issue_if_approved(request, access)
            if waited_for and not self._grants.was_granted(waited_for):
                return self._issue_if_approved(waited_for, requested_access)
            return self._make_request(requested_access)

    def forget(self, credential: CredentialHandle) -> None:
        """Forget a credential that was shown to be dead while the job goes on; what it touched stays touched."""
        with self._lock:
            self._holdings.forget(credential)

    def others_beside(self, credential: CredentialHandle) -> tuple[CredentialHandle, ...]:
        """Return what the job holds beside this one."""
        return tuple(one for one in self.live_credentials if one.id != credential.id)

    def reason_to_end(self, item: IssuedCredential) -> EndReason | None:
        """Return why a credential may not be held on, asked before each renewal; None where it may. Raises RetryLater where a server is away."""
        with self._lock:
            basis, held = self._holdings.basis(item.credential), self.held_access
        # Not under the lock: it adds nothing to what is held, and a server that hangs must not keep the job from what it asks for meanwhile.
        return self._renewal_check.reason_to_end(item.credential, item.access, basis, held=held)

    def _issue_again(self, grant: AccessGrant, requested_access: Access) -> IssuedCredential | None:
        """Issue under a grant, if policy still allows it at its tier and nobody took it back; None where it takes a new request.

        What is decided as it was when the grant was made needs no entry of its own: its decision is in the ledger.
        """
        job, request = self._order.job, request_id(self._order.job, grant.number)
        ttl = min(requested_access.ttl, int(grant.seconds_left(ticks=self._deps.ticks())))
        access = access_for_call(grant.access, call_of(requested_access)).model_copy(update={"ttl": ttl})
        if why_exceeds_ancestors(self._deps, access, self._verified.statement):
            # What a job that it came of has lost is lost; why is said where it is asked for anew.
            return None
        decision, asked = evaluate_request(
            self._deps, job, self._verified, access, held=self.held_access, phase="runtime", break_glass=grant.basis.broke_glass
        )
        if decision.outcome == "denied":
            about = f"runtime-{grant.issued + 1}"
            self._deps.store.ledger.append(
                [access_decided_event(job, request, decision, "", facts=asked, phase="renewal", at=self._deps.now(), about=about)]
            )
            why = f"policy denies {access.action} on {access.resource} now"
            raise AccessDenied(why, request=request, outcome="denied", policies=decision.policies)
        if decision.tier > grant.basis.tier or (decision.tier and self._renewal_check.why_not_approved(grant.basis)):
            return None
        with record_refusal(self._deps, self._order.job, request, grant.issued + 1):
            if self._is_untraceable(access):
                about = f"issue-{grant.issued + 1}"
                digest = grant.basis.digest
                fact = access_decided_event(job, request, decision, digest, facts=asked, phase="issue", at=self._deps.now(), about=about)
                self._deps.store.ledger.append([fact])
            return self._issue(grant, access)

    def _is_untraceable(self, access: Access) -> bool:
        """Whether nobody could tell that something was issued if this process died with the answer: then its intent is recorded first."""
        ends = self._action_def(access).revocable is not Revocable.NEVER
        return ends and not self._deps.targets.is_searchable(access.resource, access.action)

    def _make_request(self, access: Access) -> IssuedCredential | ToolAccess | PendingApproval:
        """Make a request of what a running job wants, and decide it; the decision is in the ledger before anything else happens."""
        job, number = self._order.job, self._requests.number(access)
        request = request_id(job, number)
        self._requests.require_possible(access)
        decision, asked = evaluate_request(self._deps, job, self._verified, access, held=self.held_access, phase="runtime")
        if decision.outcome == "needs_approval":
            self._requests.require_room()
        digest = compute_request_digest(self._deps, self._verified, access, bundle=self._order.bundle, tier=decision.tier)
        now, new = self._deps.now(), access_requested_event(self._deps, job, number, access)
        self._requests.mark_made(number)
        self._deps.store.ledger.append([new, access_decided_event(job, request, decision, digest, facts=asked, phase="runtime", at=now)])
        if decision.outcome == "denied":
            raise AccessDenied(
                f"policy denies {access.action} on {access.resource}", request=request, outcome="denied", policies=decision.policies
            )
        if decision.outcome == "needs_approval":
            self._requests.add_waiting(request, access)
            return PendingApproval(request, decision.tier)
        return self._issue_first(GrantedRequest(id=request, number=number), access, phase="runtime", history=JobHistory())

    def _issue_if_approved(self, request: str, access: Access) -> IssuedCredential | ToolAccess | PendingApproval:
        """Issue what people were asked for, if they have approved it by now."""
        view = self._deps.store.requests.get(request)
        if view is None or view.state is RequestState.PENDING:
            return PendingApproval(request, view.current_tier if view else 0)
        if view.state is not RequestState.APPROVED:
            self._requests.waiting.pop(request, None)
            raise AccessDenied(
                f"{access.action} on {access.resource}: the request is {view.state}", request=request, outcome=view.state.value
            )
        told = read_entries(self._deps.store.ledger, self._order.job, types=APPROVAL_EVENTS).items
        answers = tuple(
            ApprovalAnswer.model_validate(data)
            for data in (entry.data | {"at": entry.at} for entry in told if is_counted_answer(entry, request))
        )
        granted = GrantedRequest(id=request, number=request_number_of(request), answers=answers)
        try:
            issuance = self._issue_first(granted, access, phase="runtime", history=build_job_history(told))
        except NotIssued:
            self._requests.waiting.pop(request, None)
            raise
        # Where a server was away instead, what was approved still waits to be issued.
        self._requests.waiting.pop(request, None)
        return issuance

    def _issue_first(
        self, granted: GrantedRequest, requested_access: Access, *, phase: Phase, history: JobHistory
    ) -> IssuedCredential | ToolAccess:
        """Issue the first credential of a request that has been granted; what is had through tools is issued at their calls."""
        with record_refusal(self._deps, self._order.job, request_id(self._order.job, granted.number), 1):
            access, basis = self._authorizer.authorize(granted, requested_access, held=self.held_access, phase=phase, history=history)
            grant = AccessGrant(granted.number, access, basis)
            if access.tools is not None and call_of(access) is None:
                self._grants.add(grant)
                self.tool_bounds.narrow(requested_access, access.tools)
                return ToolAccess(granted.id, access)
            issuance = self._issue(grant, access)
            self._grants.add(grant)
            return issuance

    def _require_not_withdrawn(self, issuance: IssuedCredential) -> None:
        """Raise NotPermitted, its credential ended, where the approval was taken back while it was being issued.

        Whoever takes it back records that first and looks for credentials then; here it is the other way round, so one of the two finds the other.
        """
        if is_withdrawn(self._deps, issuance.credential.request_id):
            self._revoke_at_once(issuance.credential, "its approval was taken back")
            raise NotPermitted(f"{issuance.access.action} on {issuance.access.resource}: the request is withdrawn")

    def _revoke_at_once(self, credential: CredentialHandle, why: str) -> None:
        """End what must reach nobody; what cannot be ended now ends with the job."""
        if revoke.end_one(self._deps, self._order.job, credential, self.others_beside(credential), by="session", why=why).confirmed:
            self._holdings.forget(credential)

    def _issue(self, grant: AccessGrant, access: Access) -> IssuedCredential:
        """Issue one credential under a grant. Its time begins with the first."""
        self._vault_issuer.open_prefix(access.ttl)
        job, deps, ttl, action = self._order.job, self._deps, access.ttl, self._action_def(access)
        if action.space:
            self._holdings.note_space(access)
        accessor, issued = self._vault_issuer.issue(grant, access, action)
        now, ends = deps.now(), deps.ticks() + ttl
        grant.ends = ends if grant.ends is None else grant.ends
        grant.issued += 1
        grant.made.update([call.tool] if (call := call_of(access)) else [])
        credential = build_credential(job, grant, access, action, issued, accessor=accessor, now=now)
        self._holdings.add(credential, grant.basis)
        # How to revoke it is recorded before anyone can use it.
        deps.store.ledger.append([issued_event(job, credential)])
        if why := pki.why_unfit(action, issued, grant_ends=now + timedelta(seconds=ttl)):
            if credential.lease_id is not None:
                self._revoke_at_once(credential, "it is not what the catalog promises")
            raise NotIssued(f"{access.action} on {access.resource}: {why}")
        # A certificate's end stands in itself: nothing can renew it.
        lease_seconds = None if pki.ends_at(action, issued) else self._vault_issuer.shorten_lease(issued, ttl)
        resource = deps.config.current().catalog.resources[access.resource]
        self._holdings.touch(credential, resource.sensitivity)
        issuance = IssuedCredential(access=access, credential=credential, fields=issued.fields, ends=ends, lease_seconds=lease_seconds)
        if grant.basis.ladder:
            self._require_not_withdrawn(issuance)
        return issuance

    def _action_def(self, access: Access) -> ActionDef:
        return self._deps.config.current().catalog.resources[access.resource].actions[access.action]


def _is_same_request(one: Access, other: Access) -> bool:
    return (one.resource, one.action, one.tools) == (other.resource, other.action, other.tools) and _is_same_call(
        call_of(one), call_of(other)
    )


def _is_same_call(one: ToolCall | None, other: ToolCall | None) -> bool:
    """Whether two calls are the same, as people were shown them: to Python, true is 1."""
    if one is None or other is None:
        return one is other
    return (one.tool, one.digest, one.within) == (other.tool, other.digest, other.within)
