"""Liveness, readiness and Prometheus metrics. No token needed; names no job."""

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
    """Whether the installation can do its work: each system with its latency, and what is late. Only counts; names no job."""

    ready: bool
    """Whether store, Temporal, Vault and workers all answer."""
    checks: tuple[Check, ...]
    overdue_revocations: int | None
    """Number of jobs; None if the store does not answer."""
    overdue_since: datetime | None = None
    """When the oldest of these revocations began."""
    overdue_credentials: int | None = None
    """Credentials that are not dead although they were revoked or their ttl is over."""
    sweep: Sweeps
    config_alarm: str | None
    """Why the newest catalog, tiers or policies are not in use; None if they are."""


@router.get("/livez")
async def livez() -> Live:
    """Answer as long as the console runs."""
    return Live()


@router.get("/readyz", responses={503: {"model": Ready, "description": "A system that is needed does not answer"}})
async def readyz(response: Response, console: TheConsole) -> Ready:
    """Check store, Temporal, Vault, workers and the last sweep."""
    report = await console.health.report()
    ready = all(check.ok for check in report.checks)
    response.status_code = 200 if ready else 503
    return Ready(
        ready=ready,
        checks=report.checks,
        overdue_revocations=report.overdue.jobs if report.overdue else None,
        overdue_since=report.overdue.since if report.overdue else None,
        overdue_credentials=report.overdue.credentials if report.overdue else None,
        sweep=report.sweep,
        config_alarm=console.deps.config.alarm,
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problem_responses(503)},
)
def metrics(console: TheConsole) -> Response:
    """Return gauges in the Prometheus text format."""
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
    progress = (item for item in console.deps.store.outbox.subscription_progress() if item.name in configured)
    _add_delivery_gauges(progress, console.deps.now(), registry)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _add_delivery_gauges(progress: Iterable[SubscriptionProgress], now: datetime, registry: CollectorRegistry) -> None:
    labels = ["subscription", "kind"]
    lag = Gauge(
        "justenough_webhook_lag_seconds", "Age of the oldest event not delivered yet, dead letters aside", labels, registry=registry
    )
    pending = Gauge("justenough_webhook_pending", "Deliveries that wait for another attempt", labels, registry=registry)
    dead = Gauge("justenough_webhook_dead", "Deliveries that are not tried any more: dead letters", labels, registry=registry)
    for item in progress:
        lag.labels(item.name, item.kind).set(lag_of(item, now))
        pending.labels(item.name, item.kind).set(item.pending)
        dead.labels(item.name, item.kind).set(item.dead)
