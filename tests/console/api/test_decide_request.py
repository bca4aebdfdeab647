"""An approver's answer: who may give it, what it must be about, and that it reaches the job's workflow as it was signed."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from console.services.decide_request import has_answered
from justenough.adapters.store.inbox_queries import InboxFilter
from justenough.adapters.store.paging import MAX_PAGE_SIZE
from justenough.adapters.store.repository import DEFAULT_PAGE_SIZE
from justenough.adapters.vault import VaultDenied
from justenough.adapters.vault.control_groups import ControlGroupState
from justenough.domain.approvals.statements import DelegationStatement
from justenough.domain.catalog.control_groups import ControlGroupRule
from justenough.domain.core.ids import new_job_id
from justenough.domain.ledger.events import EventType, build_event
from justenough.services.ledger_events import approval_rejected_event
from justenough.services.parent_chain import ancestor_launchers, ancestor_views
from tests.adapters.store import event_samples as samples
from tests.console.served_console import Served

STALE = "sha256:" + "e" * 64


async def decide(served: Served, who: str, request: dict[str, Any], *, if_match: str | None = "", **changes: Any) -> httpx.Response:
    return await post_decision(served, who, request, served.people[who].decision(request, changes), if_match=if_match)


async def post_decision(
    served: Served, who: str, request: dict[str, Any], body: dict[str, Any], *, if_match: str | None = ""
) -> httpx.Response:
    """Post a signed decision. `if_match`: the header If-Match; the request's digest if it is empty, no header if it is None."""
    headers = {} if if_match is None else {"If-Match": if_match or request["digest"]}
    return await served.post(f"/requests/{request['id']}/decisions", who, body, headers=headers)


async def decision_signals(served: Served, job: str) -> list[Any]:
    return [arguments[0] for name, arguments in await served.signals(job) if name == "decide"]


async def test_a_valid_decision_reaches_the_workflow_as_signed_and_is_shown_once_counted(served: Served) -> None:
    request = await served.launch_and_request()
    answering = asyncio.create_task(decide(served, "lead", request))
    while not (signals := await decision_signals(served, request["job_id"])):
        assert not answering.done()
    (signed,) = signals
    # Strangers flood the job: the decision is not in the first page of the worker's responses.
    junk = [
        approval_rejected_event(request["job_id"], "junk", at=datetime.now(UTC), about=f"signal-{number}", raw=number)
        for number in range(DEFAULT_PAGE_SIZE + 20)
    ]
    served.store.ledger.append(junk)
    served.record_answer(request, "lead", signed=signed)
    answer = await answering
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "approved"
    assert [approval["approver"] for approval in answer.json()["approvals"]] == ["lead"]
    assert signed["statement"]["person"] == served.people["lead"].id
    assert signed["signature"].startswith("vault:v1:")


