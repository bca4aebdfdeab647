"""POST /inbox/batch: decide several requests of one kind at once. Each is signed separately; a failure does not affect the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import anyio
from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from console.http.dependencies import TheConsole
from console.pages.inbox import drafts
from console.pages.inbox.decisions import parse_answer, submit_answer
from console.pages.page_user import PageUser, TheForm, ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation import request_text
from console.services.console import Console
from justenough.domain.core.errors import InvalidInput, JustEnoughError, Problem, Stale
from justenough.domain.inbox.pending import CAREFUL_TIER, batch_key_of
from justenough.domain.readmodel.views import RequestView

MAX_REQUESTS = 50
"""Requests that can be decided at once."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)


class BatchOutcome(NamedTuple):
    """The result of one decision."""

    view: RequestView
    """The request as it is now."""
    counted: bool
    """Whether a worker has recorded the decision; if not, it is submitted or has failed (`why`)."""
    why: str
    """Why it was not submitted; empty on success."""


@router.post("/inbox/batch")
async def batch(request: Request, console: TheConsole, visitor: ThePageUser, form: TheForm) -> HTMLResponse:
    """Decide the selected requests. Raises InvalidInput, deciding nothing, if they are not of one kind."""
    digests = {name: digest for name, _, digest in (str(pick).partition(" ") for pick in form.getlist("pick"))}
    views = await to_thread.run_sync(_readable_requests, console, visitor, digests)
    _require_one_kind(views, digests)
    draft = drafts.draft_from_form(form)
    if draft.decision not in {"approve", "deny"}:
        raise InvalidInput("form", (Problem("decision", "must be approve or deny"),))
    first = next(iter(views.values()))
    answer, errors = parse_answer(draft._replace(ttl="", action="", absent="", confirm=""), first)
    if errors:
        raise InvalidInput("form", tuple(Problem(name, why) for name, why in errors.items()))
    outcomes: dict[str, BatchOutcome] = {}

    async def decide(view: RequestView) -> None:
        try:
            if digests[view.id] != view.digest:
                raise Stale("this request changed since you opened it; open it and review it again")
            now, counted = await submit_answer(console, visitor, view, answer)
            outcomes[view.id] = BatchOutcome(now, counted=counted, why="")
        except JustEnoughError as error:
            outcomes[view.id] = BatchOutcome(view, counted=False, why=str(error))

    async with anyio.create_task_group() as group:
        for view in views.values():
            group.start_soon(decide, view)
    in_order = [outcomes[name] for name in views]
    return render(request, "batch.html", outcomes=in_order, answer=answer, kind=batch_key_of(first), request_text=request_text)


def _readable_requests(console: Console, visitor: PageUser, names: Iterable[str]) -> Mapping[str, RequestView]:
    """Return only the requests that the user may read, so that nobody learns which other ids exist."""
    # No id contains NUL, and PostgreSQL rejects it in a query.
    views = console.deps.store.requests.by_ids(name for name in names if "\0" not in name)
    return {name: view for name, view in views.items() if console.job_owners.can_read(visitor.caller, view.job_id)}


def _require_one_kind(views: Mapping[str, RequestView], digests: Mapping[str, str]) -> None:
    problems = []
    if not digests:
        problems.append("select at least one request")
    if len(digests) > MAX_REQUESTS:
        problems.append(f"select at most {MAX_REQUESTS} requests")
    problems += [f"there is no request {name}" for name in digests if name not in views]
    if len({batch_key_of(view) for view in views.values()}) > 1:
        problems.append("only requests with the same job name, resource, action and tier can be decided together")
    if any(view.current_tier >= CAREFUL_TIER for view in views.values()):
        problems.append(f"requests at tier {CAREFUL_TIER} and above must be decided one at a time")
    if problems:
        raise InvalidInput("form", tuple(Problem("", problem) for problem in problems))
