"""Checks whether anything of a job is alive: its leases and tokens in Vault, its users and spaces in the targets. Changes nothing.

A handle counts as dead only if a check found it dead; a check that was not possible is reported as a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple, Self

from activities.revocation.steps import FailureCollector, map_at_once, with_store_timeout
from justenough.adapters.store import queries
from justenough.adapters.targets.inspector import RequestedActions
from justenough.adapters.targets.postgres import TargetTrace
from justenough.adapters.vault import pki
from justenough.domain.contracts.workflow_messages import Finding, ProofReport
from justenough.domain.core.errors import NotFound, RetryLater
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import Revocable
from justenough.domain.ledger.events import EventType, parse_entry_time
from justenough.domain.readmodel.views import CredentialView, EntryView, JobView
from justenough.services.dependencies import Deps
from justenough.services.job_history import read_entries
from justenough.services.positive_control import why_not_observable

TIME_OVER = "its expiry time has passed"
NONE_WITH_JOB_ID = "none carries the job's id"
UNKNOWN_END = datetime.max.replace(tzinfo=UTC)
"""The end of a doubt if neither Vault nor the configuration shows it."""
LOGIN_MARGIN = timedelta(seconds=6)
"""How long after its end a database user may still log in: Vault sets its VALID UNTIL 5 s later, and leases are renewed in whole seconds."""
UNREADABLE_ISSUE = "entry {} of the job, about a credential, cannot be read, so somebody changed it; run `justenough ledger verify`"
VALUE_STAYS = "the secret that was read stays valid until its owner changes it"


class Doubt(NamedTuple):
    """Why no check can show that a credential is dead."""

    why: str
    ends_at: datetime
    """The time until which it may be valid, whatever its revocation did."""


@dataclass(frozen=True, slots=True)
class Inspection:
    findings: tuple[Finding, ...]
    failures: tuple[str, ...]
    dead: frozenset[str]
    """Lease ids and accessors that are unknown to Vault; certificates that are in the CRL or expired."""
    users: tuple[TargetTrace, ...]
    empty_roles: tuple[TargetTrace, ...]
    spaces: tuple[TargetTrace, ...]
    targets: tuple[str, ...]
    """Targets that were checked."""
    target_failures: tuple[str, ...]

    @property
    def alive(self) -> tuple[str, ...]:
        """One sentence for each thing that is alive."""
        return tuple(f"{finding.what}: {finding.detail or 'alive'}" for finding in self.findings if finding.alive)

    def is_dead(self, credential: CredentialHandle) -> bool:
        return credential.handles <= self.dead


def inspect(deps: Deps, job: str, credentials: tuple[CredentialHandle, ...], accesses: RequestedActions | None) -> Inspection:
    """Check everything of a job. `accesses` limits the targets that are checked; None means all."""
    notes = _Findings()
    tokens = notes.attempt("tokens under the job's prefix", lambda: deps.vault.prefix_accessors(job), otherwise=None)
    if tokens is not None:
        notes.add("tokens under the job's prefix", alive=bool(tokens), detail=f"{len(tokens)} listed")
    for checked in map_at_once(lambda credential: _Findings().with_credential(deps, credential), credentials):
        notes.findings += checked.findings
        notes.failures += checked.failures
        notes.dead |= checked.dead
    # The user of a credential that no revocation ends stays in its target: what was issued is residual.
    known = frozenset(item.user for item in credentials if item.user is not None and item.revocable is Revocable.NOW)
    seen = deps.targets.inspect(job, accesses, names=known)
    gone = "its known user does not exist" if len(known) == 1 else f"none of its {len(known)} known users exists"
    none = f"{gone}, and {NONE_WITH_JOB_ID}" if known else NONE_WITH_JOB_ID
    for target in seen.inspected:
        alive = [f"{user.name} has {' and '.join(user.left)}" for user in seen.users if user.target == target]
        empty = [role.name for role in seen.empty_roles if role.target == target]
        # Whether its role exists or not: without a right, a login or a session, nobody can use it.
        dead = f"no right, login or session is left; empty roles that are dropped later: {', '.join(empty)}" if empty else none
        notes.add(f"users in {target}", alive=bool(alive), detail=", ".join(alive) or dead)
        left = [space.name for space in seen.spaces if space.target == target]
        if left or target in seen.space_targets:
            notes.add(f"space in {target}", alive=bool(left), detail=", ".join(left) or NONE_WITH_JOB_ID)
    return Inspection(
        findings=tuple(notes.findings),
        failures=(*notes.failures, *seen.failures),
        dead=frozenset(notes.dead),
        users=seen.users,
        empty_roles=seen.empty_roles,
        spaces=seen.spaces,
        targets=seen.inspected,
        target_failures=seen.failures,
    )


def has_standing_proof(deps: Deps, job: str) -> bool:
    """Whether a proof is recorded and Vault agrees, as after the ordinary end of a guarded job.

    Raises RetryLater if there is a proof but Vault does not answer: an outage does not put a proof in doubt.
    """
    try:
        view = with_store_timeout(lambda: deps.store.jobs.get(job))
    except RetryLater:
        # Revocation does not wait for a proof that cannot be read.
        return False
    return view is not None and view.revocation.state.is_proven and not deps.vault.prefix_accessors(job)


def prove(deps: Deps, job: str) -> ProofReport:
    """Check again everything that a job held, and everything in the targets whose name contains the job's id.

    If a job had very many credentials, only the newest are checked again. Raises NotFound, or RetryLater if the store cannot be read.
    """
    # Read the ledger first: every credential in it is then in the job's view, or among its older ones. Read each type separately, because one
    # reading returns a limited number of entries.
    issued, found = (
        with_store_timeout(partial(read_entries, deps.store.ledger, job, types=[kind])).items
        for kind in (EventType.CREDENTIAL_ISSUED, EventType.CREDENTIAL_FOUND)
    )
    view = with_store_timeout(lambda: deps.store.jobs.get(job))
    if view is None:
        raise NotFound(f"no job {job}")
    targets = _targets_of_users(found)
    handles = [_handle_in(entry, targets) for entry in issued]
    credentials = credentials_as_issued(deps, view, {item.id: item for item in handles if item is not None})
    inspection = inspect(deps, job, credentials, accesses_of(view) | {(item.resource, item.action) for item in credentials})
    # The session knew that Vault had issued none of these, and no check can show that again.
    confirmed = partial(deps.store.ledger.entries_about, job, (EventType.CREDENTIAL_CONFIRMED,))
    never_issued = {item.id for item in credentials if not item.handles and with_store_timeout(partial(confirmed, item.id))}
    doubts = doubts_about(deps, tuple(item for item in credentials if item.id not in never_issued))
    failures = (
        *inspection.failures,
        *standing_doubts(doubts, now=deps.now()),
        *(UNREADABLE_ISSUE.format(entry.seq) for entry, item in zip(issued, handles, strict=True) if item is None),
    )
    findings = list(inspection.findings)
    residual = [item for item in credentials if item.is_residual(at=deps.now())]
    for item in residual:
        ends = f"it cannot be revoked early; it is valid until {to_rfc3339(item.expires_at)}"
        detail = VALUE_STAYS if item.revocable is Revocable.NEVER else ends
        findings.append(Finding(what=f"value of {item.id}", alive=True, detail=detail, credential=item.id, residual=True))
    if view.older_credentials:
        older = "each was verified as revoked or expired when it ended; they are not checked again"
        findings.append(Finding(what=f"{view.older_credentials:,} older credentials", alive=False, detail=older))
    revoked = not inspection.alive and not failures
    dead = revoked and not residual
    return ProofReport(job=job, dead=dead, revoked=revoked, findings=tuple(findings), failures=failures, at=deps.now(), covers_ledger=True)


def doubts_about(deps: Deps, credentials: tuple[CredentialHandle, ...]) -> dict[str, Doubt]:
    """Return the doubt about each credential that should have been revoked but cannot be checked, by its id."""
    revocable = (item for item in credentials if item.revocable is Revocable.NOW)
    return {item.id: _doubt(deps, item, why) for item in revocable if (why := why_unprovable(deps, item))}


def _doubt(deps: Deps, credential: CredentialHandle, why: str) -> Doubt:
    if credential.lease_id is None:
        return Doubt(why, credential.expires_at)
    if credential.target_digest is not None:
        return Doubt(why, credential.expires_at + LOGIN_MARGIN)
    # Nobody saw its user, so nobody knows whether its revocation dropped it. It lives as long as its role allows, not as long as granted.
    try:
        role = deps.vault.database_role(credential.lease_id.rpartition("/")[0], fresh=True)
        action = deps.config.current().catalog.action(credential.resource, credential.action)
    except RetryLater as error:
        return Doubt(str(error), UNKNOWN_END)
    # If a role cannot be read any more, the catalog says what it was meant to allow.
    longest = role.ttl if role else action.max_ttl if action else 0
    return Doubt(why, max(credential.expires_at, credential.issued_at + timedelta(seconds=longest)) + LOGIN_MARGIN)


def standing_doubts(doubts: Mapping[str, Doubt], *, now: datetime) -> Iterator[str]:
    """Yield a sentence for each doubt that has not ended yet."""
    for credential, doubt in doubts.items():
        if now < doubt.ends_at:
            yield f"{credential}: {doubt.why}" + (f"; it ends at {to_rfc3339(doubt.ends_at)}" if doubt.ends_at < UNKNOWN_END else "")


def with_latest_ends(credentials: tuple[CredentialHandle, ...], doubts: Mapping[str, Doubt]) -> tuple[CredentialHandle, ...]:
    """Return the credentials; those in doubt expire when the doubt ends."""
    return tuple(item.model_copy(update={"expires_at": doubts[item.id].ends_at}) if item.id in doubts else item for item in credentials)


def why_unprovable(deps: Deps, credential: CredentialHandle) -> str | None:
    """Return why no check can show that a credential is dead before it expires; None if one can."""
    if {credential.lease_id, credential.certificate, credential.user} == {None}:
        unknown, no_lease = "its lease is not known and its target cannot be searched", "Vault gave it no lease, so nothing could revoke it"
        return unknown if credential.accessor is None else no_lease
    return why_not_observable(deps, credential)


def is_certificate_valid(deps: Deps, credential: CredentialHandle) -> bool:
    """Whether a credential's certificate may still be valid; False if it has none. Raises RetryLater or GiveUp if Vault's answer does not show it."""
    # A certificate that outlives its credential is refused at issue, and Vault may have removed an expired one.
    if credential.certificate is None or deps.now() >= credential.expires_at:
        return False
    return pki.is_unrevoked(deps.vault, credential.certificate)


def accesses_of(job: JobView) -> RequestedActions:
    """Return resource and action of each of a job's requests, as requested and as granted, and of its credentials."""
    requested = {(item.resource, action) for item in job.requests for action in (item.action, item.granted_action) if action}
    return frozenset(requested | {(item.resource, item.action) for item in job.credentials})


