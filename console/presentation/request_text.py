"""An access request in words for its approvers: who requests what, how it can be revoked, what a timeout does, what they sign. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from console.presentation.time_text import exact_time, span
from justenough.domain.approvals.verification import needs_reason
from justenough.domain.inbox.pending import TimeoutOutcome, missing_approvals
from justenough.domain.readmodel.views import ApprovalView, RequestView

REVOCABLE_TEXT = {
    "now": "Can be revoked immediately.",
    "on_expiry": "Cannot be revoked early: once issued, it works until it expires.",
    "never": "Cannot be revoked: once issued, it is valid until its owner rotates it.",
}
"""The effect of a revocation, by `revocable`."""
DECISION_VERBS = {
    "approve": "approves",
    "deny": "denies",
    "withdraw": "withdraws the approval of",
    "break_glass": "uses BREAK-GLASS for",
}
POLICY_SOURCE_TEXT = {
    "default-deny": "No policy allows it.",
    "no-policies": "No policies are in force, so every request is denied.",
    "beyond-order": "The signed order does not name this access, so policy alone cannot allow it.",
    "double-lock": "The catalog puts this action behind a Vault control group and sets the lowest tier that can authorize it.",
}
"""Explanations of the decision sources that are not policies."""


class Piece(NamedTuple):
    """Part of a sentence; strong parts are emphasised."""

    text: str
    strong: bool = False


def request_sentence(view: RequestView, agent: str = "") -> tuple[Piece, ...]:
    """Return who requests what, in pieces: `refund-triage by agent refund-agent 1.4, launched by ops, requests WRITE on Refunds for 5 min`."""
    by = f" by agent {agent}" if agent else ""
    return (
        Piece(view.job_name or view.job_id, strong=True),
        Piece(f"{by}, launched by {view.requester or 'unknown'}, requests "),
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
    """Return a sentence without its emphasis."""
    return "".join(piece.text for piece in pieces)


def silence_text(outcome: TimeoutOutcome) -> str:
    """Return what happens if nobody decides in time."""
    if outcome.at is None:
        return "No deadline."
    if outcome.ends_with_job:
        return f"The job times out at {exact_time(outcome.at)}, before this tier's deadline; the request ends with it."
    if outcome.climbs_to is None:
        return f"Denied at {exact_time(outcome.at)} if nobody decides."
    return f"Escalates to tier {outcome.climbs_to} ({', '.join(outcome.groups)}) at {exact_time(outcome.at)}. Never auto-approved."


def still_needed(view: RequestView) -> str:
    """Return who approved a request so far, and how many approvals it still needs."""
    approvers = [approver_text(item) for item in view.counting_approvals]
    more = missing_approvals(view)
    has = f"{' and '.join(approvers)} approved; " if approvers else ""
    people = "1 more approval" if more == 1 and approvers else f"{more} approval{'s' if more != 1 else ''}"
    return f"{has}needs {people}{'' if more <= 1 else ' by different people'}"


def approver_text(item: ApprovalView) -> str:
    """Return the approver, and on whose behalf they decided."""
    return f"{item.approver} (for {item.on_behalf_of})" if item.on_behalf_of else item.approver


def signing_sentence(
    view: RequestView, decision: str, person: str, *, ttl: int | None = None, action: str | None = None, absent: str | None = None
) -> str:
    """Return the statement that a person signs, as one sentence."""
    time, what = span(view.ttl if ttl is None else ttl), (action or view.action).upper()
    begin, middle, end = signing_pieces(view, decision, f"{person} for {absent}" if absent else person)
    return f"{begin}{what}{middle}{time}{end}"


def signing_pieces(view: RequestView, decision: str, person: str) -> tuple[str, str, str]:
    """Return that sentence without the action and the time, which are between its pieces."""
    end = f" for the job {view.job_id} ({view.job_name})."
    return f"{person} {DECISION_VERBS[decision]} ", f" on {view.title}{_tools_text(view)} for ", end


def reason_hint(decision: str, tier: int) -> str:
    """Return the form's hint on whether a reason is required."""
    return "Required." if needs_reason(decision, tier) else "Optional when approving, required when denying."
