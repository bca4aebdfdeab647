"""The search over everything that the caller may read."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from console.api.dependencies import AuthenticatedRoute, Member
from console.http.dependencies import TheConsole
from console.services.search import SearchResult, search
from justenough.domain.readmodel.search import MAX_QUERY_CHARS

router = APIRouter(route_class=AuthenticatedRoute, tags=["general"])


@router.get("/search")
def find(
    console: TheConsole,
    caller: Member,
    q: Annotated[str, Query(min_length=1, max_length=MAX_QUERY_CHARS, description="What to find, as typed or pasted")],
) -> SearchResult:
    """Find jobs, requests, credentials, ledger entries, resources, agents and people by id, name, word, database user, lease or certificate serial. A launcher finds only what belongs to their own jobs."""
    return search(console, caller, q)
