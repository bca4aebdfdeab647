"""POST /inbox/batch: decide several requests of one kind at once. Each is signed separately; a failure does not affect the others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from itertools import starmap
from typing import Annotated, NamedTuple

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from console.http.dependencies import TheConsole
from console.pages.inbox import drafts
from console.pages.inbox.decisions import FormAnswer, parse_answer, submit_answer
from console.pages.inbox.drafts import AnswerDraft
from console.pages.inbox.inbox import BatchNotice, InboxFilters, inbox_page
from console.pages.page_user import PageMember, PageUser, TheForm
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.console import Console
from justenough.domain.core.errors import InvalidInput, JustEnoughError, Problem, Stale, raise_problems
from justenough.domain.inbox.pending import CAREFUL_TIER, batch_key_of
from justenough.domain.readmodel.views import RequestView

MAX_REQUESTS = 50
"""Requests that can be decided at once."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)


class BatchOutcome(NamedTuple):
    view: RequestView
    """The current state of the request."""
    counted: bool
    """Whether a worker has recorded the decision; if not, it is submitted or has failed (`why`)."""
    why: str
    """Why it was not submitted; empty on success."""


@router.post("/inbox/batch")
async def batch(
    request: Request, console: TheConsole, visitor: PageMember, form: TheForm, filters: Annotated[InboxFilters, Query()]
) -> HTMLResponse:
    """Decide the selected requests. If they cannot be decided together, decide nothing and show the inbox again, with what was entered."""
    digests = {name: digest for name, _, digest in (str(pick).partition(" ") for pick in form.getlist("pick"))}
    draft = drafts.draft_from_form(form)
    try:
        views, answer = await to_thread.run_sync(_parse_batch, console, visitor, digests, draft)
    except InvalidInput as error:
        notice = BatchNotice(error.problems, str(form.get("kind", "")), frozenset(digests), draft.reason)
        return await to_thread.run_sync(partial(inbox_page, request, console, visitor, filters, notice=notice))

    async def decide(view: RequestView) -> BatchOutcome:
        try:
            if digests[view.id] != view.digest:
                raise Stale("this request changed since you opened it; open it and review it again")
            now, counted = await submit_answer(console, visitor, view, answer)
            return BatchOutcome(now, counted=counted, why="")
        except JustEnoughError as error:
            return BatchOutcome(view, counted=False, why=error.for_callers)

    outcomes = await asyncio.gather(*map(decide, views.values()))
    return render(request, "batch.html", outcomes=outcomes, answer=answer, kind=batch_key_of(next(iter(views.values()))))


def _parse_batch(
    console: Console, visitor: PageUser, digests: Mapping[str, str], draft: AnswerDraft
) -> tuple[Mapping[str, RequestView], FormAnswer]:
    """Return the selected requests and the decision on them. Raises InvalidInput."""
    # Only those that the user may read, so that nobody learns which other ids exist. No id contains NUL, and PostgreSQL rejects it in a query.
    found = console.deps.store.requests.by_ids(name for name in digests if "\0" not in name)
    views = {view.id: view for view in console.job_owners.readable(visitor.caller, found.values(), lambda view: view.job_id)}
    _require_one_kind(views, digests)
    if draft.decision not in {"approve", "deny"}:
        raise InvalidInput("form", (Problem("", "Press Approve selected or Deny selected."),))
    answer, errors = parse_answer(draft._replace(ttl="", action="", absent="", confirm=""), next(iter(views.values())))
    raise_problems("form", starmap(Problem, errors.items()))
    return views, answer


def _require_one_kind(views: Mapping[str, RequestView], digests: Mapping[str, str]) -> None:
    problems = []
    if not digests:
        raise InvalidInput("form", (Problem("pick-group", "Select at least one request."),))
    if len(digests) > MAX_REQUESTS:
        problems.append(f"Select at most {MAX_REQUESTS} requests.")
    problems += [f"There is no request {name}." for name in digests if name not in views]
    if len({batch_key_of(view) for view in views.values()}) > 1:
        problems.append("Only requests with the same job name, resource, action and tier can be decided together.")
    if any(view.current_tier >= CAREFUL_TIER for view in views.values()):
        problems.append(f"Requests at tier {CAREFUL_TIER} and above must be decided one at a time.")
    raise_problems("form", (Problem("", problem) for problem in problems))
