"""An order is accepted or refused as a whole, with every error; the same order twice launches one job."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import pytest
from temporalio.api.enums.v1 import EventType as HistoryEvent

from justenough.adapters.store import StoreUnavailable
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.bundle import bundle_digest, pack
from tests.console.served_console import SPEC, Served


def spec(**changes: Any) -> dict[str, Any]:
    return SPEC | changes


def access(**changes: Any) -> dict[str, Any]:
    return spec(access=[{"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "look"} | changes])


async def test_a_signed_order_becomes_a_job_with_a_workflow_of_its_id(served: Served) -> None:
    body = served.people["ops"].order(params={"ticket": "4712"})
    answer = await served.post("/jobs", "ops", body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/api/v1/jobs/{body['id']}"
    job = answer.json()
    assert (job["id"], job["state"], job["requester"], job["params"]) == (body["id"], "pending", "ops", {"ticket": "4712"})
    handle = served.temporal.get_workflow_handle(body["id"])
    described = await handle.describe()
    assert (described.workflow_type, described.task_queue) == ("Job", "justenough-dev")
    attributes = {pair.key.name: pair.value for pair in described.typed_search_attributes}
    assert attributes == {"JustEnoughState": "pending", "JustEnoughEnvironment": "prod", "JustEnoughRequester": "ops"}
    started = (await handle.fetch_history()).events[0]
    assert started.event_type == HistoryEvent.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED
    payloads = started.workflow_execution_started_event_attributes.input.payloads
    (order,) = await served.temporal.data_converter.decode(payloads, [JobInput])
    assert order.order.model_dump() == {"statement": body["statement"], "signature": body["signature"]}
    assert (order.spec, order.params) == (SPEC, {"ticket": "4712"})


async def test_the_first_ledger_entry_is_the_order(served: Served) -> None:
    job = await served.launch()
    entries = (await served.get(f"/jobs/{job['id']}/timeline", "ops")).json()["items"]
    assert [entry["type"] for entry in entries] == ["job.submitted"]
    assert entries[0]["data"]["order"]["statement"]["person"] == served.people["ops"].id


async def test_the_same_order_again_is_the_same_job(served: Served) -> None:
    body = served.people["ops"].order()
    first = await served.post("/jobs", "ops", body)
    again = await served.post("/jobs", "ops", body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()


async def test_the_same_order_at_once_is_one_job(served: Served) -> None:
    body = served.people["ops"].order()
    answers = await asyncio.gather(*(served.post("/jobs", "ops", body) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    entries = (await served.get("/ledger", "auditor", params={"job": body["id"]})).json()["items"]
    assert len(entries) == 1


async def test_a_job_id_can_be_used_only_once(served: Served) -> None:
    job = await served.launch()
    other = await served.post("/jobs", "ops", served.people["ops"].order(id=job["id"], reason="something else"))
    assert other.status_code == 409
    theirs = await served.post("/jobs", "ops2", served.people["ops2"].order(id=job["id"]))
    assert theirs.status_code == 409


async def test_an_idempotency_key_stands_for_one_order_of_its_person_whatever_its_job_id(served: Served) -> None:
    ops, key = served.people["ops"], {"Idempotency-Key": new_job_id("dev", now=datetime.now(UTC))}
    first = await served.post("/jobs", "ops", ops.order(), headers=key)
    again = await served.post("/jobs", "ops", ops.order(), headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    other = await served.post("/jobs", "ops", ops.order(params={"ticket": "1"}), headers=key)
    assert other.status_code == 409
    theirs = await served.post("/jobs", "ops2", served.people["ops2"].order(), headers=key)
    assert theirs.status_code == 201, "a key is its person's own"


async def test_an_order_that_failed_may_be_sent_again_with_its_key_under_another_job_id(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops, key = served.people["ops"], {"Idempotency-Key": new_job_id("dev", now=datetime.now(UTC))}

    def find_store_failing_over(*_: object) -> NoReturn:
        raise StoreUnavailable("failing over")

    with monkeypatch.context() as patched:
        patched.setattr(served.store.ledger, "append", find_store_failing_over)
        assert (await served.post("/jobs", "ops", ops.order(), headers=key)).status_code == 503
    answers = [await served.post("/jobs", "ops", ops.order(), headers=key) for _ in range(2)]
    assert all(answer.is_success for answer in answers), answers[0].text
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_an_idempotency_key_sent_with_another_persons_job_id_reveals_nothing_of_that_job(served: Served) -> None:
    theirs, key = (await served.launch())["id"], {"Idempotency-Key": new_job_id("dev", now=datetime.now(UTC))}
    ops2 = served.people["ops2"]
    assert (await served.post("/jobs", "ops2", ops2.order(id=theirs), headers=key)).status_code == 409
    again = await served.post("/jobs", "ops2", ops2.order(), headers=key)
    assert again.status_code == 409
    assert theirs not in again.text


async def test_resending_an_accepted_order_after_it_expired_returns_its_job(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    body = served.people["ops"].order()
    assert (await served.post("/jobs", "ops", body)).status_code == 201
    monkeypatch.setattr(
        "console.services.submit_job.why_not_valid_now", lambda *_, **__: Rejection("statement_expired", "the statement has expired")
    )
    assert (await served.post("/jobs", "ops", body)).status_code == 200
    assert (await served.post("/jobs", "ops", served.people["ops"].order())).status_code == 422


async def test_a_job_is_dated_by_the_consoles_clock_and_not_by_the_launchers(served: Served) -> None:
    early = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    answer = await served.post("/jobs", "ops", served.people["ops"].order(issued_at=early))
    assert answer.status_code == 201, answer.text
    assert datetime.now(UTC) - datetime.fromisoformat(answer.json()["created_at"]) < timedelta(minutes=1)


BAD_SPECS = [
    (access(resource="order-db"), "access[0].resource", "orders-db"),
    (access(action="delete"), "access[0].action", "'read', 'write' or 'admin'"),
    (access(ttl="23h"), "access[0].ttl", ""),
    (access(ttl="soon"), "access[0].ttl", "30s, 10m, 1h or 2d"),
    (spec(environment="staging"), "environment", "prod"),
    (spec(data_scope={}), "data_scope.tenant", "required by orders-db"),
    (spec(data_scope={"tenant": "initech"}), "data_scope", ""),
    (spec(data_scope={"tenant": "{acme}"}), "data_scope.tenant", ""),
    (spec(data_scope={"tenant": "acme,globex"}), "data_scope.tenant", ""),
    (spec(data_scope={"tenant": "../globex"}), "data_scope.tenant", ""),
    (spec(params={"ticket": "a/b"}), "params", "ticket"),
    (spec(name="Refund Triage"), "name", ""),
    (spec(oops=1), "oops", "unknown key"),
    (access(at="later"), "access[0].at", "'start' or 'request'"),
    (spec(task="x" * 300_000), "", "bytes"),
    ("name: refund", "spec", "mapping"),
    ([], "spec", "mapping"),
    (None, "spec", "mapping"),
]


@pytest.mark.parametrize("raw, path, why", BAD_SPECS)
async def test_a_bad_spec_is_refused_by_path_and_nothing_starts(served: Served, raw: Any, path: str, why: str) -> None:
    body = served.people["ops"].order(raw if isinstance(raw, dict) else {}) | {"spec": raw}
    answer = await served.post("/jobs", "ops", body)
    assert answer.status_code == 422, answer.text
    errors = answer.json()["errors"]
    assert any(error["path"].startswith(path) and why in error["message"] for error in errors), errors
    assert (await served.get(f"/jobs/{body['id']}", "auditor")).status_code == 404
    assert not await served.console.gateway.has_workflow(body["id"])


async def test_every_error_of_a_spec_comes_at_once(served: Served) -> None:
    raw = spec(name="Not A Name", data_scope={"tenant": "{"}, oops=1, access=[{"resource": "orders-db", "action": "burn", "ttl": "x"}])
    answer = await served.post("/jobs", "ops", served.people["ops"].order(raw))
    paths = {error["path"] for error in answer.json()["errors"]}
    assert paths >= {"name", "data_scope.tenant", "oops", "access[0].action", "access[0].ttl", "access[0].reason"}


async def test_problems_with_the_catalog_are_reported_together_with_those_of_the_spec(served: Served) -> None:
    raw = spec(oops=1, environment="test", access=[{"resource": "orders-db", "action": "read", "ttl": "9h"}, {"resource": "order-db"}])
    answer = await served.post("/jobs", "ops", served.people["ops"].order(raw))
    paths = {error["path"] for error in answer.json()["errors"]}
    assert paths >= {"oops", "environment", "access[0].reason", "access[0].ttl", "access[1].resource", "access[1].action"}


async def test_params_are_checked_like_the_spec(served: Served) -> None:
    for params, path in (({"ticket": "a,b"}, "params.ticket"), ({"other": "1"}, "params.other")):
        answer = await served.post("/jobs", "ops", served.people["ops"].order(params=params))
        assert answer.status_code == 422
        assert path in [error["path"] for error in answer.json()["errors"]]


@pytest.mark.parametrize(
    "changes, path",
    [
        ({"job": "j-dev-01arz3ndektsv4rrffq69g5fav"}, "statement.job"),
        ({"spec_digest": digest_of({})}, "statement.spec_digest"),
        ({"expires_at": datetime(2026, 1, 1, tzinfo=UTC)}, "statement.expires_at"),
    ],
)
async def test_a_statement_of_something_else_is_refused(served: Served, changes: dict[str, Any], path: str) -> None:
    answer = await served.post("/jobs", "ops", served.people["ops"].order(**changes))
    assert answer.status_code == 422, answer.text
    assert path in [error["path"] for error in answer.json()["errors"]]


@pytest.mark.parametrize("field, value", [("params", {"ticket": "9"}), ("reason", "another"), ("spec", SPEC | {"task": "another"})])
async def test_an_order_that_was_changed_after_signing_is_refused(served: Served, field: str, value: Any) -> None:
    body = served.people["ops"].order() | {field: value}
    answer = await served.post("/jobs", "ops", body)
    assert answer.status_code == 422
    named = "spec_digest" if field == "spec" else field
    assert [error["path"] for error in answer.json()["errors"]] == [f"statement.{named}"]


async def test_an_order_of_another_person_or_key_is_forbidden(served: Served) -> None:
    stolen = await served.post("/jobs", "ops2", served.people["ops"].order())
    assert (stolen.status_code, stolen.json()["detail"]) == (403, "the order's statement names a different person than the token")
    forged = served.people["ops"].order(person=served.people["ops2"].id)
    answer = await served.post("/jobs", "ops2", forged)
    assert answer.status_code == 403
    assert "signature" in answer.json()["detail"]


@pytest.mark.parametrize("who", ["lead", "auditor", "nobody"])
async def test_a_person_who_may_not_launch_is_told_which_groups_may(served: Served, who: str) -> None:
    answer = await served.post("/jobs", who, served.people[who].order())
    assert answer.status_code == 403
    assert answer.json()["detail"] == "needs one of the groups: ops"


@pytest.mark.parametrize(
    "wrong", ["j-prod-01arz3ndektsv4rrffq69g5fav", "j-dev-short", "refund", "j-dev-01ARZ3NDEKTSV4RRFFQ69G5FAV", "../x"]
)
async def test_an_id_that_is_not_this_installations_is_refused(served: Served, wrong: str) -> None:
    answer = await served.post("/jobs", "ops", served.people["ops"].order(id=wrong))
    assert answer.status_code == 422
    assert [error["path"] for error in answer.json()["errors"]] == ["id"]


async def test_an_id_of_a_later_time_is_refused(served: Served) -> None:
    """Lists sort jobs by their ids, so that such a job would be the newest one for good."""
    late = new_job_id("dev", now=datetime.now(UTC) + timedelta(minutes=10))
    answer = await served.post("/jobs", "ops", served.people["ops"].order(id=late))
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"path": "id", "message": "its time is in the future; correct this machine's clock, or create a new id"}
    ]


async def test_missing_parts_of_an_order_are_named(served: Served) -> None:
    body = served.people["ops"].order()
    del body["statement"]["spec_digest"]
    answer = await served.post("/jobs", "ops", body)
    assert (answer.status_code, [error["path"] for error in answer.json()["errors"]]) == (422, ["statement.spec_digest"])
    answer = await served.post("/jobs", "ops", {"spec": SPEC})
    assert answer.status_code == 422
    assert {error["path"] for error in answer.json()["errors"]} == {"id", "statement", "signature"}
    answer = await served.post("/jobs", "ops", {})
    assert [error["path"] for error in answer.json()["errors"]] == ["spec"]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xfe\x00",
        b"[1]",
        b"null",
        b'{"spec": NaN}',
        b'{"spec": {"a": "\\ud800"}}',
        b'{"spec": {"a": "\\u0000"}}',
        b"[" * 100_000,
    ],
)
async def test_a_body_that_is_not_a_plain_json_object_is_refused(served: Served, content: bytes) -> None:
    headers = served.people["ops"].bearer | {"Content-Type": "application/json"}
    answer = await served.http.post("/api/v1/jobs", content=content, headers=headers)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"]


async def test_a_body_over_a_megabyte_is_refused(served: Served) -> None:
    body = served.people["ops"].order() | {"reason": "x" * 1_100_000}
    answer = await served.post("/jobs", "ops", body)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_dry_run_decides_and_stores_nothing(served: Served) -> None:
    raw = spec(
        access=[
            {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "look"},
            {"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "refund"},
        ]
    )
    before = served.store.ledger.head()
    answer = await served.post("/jobs", "ops", {"spec": raw, "dry_run": True})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["valid"] is True
    assert [(each["outcome"], each["tier"]) for each in found["requests"]] == [("allowed", 0), ("needs_approval", 1)]
    assert all(each["policies"] for each in found["requests"])
    assert served.store.ledger.head() == before
    assert (await served.post("/jobs", "ops", {"spec": access(ttl="23h"), "dry_run": True})).status_code == 422
    assert (await served.post("/jobs", "lead", {"spec": raw, "dry_run": True})).status_code == 403


async def test_a_dry_run_of_an_agent_lists_what_its_tools_need_and_warns_of_a_timeout_before_the_deadline(served: Served) -> None:
    raw = spec(
        access=[], agent={"name": "a", "version": "1", "model": "m", "owner": "support-leads"}, run={"command": ["true"], "timeout": "5m"}
    )
    found = (await served.post("/jobs", "ops", {"spec": raw, "dry_run": True})).json()
    tools = {item["tool"]: (item["action"], item["resource"], item["outcome"], item["tier"]) for item in found["tools"]}
    assert (tools["find-order"], found["beyond"]) == (("read", "orders-db", "needs_approval", 1), "ask")
    assert {item["beyond"] for item in found["tools"]} == {"ask"}
    assert tools["refund-order"] == ("write", "refunds-db", "needs_approval", 1)
    # The spec names none of these tools, and one warning says so.
    (said,) = found["warnings"]
    assert said.startswith("tools that this spec does not name need an approval (")
    assert {"read on orders-db", "write on refunds-db"} <= set(said.partition("(")[2].partition(")")[0].split(", "))
    assert "): people have up to 1h to decide, but the job times out after 5m; name what the job needs under `access`, or " in said
    longer = {**raw, "run": {"command": ["true"], "timeout": "5h"}}
    assert (await served.post("/jobs", "ops", {"spec": longer, "dry_run": True})).json()["warnings"] == []
    assert (await served.post("/jobs", "ops", {"spec": spec(access=[]), "dry_run": True})).json()["tools"] == []
    named = {**raw, "access": [{"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "r", "at": "request"}]}
    said = (await served.post("/jobs", "ops", {"spec": named, "dry_run": True})).json()["warnings"]
    assert [one.partition(":")[0] for one in said if one.startswith("write on refunds-db")] == ["write on refunds-db"]
    at_start = {**raw, "access": [{"resource": "refunds-db", "action": "write", "ttl": "5m", "reason": "r"}]}
    said = (await served.post("/jobs", "ops", {"spec": at_start, "dry_run": True})).json()["warnings"]
    assert [one for one in said if one.startswith("write on refunds-db")] == []
    bound = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "r", "at": "request", "tools": {"find-order": {}}}
    only = (await served.post("/jobs", "ops", {"spec": {**raw, "access": [bound], "beyond": "none"}, "dry_run": True})).json()
    assert [(item["tool"], item["outcome"], item["beyond"]) for item in only["tools"]] == [("find-order", "allowed", None)]


async def test_a_bundle_is_stored_under_its_digest_and_must_be_uploaded_before_its_job(served: Served) -> None:
    content = pack({"triage.py": (b"print('hello')\n", False)})
    headers = served.people["ops"].bearer | {"Content-Type": "application/gzip"}
    without = await served.post("/jobs", "ops", served.people["ops"].order(bundle=bundle_digest(content)))
    assert [error["path"] for error in without.json()["errors"]] == ["bundle"]
    in_files = {**SPEC, "run": {**SPEC["run"], "workdir": "."}}
    unnamed = await served.post("/jobs", "ops", served.people["ops"].order(in_files))
    assert unnamed.json()["errors"] == [{"path": "bundle", "message": "required, because the spec has a workdir"}]
    first = await served.http.post("/api/v1/bundles", content=content, headers=headers)
    again = await served.http.post("/api/v1/bundles", content=content, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == {"digest": bundle_digest(content), "size": len(content)}
    assert (await served.launch(bundle=bundle_digest(content)))["bundle"] == bundle_digest(content)


async def test_bad_bundles_are_refused(served: Served) -> None:
    headers = served.people["ops"].bearer | {"Content-Type": "application/gzip"}
    garbage = await served.http.post("/api/v1/bundles", content=b"not a gzip", headers=headers)
    assert garbage.status_code == 422
    large = await served.http.post("/api/v1/bundles", content=b"\0" * (10 * 1024 * 1024 + 1), headers=headers)
    assert large.status_code == 413
    plain = await served.http.post("/api/v1/bundles", content=b"x", headers=headers | {"Content-Type": "text/plain"})
    assert plain.status_code == 415
    foreign = await served.http.post(
        "/api/v1/bundles", content=b"x", headers=served.people["lead"].bearer | {"Content-Type": "application/gzip"}
    )
    assert (foreign.status_code, foreign.json()["detail"]) == (403, "needs one of the groups: ops")


async def test_an_order_is_signed_for_at_most_a_week(served: Served) -> None:
    answer = await served.post("/jobs", "ops", served.people["ops"].order(expires_at=datetime.now(UTC) + timedelta(days=8)))
    assert answer.status_code == 422
    assert "longer than 7 days" in answer.json()["detail"]


async def test_a_parent_is_a_job_that_the_launcher_may_read(served: Served) -> None:
    ops, unknown = served.people["ops"], new_job_id("dev", now=datetime.now(UTC))
    theirs = (await served.post("/jobs", "ops2", served.people["ops2"].order())).json()["id"]
    for parent in (unknown, theirs, "../../jobs", "j-other-" + unknown.rpartition("-")[2]):
        answer = await served.post("/jobs", "ops", ops.order(parent=parent))
        assert answer.status_code == 422
        (problem,) = answer.json()["errors"]
        assert (problem["path"], problem["message"]) == ("statement.parent", f"there is no job {parent}")
        dry = await served.post("/jobs", "ops", {"spec": SPEC, "dry_run": True, "parent": parent[:64]})
        assert (dry.status_code, dry.json()["errors"][0]["path"]) == (422, "parent")
    other = await served.post("/jobs", "ops", ops.order(parent=(await served.launch())["id"]) | {"parent": unknown})
    assert (other.status_code, other.json()["errors"][0]["path"]) == (422, "statement.parent")


async def test_a_job_has_at_most_ten_ancestors(served: Served) -> None:
    ops, parent = served.people["ops"], None
    for _ in range(11):
        taken = await served.post("/jobs", "ops", ops.order(parent=parent))
        assert taken.status_code == 201, taken.text
        parent = taken.json()["id"]
    answer = await served.post("/jobs", "ops", ops.order(parent=parent))
    assert answer.status_code == 422
    assert "the job would have more than 10 ancestors" in answer.json()["errors"][0]["message"]


async def test_the_same_order_with_a_parent_job_is_a_conflict_for_an_idempotency_key(served: Served) -> None:
    ops, key = served.people["ops"], {"Idempotency-Key": new_job_id("dev", now=datetime.now(UTC))}
    parent = (await served.launch())["id"]
    assert (await served.post("/jobs", "ops", ops.order(), headers=key)).status_code == 201
    assert (await served.post("/jobs", "ops", ops.order(parent=parent), headers=key)).status_code == 409
