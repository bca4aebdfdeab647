"""The state of a job in one or two sentences, without times (the pages show those separately). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from justenough.domain.approvals.tier_names import tier_text, tiers_text
from justenough.domain.approvals.tiers import Tiers
from justenough.domain.contracts.workflow_messages import ProofReport
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, Revocable, RevocationState
from justenough.domain.readmodel.views import CredentialView, JobView, RequestView

MAX_NAMED = 3
"""Maximum number of credentials or requests that a sentence names; the rest are counted."""

ENDED_TEXT = {
    JobState.SUCCEEDED: "Succeeded.",
    JobState.FAILED: "Failed.",
    JobState.DENIED: "Not started: required access was denied.",
    JobState.CANCELLED: "Cancelled.",
    JobState.TIMED_OUT: "Timed out.",
    JobState.KILLED: "Killed.",
    JobState.LOST: "Lost: its workflow closed without a result.",
}


def job_status_text(job: JobView, tiers: Tiers) -> str:
    """Describe a job's current activity, or its end and whether its access is revoked."""
    live = [item for item in job.credentials if not item.state.is_dead]
    match job.state:
        case JobState.PENDING:
            return "Queued. Waiting for a worker."
        case JobState.AWAITING_APPROVAL:
            return f"{_waiting_text(job.requests, tiers) or 'Waiting for approval.'} A request escalates to the next tier if nobody decides in time; after the top tier it expires."
        case JobState.RUNNING:
            named = ", ".join(f"{item.action} on {item.resource}" for item in live[:MAX_NAMED])
            held = f"{_count_text(len(live), 'active credential')}: {named}{_more_suffix(len(live))}" if live else "No active credentials"
            return f"Running. {held}. {_waiting_text(job.requests, tiers)}".rstrip()
        case JobState.REVOKING:
            return f"Stopped. {_revocation_progress(job, live)}"
        case ended:
            return f"{ENDED_TEXT.get(ended, '')} {_revocation_result(job, live)}".strip()


def proof_text(state: JobState, report: ProofReport) -> str:
    """Describe what a new check of a job's access found, and whether that is as expected."""
    if report.dead:
        return "No access of this job is active."
    if not state.ended and state is not JobState.REVOKING:
        return "The job is still running, so its access is expected to be active."
    if report.revoked:
        return "Only what cannot be revoked is still valid."
    expected = "The job's process has ended; this access should be gone. " if state is JobState.REVOKING else ""
    return f"{expected}Some access of this job is still active or could not be checked."


def tier_name(number: int, tiers: Tiers) -> str:
    """Return a tier with its current name: `tier 1 (owner)`."""
    tier = tiers.tiers.get(number)
    return tier_text(number, tier.name if tier else "")


def tier_names(numbers: Sequence[int], tiers: Tiers) -> str:
    """Return tiers with their current names: `tier 1 (owner) and tier 2 (security)`."""
    return tiers_text(numbers, [tier.name if (tier := tiers.tiers.get(number)) else "" for number in numbers])


def _waiting_text(requests: Iterable[RequestView], tiers: Tiers) -> str:
    pending = [request for request in requests if request.state is RequestState.PENDING and request.quorum]
    if not pending:
        return ""
    named = [f"{request.action} on {request.resource} at {tier_name(request.current_tier, tiers)}" for request in pending[:MAX_NAMED]]
    return f"Waiting for approval: {', '.join(named)}{_more_suffix(len(pending))}."


def _revocation_progress(job: JobView, live: list[CredentialView]) -> str:
    if not live:
        return "None of its access is active any more; recording the proof."
    return f"Revocation of {len(live)} of {_count_text(len(job.credentials) + job.older_credentials, 'credential')} is not verified yet."


def _revocation_result(job: JobView, live: list[CredentialView]) -> str:
    match job.revocation.state:
        case RevocationState.OVERDUE:
            return "Revocation is overdue: its access may still work. Retrying automatically."
        case RevocationState.PENDING:
            return f"Revoking its access. {_revocation_progress(job, live)}" if live else "Revocation of its access is not verified yet."
        case RevocationState.RESIDUAL:
            return residual_text(job)
    held = len(job.credentials) + job.older_credentials
    return _ended_credentials(job, held, "its") if held else "No credentials issued."


def residual_text(job: JobView) -> str:
    """Name the credentials of a job that are still valid because nothing can revoke them, and until when. The view has at least one."""
    residual = [item for item in job.credentials if item.state is CredentialState.RESIDUAL]
    until = job.revocation.residual_until
    ends = (
        f"valid until {until:%Y-%m-%d %H:%M} UTC"
        if until
        else "valid until its owner changes it"
        if len(residual) == 1
        else "valid until their owners change them"
    )
    rest = len(job.credentials) + job.older_credentials - len(residual)
    others = f" {_ended_credentials(job, rest, 'the other')}" if rest else ""
    return f"{_count_text(len(residual), 'credential')} cannot be revoked early; {ends}.{others}"


def _ended_credentials(job: JobView, count: int, whose: str) -> str:
    """Describe how this many credentials of a job have ended.

    An expiry only means that the time has passed: nobody checked whether it took effect.
    """
    over = [item.revocable for item in job.credentials if item.state is CredentialState.EXPIRED]
    # A value that cannot be revoked counts as expired only if the worker alone had it.
    unheld = over.count(Revocable.NEVER)
    expired = len(over) - unheld
    subject = f"{whose} credential" if count == 1 else f"{whose} {count} credentials"
    is_or_are = "is" if count == 1 else "are"
    if job.older_credentials:
        ending = f"{is_or_are} revoked or expired"
    else:
        verified = count - len(over)
        endings = {
            f"{'is' if verified == 1 else 'are'} revoked (verified)": verified,
            f"{'has' if expired == 1 else 'have'} expired (not verified)": expired,
            "never reached the job": unheld,
        }
        parts = [(words, number) for words, number in endings.items() if number]
        if len(parts) > 1:
            counted = [f"{number} {words}" for words, number in parts]
            return f"Of {subject}, {', '.join(counted[:-1])} and {counted[-1]}."
        ending = parts[0][0]
    return f"{subject[0].upper()}{subject[1:]} {ending}."


def _more_suffix(count: int) -> str:
    return f" and {count - MAX_NAMED} more" if count > MAX_NAMED else ""


def _count_text(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
