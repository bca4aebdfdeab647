"""Right-sizing: what each job's past runs would have needed, and how the catalog is used."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from console.api.dependencies import AuthenticatedRoute, Member, Reader
from console.http.dependencies import Cursor, Moment, TheConsole
from justenough.adapters.store.usage import RunHistory
from justenough.domain.core.errors import NotFound
from justenough.domain.readmodel.views import Page
from justenough.domain.rightsizing.analysis import Sizing, SizingSummary, build_sizing, build_summary
from justenough.domain.rightsizing.usage import ActionUse

Since = Annotated[Moment | None, Query(description="Only runs at this time or later (RFC 3339 with a time zone)")]
SizingLimit = Annotated[int, Query(ge=1, le=100, description="How many at most; each is computed from its newest runs or requests")]

router = APIRouter(route_class=AuthenticatedRoute, tags=["sizing"])


@router.get("/sizing")
def list_sizings(
    console: TheConsole, caller: Member, since: Since = None, limit: SizingLimit = 20, cursor: Cursor = None
) -> Page[SizingSummary]:
    """List job names, sorted, with what was granted and used. For a launcher, only their own runs count."""
    page = console.deps.store.usage.run_histories(requester_id=caller.requester_filter, since=since, limit=limit, cursor=cursor)
    return Page(items=tuple(build_summary(_to_sizing(history)) for history in page.items), next=page.next)


@router.get("/sizing/{name}")
def show_sizing(
    name: Annotated[str, Path(description="Name of the jobs")],
    console: TheConsole,
    caller: Member,
    since: Since = None,
    runs: Annotated[int, Query(ge=1, le=1000, description="Analyse at most this many of the newest runs")] = 100,
) -> Sizing:
    """Show what the past runs of a job would have needed. For a launcher, only their own runs count."""
    history = console.deps.store.usage.run_history(name, requester_id=caller.requester_filter, since=since, runs=runs)
    if history is None:
        raise NotFound(f"there is no run of a job named {name} that you may read; `justenough job list` lists the names")
    return _to_sizing(history)


@router.get("/catalog/usage")
def catalog_usage(
    console: TheConsole,
    _: Reader,
    since: Annotated[Moment | None, Query(description="Only requests at this time or later (RFC 3339 with a time zone)")] = None,
    limit: SizingLimit = 20,
    cursor: Cursor = None,
) -> Page[ActionUse]:
    """List how each action of each resource was used, over all jobs."""
    return console.deps.store.usage.action_uses(since=since, limit=limit, cursor=cursor)


def _to_sizing(history: RunHistory) -> Sizing:
    return build_sizing(history.name, history.spec, history.runs, newest=history.newest, newest_at=history.newest_at)
