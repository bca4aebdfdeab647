"""Issues a job's credentials. Everything is verified again here, right before each issue; the workflow is not trusted.

One lock per job; this session itself records what the job holds. Access that a running job requests is a separate request: if policy allows
it, it is granted at once; else it waits until people have answered and the workflow has their answer. Blocking: runs in threads.

Over 400 lines: deciding, issuing and recording share one lock and one state.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from activities.issuing.authorization import (
    IssueContext,
    RecordedDecision,
    authorize,
    reason_to_end,
    record_issue_decision,
    why_not_approved,
)
from activities.issuing.grants import AccessGrant, HeldCredentials, JobGrants, NewRequest, RuntimeRequests, ToolBounds, is_withdrawn
from activities.issuing.results import (
    ACCESS_CLOSED,
    AccessClosed,
    AccessDenied,
    AccessRefused,
    EndReason,
    IssuedCredential,
    IssueRefused,
    NotPermitted,
    OrderNotValid,
    PendingRequest,
    ToolAccess,
    end_of_issued,
    issued_event,
    refused_event,
    renewed_event,
    user_of_issued,
)
from activities.issuing.vault_issuer import VaultIssuer
from activities.revocation import revoke
from justenough.adapters.vault import ConnectionRefused, IssuedSecret, pki
from justenough.domain.approvals.ladder import ApprovalAnswer
from justenough.domain.catalog.models import ActionDef
from justenough.domain.contracts.workflow_messages import GrantedRequest, JobInput
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.core.ids import credential_id, request_id, request_number_of
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.credentials import CredentialHandle, Decision
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import RequestState, Revocable
from justenough.domain.ledger.events import Event
from justenough.domain.policy.cedar_request import DecisionFacts, Phase
from justenough.domain.tools.call import access_for_call, call_of
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import compute_request_digest, evaluate_request, why_not_issuable, why_not_offered
from justenough.services.inherited_limits import why_exceeds_ancestors
from justenough.services.job_history import APPROVAL_EVENTS, JobHistory, build_job_history, read_entries
from justenough.services.ledger_events import access_decided_event, access_requested_event, issue_decision_about
from justenough.services.positive_control import KnownControls, NotObservable, known_controls, with_observed_user
from justenough.services.verify_order import VerifiedOrder, verify_order

ORDER_CHECK_INTERVAL_S = 10.0
"""Seconds for which a verified order counts as valid: as long as groups and keys are cached."""
MAX_LIVE_CREDENTIALS = 100
"""Credentials that one job holds at once."""
T = TypeVar("T", IssuedCredential, ToolAccess)
Grant = Callable[[GrantedRequest, Access, Phase, JobHistory], T]
"""Issues the first credential of a granted request, or allows its tools."""


class Issuer:
    """Issues the credentials of one job, each just before its use."""

    def __init__(self, deps: Deps, order: JobInput, verified: VerifiedOrder, history: JobHistory, *, owner: str) -> None:
        self._deps = deps
        self._order = order
        self._verified = verified
        self._history = history
        self._lock = threading.Lock()
        self.holdings = HeldCredentials()
        """The credentials that Vault issued, recorded or not. Other classes only read it."""
        self._context = IssueContext(deps, order, verified)
        self._verified_at = deps.now(), deps.ticks()
        self._recorded_decisions: dict[str, RecordedDecision] = {}
        self._vault_issuer = VaultIssuer(deps, order.job, verified, owner=owner)
        self._requests = RuntimeRequests(deps, verified)
        self._grants = JobGrants(deps, order.job)
        self._attempts: Counter[int] = Counter()
        """By request number, the attempts to issue that have been answered, or whose answer was lost."""
        self.tool_bounds = ToolBounds(deps, verified)
        """The bounds of each tool that the job calls."""

    @property
    def settled(self) -> bool:
        """Whether Vault has answered every issue: then no credential can appear after the revocation."""
        return self._vault_issuer.settled

    def issue(self, granted: GrantedRequest) -> IssuedCredential:
        """Verify and decide a request of the order, record the decision, issue the credential and record it. Raises IssueRefused, AccessClosed, or RetryLater.

        If it raises, nothing usable has left this function.
        """
        with self._turn():
            return self._issue_first(granted, self._verified.spec.access[granted.number - 1], "start", self._history)

    def allow(self, granted: GrantedRequest) -> ToolAccess:
        """Verify, decide and record access through tools. Nothing is issued before the first call. Raises as `issue` does."""
        with self._turn():
            return self._allow_tools(granted, self._verified.spec.access[granted.number - 1], "start", self._history)

    def access(self, access: Access, *, waited_for: str = "") -> IssuedCredential | PendingRequest:
        """Issue what a running job requests, under an existing grant or a new one; or return the request that waits for people.

        `waited_for`: id of the request this caller already waited for. All callers that wait for it get its result.

        Raises AccessDenied, IssueRefused, AccessClosed, or RetryLater; then nothing usable has left this function.
        """
        if call_of(access) is None and self.tool_bounds.order_items(access.resource, access.action):
            raise AccessRefused(f"the order allows {access.action} on {access.resource} only through tools, not as a credential")
        with self._turn():
            self._require_credential_room()
            for grant in self._grants.find_covering(access):
                if issued := self._issue_again(grant, access):
                    return issued
            return self._request(access, waited_for, self._issue_first)

    def access_through_tools(self, access: Access, *, waited_for: str = "") -> ToolAccess | PendingRequest:
        """Return the tools that a running job may call, with their bounds, or the request that waits for people. `access` names the tools.

        Raises as `access` does.
        """
        with self._turn():
            self._require_credential_room()
            if grant := self._grants.grant_through_tools(access):
                return ToolAccess(request_id(self._order.job, grant.number), grant.access)
            return self._request(access, waited_for, self._allow_tools)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lock and one configuration, so that what is issued is what was decided. Raises OrderNotValid, RetryLater.

        An order that was verified a while ago is verified again first, with its launcher's current groups: a job may run for hours, and what
        has no lease is never renewed.
        """
        with self._lock:
            (then, began), now, ticks = self._verified_at, self._deps.now(), self._deps.ticks()
            # Use the clock that shows more time: ticks stop while the machine is suspended, and its time of day may be set back.
            if max(abs((now - then).total_seconds()), ticks - began) >= ORDER_CHECK_INTERVAL_S:
                # As of the time when it was first verified: an order is valid for an hour, but its job may run for longer.
                verified = verify_order(self._deps, self._order, now=self._verified.at)
                if isinstance(verified, Rejection):
                    raise OrderNotValid(f"its order is no longer valid: {verified}")
                self._verified_at, self._verified = (now, ticks), verified
                self._context = replace(self._context, verified=verified)
            with self._deps.config.hold():
                yield

    def verified_order(self) -> VerifiedOrder:
        """Return the order as it was verified in the last ORDER_CHECK_INTERVAL_S seconds. Raises OrderNotValid, RetryLater."""
        with self._turn():
            return self._verified

    def _require_credential_room(self) -> None:
        if len(self.holdings.alive) >= MAX_LIVE_CREDENTIALS:
            raise IssueRefused(f"the job has {MAX_LIVE_CREDENTIALS} active credentials; release some first")

    def _request(self, access: Access, waited_for: str, grant: Grant[T]) -> T | PendingRequest:
        """Grant a request that already waits for people, if they have approved it; else make a new request."""
        for request, waiting in self._requests.waiting.items():
            if _request_key(waiting) == _request_key(access):
                return self._grant_if_approved(request, waiting, grant)
        if waited_for and waited_for not in self._grants.ever_granted:
            return self._grant_if_approved(waited_for, access, grant)
        return self._make_request(access, grant)

    def forget(self, credential: CredentialHandle, unrecorded: tuple[Event, ...]) -> None:
        """Remove a credential that was found dead while the job runs, as `HeldCredentials.forget` does."""
        with self._lock:
            self.holdings.forget(credential, unrecorded)

    def others_beside(self, credential: CredentialHandle) -> tuple[CredentialHandle, ...]:
        return tuple(other for other in self.holdings.alive if other.id != credential.id)

    def reason_to_end(self, item: IssuedCredential) -> EndReason | None:
        """Return why a credential may not be kept, or None if it may. Called before each renewal. Raises RetryLater if a server is unreachable."""
        with self._lock:
            basis, held = self.holdings.basis(item.credential), self.holdings.held
        # Without the lock: this adds no credential, and a server that hangs must not block other requests of the job.
        return reason_to_end(self._context, item.credential, item.access, basis, held=held, recorded=self._recorded_decisions)

    def _issue_again(self, grant: AccessGrant, requested: Access) -> IssuedCredential | None:
        """Issue under a grant if policy still allows it at its tier and nobody withdrew it; return None if a new request is needed.

        A decision that equals the grant's needs no separate entry: the grant's decision is in the ledger.
        """
        job, request = self._order.job, request_id(self._order.job, grant.number)
        ttl = min(requested.ttl, int(grant.seconds_left(now=self._deps.now(), ticks=self._deps.ticks())))
        access = access_for_call(grant.access, call_of(requested)).model_copy(update={"ttl": ttl})
        deps, verified, asked, ladder = self._deps, self._verified, grant.basis.requested, grant.basis.ladder
        gone = why_not_offered(deps, (access.resource, access.action), (asked.resource, asked.action))
        gone = gone or why_not_issuable(deps, verified, access) or why_exceeds_ancestors(deps, access, verified.statement)
        bundle, tier = self._order.bundle, ladder.needed if ladder else 0
        if gone or (ladder and compute_request_digest(deps, verified, asked, bundle=bundle, tier=tier) != grant.basis.digest):
            # An ancestor has lost access, or the catalog now allows less, or would issue something other than what people approved. The new
            # request gives the reason.
            return None
        decision, facts = evaluate_request(
            deps,
            job,
            verified,
            access,
            held=self.holdings.held,
            phase="runtime",
            break_glass=grant.basis.broke_glass,
            # The order must name this very call, or leave it to policy, whatever the grant was first made for.
            requested=access_for_call(asked, call_of(requested)),
        )
        if decision.outcome == "denied":
            # The program may ask again and again. Only a denial by other policies is a new entry.
            about = f"runtime-{self._attempts[grant.number] + 1}/{digest_of(list(decision.policies))}"
            denied = access_decided_event(job, request, decision, "", facts=facts, phase="renewal", at=deps.now(), about=about)
            deps.store.ledger.append([denied])
            why = f"policy denies {access.action} on {access.resource} now"
            raise AccessDenied(why, request=request, outcome="denied", policies=decision.policies)
        if decision.tier > grant.basis.tier or (decision.tier and why_not_approved(self._context, grant.basis)):
            return None
        with self._next_attempt(grant.number) as nth:
            # If this process dies before it records the credential, a search must find the credential. Unless a search can, record the intent first.
            action = self._deps.config.current().catalog.resources[access.resource].actions[access.action]
            controls = known_controls(self._deps, action, self._verified.spec.data_scope)
            needs_intent = action.revocable is not Revocable.NEVER and controls.search_digest is None
            # Policies may have been edited since the grant: if other ones allow the access now, that is recorded, too.
            if needs_intent or not decision.is_like(grant.basis.decision):
                about, digest = issue_decision_about(nth), grant.basis.digest
                fact = access_decided_event(job, request, decision, digest, facts=facts, phase="issue", at=self._deps.now(), about=about)
                record_issue_decision(self._deps, fact)
            return self._issue(grant, access, nth)

    def _make_request(self, access: Access, grant: Grant[T]) -> T | PendingRequest:
        """Decide a running job's new request. The decision is in the ledger before anything else happens.

        If a server is unreachable meanwhile, the job asks again: that is the same request, with the same entries, if nothing else is asked for
        or decided.
        """
        deps, requests, verified = self._deps, self._requests, self._verified
        requests.require_possible(access)
        decision, facts = evaluate_request(deps, self._order.job, verified, access, held=self.holdings.held, phase="runtime")
        digest = compute_request_digest(deps, verified, access, bundle=self._order.bundle, tier=decision.tier)
        key = access.reason, decision, digest
        made = requests.unsettled.get(key) or self._number_request(access, decision, facts, digest)
        requests.unsettled[key] = made
        try:
            result = self._settle(made, grant)
        except IssueRefused:
            del requests.unsettled[key]
            raise
        del requests.unsettled[key]
        return result

    def _settle(self, made: NewRequest, grant: Grant[T]) -> T | PendingRequest:
        """Record a request and carry out its decision. Repeatable."""
        self._deps.store.ledger.append(made.entries)
        access, decision, request = made.access, made.decision, request_id(self._order.job, made.number)
        if decision.outcome == "denied":
            why = f"policy denies {access.action} on {access.resource}"
            if made.beyond == "none":
                why = f"{access.action} on {access.resource}: the signed order does not name it, and its `beyond: none` refuses that"
            raise AccessDenied(why, request=request, outcome="denied", policies=decision.policies)
        if decision.outcome == "needs_approval":
            self._requests.add_waiting(request, access)
            return PendingRequest(request, decision.tier)
        return grant(GrantedRequest(id=request, number=made.number), access, "runtime", JobHistory())

    def _number_request(self, access: Access, decision: Decision, facts: DecisionFacts, digest: str) -> NewRequest:
        """Number a new request of a running job, and build its entries. Raises AccessRefused, OverQuota."""
        job, number = self._order.job, self._requests.number(access)
        if decision.outcome == "needs_approval":
            self._requests.require_room()
        requested = access_requested_event(self._deps, job, number, access, signed_reason=self._requests.signed_reason(number))
        request = request_id(job, number)
        decided = access_decided_event(job, request, decision, digest, facts=facts, phase="runtime", at=self._deps.now())
        self._requests.mark_made(number)
        return NewRequest(number, access, decision, facts.beyond, (requested, decided))

    def _grant_if_approved(self, request: str, access: Access, grant: Grant[T]) -> T | PendingRequest:
        """Grant a request that waited for people, if they have approved it."""
        view = self._deps.store.requests.get(request)
        if view is None:
            # A failover of the store lost the request. The workflow opens each request only once, so the job needs another one.
            self._requests.waiting.pop(request, None)
            return self._make_request(access, grant)
        if view.state is RequestState.PENDING:
            return PendingRequest(request, view.current_tier)
        if view.state is not RequestState.APPROVED:
            self._requests.waiting.pop(request, None)
            why = f"{access.action} on {access.resource}: the request is {view.state}"
            raise AccessDenied(why, request=request, outcome=view.state.value)
        entries = read_entries(self._deps.store.ledger, self._order.job, types=APPROVAL_EVENTS).items
        history = build_job_history(entries)
        answers = tuple(
            ApprovalAnswer.model_validate(entry.data | {"at": entry.at}) for entry in entries if history.is_counted_answer(entry, request)
        )
        try:
            result = grant(GrantedRequest(id=request, number=request_number_of(request), answers=answers), access, "runtime", history)
        except IssueRefused:
            self._requests.waiting.pop(request, None)
            raise
        # Not after other errors: if a server was unreachable, the approved request still waits to be issued.
        self._requests.waiting.pop(request, None)
        return result

    def _issue_first(self, granted: GrantedRequest, access: Access, phase: Phase, history: JobHistory) -> IssuedCredential:
        with self._next_attempt(granted.number) as nth:
            access, basis = authorize(self._context, granted, access, nth=nth, held=self.holdings.held, phase=phase, history=history)
            grant = AccessGrant(granted.number, access, basis)
            issued = self._issue(grant, access, nth)
            self._grants.add(grant)
            return issued

    def _allow_tools(self, granted: GrantedRequest, access: Access, phase: Phase, history: JobHistory) -> ToolAccess:
        """Grant access through tools: a separate credential is issued for each call."""
        with self._next_attempt(granted.number) as nth:
            allowed, basis = authorize(self._context, granted, access, nth=nth, held=self.holdings.held, phase=phase, history=history)
            self._grants.add(AccessGrant(granted.number, allowed, basis))
            self.tool_bounds.narrow(access, allowed.tools or {})
            return ToolAccess(granted.id, allowed)

    def _revoke_at_once(self, credential: CredentialHandle, why: str, *, before: tuple[Event, ...] = ()) -> None:
        """Revoke a credential that nobody may get. If that fails now, it ends with the job."""
        others = self.others_beside(credential)
        result = revoke.revoke_by_handle(self._deps, self._order.job, credential, others, by="session", why=why, before=before)
        if result.confirmed:
            self.holdings.forget(credential, result.events)

    @contextmanager
    def _next_attempt(self, number: int) -> Iterator[int]:
        """Yield the number of the next attempt to issue for a request, and record it if the attempt is refused.

        Until an attempt is answered, or its answer is lost, it keeps its number: it is the same attempt, and its entries are the same.
        """
        nth, job = self._attempts[number] + 1, self._order.job
        try:
            yield nth
        except (IssueRefused, AccessClosed) as error:
            self._attempts[number] = nth
            self._deps.store.ledger.append([refused_event(job, request_id(job, number), nth, str(error), at=self._deps.now())])
            raise

    def _issue(self, grant: AccessGrant, access: Access, nth: int) -> IssuedCredential:
        """Issue one credential under a grant. The grant's time begins with the first. `nth`: the attempt to issue for its request."""
        job, deps, ttl = self._order.job, self._deps, access.ttl
        resource = deps.config.current().catalog.resources[access.resource]
        action = resource.actions[access.action]
        controls = known_controls(deps, action, self._verified.spec.data_scope)
        if action.target:
            deps.targets.require_reaper(action.target)
        # Check the claim and the recorded stops after everything that may wait for another server.
        self._vault_issuer.open_prefix(access.ttl)
        if action.space:
            self.holdings.spaces |= {(access.resource, access.action.value)}
        accessor, issued = self._ask_vault(grant, access, action, nth=nth)
        now, ends = deps.now(), deps.ticks() + ttl
        grant.ends = grant.ends or (now + timedelta(seconds=ttl), ends)
        if call := call_of(access):
            grant.count(call)
        credential = CredentialHandle(
            id=credential_id(job, grant.number, nth),
            request_id=request_id(job, grant.number),
            resource=access.resource,
            action=access.action,
            lease_id=issued.lease_id,
            accessor=accessor,
            issued_at=now,
            expires_at=end_of_issued(action, issued, lease_s=issued.ttl, grant_s=ttl, at=now, is_seen=action.target is None),
            revocable=action.revocable,
            certificate=pki.certificate_path(action, issued),
            held_by_job=call_of(access) is None and resource.used_by == "job",
            user=user_of_issued(action, issued),
            search_digest=controls.search_digest,
        )
        # Record how to revoke it before anyone can use it.
        self._record(credential, grant, issued_event(job, credential))
        with self._revoke_unless_given(credential.id):
            if why := pki.why_unfit(action, issued, grant_ends=now + timedelta(seconds=ttl)):
                raise IssueRefused(f"{access.action} on {access.resource}: {why}")
            if action.target:
                credential = self._observe(credential, action, controls)
                self.holdings.add(credential, grant.basis)
            # A certificate contains its own expiry: nothing can renew it.
            lease_seconds = None if pki.ends_at(action, issued) else self._vault_issuer.shorten_lease(issued, ttl)
            if (end := end_of_issued(action, issued, lease_s=lease_seconds, grant_s=ttl, at=deps.now())) < credential.expires_at:
                credential = credential.model_copy(update={"expires_at": end})
                self._record(credential, grant, renewed_event(job, credential, at=deps.now()))
            self.holdings.touch(credential, resource.sensitivity)
            # A withdrawal is recorded before its credentials are searched for; a credential is recorded before this check for withdrawals. So at
            # least one of the two finds the other.
            if grant.basis.ladder and is_withdrawn(deps, credential.request_id):
                raise NotPermitted(f"{access.action} on {access.resource}: its approval was withdrawn")
        return IssuedCredential(access, credential, issued.fields, ends=ends, lease_seconds=lease_seconds, connect=resource.connect)

    def _record(self, credential: CredentialHandle, grant: AccessGrant, event: Event) -> None:
        """Record a credential, or revoke it if that fails: nobody gets it, so nobody could release it."""
        self.holdings.add(credential, grant.basis)
        try:
            self._deps.store.ledger.append([event])
        except Exception:
            self._revoke_at_once(credential, "it could not be recorded", before=(event,))
            raise

    @contextmanager
    def _revoke_unless_given(self, credential: str) -> Iterator[None]:
        """Revoke a recorded credential, by its id, if an error keeps the job from getting it. A credential without a lease ends with the job."""
        try:
            yield
        except AccessClosed:
            # All of the job's credentials were revoked.
            raise
        except Exception as error:
            handle = next((each for each in self.holdings.alive if each.id == credential), None)
            if handle is not None and handle.lease_id is not None:
                # The text of an unexpected error may contain secrets.
                self._revoke_at_once(handle, str(error) if isinstance(error, JustEnoughError) else "issuing it failed unexpectedly")
            raise

    def _ask_vault(self, grant: AccessGrant, access: Access, action: ActionDef, *, nth: int) -> tuple[str, IssuedSecret]:
        """Issue, and count the attempt as answered. It counts too if its answer is lost: Vault may have issued a credential, so the next one
        must have an id and entries of its own. Raises as `VaultIssuer.issue` does.
        """
        try:
            answer = self._vault_issuer.issue(grant, access, action)
        except BaseException as error:
            if not isinstance(error, ConnectionRefused) and (grant.token or action.locked):
                self._attempts[grant.number] = nth
            raise
        self._attempts[grant.number] = nth
        return answer

    def _observe(self, credential: CredentialHandle, action: ActionDef, controls: KnownControls) -> CredentialHandle:
        """Return a new credential after finding its user in the target: otherwise nobody could verify its end. Raises IssueRefused, RetryLater."""
        try:
            return with_observed_user(self._deps, self._order.job, credential, action, controls)
        except NotObservable as error:
            if self._vault_issuer.is_closed():
                # It was revoked before its user was searched for.
                raise AccessClosed(ACCESS_CLOSED) from error
            is_revoked = credential.lease_id is not None and not self._deps.vault.is_lease_alive(credential.lease_id)
            why = "it was revoked before its user was searched for" if is_revoked else error
            raise IssueRefused(f"{credential.action} on {credential.resource}: {why}") from error


def _request_key(access: Access) -> tuple[object, ...]:
    """Return the parts of a request that people are shown. A call is identified by its digest, because in Python True equals 1."""
    call = call_of(access)
    return access.resource, access.action, access.tools, call and (call.tool, call.digest, call.within)
