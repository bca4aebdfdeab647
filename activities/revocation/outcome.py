"""Maps the observations of a revocation to ledger events. No I/O, no clock: observations and times are arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from activities.revocation.proof import VALUE_STAYS, Inspection
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import Revocable
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.ledger.overdue import is_revocation_overdue, is_worth_recording


@dataclass(frozen=True, slots=True)
class RevocationAttempt:
    """One attempt to revoke everything of a job."""

    series: str
    """Identifies the series of attempts that this one belongs to, so that a retry records nothing twice."""
    by: str
    at: datetime
    """When its inspection ended."""
    seen_from: datetime
    """When its inspection began. Its findings cast no doubt on a newer proof."""
    took: timedelta


@dataclass(frozen=True, slots=True)
class TargetTraits:
    """The properties of a credential that its events depend on, besides the inspection."""

    in_target: bool
    """Whether it has a user in a target, which must be gone."""
    unprovable: bool
    """Whether no check can show that it is dead, only its expiry."""
    gives_space: bool
    """Whether the job gets its own space in the target, which outlives the credential."""
    dead_since: datetime | None = None
    """When an earlier attempt, which could not be recorded, found its user gone."""


def credential_events(
    job: str, credential: CredentialHandle, inspection: Inspection, traits: TargetTraits, *, by: str, at: datetime
) -> Iterator[Event]:
    """Yield the events of one credential after its job was revoked; none until its lease, token and certificate are found dead."""
    if not inspection.is_dead(credential):
        return
    done = {"done_at": traits.dead_since.isoformat()} if traits.dead_since is not None and traits.dead_since < at else None
    if credential.handles:
        data = {"credential": credential.id, "by": by, "why": None, **(done or {})}
        yield build_event(EventType.CREDENTIAL_REVOKED, job, at=at, about=credential.id, **data)
    if traits.gives_space and inspection.spaces:
        return
    if traits.in_target and (inspection.users or inspection.target_failures):
        return
    handles = "its token is unknown to Vault" if credential.lease_id is None else "its lease and token are unknown to Vault"
    nothing = "no user and no space" if traits.gives_space else "no user"
    seen = f"; {nothing} of the job in {', '.join(inspection.targets)}" if traits.in_target and inspection.targets else ""
    how = handles + describe_certificate(credential, at=at) + seen
    yield from final_events(job, credential, at=at, how=how, provable=not traits.unprovable, token_dead=True, done=done)


def single_credential_events(
    job: str, credential: CredentialHandle, *, by: str, why: str, began: datetime, at: datetime, how: str
) -> Iterator[Event]:
    """Yield the events of one credential that was revoked on its own and found dead at `at`; `how`: the evidence."""
    # A credential without a lease cannot be revoked on its own, so do not record that it was.
    if credential.lease_id is not None:
        yield build_event(EventType.CREDENTIAL_REVOKED, job, at=began, about=credential.id, credential=credential.id, by=by, why=why)
    # Its token lives until the job ends.
    yield from final_events(job, credential, at=at, how=how, provable=credential.lease_id is not None, token_dead=False)


def final_events(
    job: str,
    credential: CredentialHandle,
    *,
    at: datetime,
    how: str,
    provable: bool,
    token_dead: bool,
    done: Mapping[str, str] | None = None,
) -> Iterator[Event]:
    """Yield the final event of a credential that was ended: confirmed, residual or expired; none if that is not known yet.

    `token_dead`: whether its token was found dead, too. `done`: the field `done_at`, if it was found dead earlier.
    """
    if provable and credential.revocable is Revocable.NOW:
        yield build_event(
            EventType.CREDENTIAL_CONFIRMED, job, at=at, about=credential.id, credential=credential.id, how=how, **(done or {})
        )
    elif credential.is_residual(at=at):
        yield residual_event(job, credential, at=at, token_dead=token_dead)
    elif credential.revocable is Revocable.NEVER or at >= credential.expires_at:
        yield expired_event(job, credential, at=at, token_dead=token_dead)


def residual_event(job: str, credential: CredentialHandle, *, at: datetime, token_dead: bool) -> Event:
    """Return the event of a credential that the job had, that is still valid, and that nothing can end early."""
    never = credential.revocable is Revocable.NEVER
    until = None if never else credential.expires_at.isoformat()
    if never:
        why = f"it cannot be revoked: its token is dead, but {VALUE_STAYS}" if token_dead else f"it cannot be revoked: {VALUE_STAYS}"
    else:
        why = f"it cannot be revoked early{'; only its token is dead' if token_dead else ''}"
    return build_event(EventType.CREDENTIAL_RESIDUAL, job, at=at, about=credential.id, credential=credential.id, until=until, why=why)


def expired_event(job: str, credential: CredentialHandle, *, at: datetime, token_dead: bool = False) -> Event:
    """Return the event of a credential that no revocation could end, with the reason. `token_dead`: whether its token was found dead."""
    unused = "it cannot be revoked, but the job never had it: only the worker used it"
    unknown_lease = "its lease was never known and its target cannot be searched; its expiry time has passed"
    reasons = {
        Revocable.NEVER: f"{unused}, and its token is dead" if token_dead else unused,
        Revocable.ON_EXPIRY: "it could not be revoked early, and its expiry time has passed",
        Revocable.NOW: "its target could not show that it was gone; its expiry time has passed" if credential.lease_id else unknown_lease,
    }
    revocable, why = credential.revocable, reasons[credential.revocable]
    data = {"credential": credential.id, "why": why, "revocable": revocable.value}
    return build_event(EventType.CREDENTIAL_EXPIRED, job, at=at, about=credential.id, **data)


def describe_certificate(credential: CredentialHandle, *, at: datetime) -> str:
    """Return why a credential's certificate is dead, as the end of a sentence; "" if it has none."""
    if credential.certificate is None:
        return ""
    over = at >= credential.expires_at
    return f"; its certificate {credential.certificate} {'has expired' if over else 'is in the CRL that Vault serves'}"


