"""Describes pending requests for an approver who watches them: a table of all, and sentences about changes of one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from console.cli.json_object import Json
from console.cli.render.output import with_state_colour
from console.cli.render.table import TableLayout, table_lines
from console.presentation.event_text import decision_text, duration_label
from console.presentation.policy_text import denial_text
from console.presentation.status_badges import state_word
from console.presentation.terminal_text import clock, moment, plain
from justenough.domain.jobs.states import BEYOND_ORDER, ReasonSource, reason_source_text

HEADER = ("REQUEST", "JOB", "REQUESTER", "ACCESS", "TIER", "TIME LEFT", "APPROVALS", "CLAIMED BY")

NEEDS_VAULT = "each approval must be authorized in Vault, too"
"""The note on a request under a control group, until the group is satisfied."""
NO_TIER = "–"
"""Shown in place of the tier if a request needs no approval."""


class RequestChange(NamedTuple):
    """One change of a request in words, and when it happened; "" if the request does not say when."""

    text: str
    at: str = ""


def request_table_lines(items: Sequence[Json], *, now: datetime, columns: int, lines: int) -> Iterator[str]:
    """Yield the table of pending requests by deadline, at most `columns` wide and `lines` long."""
    if not items:
        yield "No pending requests."
        return
    rows = [_row(item, now) for item in by_deadline(items)]
    count = len(rows)
    while count:
        drawn = list(table_lines(HEADER, rows[:count], TableLayout(columns), paint=with_state_colour))
        if len(drawn) + (count < len(rows)) <= lines:
            yield from drawn
            break
        count -= 1
    if count < len(rows):
        yield f"and {len(rows) - count} more: justenough request list"


def _row(item: Json, now: datetime) -> tuple[object, ...]:
    access = f"{item['action']} {item['resource']} for {duration_label(item['ttl'])}"
    claimed_by = item["claim"]["by"] if item["claim"] and _seconds_until(item["claim"]["until"], now) > 0 else ""
    return (
        item["id"],
        item["job_name"],
        item["requester"],
        access,
        shown_tier(item),
        time_left(item, now),
        approval_count(item),
        claimed_by,
    )


def shown_tier(item: Json) -> object:
    """Return the tier at which a request is or was decided; NO_TIER if policy alone decides it."""
    return item["current_tier"] or item["tier"] or NO_TIER


def by_deadline(items: Sequence[Json]) -> list[Json]:
    """Return requests in the order in which they must be decided."""
    return sorted(items, key=lambda item: (decide_by(item) or "~", item["id"]))


def time_left(item: Json, now: datetime) -> str:
    """Return how long a pending request can still be decided; empty for any other."""
    until = decide_by(item) if item["state"] == "pending" else None
    return clock(_seconds_until(until, now)) if until else ""


def age(item: Json, now: datetime) -> str:
    """Return how long ago a request was made."""
    return clock(-_seconds_until(item["created_at"], now))


def decide_by(item: Json) -> str | None:
    """Return the deadline of a request at its current tier: the tier's deadline, or the end of its job if that is earlier; None for no
    deadline.
    """
    ends = [until for until in (item["expires_at"], item.get("job_times_out_at")) if until]
    return min(ends, key=datetime.fromisoformat, default=None)


def decide_by_text(item: Json) -> str:
    """Describe the deadline of a pending request, and what happens if nobody decides by then; empty for any other request."""
    until = decide_by(item) if item["state"] == "pending" and item["quorum"] else None
    if until is None:
        return ""
    if until != item["expires_at"]:
        return f"{moment(until)}; then the job times out"
    if "escalates_to" not in item:
        # A console of an earlier version does not say what happens at that time.
        return moment(until)
    following = item["escalates_to"]
    return f"{moment(until)}; then it {f'escalates to tier {following}' if following else 'expires'}"


def deadline_text(item: Json) -> str:
    """Describe the deadline of a request, with the reason if it is not the tier's deadline."""
    until = decide_by(item)
    return f"{moment(until)}{' (the job times out then)' if until != item['expires_at'] else ''}"


def _seconds_until(until: str, now: datetime) -> float:
    return (datetime.fromisoformat(until) - now).total_seconds()


def approval_count(item: Json) -> str:
    """Return how many approvals count at the current tier, and how many are needed: `1 of 2`."""
    return f"{counted_approvals(item)} of {item['quorum']}"


def counted_approvals(item: Json) -> int:
    return sum(answer["decision"] == "approve" and not why_not_counted(answer, item) for answer in item["approvals"])


def why_not_counted(answer: Json, item: Json) -> str:
    """Return why a decision about a request does not count now; empty if it does."""
    if answer["withdrawn_at"]:
        return f"withdrawn {moment(answer['withdrawn_at'])}"
    # Consoles of earlier versions do not say what has lapsed.
    if answer.get("lapsed"):
        return f"no longer counts: {answer['lapsed']}"
    is_below = answer["decision"] == "approve" and answer["tier"] < item["current_tier"]
    return f"does not count at tier {item['current_tier']}" if is_below else ""


