"""What needs attention, as on the dashboard; and acknowledging it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import ConfigDict, StringConstraints

from console.api.dependencies import AuthenticatedRoute, Member
from console.http.dependencies import TheConsole
from console.http.problems import problem_responses
from console.services.attention import MAX_NOTE_CHARS, acknowledge, visible_items
from console.services.inputs import StrictBody
from justenough.domain.readmodel.attention import AttentionItem
from justenough.domain.readmodel.views import Page

router = APIRouter(route_class=AuthenticatedRoute, tags=["general"])


class AcknowledgeBody(StrictBody):
    """The item that the caller takes care of."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item": "schedule/nightly-report", "note": "The database is being moved"}]})

    item: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    """The item's `key`."""
    note: Annotated[str, StringConstraints(max_length=MAX_NOTE_CHARS)] = ""


@router.get("/attention")
def list_attention(console: TheConsole, caller: Member) -> Page[AttentionItem]:
    """List what needs attention now, acknowledged or not. A launcher sees only what is about their own jobs."""
    return Page(items=visible_items(caller, console.dashboard.attention()), next=None)


@router.post("/attention/acknowledge", responses=problem_responses(404))
def acknowledge_item(body: AcknowledgeBody, console: TheConsole, caller: Member) -> AttentionItem:
    """Record that the caller takes care of an item. People who may stop the item's job can do that; for items about the
    installation, people who may stop any job.
    """
    return acknowledge(console.deps, console.dashboard, caller, body.item, body.note)
