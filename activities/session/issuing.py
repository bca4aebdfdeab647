"""Where a session decides and issues: everything is verified again here, right before each issue, whatever the workflow said.

One lock per job; `held` is this session's own record. Blocking: runs in threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from activities import revocation
from activities.ancestry import forebears
from activities.authorizing import whole_table
from activities.deps import Deps
from activities.entries import counted_event, decided_event, rejected, review_opened
from activities.judging import answered, digest_for, narrowed, why_not_as_granted, why_not_possible
from activities.past import Past
from activities.session.renewing import Basis, NoLonger, Renewals
from activities.session.unlocking import unlocked
from activities.vault import Issued, Token, VaultDenied, VaultRefused, certificates
from activities.verification import VerifiedOrder
from justenough.access import Credential, Decision, Held, RequestState
from justenough.approval import Answer, Ladder
from justenough.catalog import ActionDef, resolved_issue, scope_alias
from justenough.errors import GiveUp
from justenough.events import Event, EventType, event
from justenough.facts import Facts
from justenough.ids import credential_id, request_id
from justenough.messages import Granted, JobInput
from justenough.secret import Secret
from justenough.spec import Access

ANSWERS_EXAMINED = 20
"""Answers that one request may come with; nobody has more approvers than that."""
HARD_END_MARGIN = 60
"""Seconds that Vault's own hard end of a job's tokens lies behind the longest grant."""
log = structlog.get_logger()


class NotIssued(GiveUp):
    """A request was not issued; the message says which rule, signature or server stood against it."""


class NotPermitted(NotIssued):
    """Policy, or the lack of valid approvals, stands against it."""


class Closed(GiveUp):
    """The job's claim is closed: nothing is issued any more."""


@dataclass(frozen=True)
class Issuance:
    """One credential as it was issued, with what the job is to be given. Cannot print its secrets."""

    access: Access
    credential: Credential
    fields: Mapping[str, Secret]
    ends: float
    """When the grant is over, in ticks."""
    lease_seconds: int | None
    """How long the lease lives before it must be renewed; None where there is none, or nothing to renew."""

    def left(self, *, now: datetime, ticks: float) -> float:
        """Return the seconds that the grant still has, by whichever clock says less: one that was set back must not prolong it."""
        return min((self.credential.expires_at - now).total_seconds(), self.ends - ticks)


