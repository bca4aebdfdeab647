"""Run a sweep now."""

from __future__ import annotations

from fastapi import APIRouter

from console.api.dependencies import AuthenticatedRoute, Member
from console.http.dependencies import TheConsole
from justenough.domain.contracts.workflow_messages import SweepReport

router = APIRouter(route_class=AuthenticatedRoute, tags=["general"])


@router.post("/sweep")
async def sweep(console: TheConsole, caller: Member) -> SweepReport:
    """Compare Vault and the targets with open jobs now, and revoke access that belongs to no open job."""
    del caller
    return await console.gateway.sweep()
