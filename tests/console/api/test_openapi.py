"""The API does what its OpenAPI document says for every caller and input: schemathesis calls it on the whole stack, and signed calls reach
the rest.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from schemathesis.schemas import BaseSchema

from console.services.console import build_console
from justenough.adapters.configuration.settings import Settings
from justenough.domain.evidence.signatures import SIGNED_FIELDS, SignatureVerifier
from justenough.domain.ledger.export import to_export_line, verify_export
from justenough.domain.ledger.public_keys import read_keys
from tests.adapters.store.event_samples import JOB, access_request, issuance, job_end, part_id, submission
from tests.console.openapi_contract import Run, bundle, check_contract, schema_of
from tests.console.served_console import serve_console
from tests.support.dead_letters import reject_events
from tests.support.people import Human
from tests.support.plain_http import NO_TLS
from tests.support.shop import Shop, access, spec
from tests.support.wait import until
from tests.triggers.event_sender import Sender, event
from worker.stack.stack_file import Stack

PUBLIC = {"GET /livez", "GET /readyz", "GET /metrics", "GET /.well-known/jwks.json", "GET /.well-known/openid-configuration"}
"""For whoever watches, and for whoever verifies. Beside these only /openapi.json, which is no operation of its own."""

Held = Callable[..., dict[str, Any]]
"""Holds an answer against the document, by its operation and status; gives its body."""

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def ids(ops: Human) -> Iterator[dict[str, list[str]]]:
    """A job that runs, and one that waits for its approval: their ids, their requests' and their credentials'."""
    running = ops.launch(spec("sleep 300"))
    waiting = ops.launch(spec("sleep 300", access("refunds-db", "write")))
    jobs = [ops.until(running, "running"), ops.until(waiting, "awaiting_approval")]
    yield {
        "job": [job["id"] for job in jobs],
        "request": [request["id"] for job in jobs for request in job["requests"]],
        "credential": [credential["id"] for job in jobs for credential in job["credentials"]],
        "name": [jobs[0]["name"], "security"],
    }
    for job in jobs:
        ops.api.post(f"jobs/{job['id']}/kill")
        ops.until(job["id"])


@pytest.fixture(scope="module")
def schema(whole: Stack) -> BaseSchema:
    return schema_of(str(whole.console))


@pytest.fixture(scope="module")
def api_run(whole: Stack, ids: dict[str, list[str]], ops: Human, lead: Human, auditor: Human) -> Run:
    """Return the result of calling every route as each of these people, and without a login."""
    return check_contract(
        str(whole.console),
        {"ops": identity_token(ops), "lead": identity_token(lead), "auditor": identity_token(auditor), "nobody": ""},
        ids=ids,
    )


@pytest.fixture(scope="module")
def signed(
    schema: BaseSchema, whole: Stack, ops: Human, lead: Human, security: Human, oncall: Human, auditor: Human, helpdesk: Sender
) -> set[str]:
    """What only a signature reaches, asked for as clients do; each answer held against the document. The operations that succeeded."""
    reached: set[str] = set()

    def held(operation: str, answer: httpx.Response, *statuses: int) -> dict[str, Any]:
        assert answer.status_code in statuses, answer.text
        found = schema.find_operation_by_label(operation)
        assert found is not None, operation
        found.validate_response(answer)
        reached.add(operation)
        body: dict[str, Any] = answer.json()
        return body

    files = bundle(**{f"{uuid.uuid4()}.txt": "new"})
    gzip = {"Content-Type": "application/gzip"}
    packed = [held("POST /api/v1/bundles", ops.api.post("bundles", content=files, headers=gzip), status) for status in (201, 200)]
    order = ops.order(spec("true", access("refunds-db", "write")), bundle=packed[0]["digest"])
    jobs = [held("POST /api/v1/jobs", ops.api.post("jobs", json=order), status) for status in (201, 200)]
    held("POST /api/v1/jobs", ops.api.post("jobs", json={"spec": spec(), "dry_run": True}), 200)

    request = ops.until(jobs[0]["id"], "awaiting_approval")["requests"][0]
    call_request(held, request, lead=lead, oncall=oncall)
    call_withdraw(held, ops=ops, lead=lead)
    for what, name in (("people", "security"), ("resources", "refunds-db"), ("sizing", request["job_name"])):
        held(f"GET /api/v1/{what}/{{name}}", lead.api.get(f"{what}/{name}"), 200)
    delegation = held("POST /api/v1/delegations", lead.delegate(security.id), 200)["id"]
    held("DELETE /api/v1/delegations/{delegation}", lead.api.delete(f"delegations/{delegation}"), 200)

    sent = event()
    triggered = [held("POST /api/v1/triggers/{name}", helpdesk.send(sent), status) for status in (201, 200)]
    for job in (jobs[0], triggered[0]):
        ops.api.post(f"jobs/{job['id']}/kill")
    # Random ids may never hit a job that still runs.
    for how in ("cancel", "kill"):
        held(f"POST /api/v1/jobs/{{job}}/{how}", ops.api.post(f"jobs/{ops.launch(spec('sleep 300'))}/{how}"), 202)

    reached.add(open_stream(ops, jobs[0]["id"]))
    call_attention(held, ops)
    call_ledger(held, auditor, jobs[0]["id"])
    call_schedule(held, ops)
    call_webhook(held, whole, ops=ops, lead=lead, auditor=auditor)
    return reached


def call_request(check: Held, request: dict[str, Any], *, lead: Human, oncall: Human) -> None:
    """Claim a request, check a decision and make it by break-glass, and review that."""
    path = "/api/v1/requests/{request}"
    decision, digest = lead.decision(request), {"If-Match": request["digest"]}
    checked = check(
        f"POST {path}/decisions/check", lead.api.post(f"requests/{request['id']}/decisions/check", json=decision, headers=digest), 200
    )
    assert (checked["state"], checked["approvals"]) == ("pending", [])
    check(f"POST {path}/claim", lead.api.post(f"requests/{request['id']}/claim"), 200)
    check(f"DELETE {path}/claim", lead.api.delete(f"requests/{request['id']}/claim"), 200)
    check(f"POST {path}/decisions", oncall.answer(request, "break_glass", reason="the shop is down"), 200, 202)
    check(f"POST {path}/review", lead.review(request), 200)


def call_withdraw(check: Held, *, ops: Human, lead: Human) -> None:
    """Withdraw an approval as people do while Vault is away."""
    request = ops.until(ops.launch(spec("sleep 300", access("refunds-db", "write"))), "awaiting_approval")["requests"][0]
    lead.decide(request)
    check("POST /api/v1/requests/{request}/withdraw", lead.api.post(f"requests/{request['id']}/withdraw", json={"reason": "a test"}), 200)
    ops.api.post(f"jobs/{request['job_id']}/kill")


def open_stream(ops: Human, job: str) -> str:
    """Open a job's stream of events, which does not end, so that it cannot be held against the document here. The operation."""
    with ops.api.stream("GET", f"jobs/{job}/events") as stream:
        assert stream.status_code == 200
    return "GET /api/v1/jobs/{job}/events"


