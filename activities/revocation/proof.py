"""Looks at whether anything of a job is alive: its prefix, leases and tokens in Vault, its users and spaces in the targets. Changes nothing.

Only what was looked at and found dead counts; what could not be looked at is a failure, never a silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from activities.support.failure_collector import FailureCollector
from justenough.adapters.targets.postgres import RequestedActions, TargetTrace
from justenough.adapters.vault import pki
from justenough.domain.contracts.workflow_messages import Finding, ProofReport
from justenough.domain.core.errors import NotFound, RetryLater
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import Revocable, RevocationState
from justenough.domain.readmodel.views import CredentialView, JobView
from justenough.services.dependencies import Deps

TIME_OVER = "its time is over"
NONE_WITH_JOB_ID = "none carries the job's id"
VALUE_STAYS = "what was read stays valid until its owner changes it"


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one look saw."""

    findings: tuple[Finding, ...]
    failures: tuple[str, ...]
    dead: frozenset[str]
    """Lease ids and accessors that Vault says it does not know, certificates that are in the CRL or over."""
    users: tuple[TargetTrace, ...]
    spaces: tuple[TargetTrace, ...]
    targets: tuple[str, ...]
    """Targets that were looked at."""
    target_failures: tuple[str, ...]

    @property
    def alive(self) -> tuple[str, ...]:
        """What is alive, one sentence each."""
        return tuple(f"{finding.what}: {finding.detail or 'alive'}" for finding in self.findings if finding.alive)

    def is_dead(self, credential: CredentialHandle) -> bool:
        """Whether every handle that is known of a credential was seen dead."""
        return credential.handles <= self.dead


def inspect(deps: Deps, job: str, credentials: tuple[CredentialHandle, ...], accesses: RequestedActions | None) -> Inspection:
    """Look at everything; `accesses` limits which targets are looked at, None means all of them."""
    notes = _Findings()
    notes.inspect_prefix(deps, job)
    for credential in credentials:
        if credential.lease_id is not None:
            notes.inspect_handle(credential.id, f"lease {credential.lease_id}", credential.lease_id, deps.vault.is_lease_alive)
        if credential.accessor is not None:
            notes.inspect_handle(credential.id, f"token {credential.accessor}", credential.accessor, deps.vault.is_accessor_alive)
        notes.inspect_certificate(deps, credential)
    seen = deps.targets.inspect(job, accesses)
    for target in seen.inspected:
        names = [user.name for user in seen.traces if user.target == target]
        notes.add(f"users in {target}", alive=bool(names), detail=", ".join(names) or NONE_WITH_JOB_ID)
        left = [space.name for space in seen.spaces if space.target == target]
        if left or target in seen.space_targets:
            notes.add(f"space in {target}", alive=bool(left), detail=", ".join(left) or NONE_WITH_JOB_ID)
    return Inspection(
        findings=tuple(notes.findings),
        failures=(*notes.failures, *seen.failures),
        dead=frozenset(notes.dead),
        users=seen.users,
        spaces=seen.spaces,
        targets=seen.inspected,
        target_failures=seen.failures,
    )


def has_standing_proof(deps: Deps, job: str) -> bool:
    """Whether the session, or whoever revoked after it, has left its proof, and Vault agrees: the ordinary ending of a guarded job.

    Raises RetryLater where there is a proof and Vault cannot be asked: an outage puts no proof in doubt.
    """
    try:
        known = deps.store.jobs.get(job)
    except RetryLater:
        # What cannot be read is no proof, and revoking does not wait for it.
        return False
    return known is not None and known.revocation.state is RevocationState.CONFIRMED and not deps.vault.prefix_accessors(job)


