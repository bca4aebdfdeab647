"""One agent: its versions, jobs, tools, denials and tokens. Blocking, for a thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from console.auth.authorization import Caller
from console.services.console import Console
from justenough.domain.core.errors import NotFound
from justenough.domain.jobs.states import RequestState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.model_use import ModelCalls, calls_of_entries
from justenough.domain.readmodel.views import JobSummary, RequestView

MAX_JOBS = 100
"""The number of newest jobs that the figures cover."""
MAX_ENTRIES = 5_000
"""Maximum number of calls of tools and models that are counted, beginning with the newest jobs."""
REFUSED_STATES = frozenset({RequestState.DENIED, RequestState.EXPIRED})


@dataclass(frozen=True, slots=True)
class AgentVersion:
    """A version of an agent with its model and owner, as specs name them."""

    version: str
    model: str
    owner: str


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """The newest jobs of an agent that a caller may read."""

    name: str
    jobs: Sequence[JobSummary]
    versions: Mapping[AgentVersion, int]
    """Number of jobs by version; the version of the newest job comes first."""
    tools: Mapping[str, Counter[str]]
    """Calls by outcome."""
    models: Mapping[str, ModelCalls]
    refused: Sequence[RequestView]
    """Requests that were denied or expired, newest first."""
    is_whole: bool
    """Whether all calls of these jobs were counted."""


def agent_record(console: Console, caller: Caller, name: str) -> AgentRecord:
    """Return the record of an agent. Raises NotFound if the caller may read none of its jobs."""
    store = console.deps.store
    ids = store.search.jobs_of_agent(name, requester_id=caller.requester_filter, limit=MAX_JOBS)
    found = [(job, job.agent) for job in store.jobs.by_ids(ids) if job.agent and job.agent.get("name") == name]
    if not found:
        raise NotFound(f"there is no agent {name}")
    entries = store.ledger.newest_of_jobs(ids, (EventType.TOOL_CALLED, EventType.MODEL_USED), limit=MAX_ENTRIES)
    tools: dict[str, Counter[str]] = {}
    models: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        data = entry.data
        if entry.type == EventType.TOOL_CALLED:
            tools.setdefault(data["tool"], Counter())[data["outcome"]] += 1
        else:
            models.setdefault(data["name"], []).append(data)
    refused = [request for request in store.requests.of_jobs(ids) if request.state in REFUSED_STATES]
    versions = Counter(AgentVersion(*(str(agent.get(key) or "") for key in ("version", "model", "owner"))) for _, agent in found)
    return AgentRecord(
        name=name,
        jobs=[job for job, _ in found],
        versions=versions,
        tools=dict(sorted(tools.items())),
        models={model: calls_of_entries(uses) for model, uses in sorted(models.items())},
        refused=sorted(refused, key=lambda request: request.created_at, reverse=True),
        is_whole=len(entries) < MAX_ENTRIES,
    )
