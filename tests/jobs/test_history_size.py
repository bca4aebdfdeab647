"""A job's history in Temporal is short and does not grow with its work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.people import Human
from tests.support.shop import Shop, spec

pytestmark = pytest.mark.servers

BUDGET = 30


def event_types(shop: Shop, workflow: str) -> list[str]:
    """Return the types of a workflow's events."""
    temporal = Path(sys.executable).with_name("temporal")
    command = [str(temporal), "workflow", "show", "--workflow-id", workflow, "--address", str(shop.stack.temporal), "--output", "json"]
    shown = subprocess.run(command, check=True, capture_output=True)
    return [event["eventType"] for event in json.loads(shown.stdout)["events"]]


def test_the_history_of_an_auto_approved_job_is_short(ops: Human, shop: Shop) -> None:
    job = ops.launch(spec("true"))
    assert ops.until(job)["state"] == "succeeded"
    events = event_types(shop, job)
    print(f"history of an auto-approved job: {len(events)} events (budget {BUDGET})")  # noqa: T201 - a figure that people look up
    assert len(events) <= BUDGET
