"""Notifications: which events notify people, which events settle a notification, and the texts of notices and follow-ups. No I/O, no clock.

Plain text only. Text from people and agents is quoted, cut, and escaped so that it cannot become markup, a mention or a link. The only link is to
a page of the console. Opening it submits no decision.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from justenough.domain.approvals.tier_names import tiers_text
from justenough.domain.core.units import duration_text
from justenough.domain.core.visible_text import visible_text
from justenough.domain.integrations.retry_policy import SentNotice
from justenough.domain.jobs.states import CredentialState, RequestState, RevocationState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import CredentialView, EntryView, JobView, RequestView

NOTIFYING_EVENTS = frozenset(
    {
        EventType.APPROVAL_OPENED,
        EventType.APPROVAL_ESCALATED,
        EventType.REVIEW_OPENED,
        EventType.REVOCATION_OVERDUE,
        EventType.CREDENTIAL_OVERDUE,
    }
)
"""Events that people can be notified of. Each one needs a person to act."""
TIER_EVENTS = frozenset({EventType.APPROVAL_OPENED, EventType.APPROVAL_ESCALATED})
MAX_QUOTE_CHARS = 300
"""Maximum characters quoted from a free text."""
MAX_NAME_CHARS = 100
REVOCABLE_TEXTS = {
    "now": "can be revoked immediately",
    "on_expiry": "cannot be revoked early: it works until it expires",
    "never": "cannot be revoked: it stays valid until its owner rotates it",
}

_LINES = re.compile(r"[ \t\r\n]+")
# Characters that some services read as markup, a mention or a link, with their replacements.
_MARKS = str.maketrans(
    {"<": "‹", ">": "›", "[": "⟦", "]": "⟧", "*": "∗", "_": "＿", "`": "ˋ", "~": "∼", "|": "¦", "@": "＠", "#": "＃", "\\": "⧵"}
)
_LINK = re.compile(r"://|(?<=\w)\.(?=[^\W\d_]{2})")
ENDINGS: Mapping[EventType, Callable[[Mapping[str, Any]], str]] = {
    EventType.APPROVAL_DECIDED: lambda d: (
        f"{to_plain_text(d['name'], MAX_NAME_CHARS)} "
        f"{'used break-glass' if d['decision'] == 'break_glass' else d['verdict'] + ' the request'}: “{to_plain_text(d['reason'])}”."
    ),
    EventType.APPROVAL_ESCALATED: lambda d: (
        f"Not decided in time; escalated to tier {d['tier']}{', for which the approvals so far are enough' if d.get('verdict') else ''}."
    ),
    EventType.APPROVAL_EXPIRED: lambda _: "Not decided in time, so the request has expired.",
    EventType.APPROVAL_WITHDRAWN: lambda d: f"{to_plain_text(d['name'], MAX_NAME_CHARS)} withdrew the approval.",
    EventType.ACCESS_WITHDRAWN: lambda d: f"The request was withdrawn: {to_plain_text(d['why'])}.",
    EventType.JOB_ENDED: lambda d: f"The job has ended: {d['state']}.",
    EventType.REVIEW_ANSWERED: lambda d: f"{to_plain_text(d['name'], MAX_NAME_CHARS)} reviewed the break-glass use: {d['verdict']}.",
    EventType.REVOCATION_CONFIRMED: lambda _: "No access of the job is active any more.",
    EventType.CREDENTIAL_CONFIRMED: lambda _: "The credential is revoked (verified).",
    EventType.CREDENTIAL_EXPIRED: lambda _: "The credential has expired; its end was not verified.",
}
"""The follow-up text of each event that settles an earlier notification. Everyone who got the notification also gets the follow-up."""
SETTLING_EVENTS = frozenset(ENDINGS)


@dataclass(frozen=True, slots=True)
class Notice:
    """One message, in plain text."""

    title: str
    body: str


@dataclass(frozen=True, slots=True)
class NoticeContext:
    """The current state of an event's subject (job, request, credential); None for parts that do not exist."""

    job: JobView | None = None
    request: RequestView | None = None
    credential: CredentialView | None = None
    top: int = 0
    """The highest configured tier."""
    console: str | None = None
    """The console's base URL."""