def call_attention(check: Held, ops: Human) -> None:
    """Acknowledge a job that failed."""
    job = ops.launch(spec("false"))
    ops.until(job, "failed")
    check("POST /api/v1/attention/acknowledge", ops.api.post("attention/acknowledge", json={"item": f"failed/{job}"}), 200)


def call_ledger(check: Held, auditor: Human, job: str) -> None:
    """Request the proofs that the ledger is complete, and that a job's access is revoked."""
    check("POST /api/v1/jobs/{job}/attestation", auditor.api.post(f"jobs/{job}/attestation"), 200)
    until(lambda: auditor.api.get("ledger/checkpoint").json()["checkpoint"], "a checkpoint is signed")
    first = auditor.api.get("ledger", params={"limit": 1}).json()["items"][0]["id"]
    check("GET /api/v1/ledger/inclusion", auditor.api.get("ledger/inclusion", params={"entry": first}), 200)
    check("GET /api/v1/ledger/consistency", auditor.api.get("ledger/consistency", params={"size": 1}), 200)


def call_schedule(check: Held, ops: Human) -> None:
    """Ask for everything of the shop's schedule."""
    nightly, key = "schedules/nightly-reconcile", {"Idempotency-Key": uuid.uuid4().hex}
    check("GET /api/v1/schedules/{name}", ops.api.get(nightly), 200)
    for how in ("pause", "unpause"):
        check(f"POST /api/v1/schedules/{{name}}/{how}", ops.api.post(f"{nightly}/{how}", json={"reason": "a test"}), 200)
    ran = [
        check("POST /api/v1/schedules/{name}/run", ops.api.post(f"{nightly}/run", json={}, headers=key), status) for status in (201, 200)
    ]
    ops.api.post(f"jobs/{ran[0]['id']}/kill")


