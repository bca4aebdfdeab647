"""GET /inbox: pending requests by deadline. GET /inbox/{request}: one request in full. Read-only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Literal, NamedTuple

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import Field

from console.auth.authorization import Caller, Role
from console.http.dependencies import TheConsole
from console.pages import live_stream
from console.pages.inbox import drafts
from console.pages.inbox.drafts import AnswerDraft
from console.pages.inbox.request_detail import RequestCard, card_of, deciders_of
from console.pages.page_user import PageMember, PageUser, ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation import request_text
from console.presentation.time_text import span
from console.services.console import Console
from console.services.decide_request import why_cannot_answer, why_own_job
from console.services.deciders import GroupMembers
from console.services.visibility import visible_answered_requests
from justenough.adapters.store.inbox_queries import MAX_COUNT, InboxFilter
from justenough.domain.approvals.tier_names import bypassed_tiers
from justenough.domain.approvals.verification import needs_reason
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.units import duration_text
from justenough.domain.inbox.diff import Difference
from justenough.domain.inbox.pending import (
    TimeoutOutcome,
    claim_by_other,
    group_into_batches,
    needs_care,
    shorter_ttls,
    timeout_outcome,
)
from justenough.domain.readmodel.views import RequestView, ReviewView

MAX_CARDS = 25
"""Requests on one page that the user can decide."""
MAX_OTHERS = 6
"""Items of every other section."""
TOPICS = "approval,access,review,delegation,job,lock"
DONE_WORDS = frozenset({"sent", "taken", "claimed", "released", "reviewed"})
"""Values of `?done=`; each selects a message on the request's page."""
FORM_PREFIXES = {"deny": "deny-", "withdraw": "back-", "break_glass": "glass-"}
"""The prefix of the ids of a form's fields, by decision."""

Word = Annotated[str, Field(max_length=64)]
router = APIRouter(route_class=PageRoute, include_in_schema=False)


class QueueLine(NamedTuple):
    view: RequestView
    agent: str
    why_not: str
    """Why the user cannot decide it; empty if they can."""
    deciders: tuple[GroupMembers, ...]
    """Who else can decide it."""
    silence: TimeoutOutcome


class InboxQueue(NamedTuple):
    """One section of the inbox, and the cursor of its next page."""

    lines: tuple[QueueLine, ...]
    next: str | None


class BatchNotice(NamedTuple):
    """A form for several requests that was rejected: what is wrong, and what was entered."""

    problems: tuple[Problem, ...] = ()
    """Problems with the path `pick-group`, `reason` or empty."""
    kind: str = ""
    """The kind of its group; empty if no group on the page has it."""
    picked: frozenset[str] = frozenset()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CardNotice:
    """The message above a request: what was done, or why nothing was submitted."""

    status: int = 200
    done: str = ""
    before: int = 0
    """How many decisions of the person had been recorded before the one that was sent: those from before an escalation."""
    problem: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    """By form field."""
    changed: Sequence[Difference] = ()
    """Changes since the form was rendered."""
    unstated: bool = False
    """Whether the form had limits that its sentence did not state."""


NO_NOTICE = BatchNotice()


class InboxFilters(Message):
    """The filters in the page's address; an empty filter matches everything."""

    resource: Word = ""
    action: Word = ""
    job: Word = ""
    tier: Annotated[str, Field(pattern="^[1-3]?$")] = ""
    show: Literal["", "mine", "others", "reviews", "answers"] = ""
    cursor: Annotated[str, Field(max_length=200)] = ""

    def shows(self, part: str) -> bool:
        return self.show in {"", part}

    def limit(self, part: str) -> int:
        return MAX_CARDS if part in {"mine", self.show} else MAX_OTHERS

    def to_waiting_filter(self, caller: Caller, *, mine: bool) -> InboxFilter:
        return InboxFilter(
            person=caller.person.id,
            tier=caller.tier,
            mine=mine,
            resource=self.resource or None,
            action=self.action or None,
            tier_now=int(self.tier) if self.tier else None,
            job_name=self.job or None,
            only=caller.requester_filter,
        )


