"""Where a session decides and issues: everything is verified again here, right before each issue, whatever the workflow said.

One lock per job; `held` is this session's own record. What a running job asks for beyond its start is a request of its own: allowed by policy it
is a grant at once, else it waits for people, whom the workflow asks. Blocking: runs in threads.
"""

from __future__ import annotations

import threading
from datetime import timedelta

from activities.issuing.authorization import Permits
from activities.issuing.grants import Grant, Grants, Holdings, is_withdrawn
from activities.issuing.renewal_check import NoLonger, Renewals
from activities.issuing.results import Allowed, Denied, Issuance, NotIssued, NotPermitted, Waits, issued_event, refusing
from activities.issuing.runtime_requests import Requests
from activities.issuing.tool_bounds import Bindings
from activities.issuing.vault_issuer import Mint, credential_of
from activities.revocation import revoke
from justenough.adapters.vault import pki
from justenough.domain.approvals.ladder import Answer
from justenough.domain.catalog.loader import ActionDef
from justenough.domain.contracts.workflow_messages import Granted, JobInput
from justenough.domain.core.ids import number_of, request_id
from justenough.domain.jobs.credentials import Credential, Held
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import RequestState, Revocable
from justenough.domain.policy.cedar_request import Phase
from justenough.domain.tools.call import Call, call_of, for_call
from justenough.services.dependencies import Deps
from justenough.services.evaluate_request import answered, digest_for
from justenough.services.inherited_limits import why_beyond
from justenough.services.job_history import ANSWERING, Past, counts, entries_of, read_past
from justenough.services.ledger_events import decided_event, requested
from justenough.services.verify_order import VerifiedOrder

LIVE = 100
"""Credentials that one job holds at once."""


