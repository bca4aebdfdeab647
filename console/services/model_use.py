"""The use of language models by the jobs that a person may read, against the jobs' budgets. Blocking, for a thread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from console.auth.authorization import Caller
from console.services.console import Console
from justenough.domain.llm.definition import ModelDef
from justenough.domain.readmodel.model_use import JobModelUse, ModelUseTotal, total_use

MAX_TOP_JOBS = 10
MAX_AGENTS = 50
Period = Literal["24h", "7d"]
PERIODS: Mapping[Period, timedelta] = {"24h": timedelta(hours=24), "7d": timedelta(days=7)}


@dataclass(frozen=True, slots=True)
class ModelUseSummary:
    """The use in a period, of the jobs that a caller may read."""

    total: ModelUseTotal
    models: Mapping[str, ModelUseTotal]
    """By name: the catalog's models, used or not, and others that were used."""
    agents: Mapping[str, ModelUseTotal]
    """By name, the MAX_AGENTS with the most tokens. An empty name stands for jobs without an agent."""
    more_agents: int
    """How many further agents there are."""
    top_jobs: Sequence[JobModelUse]
    """The jobs with the most tokens, at most MAX_TOP_JOBS."""
    definitions: Mapping[str, ModelDef]
    """The catalog's models."""
    is_whole: bool
    """Whether every call of the period was counted."""


def model_use_summary(console: Console, caller: Caller, period: Period) -> ModelUseSummary:
    """Return the use of each model, of each agent, and of the jobs with the most tokens."""
    found = console.dashboard.model_use(PERIODS[period])
    jobs = [use for use in found.jobs if caller.can_read_jobs_of(use.requester_id)]
    definitions = console.deps.config.current().catalog.models
    models = _totals(jobs, lambda use: use.model)
    agents = sorted(_totals(jobs, lambda use: use.agent).items(), key=lambda item: (-item[1].calls.tokens, item[0]))
    return ModelUseSummary(
        total=total_use(jobs),
        models={name: models.get(name, total_use(())) for name in sorted({*definitions, *models})},
        agents=dict(agents[:MAX_AGENTS]),
        more_agents=len(agents[MAX_AGENTS:]),
        top_jobs=sorted(jobs, key=lambda use: use.calls.tokens, reverse=True)[:MAX_TOP_JOBS],
        definitions=definitions,
        is_whole=found.is_whole,
    )


def _totals(jobs: Sequence[JobModelUse], key: Callable[[JobModelUse], str]) -> dict[str, ModelUseTotal]:
    groups: defaultdict[str, list[JobModelUse]] = defaultdict(list)
    for use in jobs:
        groups[key(use)].append(use)
    return {name: total_use(uses) for name, uses in groups.items()}