async def test_a_decision_that_no_worker_has_counted_yet_is_accepted(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.services.decide_request.COUNT_TIMEOUT_S", 0.05)
    request = await served.launch_and_request()
    answer = await decide(served, "lead", request, if_match=f'"{request["digest"]}"')
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "pending"
    assert len(await decision_signals(served, request["job_id"])) == 1


@pytest.mark.parametrize(
    "first, verdict, status, detail",
    [
        ("chief", "approved", 409, "the request is approved, not pending: chief decided it at 20"),
        # Another decision of the same person, sent at the same moment, counted.
        ("lead", "denied", 409, "the request is denied, not pending: lead decided it at 20"),
        ("lead", "approved", 409, "the request is approved, not pending: lead decided it at 20"),
        ("chief", "pending", 403, "the decision is not valid: it is not waiting"),
    ],
)
async def test_a_decision_that_the_worker_rejects_is_refused(served: Served, first: str, verdict: str, status: int, detail: str) -> None:
    request = await served.launch_and_request()
    body = served.people["lead"].decision(request, {"ttl": 60})
    # An earlier rejection of the same statement says nothing about this attempt.
    earlier, later = (
        approval_rejected_event(
            request["job_id"], why, at=datetime.now(UTC), about=about, raw=body, request=request["id"], person=served.people["lead"].id
        )
        for why, about in (("it is stale", "api/lead"), ("it is not waiting", "signal-2"))
    )
    served.store.ledger.append([earlier])
    answering = asyncio.create_task(post_decision(served, "lead", request, body))
    while not await decision_signals(served, request["job_id"]):
        assert not answering.done()
    served.record_answer(request, first, verdict=verdict)
    served.store.ledger.append([later])
    answer = await answering
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"].startswith(detail)


async def test_deciding_after_ones_delegate_is_a_conflict_and_sends_nothing(served: Served) -> None:
    request, lead = await served.launch_and_request(quorum=2), served.people["lead"]
    served.record_answer(request, "security", verdict="pending", absent="lead")
    view = served.store.requests.get(request["id"])
    assert view is not None
    # Somebody else, who may have the same delegate, can have the same login name on another people mount.
    for person, has_delegate in ((lead.id, True), ("e-namesake", False)):
        assert has_answered(view, person) is has_delegate
        mine = InboxFilter(person, 1, mine=True)
        assert (request["id"] in {item.request.id for item in served.store.inbox.items(mine)}) is not has_delegate
    listed = await served.get("/requests?mine=true", "lead")
    assert request["id"] not in {one["id"] for one in listed.json()["items"]}
    again = await decide(served, "lead", request)
    assert (again.status_code, again.json()["detail"]) == (409, "you have answered this request already, or a delegate has for you")
    assert await decision_signals(served, request["job_id"]) == []


async def test_deciding_for_somebody_who_has_decided_is_a_conflict_and_sends_nothing(served: Served) -> None:
    request, lead = await served.launch_and_request(quorum=2), served.people["lead"]
    now = datetime.now(UTC).replace(microsecond=0)
    until = now + timedelta(hours=1)
    named = DelegationStatement(delegate=served.people["security"].id, reason="away", person=lead.id, issued_at=now, expires_at=until)
    assert (await served.post("/delegations", "lead", lead.sign(named))).status_code == 200
    served.record_answer(request, "lead", verdict="pending")
    answer = await decide(served, "security", request, on_behalf_of=lead.id)
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "the absent person has answered this request already, or a delegate has for them",
    )
    assert await decision_signals(served, request["job_id"]) == []


async def test_who_launched_a_jobs_ancestors_and_what_they_touched_is_read_without_all_that_they_were_issued(served: Served) -> None:
    parent, mine, statements = (await served.launch())["id"], threading.get_ident(), list[str]()

    def count_statements() -> int:
        statements.clear()
        assert ancestor_launchers(served.console.deps, parent, asked_by=None) == {served.people["ops"].id}
        (ancestor,) = ancestor_views(served.console.deps, parent)
        assert ancestor.touched == ("orders-db",)
        return len(statements)

    def remember(*seen: Any) -> None:
        statements.extend([seen[2]] if threading.get_ident() == mine else [])

    served.store.ledger.append([samples.issuance(parent, number=1)])
    event.listen(served.store._engine, "before_cursor_execute", remember)
    try:
        before = count_statements()
        served.store.ledger.append(samples.issuance(parent, number=number) for number in range(1, 2 * MAX_PAGE_SIZE))
        assert count_statements() == before
    finally:
        event.remove(served.store._engine, "before_cursor_execute", remember)


async def test_deciding_twice_is_a_conflict(served: Served) -> None:
    request = await served.launch_and_request()
    served.record_answer(request, "lead", verdict="pending")
    again = await decide(served, "lead", request)
    assert (again.status_code, again.json()["detail"]) == (409, "you have answered this request already, or a delegate has for you")


@pytest.mark.parametrize("who,decision", [("security", "approve"), ("oncall", "break_glass")])
async def test_whoever_decided_at_a_tier_below_may_decide_again_once_the_request_escalated(
    served: Served, monkeypatch: pytest.MonkeyPatch, who: str, decision: str
) -> None:
    monkeypatch.setattr("console.services.decide_request.COUNT_TIMEOUT_S", 0.05)
    request = await served.launch_and_request(quorum=2)
    # When these people approved, their groups were those of tier 1.
    served.record_answer(request, who, verdict="pending")
    until = datetime.now(UTC) + timedelta(minutes=5)
    served.store.ledger.append(
        [samples.approval_opening(request["job_id"], tier=2, escalated=True, at=datetime.now(UTC), respond_by=until)]
    )

    if who == "security":
        mine = await served.get("/requests", who, params={"mine": True, "job": request["job_id"]})
        assert [item["id"] for item in mine.json()["items"]] == [request["id"]]
        assert (await served.post(f"/requests/{request['id']}/claim", who)).status_code == 200
    answer = await decide(served, who, request, decision=decision, reason="The shop is down")
    assert (answer.status_code, answer.json()["state"]) == (202, "pending")
    assert len(await decision_signals(served, request["job_id"])) == 1


