"""Lists of jobs by traits that the store has no index for: agent, labels and resources. Reads a bounded number of jobs for each page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from console.services.visibility import first_visible_page
from justenough.adapters.store import Store
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.readmodel.views import JobFilters, JobSummary, Page


class JobTraits(NamedTuple):
    """The traits that are compared with each job that the store finds; None for any."""

    agent: str | None = None
    labels: Mapping[str, str] = {}
    resource: str | None = None
    """A resource that the job requested access to."""

    def has(self, job: JobSummary) -> bool:
        """Whether a job has this agent and these labels."""
        is_agents = self.agent is None or (job.agent or {}).get("name") == self.agent
        return is_agents and all(job.labels.get(key) == value for key, value in self.labels.items())


JobOrder = Literal["newest", "oldest"]
"""The order of a list of jobs, by their launch times."""


def job_page(
    store: Store, filters: JobFilters, traits: JobTraits, *, order: JobOrder = "newest", limit: int, cursor: str | None
) -> Page[JobSummary]:
    """Return a page of jobs. Blocking, for a thread."""

    def read(after: str | None) -> Page[JobSummary]:
        page = store.jobs.list(**filters, oldest_first=order == "oldest", limit=limit, cursor=after)
        if traits.resource is None or not page.items:
            return page
        requested = store.jobs.with_request_for([job.id for job in page.items], traits.resource)
        return Page(items=tuple(job for job in page.items if job.id in requested), next=page.next)

    return first_visible_page(read, lambda jobs: filter(traits.has, jobs), cursor=cursor)


def parse_labels(labels: Sequence[str]) -> dict[str, str]:
    """Parse labels of the form `key=value`. Raises InvalidInput."""
    found = {}
    for label in labels:
        key, sign, value = label.partition("=")
        if not key or not sign:
            raise InvalidInput("request", (Problem("query.label", f"{label!r} must have the form key=value"),))
        found[key] = value
    return found
