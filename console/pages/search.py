"""GET /search: the results of the search box in the header. A single hit is opened directly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from console.http.dependencies import TheConsole
from console.pages.page_user import PageMember
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.search import describe_hits, search
from justenough.domain.readmodel.search import MAX_QUERY_CHARS, HitKind, SearchHit

HEADINGS: dict[HitKind, str] = {
    "name": "Jobs by name",
    "resource": "Resources",
    "agent": "Agents",
    "person": "People",
    "job": "Jobs",
    "request": "Requests",
    "credential": "Credentials",
    "entry": "Ledger entries",
}
"""The groups of results, in the order of the page."""
PLACES: dict[HitKind, str] = {
    "name": "/jobs/by-name/{}",
    "resource": "/resources/{}",
    "agent": "/agents/{}",
    "person": "/people/{}",
    "job": "/jobs/{}",
    "request": "/inbox/{}",
    "credential": "/credentials/{}",
    "entry": "/ledger/entry?id={}",
}
"""The page of each kind."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/search")
def find(request: Request, console: TheConsole, visitor: PageMember, q: Annotated[str, Query(max_length=MAX_QUERY_CHARS)] = "") -> Response:
    """Show what was found, by kind; if there is only one hit, open it."""
    result = search(console, visitor.caller, q)
    if len(result.hits) == 1:
        return RedirectResponse(place_url(result.hits[0]), status_code=303)
    order = list(HEADINGS)
    groups = groupby(sorted(result.hits, key=lambda hit: order.index(hit.kind)), key=lambda hit: hit.kind)
    shown: Sequence[tuple[HitKind, Sequence[SearchHit]]] = [(kind, list(hits)) for kind, hits in groups]
    details = describe_hits(console.deps, result)
    return render(request, "search.html", result=result, groups=shown, details=details, headings=HEADINGS, place_url=place_url)


def place_url(hit: SearchHit) -> str:
    return PLACES[hit.kind].format(quote(hit.id, safe=""))
