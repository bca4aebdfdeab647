"""What every route has in common: problems as RFC 9457, headers, an exact OpenAPI document, health, and numbers."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime

import anyio
import httpx
import pytest
import structlog
from anyio import to_thread
from starlette.types import Message, Receive, Scope, Send

from console.api.dependencies import MAX_BODY_KEYS
from console.http.middleware import EdgeMiddleware
from console.http.problems import MEDIA_TYPE
from justenough.domain.readmodel.views import TargetCheck
from tests.console.served_console import SPEC, Served
from tests.support.wait import until


def expect_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    body = answer.json()
    assert body["status"] == status
    assert body["type"].startswith("urn:justenough:problem:")
    assert body["title"]
    assert body["detail"]
    assert body["instance"] == answer.request.url.path


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/nowhere", 404),
        ("GET", "/api/v1/jobs/", 404),
        ("DELETE", "/api/v1/jobs", 405),
        ("PUT", "/livez", 405),
    ],
)
async def test_an_unknown_address_or_method_is_answered_with_a_problem_document(
    served: Served, method: str, path: str, status: int
) -> None:
    expect_problem(await served.http.request(method, path), status)


async def test_a_refused_method_gets_the_list_of_allowed_methods(served: Served) -> None:
    answer = await served.http.delete("/api/v1/jobs")
    assert answer.headers["allow"] == "GET, POST"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/nowhere", "/api/v1/jobs"])
async def test_no_response_may_be_stored_sniffed_or_framed(served: Served, path: str) -> None:
    headers = (await served.http.get(path)).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize("given,kept", [("a-1.B_2", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("", False)])
async def test_a_request_id_is_returned_and_logged_and_one_is_made_without_a_good_one(served: Served, given: str, *, kept: bool) -> None:
    with structlog.testing.capture_logs() as logged:
        answer = await served.http.get("/api/v1/whoami", headers={"X-Request-Id": given})

    found = answer.headers["x-request-id"]
    assert (found == given) is kept
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", found)
    assert [line["request_id"] for line in logged if line["event"] == "request"] == [found]


async def test_an_internal_error_reveals_no_detail_in_the_response_or_the_log(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        message = "secret-detail"
        raise RuntimeError(message)

    monkeypatch.setattr(type(served.store.jobs), "list", fails)
    answer = await served.get("/jobs", "auditor")
    expect_problem(answer, 500)
    assert "secret-detail" not in answer.text
    logged = capsys.readouterr()
    assert "request failed" in logged.out
    assert "secret-detail" not in logged.out + logged.err


async def test_tokens_and_bodies_are_not_logged(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    ops = served.people["ops"]
    body, bearer = ops.order(), ops.bearer
    await served.http.post("/api/v1/jobs?canary=query", json=body, headers=bearer)
    logged = capsys.readouterr()
    everything = logged.out + logged.err
    assert "/api/v1/jobs" in everything
    for canary in (bearer["Authorization"].split()[1], body["signature"], body["reason"], "canary"):
        assert canary not in everything


async def test_health_and_metrics_requests_are_logged_at_info_only_if_they_fail(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with structlog.testing.capture_logs() as logged:
        for path in ("/livez", "/readyz", "/metrics", "/nowhere"):
            await served.http.get(path)
        monkeypatch.setattr(type(served.store.metrics), "counts", lambda _: 1 / 0)
        await served.http.get("/metrics")

    levels = [(line["path"], line["log_level"]) for line in logged if line["event"] == "request"]
    # No worker polls here, so /readyz is 503.
    assert levels == [("/livez", "debug"), ("/readyz", "info"), ("/metrics", "debug"), ("/nowhere", "info"), ("/metrics", "info")]


async def test_a_request_whose_body_never_arrived_changes_nothing_and_is_no_error(served: Served) -> None:
    job, bearer = (await served.launch())["id"], served.people["ops"].bearer["Authorization"]
    for path, media_type in ((f"/api/v1/jobs/{job}/cancel", "application/json"), ("/api/v1/bundles", "application/gzip")):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nContent-Type: {media_type}\r\nContent-Length: 30\r\n\r\n"
        with structlog.testing.capture_logs() as logged:
            _, writer = await asyncio.open_connection("127.0.0.1", served.http.base_url.port)
            writer.write(head.encode())
            await writer.drain()
            writer.close()
            await to_thread.run_sync(lambda: until(lambda: any(line["event"] == "request" for line in logged), "the request is logged"))
        # Nobody got a response.
        assert [(line["event"], line["status"]) for line in logged if line.get("path") == path] == [("request", 0)]
    assert [entry.type for entry in served.store.ledger.entries(job=job, after=0, limit=10).items] == ["job.submitted"]


async def test_a_body_that_does_not_arrive_in_time_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.http.middleware.BODY_TIMEOUT_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.http.base_url.port)
    writer.write(b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n{")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    body = await asyncio.wait_for(reader.readuntil(b"}"), 60)
    writer.close()
    assert (b" 408 " in head, b"the body did not arrive within 0 s" in body) == (True, True)


async def test_readiness_names_what_answers_and_reports_that_no_worker_polls(served: Served) -> None:
    assert (await served.http.get("/livez")).json() == {"status": "ok"}
    ready = await served.http.get("/readyz")
    assert ready.status_code == 503, "these tests run no worker"
    found = ready.json()
    assert {check["name"]: check["ok"] for check in found["checks"]} == {"store": True, "temporal": True, "vault": True, "workers": False}
    assert "no worker polls justenough-dev: jobs wait; no worker polls justenough-dev-endings: " in found["checks"][3]["detail"]
    assert (found["overdue_revocations"], found["overdue_since"], found["config_alarm"]) == (0, None, None)
    assert found["config_digest"] == served.console.deps.config.current().digest


async def test_a_form_body_is_refused_with_the_note_that_json_is_needed(served: Served) -> None:
    answer = await served.http.post("/api/v1/jobs", data={"a": "1"}, headers=served.people["ops"].bearer)
    expect_problem(answer, 422)
    assert "must be JSON" in answer.json()["errors"][0]["message"]


async def test_metrics_count_jobs_credentials_and_target_checks(served: Served) -> None:
    async def value(line: str) -> float:
        text = (await served.http.get("/metrics")).text
        return sum(float(found.rpartition(" ")[2]) for found in text.splitlines() if found.startswith(line))

    jobs, live = await value('justenough_jobs{state="pending"}'), await value("justenough_credentials_live")
    served.issue((await served.launch())["id"])
    assert await value('justenough_jobs{state="pending"}') == jobs + 1
    assert await value("justenough_credentials_live") == live + 1
    assert await value("justenough_revocations_overdue") == 0
    now = datetime.now(UTC)
    checks = [TargetCheck(name=name, failure=failure, since=now, checked_at=now) for name, failure in (("a", None), ("b", "away"))]
    served.store.targets.record(checks)
    assert await value("justenough_targets_failing") == 1
    served.store.targets.record([])


SCHEMA_NAMES = (
    "AcknowledgeBody Acknowledgement Action ActionUse ActionView Ancestor ApprovalView AttentionItem AttentionKind Attestation Bound "
    "Bounds Bundled CatalogView ChainProblem Change Check ClaimBody ClaimView ConsistencyProof CredentialState CredentialView "
    "DeciderGroup DeciderTier DelegationView DeliveryState DeliveryView Discovery DryRequest DryRun DryTool DsseEnvelope "
    "DsseSignature EntryView EventType Evidence Fault FaultBody Finding InclusionProof Item ItemBound JobState JobSummary JobView "
    "KeyVersion Launched LedgerHead LedgerKeys LedgerReport Line Live LockView LogChunk NewJob OfferedActionView OfferedResourceView "
    "Page_ActionUse_ Page_AttentionItem_ Page_CredentialView_ Page_DelegationView_ Page_DeliveryView_ Page_EntryView_ "
    "Page_JobSummary_ Page_LogChunk_ Page_RequestView_ Page_ReviewView_ Page_ScheduleView_ Page_SizingSummary_ Page_SubscriptionView_ "
    "PauseBody PersonKeys PersonView Problem ProofReport PublicKey PublicKeys Ready ReasonSource Report RequestState RequestView "
    "Resent ResourceView ReviewView RevocationState RevocationView RunBody ScheduleView SearchHit SearchResult Section SignedBody "
    "Sized Sizing SizingSummary Status StopBody Stopping SubscriptionView SweepReport Sweeps Table TargetCounts Tested ToolView "
    "Triggered Wanted What Whoami WithdrawBody WithheldView WorkerView"
)
"""Generated clients have classes of these names: add the name of a new one, and never rename or remove one."""


async def test_openapi_names_exactly_these_routes_and_schemas(served: Served) -> None:
    document = (await served.http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    # Clients use these routes: add new ones, and never rename or remove one.
    routes = {
        "/api/v1/bundles": {"post"},
        "/api/v1/jobs": {"get", "post"},
        "/api/v1/jobs/{job}": {"get"},
        "/api/v1/jobs/{job}/cancel": {"post"},
        "/api/v1/jobs/{job}/kill": {"post"},
        "/api/v1/jobs/{job}/prove": {"post"},
        "/api/v1/jobs/{job}/events": {"get"},
        "/api/v1/jobs/{job}/logs": {"get"},
        "/api/v1/jobs/{job}/timeline": {"get"},
        "/api/v1/search": {"get"},
        "/api/v1/attention": {"get"},
        "/api/v1/attention/acknowledge": {"post"},
        "/api/v1/requests": {"get"},
        "/api/v1/requests/{request}": {"get"},
        "/api/v1/requests/{request}/decisions": {"post"},
        "/api/v1/requests/{request}/decisions/check": {"post"},
        "/api/v1/requests/{request}/claim": {"post", "delete"},
        "/api/v1/requests/{request}/review": {"post"},
        "/api/v1/requests/{request}/withdraw": {"post"},
        "/api/v1/reviews": {"get"},
        "/api/v1/people/{name}": {"get"},
        "/api/v1/delegations": {"get", "post"},
        "/api/v1/delegations/{delegation}": {"delete"},
        "/api/v1/credentials": {"get"},
        "/api/v1/credentials/{credential}": {"get"},
        "/api/v1/credentials/{credential}/revoke": {"post"},
        "/api/v1/ledger": {"get"},
        "/api/v1/ledger/checkpoint": {"get"},
        "/api/v1/ledger/keys": {"get"},
        "/api/v1/ledger/inclusion": {"get"},
        "/api/v1/ledger/consistency": {"get"},
        "/api/v1/ledger/verify": {"post"},
        "/api/v1/jobs/{job}/attestation": {"post"},
        "/api/v1/report": {"get"},
        "/api/v1/events": {"get"},
        "/api/v1/whoami": {"get"},
        "/api/v1/catalog": {"get"},
        "/api/v1/catalog/usage": {"get"},
        "/api/v1/resources/{name}": {"get"},
        "/api/v1/sizing": {"get"},
        "/api/v1/sizing/{name}": {"get"},
        "/api/v1/sweep": {"post"},
        "/api/v1/triggers/{name}": {"post"},
        "/api/v1/schedules": {"get"},
        "/api/v1/schedules/{name}": {"get"},
        "/api/v1/schedules/{name}/pause": {"post"},
        "/api/v1/schedules/{name}/unpause": {"post"},
        "/api/v1/schedules/{name}/run": {"post"},
        "/api/v1/webhooks": {"get"},
        "/api/v1/webhooks/{name}/deliveries": {"get"},
        "/api/v1/webhooks/{name}/deliveries/{delivery}/resend": {"post"},
        "/api/v1/webhooks/{name}/resend": {"post"},
        "/api/v1/webhooks/{name}/test": {"post"},
        "/livez": {"get"},
        "/readyz": {"get"},
        "/metrics": {"get"},
        "/.well-known/jwks.json": {"get"},
        "/.well-known/openid-configuration": {"get"},
    }
    assert {path: set(methods) for path, methods in document["paths"].items()} == routes
    assert set(document["components"]["schemas"]) == set(SCHEMA_NAMES.split())


async def test_openapi_says_how_errors_look_and_who_may_call(served: Served) -> None:
    document = (await served.http.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        if path.startswith("/api/v1/"):
            for operation in methods.values():
                # Events for triggers are signed instead.
                assert operation.get("security") == (None if "/triggers/" in path else [{"HTTPBearer": []}])
                assert list(operation["responses"]["422"]["content"]) == [MEDIA_TYPE]
    assert set(document["components"]["schemas"]["Problem"]["properties"]) == {"type", "title", "status", "detail", "instance", "errors"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.parametrize("leaves", [(anyio.BrokenResourceError(),), (anyio.BrokenResourceError(), anyio.ClosedResourceError())])
async def test_a_client_that_leaves_a_stream_causes_no_error(leaves: tuple[Exception, ...]) -> None:
    await break_response(ExceptionGroup("a stream's tasks", leaves))
    with pytest.raises(ExceptionGroup):
        await break_response(ExceptionGroup("a stream's tasks", (*leaves, RuntimeError())))


async def break_response(error: Exception) -> None:
    """Send the beginning of an answer through our edge, and then fail."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    async def taken(_: Message) -> None:
        await asyncio.sleep(0)

    await EdgeMiddleware(app)({"type": "http", "method": "GET", "path": "/api/v1/events"}, None, taken)  # type: ignore[arg-type] # nothing is received


