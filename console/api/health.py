"""Whether the console lives, whether what it needs answers, and its numbers for Prometheus. No token needed; nothing about anyone's job."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from console.api.context import TheConsole
from console.health import Check
from justenough.errors import RetryLater
from justenough.model import Message

router = APIRouter(tags=["health"])


class Live(Message):
    status: str = "ok"


class Ready(Message):
    """What the console needs, each with its latency; and how many jobs' revocations are overdue."""

    ready: bool
    checks: tuple[Check, ...]
    overdue_revocations: int | None
    """None where the store does not tell."""
    config_alarm: str | None
    """Why the newest catalog, tiers or policies are not used, where they are not."""


@router.get("/livez")
async def livez() -> Live:
    """Answer: the console lives."""
    return Live()


@router.get("/readyz", responses={503: {"model": Ready, "description": "Something that is needed does not answer"}})
async def readyz(response: Response, console: TheConsole) -> Ready:
    """Look at store, Temporal and Vault."""
    checks = await console.health.checks()
    ready = all(check.ok for check in checks)
    response.status_code = 200 if ready else 503
    return Ready(ready=ready, checks=checks, overdue_revocations=await _overdue(console), config_alarm=console.deps.config.alarm)


@router.get("/metrics", response_class=Response)
def metrics(console: TheConsole) -> Response:
    """Return gauges in Prometheus' text form."""
    figures = console.deps.store.figures()
    registry = CollectorRegistry()
    jobs = Gauge("justenough_jobs", "Jobs by state", ["state"], registry=registry)
    for state, count in figures.jobs.items():
        jobs.labels(state=state).set(count)
    Gauge("justenough_requests_pending", "Requests that wait for an answer", registry=registry).set(figures.pending_requests)
    Gauge("justenough_credentials_live", "Credentials not yet shown to be dead", registry=registry).set(figures.live_credentials)
    Gauge("justenough_revocations_overdue", "Jobs whose revocation is overdue", registry=registry).set(figures.overdue_revocations)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


async def _overdue(console: TheConsole) -> int | None:
    try:
        figures = await to_thread.run_sync(console.deps.store.figures)
    except RetryLater:
        return None
    return figures.overdue_revocations