def notice_subject(entry: EntryView) -> str:
    """Return the key of an event's subject. It is the same for the event that notifies and the event that settles the notice."""
    data = entry.data
    match EventType(entry.type):
        case EventType.REVIEW_OPENED | EventType.REVIEW_ANSWERED:
            return f"review/{data['request']}"
        case EventType.REVOCATION_OVERDUE | EventType.REVOCATION_CONFIRMED:
            return f"revocation/{entry.job}"
        case EventType.CREDENTIAL_OVERDUE | EventType.CREDENTIAL_CONFIRMED | EventType.CREDENTIAL_EXPIRED:
            return f"credential/{data['credential']}"
        case EventType.JOB_ENDED:
            return f"request/{entry.job}"
        case _:
            return f"request/{data['request']}"


def is_for_tiers(entry: EntryView, *, on: Iterable[str], tiers: Iterable[int]) -> bool:
    """Whether an event in `on` concerns people of one of these tiers."""
    if entry.type not in set(on):
        return False
    kind = EventType(entry.type)
    if kind in TIER_EVENTS:
        # A request that was approved as it escalated waits for nobody: that settles the notice before.
        return entry.data["tier"] in set(tiers) and not entry.data.get("verdict")
    return bool(set(tiers) & set(entry.data["tiers"])) if kind is EventType.REVIEW_OPENED else True


def asked_tier(entry: EntryView) -> int:
    """Return the tier whose approval an event requests; 0 if none."""
    return int(entry.data["tier"]) if EventType(entry.type) in TIER_EVENTS else 0


def find_settled(entry: EntryView, sent_notices: Iterable[SentNotice]) -> tuple[SentNotice, ...]:
    """Return the sent notices that an event settles."""
    kind = EventType(entry.type)
    if kind not in SETTLING_EVENTS or (entry.data.get("verdict") == "pending"):
        return ()
    about = notice_subject(entry)
    if kind is EventType.JOB_ENDED:
        return tuple(notice for notice in sent_notices if notice.about.startswith("request/"))
    below = entry.data["tier"] if kind in TIER_EVENTS else None
    return tuple(notice for notice in sent_notices if notice.about == about and (below is None or notice.tier < below))


def is_still_pending(entry: EntryView, context: NoticeContext) -> bool:
    """Whether an event still needs a person to act. If not, a late message is not sent."""
    match EventType(entry.type):
        case EventType.REVIEW_OPENED:
            return context.request is not None and context.request.review is not None and context.request.review.open
        case EventType.REVOCATION_OVERDUE:
            return context.job is not None and context.job.revocation.state is RevocationState.OVERDUE
        case EventType.CREDENTIAL_OVERDUE:
            return context.credential is not None and context.credential.state is CredentialState.OVERDUE
        case _:
            request = context.request
            return request is not None and request.state is RequestState.PENDING and request.current_tier == entry.data["tier"]


def is_overdue_again(entry: EntryView, context: NoticeContext) -> bool:
    """Whether an event says that a job's access has ended, but its revocation is overdue again. If so, a late follow-up is not sent."""
    is_overdue = context.job is not None and context.job.revocation.state is RevocationState.OVERDUE
    return is_overdue and entry.type == EventType.REVOCATION_CONFIRMED


def build_notice(entry: EntryView, context: NoticeContext) -> Notice:
    """Build the notice of an event that needs a person to act."""
    match EventType(entry.type):
        case EventType.REVIEW_OPENED:
            request, person = context.request, to_plain_text(entry.data["name"], MAX_NAME_CHARS)
            assert request is not None
            lines = (
                f"{person} used break-glass to bypass {tiers_text(entry.data['tiers'], entry.data.get('tier_names', ()))}: {_access_text(request)}.",
                f"Job: {to_plain_text(request.job_name, MAX_NAME_CHARS)}",
                f"Reason: “{to_plain_text(entry.data['reason'])}”",
                "Review whether this was justified. The review stays open until somebody completes it.",
                _link_text(context, "inbox", request.id, "Review", f"justenough request show {request.id}"),
            )
            return Notice(title=f"Review needed: {_access_text(request)}", body="\n".join(lines))
        case EventType.REVOCATION_OVERDUE:
            return _overdue_notice(entry, context, "Revocation overdue", f"The access of job {entry.job} could not be revoked")
        case EventType.CREDENTIAL_OVERDUE:
            return _overdue_notice(
                entry,
                context,
                "Credential revocation overdue",
                f"Credential {entry.data['credential']} of job {entry.job} could not be revoked",
            )
        case _:
            return _approval_notice(entry.data, context)