def credentials_as_issued(deps: Deps, view: JobView, recorded: Mapping[str, CredentialHandle]) -> tuple[CredentialHandle, ...]:
    """Return a job's credentials as the ledger records their issue: somebody may have edited or deleted their rows in the store's tables."""
    known = {item.id: credential_of(item) for item in view.credentials}
    left_out = len(recorded.keys() - known.keys())
    # Rows that somebody invented must not push the real ones out.
    if left_out <= view.older_credentials and len(recorded) > queries.MAX_DEAD_CREDENTIALS:
        recorded = {name: item for name, item in recorded.items() if name in known}
    for name, item in recorded.items():
        row = known.get(name, item)
        # If a row gives an earlier end than the issue did, believe it only if the ledger recorded that end, too.
        is_doubtful = row.expires_at <= deps.now() < item.expires_at and not _is_shortened(deps, view.id, row)
        ends = item.expires_at if is_doubtful else row.expires_at
        known[name] = item.model_copy(update={"expires_at": ends})
    return tuple(known.values())


def _is_shortened(deps: Deps, job: str, credential: CredentialHandle) -> bool:
    """Whether the ledger records that a credential's lease was shortened to the end that its row in the store's tables has."""
    renewed = with_store_timeout(lambda: deps.store.ledger.entries_about(job, (EventType.CREDENTIAL_RENEWED,), credential.id))
    return bool(renewed) and renewed[-1].data.get("expires_at") == credential.expires_at.isoformat()