def call_webhook(check: Held, whole: Stack, *, ops: Human, lead: Human, auditor: Human) -> None:
    """Ask for everything of a webhook whose receiver wants nothing any more."""
    with reject_events(whole.config, auditor, "described"):
        ops.launch(spec("true"))
        path = "webhooks/described"
        dead = until(lambda: auditor.api.get(f"{path}/deliveries", params={"state": "dead"}).json()["items"], "there is a dead letter")
        check("GET /api/v1/webhooks/{name}/deliveries", auditor.api.get(f"{path}/deliveries"), 200)
        one = "POST /api/v1/webhooks/{name}/deliveries/{delivery}/resend"
        check(one, lead.api.post(f"{path}/deliveries/{dead[0]['id']}/resend"), 202)
        check("POST /api/v1/webhooks/{name}/resend", lead.api.post(f"{path}/resend"), 202)
        check("POST /api/v1/webhooks/{name}/test", lead.api.post(f"{path}/test"), 200)


@pytest.fixture(scope="module")
def helpdesk(shop: Shop) -> Sender:
    with shop.admin() as vault:
        kept = vault.get("kv/data/je/triggers/ticket-created").raise_for_status().json()["data"]["data"]
    return Sender(str(shop.stack.console), kept["secret"])


@pytest.fixture
def postgres(whole: Stack) -> Iterator[str]:
    """A database of our own beside the shop's; its URL."""
    name, at = f"store_{uuid.uuid4().hex}", conninfo_to_dict(str(whole.shop_dsn))
    with psycopg.connect(make_conninfo(str(whole.shop_dsn), dbname="postgres"), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        yield f"postgresql://{at['user']}:{at['password']}@{at['host']}:{at['port']}/{name}"
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def export_of(auditor: Human) -> list[str]:
    """Every entry of the ledger, as lines of its export."""
    lines: list[str] = []
    params: dict[str, Any] | None = {"limit": 1000}
    while params:
        page = auditor.api.get("ledger", params=params).raise_for_status().json()
        lines += map(to_export_line, page["items"])
        params = {**params, "cursor": page["next"]} if page["next"] else None
    return lines


def read_all(address: str, token: str, ids: dict[str, list[str]]) -> Run:
    """Ask for everything that is only read. Blocking."""
    return check_contract(address, {"auditor": token}, ids=ids, only_reads=True)


def identity_token(human: Human) -> str:
    return str(human.vault.get("identity/oidc/token/je-console").raise_for_status().json()["data"]["token"])


def test_every_response_is_one_that_the_openapi_document_describes(api_run: Run) -> None:
    assert not api_run.findings, "\n".join(api_run.findings)


def test_a_caller_without_a_token_reaches_only_public_operations(api_run: Run) -> None:
    answers = [answer for answer in api_run.answers if answer.who == "nobody"]
    meant = [answer for answer in answers if answer.is_intended]
    assert {answer.status for answer in meant if answer.operation not in PUBLIC} == {401}
    assert {answer.status for answer in meant if answer.operation in PUBLIC} == {200}
    assert {answer.status for answer in answers if not answer.is_intended} == {405}


def test_every_operation_was_called_by_every_person_and_succeeded_at_least_once(api_run: Run, signed: set[str], schema: BaseSchema) -> None:
    """A check of an operation that was never reached would prove nothing."""
    everything = {f"{method.upper()} {path}" for path, found in schema.raw_schema["paths"].items() for method in found}
    assert everything - (signed | api_run.successes) == set()
    pairs = {(answer.who, answer.operation) for answer in api_run.answers if answer.is_intended}
    assert set(product(("ops", "lead", "auditor", "nobody"), everything)) - pairs == set()


async def test_a_store_in_postgresql_gives_the_same_answers(whole: Stack, auditor: Human, postgres: str) -> None:
    """PostgreSQL refuses text and numbers that SQLite takes."""
    assert whole.vault
    assert whole.temporal
    settings = Settings(
        home=whole.home, config=whole.config, vault_addr=whole.vault, temporal_address=whole.temporal, database_url=postgres
    )
    async with build_console(settings) as console, serve_console(console) as http:
        console.deps.store.ledger.append([submission(), access_request(), issuance(), job_end()])
        known = {"job": [JOB], "request": [part_id(JOB, "r", 1)], "credential": [part_id(JOB, "c", 1)]}
        found = await asyncio.to_thread(read_all, str(http.base_url).rstrip("/"), identity_token(auditor), known)
    assert not found.findings, "\n".join(found.findings)
    assert {answer.status for answer in found.answers} >= {200, 404, 422}


ODD_BODIES = [
    b"",
    b"null",
    b"[" * 100_000,
    b"\xff\xfe",
    b'{"spec": "\\ud800"}',
    b'{"spec": 1e999}',
    b'{"seconds": ' + b"9" * 5000 + b"}",
    b'{"spec": {"a": NaN}, "dry_run": true}',
    b'{"spec": ' + b'{"a":' * 3000 + b"1" + b"}" * 3001,
    b'{"statement": {"job": "\\u0000"}, "signature": "\\u0000"}',
]
TYPES = [
    "application/json",
    "application/json; charset=utf-16",
    "text/plain",
    "multipart/form-data",
    "application/x-www-form-urlencoded",
    None,
]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("body", ODD_BODIES, ids=range(len(ODD_BODIES)))
def test_a_body_that_no_client_writes_is_bad_input(
    ops: Human, lead: Human, ids: dict[str, list[str]], body: bytes, kind: str | None
) -> None:
    request, headers = ids["request"][1], {"If-Match": "sha256:x", **({"Content-Type": kind} if kind else {})}
    for who, path in ((ops, "jobs"), (lead, f"requests/{request}/decisions"), (lead, f"requests/{request}/review"), (lead, "delegations")):
        answer = who.api.post(path, content=body, headers=headers)
        assert answer.status_code == 422, (path, answer.text)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["errors"]


def test_a_nul_in_an_address_is_bad_input_by_its_place(auditor: Human) -> None:
    for path, where in {"jobs/%00": "path.job", "jobs?requester=%00": "query.requester", "ledger?%00=1": "query."}.items():
        answer = auditor.api.get(path)
        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"path": where, "message": "must not contain a NUL character"}]