async def test_a_request_that_a_stopping_console_cannot_complete_is_to_be_sent_again() -> None:
    began, sent = asyncio.Event(), list[Message]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive, send
        began.set()
        await asyncio.Event().wait()

    async def taken(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/v1/jobs", "query_string": b"", "headers": []}
    request = asyncio.create_task(EdgeMiddleware(app)(scope, None, taken))  # type: ignore[arg-type] # nothing is received
    await began.wait()
    # uvicorn cancels requests like this when its time to drain is over. By itself it would answer 500, and log a traceback.
    request.cancel()
    await asyncio.wait_for(request, 60)
    head, body = sent
    assert (head["status"], dict(head["headers"])[b"retry-after"]) == (503, b"2")
    assert b"send it again" in body["body"]


def unknown_keys(count: int) -> dict[str, int]:
    return {f"unknown_{number}": 0 for number in range(count)}


async def test_a_body_is_not_parsed_for_a_caller_who_may_not_send_it(served: Served) -> None:
    answer = await served.post("/jobs", "auditor", unknown_keys(50_000))
    assert answer.status_code == 403
    assert "ops" in answer.json()["detail"]


async def test_a_body_with_very_many_keys_is_refused_before_it_is_validated(served: Served) -> None:
    answer = await served.post("/jobs", "ops", unknown_keys(MAX_BODY_KEYS + 1))
    assert (answer.status_code, answer.json()["detail"]) == (413, "the body has 5,001 keys; at most 5,000 are read")


async def test_only_the_first_hundred_of_very_many_problems_are_reported(served: Served) -> None:
    for body in (unknown_keys(2_000), served.people["ops"].order({**SPEC, **unknown_keys(2_000)})):
        answer = await served.post("/jobs", "ops", body)
        errors = answer.json()["errors"]
        assert (answer.status_code, len(errors)) == (422, 101)
        assert "more problems" in errors[-1]["message"]


async def test_a_silent_connection_is_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.adapters.runtime.http_protocol.HEAD_TIMEOUT_S", 0.2)
    for sent in (b"", b"GET /livez HT"):
        reading, writing = await asyncio.open_connection(served.http.base_url.host, served.http.base_url.port)
        writing.write(sent)
        async with asyncio.timeout(60):
            assert await reading.read() == b""
        writing.close()
