"""A request in words, as an approver reads it: who wants what, what revoking can do, what silence means, what they sign. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from console.presentation.time_text import exact_time, span
from justenough.domain.approvals.verification import needs_reason
from justenough.domain.inbox.pending import TimeoutOutcome, missing_approvals
from justenough.domain.readmodel.views import ApprovalView, RequestView

REVOCABLE_TEXT = {
    "now": "Revoking ends it at once: whoever holds it is locked out within moments.",
    "on_expiry": "It cannot be ended early: once issued it works until its time is over.",
    "never": "It cannot be taken back: what it shows stays known, and works until its owner changes it.",
}
"""What revoking can do, by `revocable`."""
DECISION_VERBS = {
    "approve": "approves",
    "deny": "denies",
    "withdraw": "takes back the approval of",
    "break_glass": "BREAKS GLASS for",
}
POLICY_SOURCE_TEXT = {
    "default-deny": "No policy allows it.",
    "no-policies": "There are no policies in force; everything is denied.",
    "double-lock": "The catalog keeps this action locked in Vault too, and names the lowest tier that opens it.",
}
"""What decides where no policy does."""


class Piece(NamedTuple):
    """A part of a sentence; what matters most is strong."""

    text: str
    strong: bool = False


def request_sentence(view: RequestView, agent: str = "") -> tuple[Piece, ...]:
    """Return who wants what, in pieces: `refund-triage by agent refund-agent 1.4, launched by ops, wants WRITE on Refunds for 5 min`."""
    by = f" by agent {agent}" if agent else ""
    return (
        Piece(view.job_name or view.job_id, strong=True),
        Piece(f"{by}, launched by {view.requester or 'somebody'}, wants "),
        Piece(view.action.upper(), strong=True),
        Piece(" on "),
        Piece(view.title, strong=True),
        *(
            (Piece(" for one call of "), Piece(str(view.call["tool"]), strong=True))
            if view.call
            else (Piece(f"{_tools_text(view)} for {span(view.ttl)}"),)
        ),
    )


def _tools_text(view: RequestView) -> str:
    return f" through {', '.join(view.tools)}" if view.tools else ""


def text_of(pieces: Sequence[Piece]) -> str:
    """Return a sentence without its weights."""
    return "".join(piece.text for piece in pieces)


def silence_text(outcome: TimeoutOutcome) -> str:
    """Return what happens where nobody answers."""
    if outcome.at is None:
        return "No clock runs: it waits for nobody."
    if outcome.climbs_to is None:
        return f"Without an answer it is denied at {exact_time(outcome.at)}."
    return f"Without an answer it climbs to tier {outcome.climbs_to} ({', '.join(outcome.groups)}) at {exact_time(outcome.at)}; it is never approved by silence."


def still_needed(view: RequestView) -> str:
    """Return how many answers a request still needs, and whose it has."""
    given = [approver_text(item) for item in view.counting_approvals]
    more = missing_approvals(view)
    has = f"{' and '.join(given)} approved; " if given else ""
    people = "1 more approval" if more == 1 and given else f"{more} approval{'s' if more != 1 else ''}"
    return f"{has}needs {people}{'' if more <= 1 else ' by different people'}"


def approver_text(item: ApprovalView) -> str:
    """Return who answered, and for whom."""
    return f"{item.approver} (for {item.on_behalf_of})" if item.on_behalf_of else item.approver


def signing_sentence(
    view: RequestView, decision: str, person: str, *, ttl: int | None = None, action: str | None = None, absent: str | None = None
) -> str:
    """Return in one sentence what somebody signs."""
    time, what = span(view.ttl if ttl is None else ttl), (action or view.action).upper()
    behalf = f" for {absent}" if absent else ""
    return f"{person}{behalf} {DECISION_VERBS[decision]} {what} on {view.title}{_tools_text(view)} for {time} for the job {view.job_id} ({view.job_name})."


def reason_hint(decision: str, tier: int) -> str:
    """Return whether a reason must be given, as a hint."""
    return "Required." if needs_reason(decision, tier) else "Not required to approve; always required to deny."
