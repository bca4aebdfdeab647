"""A job that is killed while a tool that it called is at work."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.activities.broker.remote_job import Puppet
from tests.activities.broker.test_tool_gateway import call_tool
from tests.support.people import Human
from tests.support.shop import Login, Shop

KILL_TIMEOUT_S = 300
"""Seconds on a busy machine; the tool would be at work for longer."""
RECORDS = ("tool.called", "credential.used")


def kill_in_call(
    ops: Human, shop: Shop, job: Puppet, tool: str, *, reached: threading.Event, login: Callable[[], Login]
) -> tuple[dict[str, Any], Login]:
    """Kill it once the upstream is reached, with a login that works; return the job as it ended, and that login."""

    def until_it_dies() -> None:
        # The call gets an invalid answer, an error instead of a result, or no answer.
        with contextlib.suppress(AssertionError, OSError, ValueError, KeyError):
            call_tool(job, tool)

    reached.clear()
    calling = threading.Thread(target=until_it_dies)
    calling.start()
    assert reached.wait(180)
    held = login()
    assert shop.can_log_in(held)
    began = time.monotonic()
    assert ops.api.post(f"jobs/{job.job}/kill").status_code in {200, 202}
    seen = ops.until(job.job, "killed")
    assert time.monotonic() - began < KILL_TIMEOUT_S
    calling.join(180)
    credentials = {kind: {entry["data"]["credential"] for entry in ops.ledger(job.job) if entry["type"] == kind} for kind in RECORDS}
    assert credentials["tool.called"] <= credentials["credential.used"], "right-sizing counts what was used"
    return seen, held