class Issuer:
    """Issues one job's credentials, each just before its use."""

    def __init__(self, deps: Deps, order: JobInput, verified: VerifiedOrder, past: Past, *, owner: str) -> None:
        self._deps = deps
        self._order = order
        self._verified = verified
        self._past = past
        self._lock = threading.Lock()
        self._holdings = Holdings()
        self._permits = Permits(deps, order, verified)
        self._renewals = Renewals(deps, order, verified)
        self._mint = Mint(deps, order.job, verified, owner=owner)
        self._requests = Requests(deps, verified)
        self._grants = Grants(deps, order.job)
        self.bindings = Bindings(deps, verified)
        """What binds the calls of tools."""

    @property
    def held(self) -> Held:
        """What the job holds and has touched."""
        return self._holdings.held

    @property
    def issued(self) -> tuple[Credential, ...]:
        """Every credential that Vault gave, recorded or not, and that is not known to be dead."""
        return self._holdings.alive

    @property
    def settled(self) -> bool:
        """Whether every issue that was asked for has been answered: then nothing can land after the revocation."""
        return self._mint.settled

    @property
    def spaces(self) -> frozenset[tuple[str, str]]:
        """Resource and action of all that was to give the job a space, also where nothing came of it: a space outlives what gave it."""
        return self._holdings.spaces

    def issue(self, granted: Granted) -> Issuance:
        """Verify, decide, record, issue, record. Raises NotIssued, Closed, or RetryLater; then nothing usable has left this function."""
        found = self._at_the_start(granted)
        assert isinstance(found, Issuance), "what is no access through tools is issued"
        return found

    def allow(self, granted: Granted) -> Allowed:
        """Verify, decide and record access through tools; nothing is issued before the first call. Raises as `issue` does."""
        found = self._at_the_start(granted)
        assert isinstance(found, Allowed), "nothing is issued for access through tools"
        return found

    def through_tools(self, wanted: Access, *, waited_for: str = "") -> Allowed | Waits:
        """Return what a running job may call tools within, or which request waits for people; `wanted` names the tools. Raises as `access` does."""
        found = self._had(wanted, waited_for)
        assert not isinstance(found, Issuance), "nothing is issued for access through tools"
        return found

    def access(self, wanted: Access, *, waited_for: str = "") -> Issuance | Waits:
        """Issue what a running job asks for, under a grant that it has or by a request of its own; or say which request waits for people.

        `waited_for`: the request that whoever asks has waited for. Several may have; each gets its answer, and none makes a new one of it.

        Raises Denied, NotIssued, Closed, or RetryLater; then nothing usable has left this function.
        """
        found = self._had(wanted, waited_for)
        assert not isinstance(found, Allowed), "what is no access through tools is issued"
        return found

    def _at_the_start(self, granted: Granted) -> Issuance | Allowed:
        asked = self._verified.spec.access[granted.number - 1]
        with self._lock:
            return self._first(granted, asked, phase="start", past=self._past)

    def _had(self, wanted: Access, waited_for: str) -> Issuance | Allowed | Waits:
        if call_of(wanted) is None and wanted.tools is None and self.bindings.own(wanted.resource, wanted.action):
            raise NotPermitted(f"the order allows {wanted.action} on {wanted.resource} through its tools only, and no credential for it")
        with self._lock:
            if len(self._holdings.alive) >= LIVE:
                raise NotIssued(f"the job holds {LIVE} credentials: give some back first")
            if wanted.tools is not None and (had := self._grants.through_tools(wanted)):
                return Allowed(request_id(self._order.job, had.number), had.access)
            # No grant of another kind stands for tools: nothing is issued where they are asked for.
            for grant in self._grants.covering(wanted) if wanted.tools is None else ():
                if issuance := self._once_more(grant, wanted):
                    return issuance
            for request, access in self._requests.waiting.items():
                if _asks_the_same(access, wanted):
                    return self._answered(request, access)
            if waited_for and not self._grants.had(waited_for):
                return self._answered(waited_for, wanted)
            return self._asked(wanted)

    def ended(self, credential: Credential) -> None:
        """Forget a credential that was shown to be dead while the job goes on; what it touched stays touched."""
        with self._lock:
            self._holdings.forget(credential)

    def others(self, credential: Credential) -> tuple[Credential, ...]:
        """Return what the job holds beside this one."""
        return tuple(one for one in self.issued if one.id != credential.id)

    def no_longer(self, item: Issuance) -> NoLonger | None:
        """Return why a credential may not be held on, asked before each renewal; None where it may. Raises RetryLater where a server is away."""
        with self._lock:
            basis, held = self._holdings.basis(item.credential), self.held
        # Not under the lock: it adds nothing to what is held, and a server that hangs must not keep the job from what it asks for meanwhile.
        return self._renewals.no_longer(item.credential, item.access, basis, held=held)

    def _once_more(self, grant: Grant, wanted: Access) -> Issuance | None:
        """Issue under a grant, if policy still allows it at its tier and nobody took it back; None where it takes a new request.

        What is decided as it was when the grant was made needs no entry of its own: its decision is in the ledger.
        """
        job, request = self._order.job, request_id(self._order.job, grant.number)
        ttl = min(wanted.ttl, int(grant.left(ticks=self._deps.ticks())))
        access = for_call(grant.access, call_of(wanted)).model_copy(update={"ttl": ttl})
        if why_beyond(self._deps, access, self._verified.statement):
            # What a job that it came of has lost is lost; why is said where it is asked for anew.
            return None
        decision, asked = answered(
            self._deps, job, self._verified, access, held=self.held, phase="runtime", break_glass=grant.basis.broke_glass
        )
        if decision.outcome == "denied":
            about = f"runtime-{grant.issued + 1}"
            self._deps.store.record(
                [decided_event(job, request, decision, "", facts=asked, phase="renewal", at=self._deps.now(), about=about)]
            )
            why = f"policy denies {access.action} on {access.resource} now"
            raise Denied(why, request=request, outcome="denied", policies=decision.policies)
        if decision.tier > grant.basis.tier or (decision.tier and self._renewals.why_not_approved(grant.basis)):
            return None
        with refusing(self._deps, self._order.job, request, grant.issued + 1):
            if self._unlearnable(access):
                about = f"issue-{grant.issued + 1}"
                digest = grant.basis.digest
                fact = decided_event(job, request, decision, digest, facts=asked, phase="issue", at=self._deps.now(), about=about)
                self._deps.store.record([fact])
            return self._issued(grant, access)

    def _unlearnable(self, access: Access) -> bool:
        """Whether nobody could tell that something was issued if this process died with the answer: then its intent is recorded first."""
        ends = self._action(access).revocable is not Revocable.NEVER
        return ends and not self._deps.targets.searchable(access.resource, access.action)

    def _asked(self, wanted: Access) -> Issuance | Allowed | Waits:
        """Make a request of what a running job wants, and decide it; the decision is in the ledger before anything else happens."""
        job, number = self._order.job, self._requests.number(wanted)
        request = request_id(job, number)
        self._requests.must_be_possible(wanted)
        decision, asked = answered(self._deps, job, self._verified, wanted, held=self.held, phase="runtime")
        if decision.outcome == "needs_approval":
            self._requests.must_have_room()
        digest = digest_for(self._deps, self._verified, wanted, bundle=self._order.bundle, tier=decision.tier)
        now, new = self._deps.now(), requested(self._deps, job, number, wanted)
        self._requests.took(number)
        self._deps.store.record([new, decided_event(job, request, decision, digest, facts=asked, phase="runtime", at=now)])
        if decision.outcome == "denied":
            raise Denied(
                f"policy denies {wanted.action} on {wanted.resource}", request=request, outcome="denied", policies=decision.policies
            )
        if decision.outcome == "needs_approval":
            self._requests.waits(request, wanted)
            return Waits(request, decision.tier)
        return self._first(Granted(id=request, number=number), wanted, phase="runtime", past=Past())

    def _answered(self, request: str, access: Access) -> Issuance | Allowed | Waits:
        """Issue what people were asked for, if they have approved it by now."""
        view = self._deps.store.request(request)
        if view is None or view.state is RequestState.PENDING:
            return Waits(request, view.current_tier if view else 0)
        if view.state is not RequestState.APPROVED:
            self._requests.waiting.pop(request, None)
            raise Denied(f"{access.action} on {access.resource}: the request is {view.state}", request=request, outcome=view.state.value)
        told = entries_of(self._deps.store, self._order.job, types=ANSWERING).items
        answers = tuple(Answer.model_validate(data) for data in (entry.data | {"at": entry.at} for entry in told if counts(entry, request)))
        granted = Granted(id=request, number=number_of(request), answers=answers)
        try:
            issuance = self._first(granted, access, phase="runtime", past=read_past(told))
        except NotIssued:
            self._requests.waiting.pop(request, None)
            raise
        # Where a server was away instead, what was approved still waits to be issued.
        self._requests.waiting.pop(request, None)
        return issuance

    def _first(self, granted: Granted, asked: Access, *, phase: Phase, past: Past) -> Issuance | Allowed:
        """Issue the first credential of a request that has been granted; what is had through tools is issued at their calls."""
        with refusing(self._deps, self._order.job, request_id(self._order.job, granted.number), 1):
            access, basis = self._permits.permitted(granted, asked, held=self.held, phase=phase, past=past)
            grant = Grant(granted.number, access, basis)
            if access.tools is not None and call_of(access) is None:
                self._grants.add(grant)
                self.bindings.narrow(asked, access.tools)
                return Allowed(granted.id, access)
            issuance = self._issued(grant, access)
            self._grants.add(grant)
            return issuance

    def _must_still_stand(self, issuance: Issuance) -> None:
        """Raise NotPermitted, its credential ended, where the approval was taken back while it was being issued.

        Whoever takes it back records that first and looks for credentials then; here it is the other way round, so one of the two finds the other.
        """
        if is_withdrawn(self._deps, issuance.credential.request_id):
            self._end_at_once(issuance.credential, "its approval was taken back")
            raise NotPermitted(f"{issuance.access.action} on {issuance.access.resource}: the request is withdrawn")

    def _end_at_once(self, credential: Credential, why: str) -> None:
        """End what must reach nobody; what cannot be ended now ends with the job."""
        if revoke.end_one(self._deps, self._order.job, credential, self.others(credential), by="session", why=why).confirmed:
            self._holdings.forget(credential)

    def _issued(self, grant: Grant, access: Access) -> Issuance:
        """Issue one credential under a grant. Its time begins with the first."""
        self._mint.open_prefix(access.ttl)
        job, deps, ttl, action = self._order.job, self._deps, access.ttl, self._action(access)
        if action.space:
            self._holdings.opening_space(access)
        accessor, issued = self._mint.drawn(grant, access, action)
        now, ends = deps.now(), deps.ticks() + ttl
        grant.ends = ends if grant.ends is None else grant.ends
        grant.issued += 1
        grant.made.update([call.tool] if (call := call_of(access)) else [])
        credential = credential_of(job, grant, access, action, issued, accessor=accessor, now=now)
        self._holdings.take(credential, grant.basis)
        # How to revoke it is recorded before anyone can use it.
        deps.store.record([issued_event(job, credential)])
        if why := pki.why_unfit(action, issued, grant_ends=now + timedelta(seconds=ttl)):
            if credential.lease_id is not None:
                self._end_at_once(credential, "it is not what the catalog promises")
            raise NotIssued(f"{access.action} on {access.resource}: {why}")
        # A certificate's end stands in itself: nothing can renew it.
        lease_seconds = None if pki.ends_at(action, issued) else self._mint.within_grant(issued, ttl)
        resource = deps.config.current().catalog.resources[access.resource]
        self._holdings.touch(credential, resource.sensitivity)
        issuance = Issuance(access=access, credential=credential, fields=issued.fields, ends=ends, lease_seconds=lease_seconds)
        if grant.basis.ladder:
            self._must_still_stand(issuance)
        return issuance

    def _action(self, access: Access) -> ActionDef:
        return self._deps.config.current().catalog.resources[access.resource].actions[access.action]


def _asks_the_same(one: Access, other: Access) -> bool:
    return (one.resource, one.action, one.tools) == (other.resource, other.action, other.tools) and _is_same(call_of(one), call_of(other))


def _is_same(one: Call | None, other: Call | None) -> bool:
    """Whether two calls are the same, as people were shown them: to Python, true is 1."""
    if one is None or other is None:
        return one is other
    return (one.tool, one.digest, one.within) == (other.tool, other.digest, other.within)