def test_the_openapi_document_names_and_describes_every_operation_and_parameter(whole: Stack) -> None:
    document = httpx.get(f"{whole.console}/openapi.json", trust_env=False, verify=NO_TLS).json()
    operations = [operation for found in document["paths"].values() for operation in found.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert [name for name in names if not name.isidentifier() or "api_v1" in name] == []
    told = {tag["name"] for tag in document["tags"] if tag["description"]}
    assert {tag for operation in operations for tag in operation["tags"]} == told
    assert [operation["operationId"] for operation in operations if not (operation["summary"] and operation["description"])] == []
    parameters = [(operation["operationId"], one) for operation in operations for one in operation.get("parameters", [])]
    assert [(name, one["name"]) for name, one in parameters if not one.get("description")] == []
    assert [(name, one["name"]) for name, one in parameters if "null" in str(one["schema"])] == []
    answers = [(operation["operationId"], status, said) for operation in operations for status, said in operation["responses"].items()]
    assert [(name, status) for name, status, said in answers if status >= "400" and not _is_problem(name, status, said)] == []
    bodies = [operation for operation in operations if "application/json" in operation.get("requestBody", {}).get("content", {})]
    assert [operation["operationId"] for operation in bodies if not _has_example(document, operation)] == []


def _is_problem(name: str, status: str, response: dict[str, Any]) -> bool:
    # A console that is not ready says which servers answer.
    return list(response["content"]) == ["application/json" if (name, status) == ("readyz", "503") else "application/problem+json"]


def _has_example(document: dict[str, Any], operation: dict[str, Any]) -> bool:
    sent = operation["requestBody"]["content"]["application/json"]["schema"]
    reference = sent.get("$ref") or next(one["$ref"] for one in sent["anyOf"] if "$ref" in one)
    return bool(document["components"]["schemas"][reference.rpartition("/")[2]].get("examples"))


def test_everything_that_people_signed_verifies_with_the_published_keys(signed: set[str], auditor: Human) -> None:
    assert signed
    keys, lines = read_keys(auditor.api.get("ledger/keys").text), export_of(auditor)
    assert verify_export(lines, why_forged=SignatureVerifier(keys).why_invalid).problems == ()
    carrying = {json.loads(line)["type"] for line in lines} & SIGNED_FIELDS.keys()
    assert carrying >= SIGNED_FIELDS.keys()
    nobody = SignatureVerifier(keys.model_copy(update={"people": ()})).why_invalid
    assert {problem.fault for problem in verify_export(lines, why_forged=nobody).problems} == {"forged"}