def build_follow_up(entry: EntryView, about: str, context: NoticeContext) -> Notice:
    """Build the follow-up to an earlier notice that an event settles."""
    kind, _, item_id = about.partition("/")
    subject = f"{kind} of {item_id}"
    if context.request is not None and kind in {"request", "review"}:
        subject = f"{_access_text(context.request)} for {to_plain_text(context.request.job_name, MAX_NAME_CHARS)}"
    return Notice(title=f"Settled: {subject}", body=f"{ENDINGS[EventType(entry.type)](entry.data)} No action needed.")


def to_plain_text(text: object, max_chars: int = MAX_QUOTE_CHARS) -> str:
    """Return untrusted text on one line, cut to `max_chars`, without characters that a service could read as markup, a mention or a link."""
    one_line = visible_text(_LINES.sub(" ", str(text)).strip(" "))
    cut = one_line if len(one_line) <= max_chars else f"{one_line[: max_chars - 1]}…"
    return _LINK.sub(lambda found: ":⁄⁄" if found[0] == "://" else "․", cut.translate(_MARKS))


def _approval_notice(data: Mapping[str, Any], context: NoticeContext) -> Notice:
    request, tier = context.request, data["tier"]
    assert request is not None
    agent = (context.job.agent or {}) if context.job else {}
    agent_name = " ".join(filter(None, (to_plain_text(agent.get(key) or "", MAX_NAME_CHARS) for key in ("name", "version"))))
    requester = f"{to_plain_text(request.job_name, MAX_NAME_CHARS)}{f' by agent {agent_name}' if agent else ''}"
    launcher = to_plain_text(request.requester, MAX_NAME_CHARS)
    deadline = min(filter(None, (datetime.fromisoformat(data["respond_by"]), request.job_times_out_at))).astimezone(UTC)
    quorum = "1 approval is needed" if data["quorum"] == 1 else f"{data['quorum']} approvals by different people are needed"
    silence = "Expires if nobody decides in time."
    if request.ends_with_job:
        silence = "The job times out then. Never auto-approved."
    elif tier < context.top:
        silence = f"Escalates to tier {tier + 1} if nobody decides in time. Never auto-approved."
    access = f"{_access_text(request)} ({request.resource}, {request.sensitivity}) for {duration_text(request.ttl)}"
    lines = (
        f"{requester}, launched by {launcher}, requests {access}.",
        f"Task: {to_plain_text(request.task)}",
        *_reason_lines(request),
        *(["Not named in the signed order: the running job requests it."] if request.is_beyond_order else []),
        f"Policy: {to_plain_text(', '.join(request.policies) or 'not recorded')}",
        *([f"Escalated: tier {tier - 1} did not decide in time."] if tier > request.tier else []),
        f"Decide by {deadline:%Y-%m-%d %H:%M} UTC; {quorum}. {silence}",
        f"Once issued: {REVOCABLE_TEXTS.get(request.revocable, to_plain_text(request.revocable, MAX_NAME_CHARS))}.",
        _link_text(context, "inbox", request.id, "Review", f"justenough request show {request.id}"),
    )
    return Notice(title=f"Approval needed (tier {tier}): {_access_text(request)}", body="\n".join(lines))


def _reason_lines(request: RequestView) -> Iterator[str]:
    if request.signed_reason is not None and request.signed_reason != request.reason:
        yield f"Reason ({request.spec_reason_source}): “{to_plain_text(request.signed_reason)}”"
    yield f"Reason ({request.reason_source}): “{to_plain_text(request.reason)}”"


def _overdue_notice(entry: EntryView, context: NoticeContext, title: str, what: str) -> Notice:
    lines = (
        f"{what} and may still work. Retrying automatically.",
        f"Last error: {to_plain_text('; '.join(entry.data['failures']))}",
        _link_text(context, "jobs", entry.job, "View", f"justenough job show {entry.job}"),
    )
    return Notice(title=f"{title}: {entry.job}", body="\n".join(lines))


def _access_text(request: RequestView) -> str:
    through = f" through {to_plain_text(', '.join(request.granted_tools or request.tools), MAX_NAME_CHARS)}" if request.tools else ""
    return f"{request.granted_action or request.action} on {to_plain_text(request.title, MAX_NAME_CHARS)}{through}"


def _link_text(context: NoticeContext, page: str, item_id: str, verb: str, command: str) -> str:
    return f"{verb}: {context.console.rstrip('/')}/{page}/{item_id}" if context.console else f"{verb}: {command}"
