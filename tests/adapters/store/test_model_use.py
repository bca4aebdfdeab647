"""The use of models in a period: by job, within the period, with the budgets of signed specs, read by an index."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

from justenough.adapters.store import Store
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.readmodel.model_use import TokenBudgets, total_use
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import JOB, NOW, job_id
from tests.adapters.store.test_queries import query_plans

SPEC = {"name": "ask", "run": {"command": ["true"]}, "model": {"name": "big", "requests": 10, "tokens": 1000}}


def calls(job: str = JOB, number: int = 1, *, at: datetime = NOW, outcome: str = "answered", model: str = "big-1") -> Event:
    """Three calls with 100 tokens in and 20 out."""
    tokens = {"prompt_tokens": 100, "completion_tokens": 20, "estimated": 1}
    fields = {"name": "big", "model": model, "credential": None, "calls": 3, "outcome": outcome, **tokens}
    return build_event(EventType.MODEL_USED, job, at=at, about=str(number), **fields)


def test_the_calls_of_a_period_are_added_up_by_job(store: Store) -> None:
    other, without = job_id(2), job_id(3)
    store.ledger.append(
        [
            samples.submission(spec=SPEC),
            calls(number=1, at=NOW - timedelta(hours=2)),
            calls(number=2),
            calls(number=3, outcome="over_budget", model="big-2"),
            samples.submission(other, spec=SPEC, agent=None),
            calls(other, at=NOW + timedelta(seconds=1)),
            samples.submission(without),
            calls(without, at=NOW - timedelta(days=2)),
        ]
    )
    found = store.model_use.period_use(NOW - timedelta(hours=1))
    assert found.is_whole
    assert [(use.job, use.model, use.agent, use.budget) for use in found.jobs] == [
        (other, "big", "", TokenBudgets(10, 1000)),
        (JOB, "big", "refund-agent", TokenBudgets(10, 1000)),
    ]
    one = found.jobs[1].calls
    assert (one.call_count, dict(one.refusals), one.tokens, one.estimated) == (3, {"over_budget": 3}, 240, 2)
    assert one.names == {"big-1", "big-2"}
    total = total_use(found.jobs)
    assert (total.jobs, total.calls.tokens, total.tokens_share, total.requests_share) == (2, 360, 18.0, 30.0)


def test_the_use_of_a_job_without_a_model_budget_has_no_share(store: Store) -> None:
    store.ledger.append([samples.submission(), calls()])
    assert total_use(store.model_use.period_use(NOW - timedelta(hours=1)).jobs).tokens_share is None


def test_over_the_limit_only_the_newest_calls_are_counted_and_the_result_says_so(store: Store) -> None:
    store.ledger.append([samples.submission(spec=SPEC), calls(number=1, at=NOW - timedelta(minutes=2)), calls(number=2, model="newest")])
    found = store.model_use.period_use(NOW - timedelta(hours=1), limit=1)
    assert not found.is_whole
    assert found.jobs[0].calls.names == {"newest"}


def test_the_entries_are_read_by_type_and_time(ready_file: Path) -> None:
    plans = query_plans(f"sqlite:///{ready_file}", lambda store: store.model_use.period_use(NOW))
    assert "ledger USING INDEX ix_ledger_type_at_position (type=? AND at>?)" in plans[0]
    assert not [plan for plan in plans if re.search(r"SCAN (jobs|orders|ledger)", plan)]