async def test_an_approval_that_vaults_control_group_would_not_count_is_refused_before_anything_is_sent(served: Served) -> None:
    request = await served.launch_and_request(tier=2, resource="payouts-db", title="Payouts")
    for who, changes, why in (
        ("oncall", {"decision": "break_glass"}, "Vault's control group counts only authorizations by members of security, chiefs"),
        ("security", {"action": "read"}, "payouts-db:write cannot be narrowed to read"),
    ):
        body = served.people[who].decision(request, {"reason": "The shop is down", **changes})
        for path in ("decisions/check", "decisions"):
            answer = await served.post(f"/requests/{request['id']}/{path}", who, body, headers={"If-Match": request["digest"]})
            assert answer.status_code == 403, answer.text
            assert why in answer.json()["detail"]
    assert await decision_signals(served, request["job_id"]) == []


@pytest.mark.parametrize("authorized, status", [(frozenset({"e-other"}), 202), (frozenset[str](), 403), (None, 202)])
async def test_break_glass_counts_the_authorizations_that_vault_has(
    served: Served, monkeypatch: pytest.MonkeyPatch, authorized: frozenset[str] | None, status: int
) -> None:
    def read_state(*_: object) -> ControlGroupState:
        if authorized is None:
            raise VaultDenied("as before `vault setup` gave the console this right")
        return ControlGroupState(approved=False, path="", data={}, authorized=authorized)

    monkeypatch.setattr("console.services.decide_request.COUNT_TIMEOUT_S", 0.05)
    rule = ControlGroupRule(groups=("security", "break-glass"), approvals=2, ttl=3600)
    monkeypatch.setattr("console.services.decide_request.control_group_of", lambda *_: rule)
    monkeypatch.setattr("console.services.decide_request.control_groups.read_state", read_state)
    request, until = await served.launch_and_request(tier=2, quorum=2, resource="payouts-db", title="Payouts"), datetime.now(UTC)
    lock: dict[str, Any] = {"accessor": "waiting", "expires_at": (until + timedelta(hours=1)).isoformat(), "groups": [], "approvals": 2}
    served.store.ledger.append([build_event(EventType.LOCK_OPENED, request["job_id"], at=until, request=request["id"], **lock)])
    answer = await decide(served, "oncall", request, decision="break_glass", reason="The shop is down")
    assert answer.status_code == status, answer.text


async def test_a_request_that_is_not_pending_cannot_be_decided(served: Served) -> None:
    request = await served.launch_and_request()
    served.record_answer(request, "lead")
    late = await decide(served, "security", request)
    assert late.status_code == 409
    assert late.json()["detail"].startswith("the request is approved, not pending: lead decided it at 20")


async def test_nobody_is_said_to_have_decided_a_request_that_expired_short_of_its_quorum(served: Served) -> None:
    request = await served.launch_and_request(quorum=2)
    served.record_answer(request, "lead", verdict="pending")
    expired = build_event(EventType.APPROVAL_EXPIRED, request["job_id"], at=datetime.now(UTC), request=request["id"], tier=3)
    served.store.ledger.append([expired])
    late = await decide(served, "security", request)
    assert (late.status_code, late.json()["detail"]) == (409, "the request is expired, not pending")


async def test_a_stale_digest_is_reported(served: Served) -> None:
    request = await served.launch_and_request()
    assert (await decide(served, "lead", request, if_match=STALE)).status_code == 412
    assert (await decide(served, "lead", request, digest=STALE)).status_code == 412
    assert (await decide(served, "lead", request, if_match=None)).status_code == 428
    assert await decision_signals(served, request["job_id"]) == []


async def test_people_cannot_decide_on_their_own_job(served: Served) -> None:
    request = await served.launch_and_request()
    own = await decide(served, "ops", request)
    assert (own.status_code, own.json()["detail"]) == (403, "people cannot decide on a job that they launched")


@pytest.mark.parametrize(
    "who, tier, needed",
    [
        ("auditor", 1, "chiefs, security, support-leads"),
        ("lead", 2, "chiefs, security"),
        ("security", 3, "chiefs"),
    ],
)
async def test_a_person_without_a_group_that_may_decide_is_told_which_groups_may(served: Served, who: str, tier: int, needed: str) -> None:
    request = await served.launch_and_request(tier=tier)
    answer = await decide(served, who, request)
    assert (answer.status_code, answer.json()["detail"]) == (403, f"needs one of the groups: {needed}")
    assert await decision_signals(served, request["job_id"]) == []


