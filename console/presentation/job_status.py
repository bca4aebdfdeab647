"""What a job is doing now, in a sentence or two without times, which have clocks of their own. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from justenough.domain.approvals.tiers import Tiers
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, RevocationState
from justenough.domain.readmodel.views import CredentialView, JobView, RequestView

DEAD = {CredentialState.CONFIRMED, CredentialState.EXPIRED}
MOST = 3
"""Things that a sentence names."""

ENDED = {
    JobState.SUCCEEDED: "Its process ended well.",
    JobState.FAILED: "It failed.",
    JobState.DENIED: "It never ran: access that it needs was denied.",
    JobState.CANCELLED: "It was cancelled.",
    JobState.TIMED_OUT: "It ran longer than it may, and was ended.",
    JobState.KILLED: "It was killed: its access was cut first.",
    JobState.LOST: "Its workflow closed without telling how it ended.",
}


def doing(job: JobView, tiers: Tiers) -> str:
    """Return what a job does now, or how it ended and what became of what it held."""
    live = [item for item in job.credentials if item.state not in DEAD]
    match job.state:
        case JobState.PENDING:
            return "Accepted. A worker takes it next."
        case JobState.AWAITING_APPROVAL:
            return f"{_waits(job.requests, tiers) or 'Waits for an answer.'} Unanswered, a request climbs to the next tier; past the top it is denied."
        case JobState.RUNNING:
            return " ".join(filter(None, (f"Runs and holds {_held(live)}.", _waits(job.requests, tiers))))
        case JobState.REVOKING:
            return f"Its process is over. {_given_back(job, live)}"
        case ended:
            return f"{ENDED.get(ended, '')} {_after(job, live)}".strip()


def tier_name(number: int, tiers: Tiers) -> str:
    """Return a tier as people call it: `tier 1 (owner)`."""
    found = tiers.tiers.get(number)
    return f"tier {number} ({found.name})" if found else f"tier {number}"


def _waits(requests: Iterable[RequestView], tiers: Tiers) -> str:
    open_ones = [one for one in requests if one.state is RequestState.PENDING and one.quorum]
    if not open_ones:
        return ""
    named = [f"{one.action} on {one.resource} at {tier_name(one.current_tier, tiers)}" for one in open_ones[:MOST]]
    return f"Waits for people: {', '.join(named)}{_more(len(open_ones))}."


def _held(live: list[CredentialView]) -> str:
    if not live:
        return "no credential"
    named = ", ".join(f"{one.action} on {one.resource}" for one in live[:MOST])
    return f"{_count(len(live), 'credential')}: {named}{_more(len(live))}"


def _given_back(job: JobView, live: list[CredentialView]) -> str:
    if not live:
        return "All that it held is shown to be dead; the proof is being recorded."
    return f"{len(live)} of {_count(len(job.credentials) + job.older_credentials, 'credential')} {'is' if len(live) == 1 else 'are'} not yet shown to be dead."


def _after(job: JobView, live: list[CredentialView]) -> str:
    match job.revocation.state:
        case RevocationState.OVERDUE:
            return "Its access could not be ended in time: it is tried again and again, and may be alive."
        case RevocationState.PENDING:
            return f"Its access is being ended. {_given_back(job, live)}" if live else "That nothing of it is alive is not confirmed yet."
    held = len(job.credentials) + job.older_credentials
    if not held:
        return "It was issued nothing."
    return "Its credential is dead." if held == 1 else f"All {held} of its credentials are dead."


def _more(count: int) -> str:
    return f" and {count - MOST} more" if count > MOST else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