def decisions_text(item: Json) -> str:
    """Return a request's decisions for one cell: `lead approved (the reason); chief for chief2 approved, then withdrew it`."""
    texts = []
    for answer in item["approvals"]:
        absent = f" for {answer['on_behalf_of']}" if answer.get("on_behalf_of") else ""
        reason = f" ({answer['reason']})" if answer["reason"] else ""
        why = why_not_counted(answer, item)
        left = ", then withdrew it" if answer["withdrawn_at"] else f", which {why}" if why else ""
        texts.append(f"{answer['approver']}{absent} {decision_text(answer['decision'])}{reason}{left}")
    return "; ".join(texts)


def request_sentence(item: Json) -> str:
    deadline = f", until {deadline_text(item)}" if item["state"] == "pending" and decide_by(item) else ""
    tier = f"; tier {item['current_tier']}, {approval_count(item)}{deadline}" if item["quorum"] else ""
    if item["state"] == "pending":
        tier += f"; {NEEDS_VAULT}" if item["lock"] else ""
        tier += f"; {_claim_text(item['claim'])}" if item["claim"] else ""
    access = f"{item['requester']} requests {item['action']} on {item['resource']} for {duration_label(item['ttl'])}"
    return plain(f"{access} ({item['job_name']}): {item['reason']} ({reason_source(item)}){tier}")


def _claim_text(claim: Json) -> str:
    return f"claimed by {claim['by']} until {moment(claim['until'])}"


def reason_source(item: Json) -> str:
    """Describe who wrote a request's reason."""
    return reason_source_text(item.get("reason_by"), has_parent=item.get("parent") is not None)


def short_reason_source(item: Json) -> str:
    """Return who wrote a request's reason in one word; empty if it was not recorded."""
    order = "spec" if item.get("parent") is None else "parent job"
    return {ReasonSource.ORDER.value: order, ReasonSource.PROGRAM.value: "program"}.get(item.get("reason_by") or "", "")


def reason_lines(item: Json) -> Iterator[tuple[str, str]]:
    """Yield a request's reason and who wrote it, each with its label; first the spec's reason, if the program gave another."""
    signed = item.get("signed_reason")
    if signed is not None and signed != item["reason"]:
        yield "Signed reason" if item.get("parent") is None else "Parent's reason", signed
    yield "Reason", item["reason"]
    yield "Reason by", reason_source(item)


def ceiling_lines(item: Json) -> Iterator[tuple[str, str]]:
    """Yield a labelled line if the signed order does not name a request."""
    if BEYOND_ORDER in item["policies"]:
        yield "Order", "not named in the signed order"


def policy_denial(item: Json) -> str:
    """Return why policy denied a request; empty if it is not denied, or if an approver denied it."""
    if item["state"] != "denied" or any(answer["decision"] == "deny" for answer in item["approvals"]):
        return ""
    return denial_text(item["policies"], item.get("policy_reasons") or {})


def request_changes(before: Json | None, after: Json) -> Iterator[RequestChange]:
    """Yield the changes of a request since it was last seen. If it was never seen, begin with what it asks for."""
    if before is None:
        yield RequestChange(request_sentence(after), after["created_at"])
    # A claim or a lock follows even the first sentence, without a time, because the request does not say when it was made.
    old = before or {**after, "approvals": (), "state": "pending", "review": None}
    yield from _answer_changes(old, after)
    if after["current_tier"] != old["current_tier"] and after["state"] == "pending":
        yield RequestChange(f"escalated to tier {after['current_tier']}, {approval_count(after)}, until {deadline_text(after)}")
    if after["claim"] != old["claim"] and after["state"] == "pending":
        yield RequestChange(plain(_claim_text(after["claim"]) if after["claim"] else "claim released"))
    if after["lock"] and not old["lock"]:
        yield RequestChange(NEEDS_VAULT)
    if after["review"] != old["review"] and after["review"]:
        review = after["review"]
        if review["open"]:
            yield RequestChange("approved by break-glass; a review is open", review.get("opened_at") or "")
        else:
            yield RequestChange(plain(f"reviewed: {review['verdict']}"), review.get("reviewed_at") or "")
    if after["state"] != old["state"]:
        yield RequestChange(f"is now {state_word('request', after['state'])}")


def _answer_changes(old: Json, after: Json) -> Iterator[RequestChange]:
    # A person who decided at one tier may decide again at another.
    known = {(answer["approver_id"], answer["at"]): answer for answer in old["approvals"]}
    for answer in after["approvals"]:
        before = known.get((answer["approver_id"], answer["at"]))
        reason = f": {answer['reason']}" if answer["reason"] else ""
        if before is None:
            count = f" ({approval_count(after)})" if after["state"] == "pending" else ""
            yield RequestChange(plain(f"{answer['approver']} {decision_text(answer['decision'])}{reason}{count}"), answer["at"])
        if answer["withdrawn_at"] and not (before or {}).get("withdrawn_at"):
            yield RequestChange(plain(f"{answer['approver']} withdrew their approval"), answer["withdrawn_at"])
