"""Requests that wait, as an approver watches them: a table of what each needs now, and in words what changed about one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from console.cli.json_object import Json
from console.cli.render.output import table_lines
from console.presentation.event_text import decision_text, duration_label
from console.presentation.terminal_text import clock, moment, plain

HEADER = ("REQUEST", "JOB", "WHO", "WHAT", "TIER", "TIME LEFT", "ANSWERS", "LOOKED AT")


def request_table_lines(items: Sequence[Json], *, now: datetime, columns: int, lines: int) -> Iterator[str]:
    """Yield what waits, the one whose time ends first on top, in so many columns and at most so many lines."""
    if not items:
        yield "Nothing waits."
        return
    ordered = sorted(items, key=lambda item: (item["expires_at"] or "~", item["id"]))
    shown, hidden = _fit_rows([_row(item, now) for item in ordered], columns=columns, lines=lines)
    yield from shown
    if hidden:
        yield f"and {hidden} more: justenough request list"


def _fit_rows(rows: Sequence[Sequence[object]], *, columns: int, lines: int) -> tuple[list[str], int]:
    for count in range(len(rows), 0, -1):
        drawn = list(table_lines(HEADER, rows[:count], max_columns=columns))
        if len(drawn) + (count < len(rows)) <= lines:
            return drawn, len(rows) - count
    return [], len(rows)


def _row(item: Json, now: datetime) -> tuple[object, ...]:
    what = f"{item['action']} {item['resource']} for {duration_label(item['ttl'])}"
    looks = item["claim"]["by"] if item["claim"] and _seconds_until(item["claim"]["until"], now) > 0 else ""
    return (
        item["id"],
        item["job_name"],
        item["requester"],
        what,
        item["current_tier"] or item["tier"],
        _time_left(item, now),
        approval_count(item),
        looks,
    )


def _time_left(item: Json, now: datetime) -> str:
    return clock(_seconds_until(item["expires_at"], now)) if item["expires_at"] else ""


def _seconds_until(until: str, now: datetime) -> float:
    return (datetime.fromisoformat(until) - now).total_seconds()


def approval_count(item: Json) -> str:
    """Return how many people of the tier that answers now, or above, approve, and how many are needed."""
    return f"{sum(_is_counted(answer, item) for answer in item['approvals'])} of {item['quorum']}"


def _is_counted(answer: Json, item: Json) -> bool:
    return answer["decision"] == "approve" and answer["tier"] >= item["current_tier"] and not answer["withdrawn_at"]


def request_sentence(item: Json) -> str:
    """Return what a request asks for, in a sentence."""
    lasts = f", until {moment(item['expires_at'])}" if item["state"] == "pending" and item["expires_at"] else ""
    waits = f"; tier {item['current_tier']}, {approval_count(item)}{lasts}" if item["quorum"] else ""
    asked = f"{item['requester']} asks for {item['action']} on {item['resource']} for {duration_label(item['ttl'])}"
    return plain(f"{asked} ({item['job_name']}): {item['reason']}{waits}")


def request_changes(before: Json | None, after: Json) -> Iterator[str]:
    """Yield what became of a request since it was last seen; where it was not seen before, what it is and what became of it."""
    if before is None:
        yield request_sentence(after)
    old = before or {
        "approvals": (),
        "claim": None,
        "lock": None,
        "state": "pending",
        "current_tier": after["current_tier"],
        "review": None,
    }
    yield from map(plain, _answer_changes(old, after))
    if after["current_tier"] != old["current_tier"] and after["state"] == "pending":
        yield f"climbed to tier {after['current_tier']}, {approval_count(after)}, until {moment(after['expires_at'])}"
    if after["claim"] != old["claim"] and after["state"] == "pending":
        yield plain(
            f"{after['claim']['by']} looks at it until {moment(after['claim']['until'])}" if after["claim"] else "nobody looks at it now"
        )
    if after["lock"] and not old["lock"]:
        yield "waits in Vault too"
    if after["review"] != old["review"] and after["review"]:
        yield "passed alone; somebody is to review it" if after["review"]["open"] else plain(f"reviewed: {after['review']['verdict']}")
    if after["state"] != old["state"]:
        yield f"is {after['state']}"


def _answer_changes(old: Json, after: Json) -> Iterator[str]:
    known = {answer["approver_id"]: answer for answer in old["approvals"]}
    for answer in after["approvals"]:
        reason = f": {answer['reason']}" if answer["reason"] else ""
        if answer["approver_id"] not in known:
            count = f" ({approval_count(after)})" if after["state"] == "pending" else ""
            yield f"{answer['approver']} {decision_text(answer['decision'])}{reason}{count}"
        if answer["withdrawn_at"] and not (known.get(answer["approver_id"]) or {}).get("withdrawn_at"):
            yield f"{answer['approver']} took it back"
