"""The use of language models in a period: calls, tokens and budgets by job, and their totals. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

REFUSED_OUTCOMES = ("over_budget", "denied", "not_allowed")
"""Outcomes of calls that the gateway refused. A stream that it cut off at the end of the budget counts as refused."""


@dataclass(frozen=True, slots=True)
class ModelCalls:
    """The calls of a model that the ledger records."""

    outcomes: Mapping[str, int] = field(default_factory=dict)
    prompt: int = 0
    completion: int = 0
    estimated: int = 0
    """Calls whose tokens were estimated, because the model's server did not report them."""
    names: frozenset[str] = frozenset()
    """The model names that jobs used; several models may be behind one name of the catalog."""

    @property
    def call_count(self) -> int:
        """Calls that the gateway made."""
        return sum(calls for outcome, calls in self.outcomes.items() if outcome not in REFUSED_OUTCOMES)

    @property
    def refusals(self) -> Mapping[str, int]:
        """Calls that the gateway refused, by outcome."""
        return {outcome: self.outcomes[outcome] for outcome in REFUSED_OUTCOMES if self.outcomes.get(outcome)}

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens, which count against a budget together."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class TokenBudgets:
    """The budgets of one or more jobs."""

    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class JobModelUse:
    """A job's use of its model in a period."""

    job: str
    name: str
    requester: str
    requester_id: str
    agent: str
    """Empty if the spec names none."""
    model: str
    """The model's name in the catalog."""
    budget: TokenBudgets
    """The budget in its signed spec: for the whole job, which may have begun before the period."""
    calls: ModelCalls

    @property
    def total(self) -> ModelUseTotal:
        return ModelUseTotal(1, self.calls, self.budget)


@dataclass(frozen=True, slots=True)
class PeriodModelUse:
    """The use of all jobs in a period."""

    jobs: tuple[JobModelUse, ...] = ()
    is_whole: bool = True
    """Whether every entry of the period was counted."""


@dataclass(frozen=True, slots=True)
class ModelUseTotal:
    """The use of several jobs together."""

    jobs: int
    calls: ModelCalls
    budget: TokenBudgets

    @property
    def tokens_share(self) -> float | None:
        """Percentage of the budgets' tokens; None without a budget."""
        return 100 * self.calls.tokens / self.budget.tokens if self.budget.tokens else None

    @property
    def requests_share(self) -> float | None:
        """Percentage of the budgets' requests; None without a budget."""
        return 100 * self.calls.call_count / self.budget.requests if self.budget.requests else None


def calls_of_entries(entries: Iterable[Mapping[str, Any]]) -> ModelCalls:
    """Return the calls that `model.used` entries record. `entries`: the data of each entry."""
    return add_calls(
        ModelCalls(
            outcomes={one["outcome"]: one["calls"]},
            prompt=one["prompt_tokens"],
            completion=one["completion_tokens"],
            estimated=one["estimated"],
            names=frozenset({one["model"]}),
        )
        for one in entries
    )


def add_calls(calls: Iterable[ModelCalls]) -> ModelCalls:
    parts, outcomes = list(calls), Counter[str]()
    for part in parts:
        outcomes.update(part.outcomes)
    return ModelCalls(
        outcomes=outcomes,
        prompt=sum(part.prompt for part in parts),
        completion=sum(part.completion for part in parts),
        estimated=sum(part.estimated for part in parts),
        names=frozenset().union(*(part.names for part in parts)),
    )


def total_use(uses: Iterable[JobModelUse]) -> ModelUseTotal:
    jobs = list(uses)
    budget = TokenBudgets(sum(use.budget.requests for use in jobs), sum(use.budget.tokens for use in jobs))
    return ModelUseTotal(len(jobs), add_calls(use.calls for use in jobs), budget)
