"""GET /inbox: one queue of what waits, whose clock ends first first. GET /inbox/{request}: the whole card. Nothing here changes anything."""

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
from console.pages.inbox.request_detail import RequestCard, card_of, why_barred, why_cannot_answer
from console.pages.page_user import PageUser, ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation import request_text
from console.services.console import Console
from justenough.adapters.store.inbox_queries import InboxFilter, InboxItem
from justenough.domain.approvals.verification import needs_reason
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.inbox.diff import Difference
from justenough.domain.inbox.pending import RequestBatch, TimeoutOutcome, group_into_batches, missing_approvals, timeout_outcome
from justenough.domain.readmodel.views import RequestView, ReviewView

MAX_CARDS = 25
"""Requests on one page, of those that the visitor can answer."""
MAX_OTHERS = 6
"""Of everything else, beside these."""
TOPICS = "approval,access,review,delegation,job,lock"
DONE_WORDS = frozenset({"sent", "taken", "claimed", "released", "reviewed"})
"""What `?done=` may say: each names a sentence of the card's."""

Word = Annotated[str, Field(max_length=64)]
router = APIRouter(route_class=PageRoute, include_in_schema=False)


class QueueLine(NamedTuple):
    """A request in the queue."""

    view: RequestView
    agent: str
    why_not: str
    """Why the visitor cannot answer it; empty where they can."""
    silence: TimeoutOutcome
    missing: int


class RequestGroup(NamedTuple):
    """Requests of one kind that the visitor can answer, in the queue's order."""

    batch: RequestBatch
    lines: tuple[QueueLine, ...]


