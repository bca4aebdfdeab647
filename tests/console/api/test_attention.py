"""What needs attention: who sees it, who may acknowledge it, and that everyone learns who has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from justenough.adapters.store.attention import MAX_ITEMS_PER_KIND
from justenough.domain.core.ids import new_job_id
from tests.adapters.store import event_samples as samples
from tests.console.served_console import Served


async def items_of(served: Served, who: str) -> dict[str, Any]:
    """Return what needs attention, by key."""
    answer = await served.get("/attention", who)
    assert answer.status_code == 200, answer.text
    return {item["key"]: item for item in answer.json()["items"]}


async def test_people_who_may_stop_a_failed_job_can_acknowledge_it(served: Served) -> None:
    job = (await served.launch())["id"]
    served.end(job, "failed")
    key = f"failed/{job}"
    body = {"item": key, "note": "I restart it"}
    assert {who: key in await items_of(served, who) for who in ("ops", "lead", "auditor", "ops2")} == {
        "ops": True,
        "lead": True,
        "auditor": True,
        "ops2": False,
    }
    refused = {who: (await served.post("/attention/acknowledge", who, body)).status_code for who in ("auditor", "ops2", "nobody")}
    assert refused == {"auditor": 403, "ops2": 404, "nobody": 403}
    assert (await served.post("/attention/acknowledge", "lead", {**body, "note": "x" * 501})).status_code == 422
    assert (await items_of(served, "ops"))[key]["acknowledged"] is None
    taken = await served.post("/attention/acknowledge", "lead", body)
    assert (taken.status_code, taken.json()["acknowledged"]["person"]) == (200, "lead")
    found = (await items_of(served, "ops"))[key]["acknowledged"]
    assert (found["person"], found["note"], found["at"]) == ("lead", "I restart it", taken.json()["acknowledged"]["at"])
    assert (await served.post("/attention/acknowledge", "lead", {"item": "failed/j-none"})).status_code == 404


async def test_a_launcher_sees_their_own_failed_job_however_many_jobs_of_others_failed_later(served: Served) -> None:
    job = (await served.launch())["id"]
    served.end(job, "failed")
    key, now = f"failed/{job}", datetime.now(UTC)
    for number in range(MAX_ITEMS_PER_KIND):
        other = new_job_id("dev", now=now)
        served.store.ledger.append([samples.submission(other, at=now, name=f"other-{number}"), samples.job_end("failed", other, at=now)])
    assert key in await items_of(served, "ops")
    assert (await served.post("/attention/acknowledge", "ops", {"item": key, "note": "I restart it"})).status_code == 200
    assert (await items_of(served, "ops"))[key]["acknowledged"]["note"] == "I restart it"
