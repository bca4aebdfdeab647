"""The workflow Fire offers an occasion to the console until it takes it, or says that there is nothing to launch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.common import SearchAttributePair, TypedSearchAttributes

from console.temporal.fire_workflow import SCHEDULED_START
from tests.workflows.servers import QUEUE, Bench

AT = datetime(2026, 1, 31, 2, tzinfo=UTC)
STARTED = TypedSearchAttributes([SearchAttributePair(SCHEDULED_START, AT)])


async def fire(server: Bench, schedule: str, attributes: TypedSearchAttributes = STARTED) -> Any:
    """Return what becomes of an occasion."""
    options: dict[str, Any] = {"id": f"fire-{schedule}-{len(list(attributes))}", "task_queue": QUEUE, "search_attributes": attributes}
    return await server.client.execute_workflow("Fire", schedule, **options)


async def test_an_occasion_is_offered_again_to_a_console_that_cannot_take_it_now(server: Bench) -> None:
    assert await fire(server, "nightly") == f"nightly at {AT.isoformat()}"


@pytest.mark.parametrize("schedule, attributes", [("unknown", STARTED), ("nightly", TypedSearchAttributes.empty)])
async def test_an_occasion_that_is_refused_for_good_is_offered_only_once(
    server: Bench, schedule: str, attributes: TypedSearchAttributes
) -> None:
    with pytest.raises(WorkflowFailureError):
        await fire(server, schedule, attributes)