@router.get("/inbox")
def inbox(request: Request, console: TheConsole, visitor: PageMember, filters: Annotated[InboxFilters, Query()]) -> HTMLResponse:
    return inbox_page(request, console, visitor, filters, stream=live_stream.stream_url(console, topics=TOPICS))


def inbox_page(
    request: Request,
    console: Console,
    visitor: PageUser,
    filters: InboxFilters,
    *,
    stream: str | None = None,
    notice: BatchNotice = NO_NOTICE,
) -> HTMLResponse:
    """Render the inbox. Blocking. `notice`: why a form for several requests was not submitted. Raises InvalidInput for a malformed cursor."""
    caller = visitor.caller
    me, owners = caller.person.id, console.job_owners
    mine, rest = queue(console, caller, filters, mine=True), queue(console, caller, filters, mine=False)
    # The query reads the store alone. Requests that the person cannot decide for another reason are moved to the others here.
    barred = tuple(line for line in mine.lines if line.why_not)
    batches = group_into_batches((line for line in mine.lines if not line.why_not), lambda line: line.view)
    if notice.kind not in {batch.kind.form_value for batch in batches if batch.together}:
        notice = notice._replace(kind="")
    return render(
        request,
        "inbox.html",
        status=422 if notice.problems else 200,
        stream=stream,
        here="/inbox" if notice.problems else "",
        notice=notice,
        batches=batches,
        next_mine=mine.next,
        others=InboxQueue((*barred, *rest.lines), rest.next),
        reviews=reviews_for(console, caller, limit=filters.limit("reviews")) if filters.shows("reviews") else (),
        answers=visible_answered_requests(console.deps.store, owners, caller, me, limit=filters.limit("answers"))
        if filters.show == "answers"
        else (),
        filters=filters,
        narrowed=any((filters.resource, filters.action, filters.job, filters.tier)),
        me=me,
    )


@router.get("/inbox/{name}")
def one(
    request: Request,
    console: TheConsole,
    visitor: ThePageUser,
    name: str,
    done: Annotated[str, Query(max_length=20)] = "",
    before: Annotated[int, Query(ge=0, le=100)] = 0,
) -> HTMLResponse:
    """Show one request; notifications link here."""
    # Take the stream position before reading the store, so that no later change is missed.
    stream = live_stream.stream_url(console)
    card, notice = card_of(console, visitor.caller, name), CardNotice(done=done if done in DONE_WORDS else "", before=before)
    return card_page(
        request, console, visitor, card, notice=notice, draft=drafts.load(request, console.cookies, visitor, name), stream=stream
    )


def card_page(
    request: Request,
    console: Console,
    visitor: PageUser,
    card: RequestCard,
    *,
    notice: CardNotice,
    draft: AnswerDraft | None = None,
    stream: str | None = None,
) -> HTMLResponse:
    """Render a request's page. `stream` is None in the response to a form, because its address cannot be refreshed."""
    draft, kept = draft or AnswerDraft(), draft is not None
    # The next request is the person's most urgent other one that nobody else is reviewing, or else their most urgent one.
    decides_next, me, now = visitor.waiting and not card.rights.answer, visitor.caller.person, console.deps.now()
    mine = queue(console, visitor.caller, InboxFilters(show="mine"), mine=True).lines if decides_next else ()
    others = [line.view for line in mine if not line.why_not and line.view.id != card.view.id]
    following = min(others, key=lambda view: claim_by_other(view, me.id, now=now) is not None, default=None)
    return render(
        request,
        "card.html",
        status=notice.status,
        stream=stream and f"{stream}&job={card.view.job_id}",
        card=card,
        view=card.view,
        notice=notice,
        draft=draft,
        kept=kept and notice == CardNotice(),
        # After a change, the person reads the request first.
        opened="" if notice.changed else draft.decision,
        prefixes=FORM_PREFIXES,
        errors_of=lambda decision: notice.errors if draft.decision == decision else {},
        limits=_limits_of(draft, card),
        following=following,
        following_skips=following is not None and following is not others[0],
        following_claim=claim_by_other(following, me.id, now=now) if following else None,
        needs_reason=needs_reason,
        careful=needs_care("approve", card.view.current_tier),
        shorter=shorter_ttls(card.view.ttl),
        me=me,
        bypassed=bypassed_tiers(card.view.tier, card.view.current_tier),
        policies_now=console.deps.config.current().policies.digest,
    )


