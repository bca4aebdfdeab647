"""Whether the console lives, whether what it needs answers, and its numbers for Prometheus. No token needed; nothing about anyone's job."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from console.http.dependencies import TheConsole
from console.http.problems import problem_responses
from console.services.health import Check, Sweeps
from justenough.adapters.store.outbox_queries import SubscriptionProgress, lag_of
from justenough.domain.core.base_model import Message

router = APIRouter(tags=["health"], responses=problem_responses(500))


class Live(Message):
    status: str = "ok"


class Ready(Message):
    """Whether the installation can do its work, system by system, each with its latency; and what is late. Counts only: names no job."""

    ready: bool
    """Whether store, Temporal, Vault and workers all answer."""
    checks: tuple[Check, ...]
    overdue_revocations: int | None
    """Jobs; None where the store does not tell."""
    overdue_since: datetime | None = None
    """When the oldest of those revocations began."""
    overdue_credentials: int | None = None
    """Not dead although somebody, or their ttl, wanted them ended."""
    sweep: Sweeps
    config_alarm: str | None
    """Why the newest catalog, tiers or policies are not used, where they are not."""


@router.get("/livez")
async def livez() -> Live:
    """Answer: the console lives."""
    return Live()


@router.get("/readyz", responses={503: {"model": Ready, "description": "Something that is needed does not answer"}})
async def readyz(response: Response, console: TheConsole) -> Ready:
    """Look at store, Temporal, Vault, workers and the last sweep."""
    found = await console.health.report()
    ready = all(check.ok for check in found.checks)
    response.status_code = 200 if ready else 503
    return Ready(
        ready=ready,
        checks=found.checks,
        overdue_revocations=found.overdue.jobs if found.overdue else None,
        overdue_since=found.overdue.since if found.overdue else None,
        overdue_credentials=found.overdue.credentials if found.overdue else None,
        sweep=found.sweep,
        config_alarm=console.deps.config.alarm,
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problem_responses(503)},
)
def metrics(console: TheConsole) -> Response:
    """Return gauges in Prometheus' text form."""
    figures = console.deps.store.metrics.counts()
    registry = CollectorRegistry()
    jobs = Gauge("justenough_jobs", "Jobs by state", ["state"], registry=registry)
    for state, count in figures.jobs.items():
        jobs.labels(state=state).set(count)
    Gauge("justenough_requests_pending", "Requests that wait for an answer", registry=registry).set(figures.pending_requests)
    Gauge("justenough_credentials_live", "Credentials not yet shown to be dead", registry=registry).set(figures.live_credentials)
    Gauge("justenough_revocations_overdue", "Jobs whose revocation is overdue", registry=registry).set(figures.overdue_revocations)
    Gauge("justenough_reviews_open", "Tiers passed by breaking glass that nobody has reviewed", registry=registry).set(figures.open_reviews)
    configured = console.deps.config.current().subscriptions
    told = (one for one in console.deps.store.outbox.subscription_progress() if one.name in configured)
    _add_delivery_gauges(told, console.deps.now(), registry)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _add_delivery_gauges(standings: Iterable[SubscriptionProgress], now: datetime, registry: CollectorRegistry) -> None:
    labels = ["subscription", "kind"]
    lag = Gauge(
        "justenough_webhook_lag_seconds", "Age of the oldest event not delivered yet, dead letters aside", labels, registry=registry
    )
    pending = Gauge("justenough_webhook_pending", "Deliveries that wait for another attempt", labels, registry=registry)
    dead = Gauge("justenough_webhook_dead", "Deliveries that are not tried any more: dead letters", labels, registry=registry)
    for one in standings:
        lag.labels(one.name, one.kind).set(lag_of(one, now))
        pending.labels(one.name, one.kind).set(one.pending)
        dead.labels(one.name, one.kind).set(one.dead)
