"""The gateways' keys reach only the upstreams: they are not in MCP or model traffic, the job's files or output, or our own data."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.activities.broker.bad_upstream import serve_upstream
from tests.activities.broker.catalog_edits import offer_tools
from tests.activities.broker.model_server import Handler, serve_model, stream_answer, text_answer
from tests.activities.broker.remote_job import Answer, launch_puppet
from tests.activities.broker.test_tool_gateway import HEADERS, until_offered
from tests.attacks.intruder import Intruder
from tests.attacks.secret_scan import ScanResult, all_places, scan
from tests.attacks.test_canary import OWN, set_api_key
from tests.support.people import Human
from tests.support.shop import Shop, access
from worker.stack.paths import StackPaths
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

CONTROL = f"control-{uuid.uuid4().hex}"
TOOLS_KEY, MODELS_KEY = f"canary/{uuid.uuid4().hex}+='&\"?", f"canary-{uuid.uuid4().hex}"
CHAT = "/openai/v1/chat/completions"
JSON: dict[str, Any] = {"Content-Type": "application/json"}
IN_A_FILE = {"file": {"path": "db.json"}}


@dataclass(frozen=True)
class GatewayScan:
    """The upstreams' requests, the content of the job's files, and the result of one scan of everything."""

    sent: dict[str, str]
    files: dict[str, list[str]]
    log: str
    scanned: ScanResult


def leak_key(handler: Handler, request: dict[str, Any]) -> None:
    """Respond with the request and its key, like a compromised server."""
    text = f"You asked {request['messages'][-1]['content']} with {handler.headers['Authorization']}"
    (stream_answer(text) if request.get("stream") else text_answer(text))(handler, request)


@contextmanager
def set_model_key(shop: Shop, value: str) -> Iterator[None]:
    """Use this key for the model for a block."""
    with shop.admin() as vault:
        before = vault.get("kv/data/models/default").raise_for_status().json()["data"]["data"]
        vault.post("kv/data/models/default", json={"data": {"key": value}}).raise_for_status()
        try:
            yield
        finally:
            vault.post("kv/data/models/default", json={"data": before}).raise_for_status()


@pytest.fixture(scope="module")
def gateway_scan(whole: Stack, shop: Shop, intruder: Intruder, ops: Human, auditor: Human) -> GatewayScan:
    """Run a job that calls a tool and a model whose upstreams leak their keys; it prints every response. Then scan everything."""
    began = datetime.now(UTC)
    port = json.loads(StackPaths(whole.home).ports.read_text())["model"]
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": CONTROL}]}
    with serve_upstream() as tools, serve_model(port) as model, set_api_key(shop, TOOLS_KEY), set_model_key(shop, MODELS_KEY):
        model.answer_with(leak_key)
        helpdesk = {
            "description": "Tell the helpdesk",
            "uses": {"resource": "helpdesk-api", "action": "read"},
            "input": {"type": "object", "properties": {"note": {"type": "string"}}},
            "http": {
                "method": "POST",
                "url": f"{tools.url}/echo",
                "headers": {"Authorization": "Bearer {token}"},
                "json": {"note": "{note}"},
                "allow_private": True,
            },
        }
        budget = {"name": "default", "requests": 10, "tokens": 10_000}
        with (
            offer_tools(shop, {"tell-helpdesk": helpdesk}),
            launch_puppet(ops, access(deliver=IN_A_FILE), model=budget) as job,
        ):
            until_offered(job, "tell-helpdesk")
            call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "tell-helpdesk", "arguments": {"note": CONTROL}}}
            answers = {
                "mcp": job.call("POST", "/mcp", call, prints=True, **HEADERS),
                "model": job.call("POST", CHAT, asked, prints=True, **JSON),
                "streamed": job.call("POST", CHAT, {**asked, "stream": True}, **JSON),
            }
            assert all(answer.status == 200 for answer in answers.values()), answers
            # The file with the job's own login is the control for this search.
            files = {"own": job.find_texts('"password"'), "keys": job.find_texts(TOOLS_KEY, MODELS_KEY, json.dumps(TOOLS_KEY)[1:-1])}
        sent = {"tool": tools.authorization, "model": model.keys[-1]}
    traffic = [(f"traffic {name}", _bytes(answer)) for name, answer in answers.items()]
    traffic.append(("traffic to the model", json.dumps(model.questions).encode()))
    wanted = {"tool's key": TOOLS_KEY, "model's key": MODELS_KEY, "control": CONTROL}
    places = (*traffic, *all_places(whole, intruder, auditor, [job.job], since=began))
    return GatewayScan(sent, files, auditor.output(job.job), scan(places, wanted))


def _bytes(answer: Answer) -> bytes:
    return (json.dumps(answer.headers) + answer.body).encode()


def test_the_upstreams_received_the_keys(gateway_scan: GatewayScan) -> None:
    assert gateway_scan.sent == {"tool": f"Bearer {TOOLS_KEY}", "model": f"Bearer {MODELS_KEY}"}


def test_the_scan_finds_the_control_and_no_key_anywhere_else(gateway_scan: GatewayScan) -> None:
    assert {(name, place) for name, place in gateway_scan.scanned.found if name != "control" and place not in OWN} == set()
    where = gateway_scan.scanned.places_of("control")
    assert {"traffic mcp", "traffic model", "traffic streamed", "traffic to the model", "table ledger", "api logs", "api timeline"} <= where


def test_no_file_that_the_job_can_read_contains_a_key(gateway_scan: GatewayScan) -> None:
    assert any(path.endswith("/db.json") for path in gateway_scan.files["own"])
    assert gateway_scan.files["keys"] == []


def test_the_jobs_output_has_marks_in_place_of_the_keys(gateway_scan: GatewayScan) -> None:
    assert gateway_scan.log.count("[redacted]") >= 2
    assert CONTROL in gateway_scan.log