def _limits_of(draft: AnswerDraft, card: RequestCard) -> request_text.Limits:
    """Return the limits of a draft for the sentence to sign; limits that cannot be chosen are left out."""
    absent = next((one.delegation.person for one in card.absent if one.delegation.person_id == draft.absent and not one.why_not), "")
    seconds = next((one for one in shorter_ttls(card.view.ttl) if duration_text(one) == draft.ttl), None)
    return request_text.Limits(
        action=draft.action if draft.action in card.rights.lesser else "",
        ttl=span(seconds) if seconds else "",
        tools=draft.tools if card.view.tools else "",
        absent=absent,
    )


def queue(console: Console, caller: Caller, filters: InboxFilters, *, mine: bool) -> InboxQueue:
    """Return the pending requests that the caller can decide, or the other ones. Raises InvalidInput for a malformed cursor."""
    part = "mine" if mine else "others"
    # A cursor continues one section; the unfiltered page shows the start of each.
    here = filters.show == part or (mine and not filters.show)
    if not filters.shows(part):
        return InboxQueue((), None)
    limit = filters.limit(part)
    items = console.deps.store.inbox.items(
        filters.to_waiting_filter(caller, mine=mine), after=_parse_cursor(filters.cursor) if here else None, limit=limit + 1
    )
    lines = tuple(
        QueueLine(
            view=item.request,
            agent=item.agent,
            why_not=why_cannot_answer(console.deps, caller, item.request, requester_id=item.requester_id),
            deciders=deciders_of(console.deps, caller, item.request, requester_id=item.requester_id),
            silence=timeout_outcome(item.request, caller.tiers),
        )
        for item in items[:limit]
    )
    last = lines[-1].view if len(items) > limit else None
    return InboxQueue(lines, f"{last.expires_at.isoformat() if last.expires_at else ''}~{last.id}" if last else None)


def reviews_for(console: Console, caller: Caller, *, limit: int) -> tuple[ReviewView, ...]:
    """Return the newest open break-glass reviews that the caller can complete, of those that the number in the navigation counts."""
    store, me = console.deps.store, caller.person.id
    if Role.APPROVE not in caller.roles:
        return ()
    reviews = [one for one in store.reviews.list(limit=MAX_COUNT).items if one.person_id != me and caller.review_tier >= max(one.tiers)]
    views = store.requests.by_ids(one.request_id for one in reviews)
    own_jobs = {
        view.id
        for view in views.values()
        if why_own_job(console.deps, caller, view, requester_id=console.job_owners.owner_of(view.job_id) or "") is not None
    }
    return tuple(one for one in reviews if one.request_id in views.keys() - own_jobs)[:limit]


def _parse_cursor(cursor: str) -> tuple[datetime, str] | None:
    if not cursor:
        return None
    moment, _, name = cursor.partition("~")
    try:
        deadline = datetime.fromisoformat(moment)
        if deadline.tzinfo and name and "\0" not in name:
            return deadline.astimezone(UTC), name
    except (ValueError, OverflowError):
        pass
    raise InvalidInput("address", (Problem("cursor", "is not a cursor from this list; remove it from the address"),))