def prove(deps: Deps, job: str) -> ProofReport:
    """Return a fresh look at what a job held, and in the targets at whatever carries its name.

    Of very many credentials that were seen dead the newest are looked at again. Raises NotFound, or RetryLater where the store cannot be read.
    """
    known = deps.store.jobs.get(job)
    if known is None:
        message = f"no job {job}"
        raise NotFound(message)
    credentials = tuple(credential_of(view) for view in known.credentials)
    inspection = inspect(deps, job, credentials, accesses_of(known))
    failures = (*inspection.failures, *unprovable_reasons(deps, credentials, now=deps.now()))
    older = "each was seen dead, or over, when it ended; they are not looked at again one by one"
    older_findings = (
        [Finding(what=f"{known.older_credentials:,} older credentials", alive=False, detail=older)] if known.older_credentials else []
    )
    return ProofReport(
        job=job,
        dead=not inspection.alive and not failures,
        findings=(*inspection.findings, *_lasting_values(credentials), *older_findings),
        failures=failures,
        at=deps.now(),
    )


def unprovable_reasons(deps: Deps, credentials: tuple[CredentialHandle, ...], *, now: datetime) -> Iterator[str]:
    """Yield a sentence for each credential that could have been ended and that nobody can look for, until its time is over."""
    for item in credentials:
        only_time_tells = item.lease_id is None and not deps.targets.is_searchable(item.resource, item.action)
        if only_time_tells and item.revocable is Revocable.NOW and now < item.expires_at:
            yield f"{item.id}: its lease is not known and its target cannot be searched; it ends at {item.expires_at.isoformat()}"


def is_certificate_valid(deps: Deps, credential: CredentialHandle) -> bool:
    """Whether a credential's certificate may still be taken for valid; False for what is none. Raises RetryLater, GiveUp where nobody can tell."""
    # One that would outlive this is refused at its issue; and what has ended may have been tidied away in Vault.
    if credential.certificate is None or deps.now() >= credential.expires_at:
        return False
    return pki.is_unrevoked(deps.vault, credential.certificate)


def accesses_of(job: JobView) -> RequestedActions:
    """Return resource and action of each of a job's requests and credentials."""
    requested = {(item.resource, item.action) for item in job.requests}
    return frozenset(requested | {(item.resource, item.action) for item in job.credentials})


def credential_of(view: CredentialView) -> CredentialHandle:
    """Return the handle that a row of the read model describes."""
    return CredentialHandle.model_validate(view.model_dump())


class _Findings(FailureCollector):
    """Collects what one inspection sees, and what it could not see."""

    def __init__(self) -> None:
        super().__init__()
        self.findings: list[Finding] = []
        self.dead: set[str] = set()

    def add(self, what: str, *, alive: bool, detail: str = "", credential: str | None = None) -> None:
        self.findings.append(Finding(what=what, alive=alive, detail=detail, credential=credential))

    def inspect_prefix(self, deps: Deps, job: str) -> None:
        tokens = self.attempt("tokens under the job's prefix", lambda: deps.vault.prefix_accessors(job), otherwise=None)
        if tokens is not None:
            self.add("tokens under the job's prefix", alive=bool(tokens), detail=f"{len(tokens)} listed")

    def inspect_handle(self, credential: str, what: str, handle: str, alive: Callable[[str], bool]) -> None:
        lives = self.attempt(what, lambda: alive(handle), otherwise=None)
        if lives is not None:
            self.add(what, alive=lives, detail="alive" if lives else "unknown to Vault", credential=credential)
        if lives is False:
            self.dead.add(handle)

    def inspect_certificate(self, deps: Deps, credential: CredentialHandle) -> None:
        place = credential.certificate
        if place is None:
            return
        what, over = f"certificate {place}", deps.now() >= credential.expires_at
        stands = self.attempt(what, lambda: is_certificate_valid(deps, credential), otherwise=None)
        if stands is not None:
            listed = "not in the CRL that Vault serves" if stands else TIME_OVER if over else "in the CRL that Vault serves"
            self.add(what, alive=stands, detail=listed, credential=credential.id)
        if stands is False:
            self.dead.add(place)


def _lasting_values(credentials: tuple[CredentialHandle, ...]) -> Iterator[Finding]:
    for credential in credentials:
        if credential.revocable is Revocable.NEVER:
            yield Finding(what=f"value of {credential.id}", alive=False, detail=VALUE_STAYS, credential=credential.id)
        elif credential.revocable is Revocable.ON_EXPIRY:
            ends = f"ends at {credential.expires_at.isoformat()} at the latest"
            yield Finding(what=f"value of {credential.id}", alive=False, detail=ends, credential=credential.id)
