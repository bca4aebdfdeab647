"""What needs attention: who sees it, who may acknowledge it, and that everyone learns who has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from justenough.adapters.store.attention import MAX_ITEMS_PER_KIND
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import job_id
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


async def test_launchers_see_what_needs_them_however_much_needs_others(served: Served) -> None:
    job = (await served.launch())["id"]
    served.end(job, "failed")
    for other in map(job_id, range(MAX_ITEMS_PER_KIND)):
        served.store.ledger.append([samples.submission(other, requester="e-other", name=other)])
        served.store.ledger.append([samples.job_end("failed", other, at=datetime.now(UTC))])
    assert f"failed/{job}" in await items_of(served, "ops")
    assert f"failed/{job}" not in await items_of(served, "auditor")
    taken = await served.post("/attention/acknowledge", "ops", {"item": f"failed/{job}", "note": "I restart it"})
    assert taken.status_code == 200, taken.text
    assert (await items_of(served, "ops"))[f"failed/{job}"]["acknowledged"]["person"] == "ops"