def _handle_in(entry: EntryView, found: Mapping[str, object]) -> CredentialHandle | None:
    """Return the credential whose issue an entry records; None if somebody replaced the entry's data.

    `found`: the digests of the targets in which users were found later, by credential.
    """
    with suppress(KeyError, TypeError, ValueError):
        times = {name: parse_entry_time(entry.data[name]) for name in ("issued_at", "expires_at")}
        credential = entry.data["credential"]
        target = {"target_digest": found.get(credential, entry.data.get("target_digest"))}
        return CredentialHandle.model_validate({**entry.data, "id": credential, "request_id": entry.data["request"], **times, **target})
    return None


def _targets_of_users(found: Iterable[EntryView]) -> dict[str, object]:
    """Return the digests of the targets in which users were found, by credential. If somebody replaced an entry's data, its user was never seen."""
    targets: dict[str, object] = {}
    for entry in found:
        with suppress(KeyError, TypeError):
            targets[entry.data["credential"]] = entry.data["target_digest"]
    return targets


def credential_of(view: CredentialView) -> CredentialHandle:
    return CredentialHandle.model_validate(view.model_dump())


class _Findings(FailureCollector):
    """Collects the findings of one inspection, and the checks that were not possible."""

    def __init__(self) -> None:
        super().__init__()
        self.findings: list[Finding] = []
        self.dead: set[str] = set()

    def add(self, what: str, *, alive: bool, detail: str = "", credential: str | None = None) -> None:
        self.findings.append(Finding(what=what, alive=alive, detail=detail, credential=credential))

    def with_credential(self, deps: Deps, credential: CredentialHandle) -> Self:
        if credential.lease_id is not None:
            self.inspect_handle(credential.id, f"lease {credential.lease_id}", credential.lease_id, deps.vault.is_lease_alive)
        if credential.accessor is not None:
            self.inspect_handle(credential.id, f"token {credential.accessor}", credential.accessor, deps.vault.is_accessor_alive)
        self.inspect_certificate(deps, credential)
        return self

    def inspect_handle(self, credential: str, what: str, handle: str, is_alive: Callable[[str], bool]) -> None:
        alive = self.attempt(what, lambda: is_alive(handle), otherwise=None)
        if alive is not None:
            self.add(what, alive=alive, detail="alive" if alive else "unknown to Vault", credential=credential)
        if alive is False:
            self.dead.add(handle)

    def inspect_certificate(self, deps: Deps, credential: CredentialHandle) -> None:
        if credential.certificate is None:
            return
        what, expired = f"certificate {credential.certificate}", deps.now() >= credential.expires_at
        valid = self.attempt(what, lambda: is_certificate_valid(deps, credential), otherwise=None)
        if valid is not None:
            detail = "not in the CRL that Vault serves" if valid else TIME_OVER if expired else "in the CRL that Vault serves"
            self.add(what, alive=valid, detail=detail, credential=credential.id)
        if valid is False:
            self.dead.add(credential.certificate)
