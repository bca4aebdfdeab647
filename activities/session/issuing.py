"""Where a session decides and issues: everything is verified again here, right before each issue, whatever the workflow said.

One lock per job; `held` is this session's own record. What a running job asks for beyond its start is a request of its own: allowed by policy it
is a grant at once, else it waits for people, whom the workflow asks. Blocking: runs in threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from activities import revocation
from activities.ancestry import forebears
from activities.authorizing import whole_table
from activities.deps import Deps
from activities.entries import counted_event, decided_event, rejected, requested, review_opened
from activities.judging import answered, digest_for, narrowed, why_not_as_granted, why_not_possible
from activities.past import ANSWERING, Past, counts, entries_of, read_past
from activities.session.renewing import Basis, NoLonger, Renewals
from activities.session.unlocking import unlocked
from activities.vault import Issued, Token, VaultDenied, VaultRefused, certificates
from activities.verification import VerifiedOrder
from justenough.access import Credential, Decision, Held, RequestState, Revocable
from justenough.approval import Answer, Ladder
from justenough.calls import bounded, call_of, for_call
from justenough.catalog import ActionDef, problems_of, resolved_issue, scope_alias
from justenough.errors import GiveUp, InvalidInput
from justenough.events import Event, EventType, event
from justenough.facts import Facts, Phase
from justenough.ids import credential_id, number_of, request_id
from justenough.messages import Granted, JobInput
from justenough.secret import Secret
from justenough.spec import Access

LIVE = 100
"""Credentials that one job holds at once."""
REQUESTS = 1_000
"""Requests of one job; access under a grant that it has is none."""
WAITING = 20
"""Requests of one job that wait for people at once: each call of a tool may be one, and people read them all."""
ANSWERS_EXAMINED = 20
"""Answers that one request may come with; nobody has more approvers than that."""
CLOSED = "the job's access has been closed"
HARD_END_MARGIN = 60
"""Seconds that Vault's own hard end of a job's tokens lies behind the longest grant."""
log = structlog.get_logger()


class NotIssued(GiveUp):
    """A request was not issued; the message says which rule, signature or server stood against it."""


class NotPermitted(NotIssued):
    """Policy, or the lack of valid approvals, stands against it."""


class Closed(GiveUp):
    """The job's claim is closed: nothing is issued any more."""


class Denied(NotPermitted):
    """What a running job asked for: policy says no, or people did."""

    def __init__(self, why: str, *, request: str, outcome: str, policies: tuple[str, ...] = ()) -> None:
        self.request = request
        self.outcome = outcome
        self.policies = policies
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Waits:
    """A request of a running job that people must answer first."""

    request: str
    tier: int


