"""An access request in words for its approvers: what is requested, how it can be revoked, who is missing, what they sign. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from console.presentation.time_text import span
from justenough.domain.approvals.verification import needs_reason
from justenough.domain.inbox.pending import missing_approvals
from justenough.domain.jobs.states import RequestState
from justenough.domain.readmodel.views import ApprovalView, RequestView

REVOCABLE_TEXT = {
    "now": "Can be revoked immediately.",
    "on_expiry": "Cannot be revoked early: once issued, it stays valid until it expires.",
    "never": "Cannot be revoked: once issued, it stays valid until its owner changes it.",
}
"""The effect of a revocation, by `revocable`."""
MAX_ARGUMENTS_CHARS = 400
"""Characters of a call's arguments in a sentence. The request shows all of them."""
DECISION_VERBS = {
    "approve": "approves",
    "deny": "denies",
    "withdraw": "withdraws the approval of",
    "break_glass": "uses BREAK-GLASS for",
}
REASON_CHOICES = ("Ticket checked", "Details checked", "Called the requester")
"""Reasons that an approver can tick instead of typing, if an approval needs a reason."""
WORD_WITH_DIGIT = re.compile(r"(\S*\d\S*)")


class Piece(NamedTuple):
    """Part of a sentence; `strong` parts are emphasised."""

    text: str
    strong: bool = False
    limit: str = ""
    """The form field that changes this part; empty if it is fixed."""
    requested: str = ""
    """The text of a changeable part if its field is empty."""


class Limits(NamedTuple):
    """The limits that an approver chose in the form, as text; empty for what was requested."""

    action: str = ""
    ttl: str = ""
    tools: str = ""
    absent: str = ""
    """Login name of the absent person on whose behalf the decision is made."""


NO_LIMITS = Limits()


def access_pieces(view: RequestView) -> tuple[Piece, ...]:
    """Return the requested access, in pieces: `write on Refunds for 5 min`."""
    called = (Piece(" for one call of "), Piece(str(view.call["tool"]), strong=True)) if view.call else ()
    return (
        Piece(view.action, strong=True),
        Piece(" on "),
        Piece(view.title, strong=True),
        *(called or (Piece(f"{_tools_text(view)} for "), Piece(span(view.ttl), strong=True))),
    )


def _tools_text(view: RequestView) -> str:
    return f" through {', '.join(view.tools)}" if view.tools else ""


def text_of(pieces: Sequence[Piece]) -> str:
    """Return a sentence without its emphasis."""
    return "".join(piece.text for piece in pieces)


def amount_pieces(text: str) -> tuple[Piece, ...]:
    """Return a text in pieces; words with digits (amounts, orders, tickets) are strong."""
    words = WORD_WITH_DIGIT.split(text)
    return tuple(Piece(word, strong=bool(number % 2)) for number, word in enumerate(words) if word)


def has_amount(text: str) -> bool:
    return WORD_WITH_DIGIT.search(text) is not None


def call_limits(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the limits that the spec sets on a tool call; empty if it sets none.

    A bound always has the key `arguments`, so empty values are left out.
    """
    return {name: limit for name, limit in (call.get("within") or {}).items() if limit}


def still_needed(view: RequestView) -> str:
    """Describe who has approved a request so far, and how many approvals it still needs."""
    approvers = [approver_text(item) for item in view.counting_approvals]
    more = missing_approvals(view)
    has = f"{' and '.join(approvers)} approved; " if approvers else ""
    people = "1 more approval" if more == 1 and approvers else f"{more} approval{'s' if more != 1 else ''}"
    return f"{has}needs {people}{'' if more <= 1 else ' by different people'}"


def approver_text(item: ApprovalView) -> str:
    """Return the approver, and on whose behalf they decided."""
    return f"{item.approver} (for {item.on_behalf_of})" if item.on_behalf_of else item.approver


def why_not_counted(view: RequestView, item: ApprovalView) -> str:
    """Return why a decision that was not withdrawn does not count now; empty if it does."""
    if item.lapsed:
        return f"no longer counts: {item.lapsed}"
    return "does not count at this tier" if item.decision != "deny" and item not in view.counting_approvals else ""


def review_text(view: RequestView) -> str:
    review = view.review
    return f"reviewed by {review.reviewer}: {review.verdict}" if review and not review.open else "not reviewed yet"


def decided_by_text(view: RequestView) -> str:
    """Return who decided a request: `lead and chief`, or `break-glass by oncall, not reviewed yet`."""
    if view.break_glass:
        return f"break-glass by {approver_text(view.break_glass)}, {review_text(view)}"
    items = view.approvals if view.state is RequestState.WITHDRAWN else view.deciding_answers
    return " and ".join(dict.fromkeys(map(approver_text, items))) or "nobody"


def signing_pieces(view: RequestView, decision: str, person: str, limits: Limits = NO_LIMITS) -> tuple[Piece, ...]:
    """Return the statement that a person signs as one sentence. An approver's limits change the pieces that name their field."""
    tools = f" only through {', '.join(lines)}" if (lines := limits.tools.split("\n") if limits.tools else []) else _tools_text(view)
    absent = f" for {limits.absent}" if limits.absent else ""
    return (
        Piece(person, strong=True),
        Piece(absent, limit="absent"),
        Piece(f" {DECISION_VERBS[decision]} "),
        Piece(limits.action or view.action, strong=True, limit="action", requested=view.action),
        Piece(" on "),
        Piece(view.title, strong=True),
        *(_call_pieces(view) if view.call else (Piece(tools, limit="tools", requested=_tools_text(view)),)),
        Piece(" for "),
        Piece(limits.ttl or span(view.ttl), strong=True, limit="ttl", requested=span(view.ttl)),
        Piece(f" for the job {view.job_id} ("),
        Piece(view.job_name, strong=True),
        Piece(")."),
    )


def _call_pieces(view: RequestView) -> tuple[Piece, ...]:
    """Describe the tool call that a request is for."""
    call = view.call or {}
    arguments = json.dumps(call.get("arguments", {}), ensure_ascii=False)
    shown = arguments if len(arguments) <= MAX_ARGUMENTS_CHARS else f"{arguments[:MAX_ARGUMENTS_CHARS]}… (all are above)"
    return Piece(", once, by the call "), Piece(str(call.get("tool")), strong=True), Piece(" with "), Piece(shown, strong=True), Piece(",")


def revocation_text(view: RequestView) -> str:
    """Return what a revocation of the requested access can do; for tool calls, add that their credential never reaches the job."""
    text = REVOCABLE_TEXT.get(view.revocable, "")
    return f"{text} The job never gets it: only the worker uses it." if view.call or view.tools else text


def reason_hint(decision: str, tier: int) -> str:
    """Return the form's hint on whether a reason is required."""
    return "Required." if needs_reason(decision, tier) else "Optional when approving, required when denying."