def confirmed_event(job: str, attempt: RevocationAttempt, inspection: Inspection) -> Event:
    """Return the proof that all access of a job was found dead."""
    proof: dict[str, Any] = {finding.what: finding.detail for finding in inspection.findings}
    return build_event(EventType.REVOCATION_CONFIRMED, job, at=attempt.at, about=attempt.series, by=attempt.by, proof=proof)


def overdue_events(job: str, attempt: RevocationAttempt, *, failures: tuple[str, ...], failed: int) -> Iterator[Event]:
    """Yield the event that a job's revocation is overdue, if it is overdue and this failed attempt should be recorded.

    `failed`: failures in a row.
    """
    if is_revocation_overdue(failed=failed, took=attempt.took) and is_worth_recording(failed=failed):
        about = f"{attempt.series}-{failed}"
        yield overdue_event(job, about, by=attempt.by, at=attempt.at, seen_from=attempt.seen_from, failures=failures, attempt=failed)


def overdue_event(job: str, about: str, *, by: str, at: datetime, seen_from: datetime, failures: tuple[str, ...], attempt: int) -> Event:
    """Return the event that a job's revocation is overdue. `attempt`: how many failed in a row, or the number of the one that is slow."""
    found = {"failures": list(failures), "attempt": attempt, "seen_from": seen_from.isoformat()}
    return build_event(EventType.REVOCATION_OVERDUE, job, at=at, about=about, by=by, **found)


def credential_overdue_events(
    job: str, credential: str, *, by: str, at: datetime, started: datetime, took: timedelta, failures: tuple[str, ...], failed: int
) -> Iterator[Event]:
    """Yield the event that one credential could not be revoked: immediately if a person asked for it, else by the same rule as for a job.

    `started`: when the series of attempts began; `failed`: its failures so far.
    """
    if (by != "session" or is_revocation_overdue(failed=failed, took=took)) and is_worth_recording(failed=failed):
        about = f"{credential}/{started:%Y%m%dT%H%M%S%f}-{failed}"
        yield build_event(
            EventType.CREDENTIAL_OVERDUE, job, at=at, about=about, credential=credential, by=by, failures=list(failures), attempt=failed
        )