class Issuer:
    """Issues one job's credentials, each just before its use."""

    def __init__(self, deps: Deps, order: JobInput, verified: VerifiedOrder, past: Past, *, owner: str) -> None:
        self._deps = deps
        self._order = order
        self._verified = verified
        self._past = past
        self._owner = owner
        self._lock = threading.Lock()
        self._held = Held()
        self._bases: dict[str, Basis] = {}
        self._renewals = Renewals(deps, order, verified)
        self.issued: tuple[Credential, ...] = ()
        """Every credential that Vault gave, recorded or not."""
        self._open = False
        self.settled = True
        """Whether every issue that was asked for has been answered: then nothing can land after the revocation."""

    def issue(self, granted: Granted) -> Issuance:
        """Verify, decide, record, issue, record. Raises NotIssued, Closed, or RetryLater; then nothing usable has left this function."""
        asked = self._verified.spec.access[granted.number - 1]
        with self._lock:
            try:
                access, basis = self._permitted(granted, asked)
                issuance = self._issued(granted.number, access)
                if granted.answers:
                    self._must_still_stand(issuance)
                self._bases[issuance.credential.id] = basis
            except (NotIssued, Closed) as error:
                # A decision to issue that nothing follows would have to be taken for a credential that nobody learned of.
                self._deps.store.record([self._refusal(granted, str(error))])
                raise
            return issuance

    def ended(self, access: Access) -> None:
        """Forget a credential that was ended while the job goes on; what it touched stays touched."""
        with self._lock:
            self._held = self._held.returned(access.resource, access.action)

    def no_longer(self, item: Issuance) -> NoLonger | None:
        """Return why a credential may not be held on, asked before each renewal; None where it may. Raises RetryLater where a server is away."""
        with self._lock:
            basis, held = self._bases[item.credential.id], self._held
        # Not under the lock: it adds nothing to what is held, and a server that hangs must not keep the job from what it asks for meanwhile.
        return self._renewals.no_longer(item.credential, item.access, basis, held=held)

    def _refusal(self, granted: Granted, why: str) -> Event:
        job = self._order.job
        request = request_id(job, granted.number)
        return event(EventType.CREDENTIAL_REFUSED, job, at=self._deps.now(), about=request, request=request, why=why)

    def _permitted(self, granted: Granted, access: Access) -> tuple[Access, Basis]:
        """Return what this request may be issued as now, and on what; the decision is in the ledger before this returns."""
        job, now = self._order.job, self._deps.now()
        request = request_id(job, granted.number)
        decision, asked = answered(self._deps, job, self._verified, access, held=self._held, phase="start")
        digest = digest_for(self._deps, self._verified, access, bundle=self._order.bundle, tier=decision.tier)
        # It is there already, unless somebody reached this session past the workflow that decides.
        facts = [decided_event(job, request, decision, digest, facts=asked, phase="start", at=now)]
        why, ladder = "", None
        if decision.outcome == "denied":
            why = f"policy denies it now ({', '.join(decision.policies)})"
        elif decision.outcome == "needs_approval":
            ladder, attempts = self._answers(granted.answers, self._ladder(request, access, decision, digest))
            facts += attempts
            why = self._why_not_approved(ladder)
            if not why:
                # They are there already too. Nothing is issued before enough valid approvals are in the ledger.
                facts += self._counted(ladder)
                access = narrowed(access, ladder.grant)
                decision, asked, why = self._as_granted(access, ladder, decision, asked)
        facts.append(decided_event(job, request, decision, digest, facts=asked, phase="issue", at=now))
        self._deps.store.record(facts)
        if why:
            raise NotPermitted(f"{access.action} on {access.resource}: {why}")
        return access, Basis(decision, digest, now, ladder)

    def _as_granted(self, access: Access, ladder: Ladder, decision: Decision, asked: Facts) -> tuple[Decision, Facts, str]:
        """Return what policy says of what the answers left of a request, and why that may not be issued."""
        if not (ladder.is_narrowed or ladder.broke_glass):
            return decision, asked, ""
        if why := why_not_possible(self._deps, self._verified, access):
            return decision, asked, why
        again, asked = answered(
            self._deps, self._order.job, self._verified, access, held=self._held, phase="start", break_glass=ladder.broke_glass
        )
        return again, asked, why_not_as_granted(ladder.grant, again, tier=ladder.current) or ""

    def _must_still_stand(self, issuance: Issuance) -> None:
        """Raise NotPermitted, its credential ended, where the approval was taken back while it was being issued.

        Whoever takes it back records that first and looks for credentials then; here it is the other way round, so one of the two finds the other.
        """
        request = self._deps.store.request(issuance.credential.request_id)
        if request is not None and request.state is RequestState.WITHDRAWN:
            self._held = self._held.returned(issuance.access.resource, issuance.access.action)
            revocation.revoke_one(self._deps, self._order.job, issuance.credential.id, by="session", why="its approval was taken back")
            raise NotPermitted(f"{issuance.access.action} on {issuance.access.resource}: the request is withdrawn")

    def _ladder(self, request: str, access: Access, decision: Decision, digest: str) -> Ladder:
        return Ladder(
            request=request,
            digest=digest,
            action=access.action,
            requester=self._verified.person.id,
            forebears=forebears(self._deps, self._verified.statement.parent, asked_by=self._verified.statement.asked_by),
            needed=decision.tier,
            # A request that climbed is no longer for the lower tier, whoever brings its approval now.
            current=max(decision.tier, self._past.tiers.get(request, 0)),
            respond_by=self._deps.now(),
            ttl=access.ttl,
            taken_back=self._past.taken_back.get(request, frozenset()),
        )

    def _answers(self, given: Iterable[Answer], ladder: Ladder) -> tuple[Ladder, list[Event]]:
        """Return the ladder with those of the given answers that hold now, and an event for each that does not."""
        now, job, answers = self._deps.now(), self._order.job, tuple(given)[:ANSWERS_EXAMINED]
        moved, refusals = whole_table(self._deps, now=now).recounted(job, ladder, (answer.signed for answer in answers))
        return moved, [self._attempt(ladder.request, number, answers[number - 1], refusal.why) for number, refusal in refusals]

    def _attempt(self, request: str, number: int, answer: Answer, why: str) -> Event:
        raw, about = answer.signed.model_dump(mode="json"), f"{request}/issue-{number}"
        return rejected(self._order.job, why, at=self._deps.now(), about=about, raw=raw, request=request, person=answer.person)

    def _why_not_approved(self, ladder: Ladder) -> str:
        if ladder.verdict(self._deps.config.current().tiers) != "approved":
            return f"it needs tier {ladder.current} and its valid approvals make no quorum"
        settled = self._past.settled.get(ladder.request)
        return f"the request is {settled}" if settled else ""

    def _counted(self, ladder: Ladder) -> list[Event]:
        job, now, last = self._order.job, self._deps.now(), ladder.answers[-1]
        facts = [counted_event(job, ladder, each, verdict="approved" if each is last else "pending", at=now) for each in ladder.answers]
        tiers = self._deps.config.current().tiers
        return facts + [review_opened(job, ladder, each, tiers, at=now) for each in ladder.answers if each.decision == "break_glass"]

    def _issued(self, number: int, access: Access) -> Issuance:
        self._open_prefix()
        job, deps, ttl, action = self._order.job, self._deps, access.ttl, self._action(access)
        try:
            accessor, issued = self._from_vault(request_id(job, number), action, ttl)
        except (VaultDenied, VaultRefused) as error:
            raise NotIssued(f"{access.action} on {access.resource}: {error}") from error
        now, ends = deps.now(), deps.ticks() + ttl
        credential = Credential(
            id=credential_id(job, number),
            request_id=request_id(job, number),
            resource=access.resource,
            action=access.action,
            lease_id=issued.lease_id,
            accessor=accessor,
            issued_at=now,
            expires_at=certificates.ends_at(action, issued) or now + timedelta(seconds=ttl),
            revocable=action.revocable,
            certificate=certificates.place_of(action, issued),
        )
        self.issued = (*self.issued, credential)
        # How to revoke it is recorded before anyone can use it.
        deps.store.record([issued_event(job, credential)])
        if why := certificates.why_unfit(action, issued, grant_ends=now + timedelta(seconds=ttl)):
            raise NotIssued(f"{access.action} on {access.resource}: {why}")
        # A certificate's end stands in itself: nothing can renew it.
        lease_seconds = None if certificates.ends_at(action, issued) else self._within_grant(issued, ttl)
        resource = deps.config.current().catalog.resources[access.resource]
        self._held = self._held.issued(access.resource, access.action, resource.sensitivity)
        return Issuance(access=access, credential=credential, fields=issued.fields, ends=ends, lease_seconds=lease_seconds)

    def _from_vault(self, request: str, action: ActionDef, ttl: int) -> tuple[str, Issued]:
        """Return what Vault issues, and the accessor of the job's token that it was issued to. Raises VaultDenied, VaultRefused, NotIssued."""
        scope = self._verified.spec.data_scope
        what = resolved_issue(action, scope, given={"job": self._order.job, "ttl": str(ttl)})
        token = None if action.locked else self._token(action.policy, scope_alias(action, scope), ttl)
        try:
            return unlocked(self._deps, request, what) if token is None else (token.accessor, self._deps.vault.issue(token, what))
        except (VaultDenied, VaultRefused):
            raise
        except BaseException:
            # Vault may still answer a call that we no longer wait for: only a later look can tell.
            self.settled = False
            raise

    def _action(self, access: Access) -> ActionDef:
        return self._deps.config.current().catalog.resources[access.resource].actions[access.action]

    def _open_prefix(self) -> None:
        """Write the job's token role once, and then make sure that the claim still stands: one that slept through its closing stops here."""
        if not self._open:
            longest = max(access.ttl for access in self._verified.spec.access)
            try:
                self._deps.vault.open_prefix(self._order.job, longest + HARD_END_MARGIN)
            except BaseException:
                self.settled = False
                raise
            self._open = True
        claim = self._deps.store.claim_of(self._order.job)
        if claim is None or not claim.open or claim.owner != self._owner:
            raise Closed("the job's access has been closed")

    def _within_grant(self, issued: Issued, ttl: int) -> int | None:
        """Have a lease that its engine made longer than the grant end with the grant; return the seconds that it lives.

        Vault does not do it: a lease outlives its token's ttl in the target, and there it ends by the target's own clock alone where
        Vault is dead.
        """
        if issued.lease_id is None or issued.ttl is None or issued.ttl <= ttl:
            return issued.ttl
        try:
            return self._deps.vault.renew_lease(issued.lease_id, ttl)
        except GiveUp as error:
            # An engine's leases may not be renewable. Whoever wrote its role chose how long they live.
            log.warning("lease outlives its grant", job=self._order.job, lease_seconds=issued.ttl, error=str(error))
            return issued.ttl
        except BaseException:
            self.settled = False
            raise

    def _token(self, policy: str, alias: str | None, ttl: int) -> Token:
        try:
            return self._deps.vault.create_token(self._order.job, policy=policy, alias=alias, ttl=ttl)
        except (VaultDenied, VaultRefused) as error:
            raise NotIssued(f"Vault gives no token under {policy}: {error}") from error
        except BaseException:
            self.settled = False
            raise


def issued_event(job: str, credential: Credential) -> Event:
    """Return the event of one credential's issue: enough to revoke it, never the secret."""
    return event(
        EventType.CREDENTIAL_ISSUED,
        job,
        at=credential.issued_at,
        about=credential.id,
        credential=credential.id,
        request=credential.request_id,
        resource=credential.resource,
        action=credential.action.value,
        lease_id=credential.lease_id,
        accessor=credential.accessor,
        issued_at=credential.issued_at.isoformat(),
        expires_at=credential.expires_at.isoformat(),
        revocable=credential.revocable.value,
        certificate=credential.certificate,
    )
