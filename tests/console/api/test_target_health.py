"""A job is refused at its launch if the last sweep found that its access could not be revoked, and only then."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from console.services.console_orders import order_run_now
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.errors import NotNow
from justenough.domain.ledger.overdue import MAX_SWEEP_AGE
from justenough.domain.readmodel.views import TargetCheck
from tests.console.served_console import SPEC, Served

NAME, ALIVE = "db.example:5432/shop", "users of jobs that have ended are alive: v-x (job j-x); session 4711 of v-x has been running"


@pytest.fixture(autouse=True)
def no_checks(served: Served) -> Iterator[None]:
    yield
    served.store.targets.record([])


def record(served: Served, *, failure: str | None = ALIVE, age: timedelta = timedelta(), actions: tuple[str, ...] | None) -> datetime:
    """Record the only target's check and return since when it is so."""
    at = served.console.deps.now() - age
    served.store.targets.record([])
    served.store.targets.record([TargetCheck(name=NAME, failure=failure, since=at, checked_at=at, actions=actions)])
    return at


async def test_access_to_a_failing_target_is_refused_with_the_reason_at_once(served: Served) -> None:
    since = record(served, actions=("orders-db:read",)).astimezone(UTC)
    answer = await served.post("/jobs", "ops", served.people["ops"].order())
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "10"
    why = (
        f"the target {NAME} cannot be revoked now: {ALIVE}, since {since:%Y-%m-%dT%H:%M:%SZ}; launch again when it can (justenough status)"
    )
    assert answer.json()["errors"] == [{"path": "access[0]", "message": why}]
    assert answer.json()["detail"] == f"job spec: access[0]: {why}"


async def test_the_same_order_is_accepted_once_the_target_is_well(served: Served) -> None:
    record(served, actions=("orders-db:read",))
    order = served.people["ops"].order()
    assert (await served.post("/jobs", "ops", order)).status_code == 503
    record(served, failure=None, actions=("orders-db:read",))
    assert (await served.post("/jobs", "ops", order)).status_code == 201
    record(served, actions=("orders-db:read",))
    assert (await served.post("/jobs", "ops", order)).status_code == 200, "it was launched before"


@pytest.mark.parametrize(
    "age, actions",
    [
        (MAX_SWEEP_AGE + timedelta(seconds=5), ("orders-db:read",)),
        (timedelta(), ("refunds-db:write", "orders-db:write")),
        (timedelta(), ()),
        (timedelta(), None),
    ],
    ids=["stale", "other actions", "no actions", "of an earlier version"],
)
async def test_a_check_that_is_stale_or_of_other_actions_refuses_nothing(
    served: Served, age: timedelta, actions: tuple[str, ...] | None
) -> None:
    record(served, age=age, actions=actions)
    await served.launch()


async def test_a_dry_run_warns_of_it(served: Served) -> None:
    record(served, actions=("orders-db:read",))
    answer = await served.post("/jobs", "ops", {"spec": SPEC, "dry_run": True})
    assert answer.status_code == 200, answer.text
    assert any(warning.startswith(f"access[0]: the target {NAME} cannot be revoked now") for warning in answer.json()["warnings"])


def test_a_schedules_job_is_refused_too(served: Served) -> None:
    deps = served.console.deps
    (name, schedule), *_ = deps.config.require().schedules.items()
    item = schedule.spec["access"][0]
    record(served, actions=(f"{item['resource']}:{item['action']}",))
    person = Person(id=served.people["ops"].id, name="ops", groups=frozenset())
    with pytest.raises(NotNow, match="cannot be revoked now"):
        order_run_now(deps, served.console.quotas, name, person, reason="now", key=None)