async def test_an_approver_of_a_higher_tier_may_decide_a_request_of_a_lower_tier(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.services.decide_request.COUNT_TIMEOUT_S", 0.05)
    assert (await decide(served, "chief", await served.launch_and_request())).status_code == 202


@pytest.mark.parametrize(
    "changes, path",
    [
        ({"ttl": 301}, "statement.ttl"),
        ({"ttl": 0}, "statement.ttl"),
        ({"ttl": -5}, "statement.ttl"),
        ({"reason": "  ", "decision": "deny"}, "statement.reason"),
        ({"action": "admin"}, "statement.action"),
        ({"job": "j-dev-01arz3ndektsv4rrffq69g5fav"}, "statement.job"),
        ({"request": "r-dev-01arz3ndektsv4rrffq69g5fav-1"}, "statement.request"),
        ({"expires_at": datetime(2026, 1, 1, tzinfo=UTC)}, "statement.expires_at"),
        ({"issued_at": datetime(2036, 1, 1, tzinfo=UTC), "expires_at": datetime(2036, 1, 2, tzinfo=UTC)}, "statement.expires_at"),
    ],
)
async def test_a_decision_about_something_else_is_refused_with_the_path(served: Served, changes: dict[str, Any], path: str) -> None:
    request = await served.launch_and_request()
    answer = await post_decision(served, "lead", request, served.people["lead"].decision(request, changes))
    assert answer.status_code == 422, answer.text
    assert [error["path"] for error in answer.json()["errors"]] == [path]
    assert await decision_signals(served, request["job_id"]) == []


async def test_a_decision_that_the_console_refuses_is_recorded_in_the_ledger(served: Served) -> None:
    request = await served.launch_and_request()
    # Send the same statement twice: signed again in another second, it would be another attempt.
    unreasoned = served.people["security"].decision(request, {"reason": " ", "decision": "deny"})
    for _ in range(2):
        assert (await post_decision(served, "security", request, unreasoned)).status_code == 422
    assert (await decide(served, "ops", request)).status_code == 403
    attempts = [
        entry.data for entry in served.console.deps.store.ledger.entries(job=request["job_id"]).items if entry.type == "approval.rejected"
    ]
    assert [attempt["person"] for attempt in attempts] == [served.people["security"].id, served.people["ops"].id]
    assert "people cannot decide on a job that they launched" in attempts[1]["why"]


async def test_a_decision_signed_as_another_person_is_forbidden(served: Served) -> None:
    request = await served.launch_and_request()
    headers = {"If-Match": request["digest"]}
    stolen = await served.post(f"/requests/{request['id']}/decisions", "security", served.people["lead"].decision(request), headers=headers)
    assert stolen.status_code == 403
    forged = served.people["security"].decision(request, {"person": served.people["lead"].id})
    answer = await served.post(f"/requests/{request['id']}/decisions", "lead", forged, headers=headers)
    assert answer.status_code == 403
    assert "signature" in answer.json()["detail"]
    assert await decision_signals(served, request["job_id"]) == []


async def test_a_statement_with_more_or_less_than_it_may_say_is_refused(served: Served) -> None:
    request = await served.launch_and_request()
    good = served.people["lead"].decision(request)
    empty: dict[str, Any] = {}
    for statement in (empty, good["statement"] | {"extra": 1}, good["statement"] | {"type": "order"}, good["statement"] | {"ttl": "long"}):
        body = {"statement": statement, "signature": good["signature"]}
        answer = await served.post(f"/requests/{request['id']}/decisions", "lead", body, headers={"If-Match": request["digest"]})
        assert answer.status_code == 422, answer.text
        assert all(error["path"].startswith("statement") for error in answer.json()["errors"])


async def test_an_unknown_request_is_not_found(served: Served) -> None:
    request = (await served.launch_and_request()) | {"id": "r-dev-01arz3ndektsv4rrffq69g5fav-1"}
    assert (await decide(served, "lead", request)).status_code == 404


async def test_a_decision_on_a_job_whose_workflow_is_gone_is_a_conflict(served: Served) -> None:
    request = await served.launch_and_request()
    await served.temporal.get_workflow_handle(request["job_id"]).terminate()
    answer = await decide(served, "lead", request)
    assert (answer.status_code, answer.json()["detail"]) == (409, "the job is no longer running")


async def test_each_person_can_list_the_requests_that_they_may_decide(served: Served) -> None:
    first, second = await served.launch_and_request(), await served.launch_and_request(tier=2)

    async def ids(who: str, **params: Any) -> set[str]:
        page = await served.get("/requests", who, params={"limit": 1000, **params})
        assert page.status_code == 200, page.text
        return {item["id"] for item in page.json()["items"]} & {first["id"], second["id"]}

    both = {first["id"], second["id"]}
    assert await ids("auditor") == both
    assert await ids("auditor", mine=True) == set()
    assert await ids("lead", mine=True) == {first["id"]}
    assert await ids("security", mine=True) == both
    assert await ids("ops", mine=True) == set()
    assert await ids("ops") == both
    assert await ids("ops2") == set()
    assert await ids("auditor", job=first["job_id"]) == {first["id"]}
    served.record_answer(first, "lead")
    assert await ids("auditor") == {second["id"]}
    assert await ids("auditor", state="all") == both
    assert await ids("auditor", state="approved") == {first["id"]}


async def test_the_order_behind_a_request_above_ones_tier_is_not_read_to_list_what_one_may_decide(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, read, real = await served.launch_and_request(tier=2), list[str](), type(served.store.jobs).order

    def order(jobs: Any, job: str) -> Any:
        read.append(job)
        return real(jobs, job)

    monkeypatch.setattr(type(served.store.jobs), "order", order)
    expected: dict[str, list[str]] = {"lead": [], "security": [request["job_id"]]}
    for who, orders in expected.items():
        listed = await served.get("/requests", who, params={"mine": True, "job": request["job_id"]})
        assert (len(listed.json()["items"]), read) == (len(orders), orders)


async def test_a_request_whose_ancestors_cannot_be_read_is_left_out_of_those_that_a_person_may_decide(served: Served) -> None:
    other, (parent, job) = await served.launch_and_request(), (new_job_id("dev", now=datetime.now(UTC)) for _ in range(2))
    served.store.ledger.append([samples.submission(job, at=datetime.now(UTC), parent=parent)])
    request = served.record_request(job)
    listed = await served.get("/requests?mine=true", "lead")
    assert listed.status_code == 200, listed.text
    assert {other["id"], request["id"]} & {one["id"] for one in listed.json()["items"]} == {other["id"]}
    refused = await decide(served, "lead", request)
    assert (refused.status_code, refused.json()["detail"]) == (403, f"there is no job {parent}")
    served.end(job)


async def test_an_approver_whose_login_name_has_a_slash_can_be_looked_up(served: Served) -> None:
    answer = await served.get("/people/corp%2Fada", "lead")
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no approver corp/ada")


async def test_an_answer_ends_the_claim_and_whoever_has_answered_is_told_so(served: Served) -> None:
    request = await served.launch_and_request(tier=3)
    path = f"/requests/{request['id']}"
    assert (await served.post(f"{path}/claim", "chief")).json()["claim"]["by"] == "chief"
    served.record_answer(request, "chief", verdict="pending")
    assert (await served.get(path, "lead")).json()["claim"] is None
    again = await served.post(f"{path}/claim", "chief")
    assert (again.status_code, again.json()["detail"]) == (409, "you have answered this request already, or a delegate has for you")
    low = await served.post(f"{path}/claim", "lead")
    assert (low.status_code, low.json()["detail"]) == (403, "needs one of the groups: chiefs")


async def test_a_request_for_what_the_catalog_no_longer_issues_can_only_be_denied(served: Served) -> None:
    request = await served.launch_and_request(digest=STALE)
    approved = await decide(served, "lead", request)
    assert approved.status_code == 403
    why = "the catalog issues something else for read on orders-db than when the job asked, so no approval counts; launch the job again"
    assert approved.json()["detail"] == f"the decision is not valid: {why}"
    assert await decision_signals(served, request["job_id"]) == []
    assert (await decide(served, "lead", request, decision="deny")).status_code == 202


async def test_the_etag_of_a_request_is_its_digest(served: Served) -> None:
    request = await served.launch_and_request()
    shown = await served.get(f"/requests/{request['id']}", "lead")
    assert shown.headers["etag"] == f'"{request["digest"]}"'
    assert shown.json()["tier"] == 1
    assert (await served.get(f"/requests/{request['id']}", "ops2")).status_code == 404


async def test_after_an_escalation_only_the_new_tier_can_decide(served: Served) -> None:
    request = await served.launch_and_request()
    now = datetime.now(UTC)
    climbed = build_event(
        EventType.APPROVAL_ESCALATED,
        request["job_id"],
        at=now,
        about=f"{request['id']}/2",
        request=request["id"],
        tier=2,
        respond_by=now.isoformat(),
        quorum=1,
    )
    served.store.ledger.append([climbed])
    answer = await decide(served, "lead", request)
    assert (answer.status_code, answer.json()["detail"]) == (403, "needs one of the groups: chiefs, security")
