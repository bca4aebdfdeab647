"""Right-sizing: what each job's past runs would have needed; and what was used of the catalog, for its review."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from console.api.dependencies import AuthenticatedRoute, Member, Reader
from console.http.dependencies import TheConsole
from console.http.pagination import Cursor, Moment
from justenough.adapters.store.usage import RunHistory
from justenough.domain.core.errors import NotFound
from justenough.domain.readmodel.views import Page
from justenough.domain.rightsizing.analysis import Sizing, SizingSummary, build_sizing, build_summary
from justenough.domain.rightsizing.usage import ActionUse

Since = Annotated[Moment | None, Query(description="Only runs of then or later; with its zone")]
SizingLimit = Annotated[
    int, Query(ge=1, le=100, description="How many at most; each of them is worked out from its newest runs or requests")
]

router = APIRouter(route_class=AuthenticatedRoute, tags=["sizing"])


@router.get("/sizing")
def list_sizings(
    console: TheConsole, caller: Member, since: Since = None, limit: SizingLimit = 20, cursor: Cursor = None
) -> Page[SizingSummary]:
    """List job names with what was granted and used, in the names' order; a launcher's by their own runs."""
    page = console.deps.store.usage.run_histories(requester_id=caller.requester_filter, since=since, limit=limit, cursor=cursor)
    return Page(items=tuple(build_summary(_to_sizing(past)) for past in page.items), next=page.next)


@router.get("/sizing/{name}")
def show_sizing(
    name: Annotated[str, Path(description="The jobs' name")],
    console: TheConsole,
    caller: Member,
    since: Since = None,
    runs: Annotated[int, Query(ge=1, le=1000, description="Look at its newest so many runs")] = 100,
) -> Sizing:
    """Show what the past runs of a job would have needed; a launcher's by their own runs."""
    found = console.deps.store.usage.run_history(name, requester_id=caller.requester_filter, since=since, runs=runs)
    if found is None:
        raise NotFound(f"there is no run of a job named {name} that you may read; the names that there are: justenough job list")
    return _to_sizing(found)


@router.get("/catalog/usage")
def catalog_usage(
    console: TheConsole,
    caller: Reader,
    since: Annotated[Moment | None, Query(description="What was asked then or later; with its zone")] = None,
    limit: SizingLimit = 20,
    cursor: Cursor = None,
) -> Page[ActionUse]:
    """List what was asked of each action of each resource, over all jobs."""
    del caller
    return console.deps.store.usage.action_uses(since=since, limit=limit, cursor=cursor)


def _to_sizing(past: RunHistory) -> Sizing:
    return build_sizing(past.name, past.spec, past.runs, newest=past.newest, newest_at=past.newest_at)
