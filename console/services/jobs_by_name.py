"""All jobs of one name: their newest runs, and what these requested and used. Blocking, for a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from console.auth.authorization import Caller
from console.services.console import Console
from justenough.domain.core.errors import NotFound
from justenough.domain.jobs.states import JobState
from justenough.domain.readmodel.views import ApprovalView, JobSummary, RequestView
from justenough.domain.rightsizing.analysis import Sizing, build_sizing

MAX_RUNS = 100
"""The number of newest runs that all figures cover."""


@dataclass(frozen=True, slots=True)
class Run:
    job: JobSummary
    requests: Sequence[RequestView]

    @property
    def ran_s(self) -> float | None:
        """Seconds from the start of its process to its end; None if it never ran or still runs."""
        job = self.job
        return (job.ended_at - job.started_at).total_seconds() if job.started_at and job.ended_at else None

    @property
    def waited_s(self) -> float | None:
        """Seconds from its launch to the start of its process, or to its end if it never ran; None if it still waits."""
        over = self.job.started_at or self.job.ended_at
        return (over - self.job.created_at).total_seconds() if over else None

    @property
    def decisions(self) -> Sequence[tuple[RequestView, ApprovalView]]:
        """The decisions of people, each with its request."""
        return [(request, approval) for request in self.requests for approval in request.approvals]

    @property
    def is_decided_by_policy(self) -> bool:
        """Whether policy decided each of its requests without an approver."""
        return all(request.tier == 0 for request in self.requests)


@dataclass(frozen=True, slots=True)
class JobsByName:
    """The newest runs of a name."""

    name: str
    runs: Sequence[Run]
    """Newest first, at most MAX_RUNS."""
    has_more: bool
    sizing: Sizing

    @property
    def ended_runs(self) -> Sequence[Run]:
        return [run for run in self.runs if run.job.state.ended]

    @property
    def succeeded_percent(self) -> int | None:
        """The percentage of ended runs, without those that people stopped, that succeeded; None if there are none. Rounded down: 100 means all."""
        states = [run.job.state for run in self.ended_runs if not run.job.state.is_stopped]
        return 100 * states.count(JobState.SUCCEEDED) // len(states) if states else None

    @property
    def duration_quantiles(self) -> tuple[float, float] | None:
        """Median and 95th percentile of the seconds that processes ran; None if none has ended."""
        spans = [run.ran_s for run in self.runs if run.ran_s is not None]
        parts = quantiles(spans, n=20, method="inclusive") if len(spans) > 1 else spans * 19
        return (parts[9], parts[18]) if parts else None

    def needed_tier(self, resource: str, action: str) -> int:
        """Return the tier that policy required for an action in the newest run that requested it; 0 if none."""
        asked = (one for run in self.runs for one in run.requests if (one.resource, one.action) == (resource, action))
        newest = next(asked, None)
        return newest.tier if newest else 0

    def deciders(self, resource: str, action: str) -> Sequence[str]:
        """Return who decided on requests for an action in these runs, the most frequent first."""
        names = [
            approval.approver
            for run in self.runs
            for request, approval in run.decisions
            if (request.resource, request.action) == (resource, action)
        ]
        return sorted(set(names), key=lambda name: (-names.count(name), name))


def jobs_by_name(console: Console, caller: Caller, name: str) -> JobsByName:
    """Return the runs of a name that the caller may read. Raises NotFound if there are none."""
    store = console.deps.store
    page = store.jobs.list(name=name, requester_id=caller.requester_filter, limit=MAX_RUNS)
    history = store.usage.run_history(name, requester_id=caller.requester_filter, runs=MAX_RUNS)
    if history is None or not page.items:
        raise NotFound(f"there is no job named {name}")
    requests: dict[str, list[RequestView]] = {job.id: [] for job in page.items}
    for request in store.requests.of_jobs(requests):
        requests[request.job_id].append(request)
    return JobsByName(
        name=name,
        runs=[Run(job, requests[job.id]) for job in page.items],
        has_more=page.next is not None,
        sizing=build_sizing(history.name, history.spec, history.runs, newest=history.newest, newest_at=history.newest_at),
    )
