"""What a job is doing now, in a sentence or two without times, which have clocks of their own. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from justenough.domain.approvals.tiers import Tiers
from justenough.domain.jobs.states import JobState, RequestState, RevocationState
from justenough.domain.readmodel.views import CredentialView, JobView, RequestView

MAX_NAMED = 3
"""Things that a sentence names."""

ENDED_TEXT = {
    JobState.SUCCEEDED: "Its process ended well.",
    JobState.FAILED: "It failed.",
    JobState.DENIED: "It never ran: access that it needs was denied.",
    JobState.CANCELLED: "It was cancelled.",
    JobState.TIMED_OUT: "It ran longer than it may, and was ended.",
    JobState.KILLED: "It was killed: its access was cut first.",
    JobState.LOST: "Its workflow closed without telling how it ended.",
}


def job_status_text(job: JobView, tiers: Tiers) -> str:
    """Return what a job does now, or how it ended and what became of what it held."""
    live = [item for item in job.credentials if not item.state.is_dead]
    match job.state:
        case JobState.PENDING:
            return "Accepted. A worker takes it next."
        case JobState.AWAITING_APPROVAL:
            return f"{_waiting_text(job.requests, tiers) or 'Waits for an answer.'} Unanswered, a request climbs to the next tier; past the top it is denied."
        case JobState.RUNNING:
            return " ".join(filter(None, (f"Runs and holds {_holdings_text(live)}.", _waiting_text(job.requests, tiers))))
        case JobState.REVOKING:
            return f"Its process is over. {_revocation_progress(job, live)}"
        case ended:
            return f"{ENDED_TEXT.get(ended, '')} {_revocation_result(job, live)}".strip()


def tier_name(number: int, tiers: Tiers) -> str:
    """Return a tier as people call it: `tier 1 (owner)`."""
    found = tiers.tiers.get(number)
    return f"tier {number} ({found.name})" if found else f"tier {number}"


def _waiting_text(requests: Iterable[RequestView], tiers: Tiers) -> str:
    open_ones = [one for one in requests if one.state is RequestState.PENDING and one.quorum]
    if not open_ones:
        return ""
    named = [f"{one.action} on {one.resource} at {tier_name(one.current_tier, tiers)}" for one in open_ones[:MAX_NAMED]]
    return f"Waits for people: {', '.join(named)}{_more_suffix(len(open_ones))}."


def _holdings_text(live: list[CredentialView]) -> str:
    if not live:
        return "no credential"
    named = ", ".join(f"{one.action} on {one.resource}" for one in live[:MAX_NAMED])
    return f"{_count_text(len(live), 'credential')}: {named}{_more_suffix(len(live))}"


def _revocation_progress(job: JobView, live: list[CredentialView]) -> str:
    if not live:
        return "All that it held is shown to be dead; the proof is being recorded."
    return f"{len(live)} of {_count_text(len(job.credentials) + job.older_credentials, 'credential')} {'is' if len(live) == 1 else 'are'} not yet shown to be dead."


def _revocation_result(job: JobView, live: list[CredentialView]) -> str:
    match job.revocation.state:
        case RevocationState.OVERDUE:
            return "Its access could not be ended in time: it is tried again and again, and may be alive."
        case RevocationState.PENDING:
            return (
                f"Its access is being ended. {_revocation_progress(job, live)}"
                if live
                else "That nothing of it is alive is not confirmed yet."
            )
    held = len(job.credentials) + job.older_credentials
    if not held:
        return "It was issued nothing."
    return "Its credential is dead." if held == 1 else f"All {held} of its credentials are dead."


def _more_suffix(count: int) -> str:
    return f" and {count - MAX_NAMED} more" if count > MAX_NAMED else ""


def _count_text(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
