"""Who sees what: auditors and approvers everything, a launcher their own, everyone else nothing; lists come in pages."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.console.served_console import SPEC, Served

READS = ["", "/logs", "/timeline"]
LISTS = ["/jobs", "/requests", "/credentials", "/ledger", "/catalog", "/sizing", "/sizing/refund-triage"]


@pytest.mark.parametrize("path", READS)
async def test_a_job_can_be_read_by_its_launcher_approvers_and_auditors(served: Served, path: str) -> None:
    job = (await served.launch())["id"]
    codes = {who: (await served.get(f"/jobs/{job}{path}", who)).status_code for who in served.people}
    assert codes == {
        "ops": 200,
        "lead": 200,
        "security": 200,
        "chief": 200,
        "chief2": 200,
        "auditor": 200,
        "oncall": 200,
        "ops2": 404,
        "nobody": 403,
    }


@pytest.mark.parametrize("path", LISTS)
async def test_a_person_in_no_group_sees_no_list(served: Served, path: str) -> None:
    answer = await served.get(path, "nobody")
    assert (answer.status_code, answer.json()["detail"]) == (
        403,
        "needs one of the groups: auditors, break-glass, chiefs, ops, security, support-leads",
    )


async def test_a_launchers_lists_show_only_their_own_jobs(served: Served) -> None:
    began, job = datetime.now(UTC).isoformat(), (await served.launch())["id"]
    credential = served.issue(job)
    for path, expected in (("/jobs", job), ("/credentials", credential), ("/ledger", f"{job}/job.submitted")):
        for who, seen in (("ops", True), ("auditor", True), ("ops2", False)):
            # Only the ledger's pages begin with the oldest.
            page = await served.get(path, who, params={"limit": 1000, **({"since": began} if path == "/ledger" else {})})
            assert (expected in {item["id"] for item in page.json()["items"]}) is seen, (path, who)
    assert (await served.get(f"/credentials/{credential}", "ops")).status_code == 200
    assert (await served.get(f"/credentials/{credential}", "ops2")).status_code == 404


async def test_right_sizing_counts_only_the_runs_that_its_reader_may_read(served: Served) -> None:
    job = (await served.launch({**SPEC, "name": "only-ops-runs-it"}))["id"]
    served.end(job)

    async def names(who: str) -> dict[str, int]:
        page = await served.get("/sizing", who, params={"limit": 100})
        assert page.status_code == 200, page.text
        return {item["name"]: item["runs"] for item in page.json()["items"]}

    for who, seen in (("ops", True), ("auditor", True), ("ops2", False)):
        found = await served.get("/sizing/only-ops-runs-it", who)
        assert found.status_code == (200 if seen else 404), (who, found.text)
        assert ((await names(who)).get("only-ops-runs-it") == 1) is seen, who
    whole = (await served.get("/sizing/only-ops-runs-it", "ops")).json()
    assert (whole["newest"], whole["spec"]["run"], whole["runs"], whole["ran"]) == (job, SPEC["run"], 1, 0)


async def test_only_people_who_read_every_job_see_the_usage_of_the_catalog(served: Served) -> None:
    served.issue((await served.launch_and_request())["job_id"])
    found = (await served.get("/catalog/usage", "auditor")).json()["items"]
    (write,) = (use for use in found if (use["resource"], use["action"]) == ("refunds-db", "write"))
    assert (write["granted"] >= 1, write["last_issued"] is not None, {"tenant": "acme"} in write["scopes"]) == (True, True, True)
    # If launchers saw only their own runs, they would consider access unused that others use.
    refused = await served.get("/catalog/usage", "ops")
    assert (refused.status_code, refused.json()["detail"].startswith("needs one of the groups: auditors, ")) == (403, True)


async def test_only_people_who_read_the_whole_ledger_can_verify_it(served: Served) -> None:
    await served.launch()
    report = await served.post("/ledger/verify", "auditor")
    assert (report.status_code, report.json()["problems"]) == (200, [])
    assert report.json()["unseen"]
    assert (await served.post("/ledger/verify", "ops")).json()[
        "detail"
    ] == "needs one of the groups: auditors, break-glass, chiefs, security, support-leads"
    head = (await served.get("/ledger/checkpoint", "auditor")).json()
    newest = (await served.get("/ledger", "auditor", params={"after": head["position"] - 1})).json()["items"][-1]
    assert (newest["position"], newest["hash"]) == (head["position"], head["hash"])


async def test_the_ledger_is_read_by_type_and_time(served: Served) -> None:
    first = datetime.now(UTC).isoformat()
    job, other = (await served.launch())["id"], (await served.launch())["id"]
    served.end(job, "failed")
    entries = (await served.get("/ledger", "auditor", params={"limit": 1000, "since": first})).json()["items"]
    begun = next(entry["at"] for entry in entries if entry["job"] == other)

    async def told(who: str = "auditor", **params: str | list[str]) -> list[tuple[str, str]]:
        page = await served.get("/ledger", who, params={"limit": "1000", "since": first, **params})
        assert page.status_code == 200, page.text
        return [(entry["job"], entry["type"]) for entry in page.json()["items"] if entry["job"] in {job, other}]

    assert await told(type="job.ended") == [(job, "job.ended")]
    assert set(await told(type=["job.ended", "job.submitted"])) == {(job, "job.submitted"), (other, "job.submitted"), (job, "job.ended")}
    assert (job, "job.submitted") not in await told(since=begun)
    assert (other, "job.submitted") in await told(since=begun)
    assert await told("ops2", type="job.submitted") == []


async def test_jobs_come_in_pages_and_by_filter(served: Served) -> None:
    made = [(await served.launch())["id"] for _ in range(3)]
    first = (await served.get("/jobs", "auditor", params={"limit": 2})).json()
    second = (await served.get("/jobs", "auditor", params={"limit": 2, "cursor": first["next"]})).json()
    assert [item["id"] for item in (*first["items"], *second["items"])][:3] == made[::-1]

    async def ids(**params: str) -> set[str]:
        page = await served.get("/jobs", "auditor", params={"limit": "1000", **params})
        assert page.status_code == 200, page.text
        return {item["id"] for item in page.json()["items"]} & set(made)

    served.end(made[0], "failed")
    assert await ids(state="failed") == {made[0]}
    assert await ids(state="pending") == set(made[1:])
    assert await ids(environment="prod", requester="ops") == set(made)
    assert await ids(environment="staging") == await ids(requester="ops2") == set()


@pytest.mark.parametrize(
    "path",
    [
        "/jobs?limit=0",
        "/jobs?limit=1001",
        "/jobs?limit=x",
        "/jobs?state=happy",
        "/jobs?cursor=nonsense",
        "/jobs?label=team",
        "/jobs?label==support",
        "/requests?state=new",
        "/ledger?cursor=x",
        "/ledger?after=-1",
        "/ledger?type=job.begun",
        "/ledger?since=yesterday",
        "/ledger?since=0001-01-01T00:00:00%2B14:00",
        "/jobs?since=9999-12-31T23:59:59-14:00",
        "/ledger?since=2026-01-31T09:30:00",
        "/sizing?limit=101",
        "/sizing?since=yesterday",
        "/sizing/refund-triage?runs=1001",
        "/catalog/usage?since=2026-01-31T09:30:00",
    ],
)
async def test_invalid_query_parameters_are_refused_by_path(served: Served, path: str) -> None:
    answer = await served.get(path, "auditor")
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"], answer.text


async def test_the_catalog_lists_what_can_be_requested(served: Served) -> None:
    found = (await served.get("/catalog", "ops")).json()
    assert {"tenant": "acme"} in found["scopes"]
    orders = next(resource for resource in found["resources"] if resource["name"] == "orders-db")
    assert (orders["sensitivity"], orders["external"]) == ("confidential", False)
    read = next(action for action in orders["actions"] if action["action"] == "read")
    assert read["max_ttl"] >= 300
    assert read["revocable"] == "now"
    roomy = [
        f"{resource['name']}:{action['action']}" for resource in found["resources"] for action in resource["actions"] if action["space"]
    ]
    assert roomy == ["orders-db:admin", "scratch:write"]


async def test_reading_logs_continues_after_the_given_position(served: Served) -> None:
    job = (await served.launch())["id"]
    for seq in range(3):
        served.store.logs.append(job, seq, f"line {seq}\n", datetime.now(UTC))
    first = (await served.get(f"/jobs/{job}/logs", "ops", params={"limit": 2})).json()
    assert ([chunk["text"] for chunk in first["items"]], first["next"]) == (["line 0\n", "line 1\n"], "1")
    rest = (await served.get(f"/jobs/{job}/logs", "ops", params={"after": first["next"]})).json()
    assert ([chunk["text"] for chunk in rest["items"]], rest["next"]) == (["line 2\n"], None)