class InboxQueue(NamedTuple):
    """One part of the inbox, and the cursor of what follows."""

    lines: tuple[QueueLine, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class CardNotice:
    """What a card's page says beside the card: what was done, or why nothing was decided."""

    status: int = 200
    done: str = ""
    problem: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    """By field of the form."""
    changed: Sequence[Difference] = ()
    """Since the page was made that was answered from."""


class InboxFilters(Message):
    """What of the inbox is shown; empty for whatever."""

    resource: Word = ""
    action: Word = ""
    job: Word = ""
    tier: Annotated[str, Field(pattern="^[1-3]?$")] = ""
    show: Literal["", "mine", "others", "reviews", "answers"] = ""
    cursor: Annotated[str, Field(max_length=200)] = ""

    def shows(self, part: str) -> bool:
        """Whether a part is on the page."""
        return self.show in {"", part}

    def limit(self, part: str) -> int:
        """Return how many of a part are on the page, at most."""
        return MAX_CARDS if part in {"mine", self.show} else MAX_OTHERS

    def to_waiting_filter(self, caller: Caller, *, mine: bool) -> InboxFilter:
        """Return which of what waits somebody is shown."""
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
def inbox(request: Request, console: TheConsole, visitor: ThePageUser, wanted: Annotated[InboxFilters, Query()]) -> HTMLResponse:
    """Show what waits."""
    caller = visitor.caller
    caller.require(*Role)
    stream, me = live_stream.stream_url(console, topics=TOPICS), caller.person.id
    mine, rest = queue(console, caller, wanted, mine=True), queue(console, caller, wanted, mine=False)
    # What only a look at its ancestors tells comes of the visitor's own jobs: they cannot answer it.
    barred = tuple(line for line in mine.lines if line.why_not)
    return render(
        request,
        "inbox.html",
        stream=stream,
        groups=group_lines([line for line in mine.lines if not line.why_not]),
        next_mine=mine.next,
        others=InboxQueue((*barred, *rest.lines), rest.next),
        reviews=reviews_for(console, caller, limit=wanted.limit("reviews")) if wanted.shows("reviews") else (),
        answers=console.deps.store.inbox.answered_by(me, wanted.limit("answers")) if wanted.shows("answers") else (),
        wanted=wanted,
        narrowed=any((wanted.resource, wanted.action, wanted.job, wanted.tier)),
        tiers=caller.tiers.tiers,
        asking=request_text,
        me=me,
    )


@router.get("/inbox/{name}")
def one(
    request: Request, console: TheConsole, visitor: ThePageUser, name: str, done: Annotated[str, Query(max_length=20)] = ""
) -> HTMLResponse:
    """Show one request whole: what a notification links to."""
    # Before the store is read, so that nothing is missed between.
    stream = live_stream.stream_url(console)
    card, told = card_of(console, visitor.caller, name), CardNotice(done=done if done in DONE_WORDS else "")
    return card_page(request, console, visitor, card, told=told, draft=drafts.load(request, console.cookies, visitor, name), stream=stream)


def card_page(
    request: Request,
    console: Console,
    visitor: PageUser,
    card: RequestCard,
    *,
    told: CardNotice,
    draft: AnswerDraft | None = None,
    stream: str | None = None,
) -> HTMLResponse:
    """Return a request's card. `stream`: None for a page that answers a form, which is no address to look at again."""
    return render(
        request,
        "card.html",
        status=told.status,
        stream=stream and f"{stream}&job={card.view.job_id}",
        card=card,
        view=card.view,
        told=told,
        draft=draft or AnswerDraft(),
        kept=draft is not None,
        asking=request_text,
        needs_reason=needs_reason,
        me=visitor.caller.person,
        policies_now=console.deps.config.current().policies.digest,
    )


def queue(console: Console, caller: Caller, filters: InboxFilters, *, mine: bool) -> InboxQueue:
    """Return a part of what waits: what somebody can answer, or the rest. Raises InvalidInput on a cursor that is not ours."""
    part = "mine" if mine else "others"
    # A cursor goes on in one part; a page of everything begins each.
    here = filters.show == part or (mine and not filters.show)
    if not filters.shows(part):
        return InboxQueue((), None)
    limit = filters.limit(part)
    found = console.deps.store.inbox.items(
        filters.to_waiting_filter(caller, mine=mine), after=_parse_cursor(filters.cursor) if here else None, limit=limit + 1
    )
    lines = tuple(queue_line(console, caller, waits) for waits in found[:limit])
    return InboxQueue(lines, _to_cursor(found[limit - 1].request) if len(found) > limit else None)


def queue_line(console: Console, caller: Caller, waiting: InboxItem) -> QueueLine:
    """Return a request as the queue shows it to somebody."""
    view, tiers = waiting.request, caller.tiers
    because = why_cannot_answer(console.deps, caller, view, requester_id=waiting.requester_id, tiers=tiers)
    return QueueLine(view, waiting.agent, because, timeout_outcome(view, tiers), missing_approvals(view))


def group_lines(lines: Sequence[QueueLine]) -> tuple[RequestGroup, ...]:
    """Return lines by kind, each kind where its first line stands."""
    known = {one.view.id: one for one in lines}
    return tuple(
        RequestGroup(batch, tuple(known[view.id] for view in batch.requests)) for batch in group_into_batches(one.view for one in lines)
    )


def reviews_for(console: Console, caller: Caller, *, limit: int) -> tuple[ReviewView, ...]:
    """Return the open reviews that wait for somebody, of the newest ones."""
    store, me = console.deps.store, caller.person.id
    if Role.APPROVE not in caller.roles:
        return ()
    found = [one for one in store.reviews.list(limit=limit).items if one.person_id != me and caller.tier >= max(one.tiers)]
    views = store.requests.by_ids(one.request_id for one in found)
    return tuple(one for one in found if one.request_id in views and not _is_own_job(console, caller, views[one.request_id]))


def _is_own_job(console: Console, caller: Caller, view: RequestView) -> bool:
    return why_barred(console.deps, caller, view, requester_id=console.job_owners.owner_of(view.job_id) or "") is not None


def _to_cursor(last: RequestView) -> str:
    return f"{last.expires_at.isoformat() if last.expires_at else ''}~{last.id}"


def _parse_cursor(cursor: str) -> tuple[datetime, str] | None:
    if not cursor:
        return None
    moment, _, name = cursor.partition("~")
    try:
        found = datetime.fromisoformat(moment)
        at = found.astimezone(UTC) if found.tzinfo else None
    except (ValueError, OverflowError):
        at = None
    if at is None or not name or "\0" in name:
        raise InvalidInput("address", (Problem("cursor", "not a cursor of this list; start again without one"),))
    return at, name