@dataclass(slots=True)
class Grant:
    """A request of this job that may be used: what it allows, on what, until when, and what was issued under it so far."""

    number: int
    access: Access
    """As granted, which may be less than was asked for."""
    basis: Basis
    ends: float | None = None
    """When it is over, in ticks; it begins with its first issue."""
    issued: int = 0
    token: Token | None = None
    """The job's token for it: its policy allows this one action, and it lives as long as the grant."""

    def left(self, *, ticks: float) -> float:
        """Return the seconds that it still has."""
        return float(self.access.ttl) if self.ends is None else self.ends - ticks


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
        self._alive: dict[str, Credential] = {}
        self._spaces: set[tuple[str, str]] = set()
        self._grants: list[Grant] = []
        self._granted: set[str] = set()
        """Requests that became a grant, each once: when that is over, it is over."""
        self._waiting: dict[str, Access] = {}
        """What people are asked for, by request."""
        self._numbers = len(verified.spec.access)
        self._unasked = {number: access for number, access in enumerate(verified.spec.access, start=1) if access.at == "request"}
        """What the order says that the job may ask for, and it has not."""
        self._longest = 0
        self.settled = True
        """Whether every issue that was asked for has been answered: then nothing can land after the revocation."""

    @property
    def held(self) -> Held:
        """What the job holds and has touched."""
        return self._held

    @property
    def issued(self) -> tuple[Credential, ...]:
        """Every credential that Vault gave, recorded or not, and that is not known to be dead."""
        return tuple(self._alive.values())

    @property
    def spaces(self) -> frozenset[tuple[str, str]]:
        """Resource and action of all that was to give the job a space, also where nothing came of it: a space outlives what gave it."""
        return frozenset(self._spaces)

    def issue(self, granted: Granted) -> Issuance:
        """Verify, decide, record, issue, record. Raises NotIssued, Closed, or RetryLater; then nothing usable has left this function."""
        asked = self._verified.spec.access[granted.number - 1]
        with self._lock:
            return self._first(granted, asked, phase="start", past=self._past)

    def access(self, wanted: Access, *, waited_for: str = "") -> Issuance | Waits:
        """Issue what a running job asks for, under a grant that it has or by a request of its own; or say which request waits for people.

        `waited_for`: the request that whoever asks has waited for. Several may have; each gets its answer, and none makes a new one of it.

        Raises Denied, NotIssued, Closed, or RetryLater; then nothing usable has left this function.
        """
        if call_of(wanted) is None and bounded(self._verified.spec, wanted.resource, wanted.action):
            raise NotPermitted(f"the order allows {wanted.action} on {wanted.resource} through its tools only, and no credential for it")
        with self._lock:
            if len(self._alive) >= LIVE:
                raise NotIssued(f"the job holds {LIVE} credentials: give some back first")
            self._grants = [grant for grant in self._grants if self._stands(grant)]
            for grant in self._grants:
                if self._covers(grant, wanted) and (issuance := self._once_more(grant, wanted)):
                    return issuance
            for request, access in self._waiting.items():
                if _asks_the_same(access, wanted):
                    return self._answered(request, access)
            if waited_for and waited_for not in self._granted:
                return self._answered(waited_for, wanted)
            return self._asked(wanted)

    def ended(self, credential: Credential) -> None:
        """Forget a credential that was shown to be dead while the job goes on; what it touched stays touched."""
        with self._lock:
            self._forget(credential)

    def over(self) -> bool:
        """Whether the claim of this session is closed: nothing is issued any more."""
        claim = self._deps.store.claim_of(self._order.job)
        return claim is None or not claim.held_by(self._owner)

    def others(self, credential: Credential) -> tuple[Credential, ...]:
        """Return what the job holds beside this one."""
        return tuple(one for one in self.issued if one.id != credential.id)

    def no_longer(self, item: Issuance) -> NoLonger | None:
        """Return why a credential may not be held on, asked before each renewal; None where it may. Raises RetryLater where a server is away."""
        with self._lock:
            basis, held = self._bases[item.credential.id], self._held
        # Not under the lock: it adds nothing to what is held, and a server that hangs must not keep the job from what it asks for meanwhile.
        return self._renewals.no_longer(item.credential, item.access, basis, held=held)

    def _stands(self, grant: Grant) -> bool:
        """Whether a grant has time left, and nobody took back that they approved it."""
        if grant.left(ticks=self._deps.ticks()) < 1:
            return False
        return grant.basis.ladder is None or not self._is_withdrawn(grant.basis.ladder.request)

    def _is_withdrawn(self, request: str) -> bool:
        view = self._deps.store.request(request)
        return view is not None and view.state is RequestState.WITHDRAWN

    def _covers(self, grant: Grant, wanted: Access) -> bool:
        """Whether a grant is for what is wanted, and can be used more than once."""
        if call_of(grant.access) and grant.basis.ladder:
            # People approved one call of a tool, with its arguments: it was made, and nothing else was approved.
            return False
        same = (grant.access.resource, grant.access.action) == (wanted.resource, wanted.action)
        # What Vault locks it issues once: people authorized one.
        return same and not self._action(grant.access).locked

    def _once_more(self, grant: Grant, wanted: Access) -> Issuance | None:
        """Issue under a grant, if policy still allows it at its tier and nobody took it back; None where it takes a new request.

        What is decided as it was when the grant was made needs no entry of its own: its decision is in the ledger.
        """
        job, request = self._order.job, request_id(self._order.job, grant.number)
        ttl = min(wanted.ttl, int(grant.left(ticks=self._deps.ticks())))
        access = for_call(grant.access, call_of(wanted)).model_copy(update={"ttl": ttl})
        decision, asked = answered(
            self._deps, job, self._verified, access, held=self._held, phase="runtime", break_glass=grant.basis.broke_glass
        )
        if decision.outcome == "denied":
            raise self._denial(request, access, decision, asked, about=f"runtime-{grant.issued + 1}")
        if decision.tier > grant.basis.tier:
            return None
        with self._refusing(request, grant.issued + 1):
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

    def _asked(self, wanted: Access) -> Issuance | Waits:
        """Make a request of what a running job wants, and decide it; the decision is in the ledger before anything else happens."""
        job, (number, access) = self._order.job, self._numbered(wanted)
        request = request_id(job, number)
        self._must_be_possible(access)
        decision, asked = answered(self._deps, job, self._verified, access, held=self._held, phase="runtime")
        digest = digest_for(self._deps, self._verified, access, bundle=self._order.bundle, tier=decision.tier)
        now, new = self._deps.now(), requested(self._deps, job, number, access)
        self._took(number)
        self._deps.store.record([new, decided_event(job, request, decision, digest, facts=asked, phase="runtime", at=now)])
        if decision.outcome == "denied":
            raise Denied(
                f"policy denies {access.action} on {access.resource}", request=request, outcome="denied", policies=decision.policies
            )
        if decision.outcome == "needs_approval":
            self._waiting[request] = access
            return Waits(request, decision.tier)
        return self._first(Granted(id=request, number=number), access, phase="runtime", past=Past())

    def _must_be_possible(self, access: Access) -> None:
        """Raise InvalidInput where the catalog does not have it like this, NotPermitted where it cannot be asked for now, or any more."""
        problems = problems_of(
            self._verified.spec.model_copy(update={"access": (access,), "model": None}), self._deps.config.current().catalog
        )
        if problems:
            raise InvalidInput("access", tuple(replace(one, path=one.path.removeprefix("access[0].")) for one in problems))
        if self._action(access).locked:
            raise NotPermitted(f"Vault itself wants people to authorize {access.action} on {access.resource}: ask for it at the start")
        if self._numbers >= REQUESTS:
            raise NotPermitted(f"a job makes at most {REQUESTS:,} requests")
        if len(self._waiting) >= WAITING:
            raise NotPermitted(f"{WAITING} requests of this job wait for people already: wait for their answers first")

    def _numbered(self, wanted: Access) -> tuple[int, Access]:
        """Return a new request's number, and what it asks for: as the order says it, where that says that the job may ask for this."""
        for number, said in self._unasked.items():
            # What the order says that the job may ask for is the credential, not a call that people approve by its arguments.
            if call_of(wanted) is None and (said.resource, said.action) == (wanted.resource, wanted.action) and wanted.ttl <= said.ttl:
                return number, wanted
        return self._numbers + 1, wanted

    def _took(self, number: int) -> None:
        if self._unasked.pop(number, None) is None:
            self._numbers = number

    def _answered(self, request: str, access: Access) -> Issuance | Waits:
        """Issue what people were asked for, if they have approved it by now."""
        view = self._deps.store.request(request)
        if view is None or view.state is RequestState.PENDING:
            return Waits(request, view.current_tier if view else 0)
        if view.state is not RequestState.APPROVED:
            self._waiting.pop(request, None)
            raise Denied(f"{access.action} on {access.resource}: the request is {view.state}", request=request, outcome=view.state.value)
        told = entries_of(self._deps.store, self._order.job, types=ANSWERING).items
        answers = tuple(Answer.model_validate(data) for data in (entry.data | {"at": entry.at} for entry in told if counts(entry, request)))
        granted = Granted(id=request, number=number_of(request), answers=answers)
        try:
            issuance = self._first(granted, access, phase="runtime", past=read_past(told))
        except NotIssued:
            self._waiting.pop(request, None)
            raise
        # Where a server was away instead, what was approved still waits to be issued.
        self._waiting.pop(request, None)
        return issuance

    def _first(self, granted: Granted, asked: Access, *, phase: Phase, past: Past) -> Issuance:
        """Issue the first credential of a request that has been granted."""
        with self._refusing(request_id(self._order.job, granted.number), 1):
            access, basis = self._permitted(granted, asked, phase=phase, past=past)
            grant = Grant(granted.number, access, basis)
            issuance = self._issued(grant, access)
            self._grants.append(grant)
            self._granted.add(granted.id)
            return issuance

    @contextmanager
    def _refusing(self, request: str, nth: int) -> Iterator[None]:
        """Record a refusal: a decision to issue that nothing follows would have to be taken for a credential that nobody learned of."""
        try:
            yield
        except (NotIssued, Closed) as error:
            about = request if nth == 1 else f"{request}/{nth}"
            now, job = self._deps.now(), self._order.job
            self._deps.store.record([event(EventType.CREDENTIAL_REFUSED, job, at=now, about=about, request=request, why=str(error))])
            raise

    def _denial(self, request: str, access: Access, decision: Decision, asked: Facts, *, about: str) -> Denied:
        """Record that policy says no to what a grant allowed, and return that."""
        job, now = self._order.job, self._deps.now()
        self._deps.store.record([decided_event(job, request, decision, "", facts=asked, phase="renewal", at=now, about=about)])
        why = f"policy denies {access.action} on {access.resource} now"
        return Denied(why, request=request, outcome="denied", policies=decision.policies)

    def _permitted(self, granted: Granted, access: Access, *, phase: Phase, past: Past) -> tuple[Access, Basis]:
        """Return what this request may be issued as now, and on what; the decision is in the ledger before this returns."""
        job, now = self._order.job, self._deps.now()
        request = request_id(job, granted.number)
        decision, asked = answered(self._deps, job, self._verified, access, held=self._held, phase=phase)
        digest = digest_for(self._deps, self._verified, access, bundle=self._order.bundle, tier=decision.tier)
        # It is there already, unless somebody reached this session past the workflow that decides.
        facts = [decided_event(job, request, decision, digest, facts=asked, phase=phase, at=now)]
        why, ladder = "", None
        if decision.outcome == "denied":
            why = f"policy denies it now ({', '.join(decision.policies)})"
        elif decision.outcome == "needs_approval":
            ladder, attempts = self._answers(granted.answers, self._ladder(request, access, decision, digest, past=past))
            facts += attempts
            why = self._why_not_approved(ladder, past=past)
            if not why:
                # They are there already too. Nothing is issued before enough valid approvals are in the ledger.
                facts += self._counted(ladder)
                access = narrowed(access, ladder.grant)
                decision, asked, why = self._as_granted(access, ladder, decision, asked, phase=phase)
        facts.append(decided_event(job, request, decision, digest, facts=asked, phase="issue", at=now))
        self._deps.store.record(facts)
        if why:
            raise NotPermitted(f"{access.action} on {access.resource}: {why}")
        return access, Basis(decision, digest, now, ladder)

    def _as_granted(self, access: Access, ladder: Ladder, decision: Decision, asked: Facts, *, phase: Phase) -> tuple[Decision, Facts, str]:
        """Return what policy says of what the answers left of a request, and why that may not be issued."""
        if not (ladder.is_narrowed or ladder.broke_glass):
            return decision, asked, ""
        if why := why_not_possible(self._deps, self._verified, access):
            return decision, asked, why
        again, asked = answered(
            self._deps, self._order.job, self._verified, access, held=self._held, phase=phase, break_glass=ladder.broke_glass
        )
        return again, asked, why_not_as_granted(ladder.grant, again, tier=ladder.current) or ""

    def _must_still_stand(self, issuance: Issuance) -> None:
        """Raise NotPermitted, its credential ended, where the approval was taken back while it was being issued.

        Whoever takes it back records that first and looks for credentials then; here it is the other way round, so one of the two finds the other.
        """
        if self._is_withdrawn(issuance.credential.request_id):
            credential, job, why = issuance.credential, self._order.job, "its approval was taken back"
            if revocation.end_one(self._deps, job, credential, self.others(credential), by="session", why=why).confirmed:
                self._forget(credential)
            raise NotPermitted(f"{issuance.access.action} on {issuance.access.resource}: the request is withdrawn")

    def _forget(self, credential: Credential) -> None:
        self._alive.pop(credential.id, None)
        self._bases.pop(credential.id, None)
        if not any((one.resource, one.action) == (credential.resource, credential.action) for one in self._alive.values()):
            self._held = self._held.returned(credential.resource, credential.action)

    def _ladder(self, request: str, access: Access, decision: Decision, digest: str, *, past: Past) -> Ladder:
        return Ladder(
            request=request,
            digest=digest,
            action=access.action,
            requester=self._verified.person.id,
            forebears=forebears(self._deps, self._verified.statement.parent, asked_by=self._verified.statement.asked_by),
            needed=decision.tier,
            # A request that climbed is no longer for the lower tier, whoever brings its approval now.
            current=max(decision.tier, past.tiers.get(request, 0)),
            respond_by=self._deps.now(),
            ttl=access.ttl,
            taken_back=past.taken_back.get(request, frozenset()),
        )

    def _answers(self, given: Iterable[Answer], ladder: Ladder) -> tuple[Ladder, list[Event]]:
        """Return the ladder with those of the given answers that hold now, and an event for each that does not."""
        now, job, answers = self._deps.now(), self._order.job, tuple(given)[:ANSWERS_EXAMINED]
        moved, refusals = whole_table(self._deps, now=now).recounted(job, ladder, (answer.signed for answer in answers))
        return moved, [self._attempt(ladder.request, number, answers[number - 1], refusal.why) for number, refusal in refusals]

    def _attempt(self, request: str, number: int, answer: Answer, why: str) -> Event:
        raw, about = answer.signed.model_dump(mode="json"), f"{request}/issue-{number}"
        return rejected(self._order.job, why, at=self._deps.now(), about=about, raw=raw, request=request, person=answer.person)

    def _why_not_approved(self, ladder: Ladder, *, past: Past) -> str:
        if ladder.verdict(self._deps.config.current().tiers) != "approved":
            return f"it needs tier {ladder.current} and its valid approvals make no quorum"
        settled = past.settled.get(ladder.request)
        return f"the request is {settled}" if settled else ""

    def _counted(self, ladder: Ladder) -> list[Event]:
        job, now, last = self._order.job, self._deps.now(), ladder.answers[-1]
        facts = [counted_event(job, ladder, each, verdict="approved" if each is last else "pending", at=now) for each in ladder.answers]
        tiers = self._deps.config.current().tiers
        return facts + [review_opened(job, ladder, each, tiers, at=now) for each in ladder.answers if each.decision == "break_glass"]

    def _issued(self, grant: Grant, access: Access) -> Issuance:
        """Issue one credential under a grant. Its time begins with the first."""
        self._open_prefix(access.ttl)
        job, deps, ttl, action = self._order.job, self._deps, access.ttl, self._action(access)
        if action.space:
            self._spaces.add((access.resource, access.action.value))
        try:
            accessor, issued = self._from_vault(grant, action, ttl)
        except (VaultDenied, VaultRefused) as error:
            if self.over():
                # Its token was ended meanwhile: nothing is wrong with what was asked.
                raise Closed(f"{CLOSED} ({error})") from error
            raise NotIssued(f"{access.action} on {access.resource}: {error}") from error
        now, ends = deps.now(), deps.ticks() + ttl
        grant.ends = ends if grant.ends is None else grant.ends
        grant.issued += 1
        credential = Credential(
            id=credential_id(job, grant.number, grant.issued),
            request_id=request_id(job, grant.number),
            resource=access.resource,
            action=access.action,
            lease_id=issued.lease_id,
            accessor=accessor,
            issued_at=now,
            expires_at=certificates.ends_at(action, issued) or now + timedelta(seconds=ttl),
            revocable=action.revocable,
            certificate=certificates.place_of(action, issued),
        )
        self._alive[credential.id] = credential
        self._bases[credential.id] = grant.basis
        # How to revoke it is recorded before anyone can use it.
        deps.store.record([issued_event(job, credential)])
        if why := certificates.why_unfit(action, issued, grant_ends=now + timedelta(seconds=ttl)):
            raise NotIssued(f"{access.action} on {access.resource}: {why}")
        # A certificate's end stands in itself: nothing can renew it.
        lease_seconds = None if certificates.ends_at(action, issued) else self._within_grant(issued, ttl)
        resource = deps.config.current().catalog.resources[access.resource]
        self._held = self._held.issued(access.resource, access.action, resource.sensitivity)
        issuance = Issuance(access=access, credential=credential, fields=issued.fields, ends=ends, lease_seconds=lease_seconds)
        if grant.basis.ladder:
            self._must_still_stand(issuance)
        return issuance

    def _from_vault(self, grant: Grant, action: ActionDef, ttl: int) -> tuple[str, Issued]:
        """Return what Vault issues, and the accessor of the job's token that it was issued to. Raises VaultDenied, VaultRefused, NotIssued."""
        scope = self._verified.spec.data_scope
        what = resolved_issue(action, scope, given={"job": self._order.job, "ttl": str(ttl)})
        if not action.locked and grant.token is None:
            grant.token = self._token(action.policy, scope_alias(action, scope), ttl)
        try:
            if grant.token is None:
                return unlocked(self._deps, request_id(self._order.job, grant.number), what)
            return grant.token.accessor, self._deps.vault.issue(grant.token, what)
        except (VaultDenied, VaultRefused):
            raise
        except BaseException:
            # Vault may still answer a call that we no longer wait for: only a later look can tell.
            self.settled = False
            raise

    def _action(self, access: Access) -> ActionDef:
        return self._deps.config.current().catalog.resources[access.resource].actions[access.action]

    def _open_prefix(self, ttl: int) -> None:
        """Write the job's token role where it does not reach as far as this, and then make sure that the claim still stands: one that slept
        through its closing stops here.
        """
        if ttl > self._longest:
            longest = max([ttl, *(access.ttl for access in self._verified.spec.access)])
            try:
                self._deps.vault.open_prefix(self._order.job, longest + HARD_END_MARGIN)
            except BaseException:
                self.settled = False
                raise
            self._longest = longest
        if self.over():
            raise Closed(CLOSED)

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
            if self.over():
                raise Closed(f"{CLOSED} ({error})") from error
            raise NotIssued(f"Vault gives no token under {policy}: {error}") from error
        except BaseException:
            self.settled = False
            raise


def _asks_the_same(one: Access, other: Access) -> bool:
    return (one.resource, one.action, call_of(one)) == (other.resource, other.action, call_of(other))


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
