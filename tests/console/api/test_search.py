"""GET /search finds everything that the caller may read, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from justenough.adapters.store.search import MAX_FOUND_PER_KIND
from tests.console.served_console import SPEC, Served


async def find(served: Served, text: str, who: str) -> dict[str, Any]:
    """Search once everything that is recorded so far is indexed."""
    while not served.store.search.index().is_complete:
        pass
    answer = await served.get("/search", who, params={"q": text})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_everyone_finds_what_they_may_read(served: Served) -> None:
    job = (await served.launch({**SPEC, "name": "parcel-tracer", "task": "Trace the parcel of Ottilie"}))["id"]
    credential = served.issue(job)
    for text, hit in (
        (f"XX0bDqLP-token-{job}-orders-read-acm", ("job", job)),
        (job[:-3], ("job", job)),
        (f"see {credential}.", ("credential", credential)),
        ("parcel", ("name", "parcel-tracer")),
        ("trac ottil", ("job", job)),
        (f"{job}/job.submitted", ("entry", f"{job}/job.submitted")),
    ):
        seen = {
            who: hit in {(one["kind"], one["id"]) for one in (await find(served, text, who))["hits"]} for who in ("ops", "lead", "ops2")
        }
        assert seen == {"ops": True, "lead": True, "ops2": False}, text


async def test_a_launcher_finds_their_job_by_a_beginning_that_many_ids_of_others_share(served: Served) -> None:
    for _ in range(MAX_FOUND_PER_KIND):
        await served.launch()
    launched = await served.post("/jobs", "ops2", served.people["ops2"].order(SPEC))
    job = launched.json()["id"]
    assert ("job", job) in {(one["kind"], one["id"]) for one in (await find(served, job[:7], "ops2"))["hits"]}


async def test_people_are_found_only_by_themselves_and_by_those_who_read_everything(served: Served) -> None:
    await served.launch()
    found = {who: [(one["kind"], one["id"]) for one in (await find(served, "ops", who))["hits"]] for who in ("auditor", "ops", "ops2")}
    assert [("person", "ops") in hits for hits in found.values()] == [True, True, False]


async def test_every_member_of_a_group_can_find_resources_of_the_catalog(served: Served) -> None:
    assert ("resource", "refunds-db") in {(one["kind"], one["id"]) for one in (await find(served, "refunds", "ops2"))["hits"]}


async def test_a_search_without_result_suggests_names_that_the_caller_may_know(served: Served) -> None:
    await served.launch({**SPEC, "name": "zebra-counter"})
    found = {who: await find(served, "zebra-cuonter", who) for who in ("auditor", "ops", "ops2")}
    assert {who: result["hits"] for who, result in found.items()} == {"auditor": [], "ops": [], "ops2": []}
    assert {who: "zebra-counter" in result["suggestions"] for who, result in found.items()} == {"auditor": True, "ops": True, "ops2": False}
    assert "refunds-db" in (await find(served, "refnds-db", "ops2"))["suggestions"]


async def test_a_person_in_no_group_may_not_search(served: Served) -> None:
    assert (await served.get("/search", "nobody", params={"q": "refund"})).status_code == 403


@pytest.mark.parametrize("query", [{}, {"q": ""}, {"q": "x" * 401}, {"q": "a\0b"}])
async def test_a_text_that_cannot_be_searched_for_is_named(served: Served, query: dict[str, str]) -> None:
    answer = await served.get("/search", "ops", params=query)
    assert answer.status_code == 422
    assert "q" in answer.text
