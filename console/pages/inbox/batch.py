"""POST /inbox/batch: several requests of one kind answered with one press, each with a signature of its own. One that fails stops no other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import anyio
from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from console.http.dependencies import TheConsole
from console.pages.inbox import drafts
from console.pages.inbox.decisions import FormAnswer, parse_answer, submit_answer
from console.pages.page_user import PageUser, TheForm, ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation import request_text
from console.services.console import Console
from justenough.domain.core.errors import InvalidInput, JustEnoughError, Problem, Stale
from justenough.domain.inbox.pending import CAREFUL_TIER, batch_key_of
from justenough.domain.readmodel.views import RequestView

MAX_REQUESTS = 50
"""Requests in one press."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)


class BatchOutcome(NamedTuple):
    """What became of one answer."""

    view: RequestView
    """As it is now."""
    counted: bool
    """A worker has counted the answer; else it is delivered, where nothing went wrong."""
    why: str
    """Why nothing was decided; empty where the answer was delivered."""


@router.post("/inbox/batch")
async def batch(request: Request, console: TheConsole, visitor: ThePageUser, form: TheForm) -> HTMLResponse:
    """Answer what is ticked. Nothing at all is answered where the requests are not of one kind."""
    digests = {name: digest for name, _, digest in (str(pick).partition(" ") for pick in form.getlist("pick"))}
    views = await to_thread.run_sync(_readable_requests, console, visitor, digests)
    _require_one_kind(views, digests)
    draft = drafts.draft_from_form(form)
    if draft.decision not in {"approve", "deny"}:
        raise InvalidInput("form", (Problem("decision", "must be approve or deny"),))
    first = next(iter(views.values()))
    said, errors = parse_answer(draft._replace(ttl="", action="", absent="", confirm=""), first)
    if said is None or errors:
        raise InvalidInput("form", tuple(Problem(name, why) for name, why in errors.items()))
    outcomes = await _answer_all(console, visitor, said, views, digests)
    return render(request, "batch.html", outcomes=outcomes, said=said, kind=batch_key_of(first), asking=request_text)


def _readable_requests(console: Console, visitor: PageUser, names: Iterable[str]) -> Mapping[str, RequestView]:
    """Return those of these requests that the visitor may read, so that nobody learns of others by ticking them."""
    # NUL is in no id, and PostgreSQL refuses to look for it.
    found = console.deps.store.requests.by_ids(name for name in names if "\0" not in name)
    return {name: view for name, view in found.items() if console.job_owners.can_read(visitor.caller, view.job_id)}


async def _answer_all(
    console: Console, visitor: PageUser, answer: FormAnswer, views: Mapping[str, RequestView], digests: Mapping[str, str]
) -> tuple[BatchOutcome, ...]:
    """Answer each; return what became of each, in the order of `views`."""
    found: dict[str, BatchOutcome] = {}

    async def one(view: RequestView) -> None:
        found[view.id] = await _answer_one(console, visitor, answer, view, digests[view.id])

    async with anyio.create_task_group() as group:
        for view in views.values():
            group.start_soon(one, view)
    return tuple(found[name] for name in views)


async def _answer_one(console: Console, visitor: PageUser, answer: FormAnswer, view: RequestView, digest: str) -> BatchOutcome:
    try:
        if digest != view.digest:
            raise Stale("it is not what you were shown any more; open it and look again")
        now, counted = await submit_answer(console, visitor, view, answer)
    except JustEnoughError as error:
        return BatchOutcome(view, counted=False, why=str(error))
    return BatchOutcome(now, counted=counted, why="")


def _require_one_kind(views: Mapping[str, RequestView], digests: Mapping[str, str]) -> None:
    problems = []
    if not digests:
        problems.append("tick at least one request")
    if len(digests) > MAX_REQUESTS:
        problems.append(f"tick at most {MAX_REQUESTS} at once")
    problems += [f"there is no request {name}" for name in digests if name not in views]
    if len({batch_key_of(view) for view in views.values()}) > 1:
        problems.append("they are not of one kind: only the same job name, resource, action and tier are answered together")
    if any(view.current_tier >= CAREFUL_TIER for view in views.values()):
        problems.append(f"requests at tier {CAREFUL_TIER} and above are answered one at a time")
    if problems:
        raise InvalidInput("form", tuple(Problem("pick", problem) for problem in problems))
