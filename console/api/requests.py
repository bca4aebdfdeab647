"""Requests for access, and the answers of approvers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from typing import Annotated

from anyio import fail_after, sleep, to_thread
from fastapi import APIRouter, Header, Query, Response

from activities.ancestry import chain
from console.api.bodies import SignedBody
from console.api.context import AuthenticatedRoute, Console, Member, TheConsole
from console.api.deciding import WITHDRAW, answerable, examined, has_answered, is_taken_back
from console.api.lists import Cursor, Limit, narrowed
from console.api.rights import Caller
from console.gateway import WorkflowGone
from console.problems import answers
from justenough.access import RequestState
from justenough.errors import Conflict, NotFound
from justenough.views import Page, RequestView

COUNTED_WITHIN = 5.0
"""Seconds to wait for the worker to count an answer."""
LOOK_AFTER = 0.01
LOOK_EVERY = 0.2
"""The first pause between two looks, and the longest: many who wait for a busy worker must not keep it busy."""

router = APIRouter(route_class=AuthenticatedRoute, tags=["requests"])


class Wanted(StrEnum):
    PENDING = "pending"
    ALLOWED = "allowed"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    ALL = "all"

    @property
    def state(self) -> RequestState | None:
        """The state to look for; None for any."""
        return None if self is Wanted.ALL else RequestState(self.value)


@router.get("/requests")
def list_requests(
    console: TheConsole,
    caller: Member,
    state: Annotated[Wanted, Query(description="Only those in this state")] = Wanted.PENDING,
    mine: Annotated[bool, Query(description="Only those that the caller can answer now")] = False,
    job: Annotated[str | None, Query(max_length=64, description="Only this job's")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[RequestView]:
    """List requests, newest first; a launcher sees those of their own jobs."""
    store, owners = console.deps.store, console.owners

    def wanted(view: RequestView) -> bool:
        return not mine or answerable(console.deps, caller, view, requester_id=owners.of(view.job_id) or "")

    return narrowed(
        lambda after: store.requests(state=state.state, job=job, requester_id=caller.only, limit=limit, cursor=after),
        wanted,
        cursor=cursor,
    )


@router.get(
    "/requests/{request}",
    responses={200: {"headers": {"ETag": {"schema": {"type": "string"}, "description": "The digest to answer, where there is one"}}}},
)
def show_request(request: str, response: Response, console: TheConsole, caller: Member) -> RequestView:
    """Show a request; its ETag is the digest to answer."""
    view = console.deps.store.request(request)
    if view is None or not console.owners.readable(caller, view.job_id):
        raise NotFound(f"there is no request {request}")
    if view.digest:
        response.headers["ETag"] = f'"{view.digest}"'
    return view.model_copy(update={"chain": chain(console.deps, view.parent)})


@router.post(
    "/requests/{request}/decisions",
    responses={
        202: {"model": RequestView, "description": "Delivered; the worker has not counted it yet"},
        **answers(409, 412, 428),
    },
    operation_id="decide_request",
)
async def decide(
    request: str,
    body: SignedBody,
    response: Response,
    console: TheConsole,
    caller: Member,
    if_match: Annotated[
        str | None, Header(max_length=200, description="The request's digest", json_schema_extra={"pattern": r"\S"})
    ] = None,
) -> RequestView:
    """Answer a request with a signed decision."""
    view, counted = await answered(console, caller, request, body, if_match=if_match)
    response.status_code = 200 if counted else 202
    return view


async def answered(
    console: Console,
    caller: Caller,
    request: str,
    body: SignedBody,
    *,
    if_match: str | None,
    opening: Callable[[], Awaitable[object]] | None = None,
) -> tuple[RequestView, bool]:
    """Hand a signed answer to the job; return the request as it is then, and whether a worker has counted the answer yet.

    `opening`: what must be done first once the answer is found good. Raises what `examined` and `opening` do, Conflict where the job no longer
    runs, TemporalUnavailable.
    """
    view = await to_thread.run_sync(lambda: examined(console.deps, caller, request, body, if_match=if_match))
    if opening is not None:
        await opening()
    try:
        await console.gateway.decide(view.job_id, body.signed())
    except WorkflowGone as error:
        raise Conflict("the job no longer runs") from error
    takes_back = body.statement.get("decision") == WITHDRAW
    done = partial(is_taken_back, before=view) if takes_back else has_answered
    return await _counted(console, view, caller.person.id, done=done)


async def _counted(
    console: Console, view: RequestView, person: str, *, done: Callable[[RequestView, str], bool]
) -> tuple[RequestView, bool]:
    try:
        with fail_after(COUNTED_WITHIN):
            pause = LOOK_AFTER
            while not done(view, person):
                await sleep(pause)
                pause = min(2 * pause, LOOK_EVERY)
                found = await to_thread.run_sync(console.deps.store.request, view.id)
                view = view if found is None else found
    except TimeoutError:
        return view, False
    return view, True
