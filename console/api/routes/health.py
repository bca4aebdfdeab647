"""Liveness, readiness and Prometheus metrics. Needs no token and names no job."""

from __future__ import annotations

import math
from collections import Counter
from datetime import datetime

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from console.http.dependencies import TheConsole
from console.http.problems import problem_responses
from console.services.health import Check, Sweeps
from justenough.adapters.store.outbox_queries import lag_of
from justenough.domain.core.base_model import Message
from justenough.domain.ledger.overdue import MAX_REPORT_AGE
from justenough.domain.readmodel.views import ConfigState, WorkerView

router = APIRouter(tags=["health"], responses=problem_responses(500))


class Live(Message):
    status: str = "ok"


class TargetCounts(Message):
    """The health of the catalog's targets in the last sweep."""

    known: int
    failing: int
    """Targets where users could not be found or ended: no revocation can be verified there, and no job is launched."""
    failing_since: datetime | None = None
    """When the first of them was first found failing."""
    checked_at: datetime | None = None
    """When the last sweep checked them; None if no target is known yet."""


class Ready(Message):
    """Whether the installation can run jobs: each system with its latency, and late revocations and sweeps. Only counts; names no job."""

    ready: bool
    """Whether store, Temporal, Vault and workers all answer. Targets do not count: jobs that do not use a failing target can run."""
    checks: tuple[Check, ...]
    overdue_revocations: int | None
    """Number of jobs; None if the store does not answer."""
    overdue_since: datetime | None = None
    """When the oldest overdue revocation began."""
    overdue_credentials: int | None = None
    """Credentials that are not confirmed as revoked although they were revoked or their ttl has passed."""
    sweep: Sweeps
    targets: TargetCounts
    workers: tuple[WorkerView, ...] = ()
    """Workers that reported within the last minute."""
    config_digest: str | None = None
    """The configuration that this console has in force; None if it has none."""
    config_alarm: str | None
    """Why the newest catalog, tiers or policies are not in use, here or in a worker, a line for each; None if they are."""


@router.get("/livez")
async def livez() -> Live:
    """Answer while the console is running."""
    return Live()


@router.get("/readyz", responses={503: {"model": Ready, "description": "A required system does not answer"}})
async def readyz(response: Response, console: TheConsole) -> Ready:
    """Check store, Temporal, Vault, workers and the last sweep."""
    report = await console.health.report()
    ready, overdue = all(check.ok for check in report.checks), report.overdue
    response.status_code = 200 if ready else 503
    return Ready(
        ready=ready,
        checks=report.checks,
        overdue_revocations=overdue.jobs if overdue else None,
        overdue_since=overdue.since if overdue else None,
        overdue_credentials=overdue.credentials if overdue else None,
        sweep=report.sweep,
        targets=TargetCounts(
            known=report.targets.known,
            failing=len(report.targets.failing),
            failing_since=report.targets.failing[0].since if report.targets.failing else None,
            checked_at=report.targets.checked_at,
        ),
        workers=report.workers,
        config_digest=console.deps.config.digest_in_force,
        config_alarm=report.config_alarm(console.deps.config.alarm),
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problem_responses(503)},
)
def metrics(console: TheConsole) -> Response:
    """Return gauges in the Prometheus text format."""
    figures, overdue = console.deps.store.metrics.counts(), console.deps.store.metrics.overdue()
    registry = CollectorRegistry()
    jobs = Gauge("justenough_jobs", "Jobs by state", ["state"], registry=registry)
    for state, count in figures.jobs.items():
        jobs.labels(state=state).set(count)
    Gauge("justenough_requests_pending", "Requests that wait for a decision", registry=registry).set(figures.pending_requests)
    Gauge("justenough_credentials_live", "Credentials not yet confirmed dead", registry=registry).set(figures.live_credentials)
    Gauge("justenough_revocations_overdue", "Jobs whose revocation is overdue", registry=registry).set(overdue.jobs)
    Gauge(
        "justenough_credentials_overdue",
        "Credentials that should have ended and are not confirmed dead, also in running jobs",
        registry=registry,
    ).set(overdue.credentials)
    failing = [check for check in console.deps.store.targets.all() if check.failure is not None]
    Gauge("justenough_targets_failing", "Targets where the last sweep could not find or end users", registry=registry).set(len(failing))
    Gauge("justenough_reviews_open", "Break-glass uses whose review is open", registry=registry).set(figures.open_reviews)
    now, last = console.deps.now(), console.deps.store.sweeps.last()
    age = (now - last.ended_at).total_seconds() if last and last.ended_at else math.inf
    Gauge("justenough_sweep_age_seconds", "Time since the last sweep ended, +Inf if none has; late above 60", registry=registry).set(age)
    by_clock = Gauge(
        "justenough_sweep_by_clock", "1 if the last sweep came by a worker's own clock, not through Temporal", registry=registry
    )
    by_clock.set(last is not None and last.by_clock)
    configured = console.deps.config.current().subscriptions
    workers = Gauge(
        "justenough_workers",
        "Workers that reported themselves within the last minute, by configuration: valid, last_good (the newest is broken), none",
        ["configuration"],
        registry=registry,
    )
    seen = Counter(worker.config_state for worker in console.deps.store.workers.seen_since(now - MAX_REPORT_AGE))
    for state in ConfigState:
        workers.labels(configuration=state.value).set(seen[state])
    labels = ["subscription", "kind"]
    lag = Gauge("justenough_webhook_lag_seconds", "Age of the oldest undelivered event, without dead letters", labels, registry=registry)
    pending = Gauge("justenough_webhook_pending", "Deliveries that wait for another attempt", labels, registry=registry)
    dead = Gauge("justenough_webhook_dead", "Dead letters: deliveries without further attempts", labels, registry=registry)
    for item in console.deps.store.outbox.subscription_progress():
        if item.name in configured:
            lag.labels(item.name, item.kind).set(lag_of(item, now))
            pending.labels(item.name, item.kind).set(item.pending)
            dead.labels(item.name, item.kind).set(item.dead)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
