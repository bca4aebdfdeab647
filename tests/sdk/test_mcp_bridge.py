"""`justenough-mcp` inside real jobs: a stock MCP client uses the job's tools through it; also bad input, many calls and a broker that ends."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.activities.broker.test_runtime_requests import await_request, entries
from tests.activities.broker.test_tool_gateway import SHOPS, tenant_order
from tests.sdk.remote_python import SDK, Remote, launch_remote
from tests.support.child_process import run_child
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop
from tests.support.wait import until

CLIENT = """
import asyncio, json, sys
from mcp import Client, StdioServerParameters

heard = []

async def progress(done, total, message):
    heard.append(message)

async def used(mode, tool, **arguments):
    async with Client(StdioServerParameters(command="justenough-mcp"), mode=mode) as mcp:
        names = [one.name for one in (await mcp.list_tools()).tools]
        many = await asyncio.gather(*(mcp.call_tool(tool, arguments, progress_callback=progress) for _ in range(5)))
        read = await mcp.read_resource("justenough://catalog")
        texts = [one.content[0].text for one in many if not one.is_error]
        return [sorted(names), texts, len(read.contents), mcp.protocol_version]
"""
BRIDGE = """
import json, os, subprocess, sys, threading

bridge = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

def says(*messages):
    for message in messages:
        bridge.stdin.write((message if isinstance(message, bytes) else json.dumps({"jsonrpc": "2.0", **message}).encode()) + b"\\n")
    bridge.stdin.flush()

def hears(count):
    return [json.loads(bridge.stdout.readline()) for _ in range(count)]

def ends():
    bridge.stdin.close()
    return [[json.loads(line) for line in bridge.stdout], bridge.wait(), bridge.stderr.read().decode()]
"""
INITIALIZE = {
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a test", "version": "1"}},
}
READY = {"method": "notifications/initialized"}


def call(about: object, tool: str, *, progress: bool = False, **arguments: Any) -> dict[str, Any]:
    """Return a tools/call request."""
    meta = {"_meta": {"progressToken": "p"}} if progress else {}
    return {"id": about, "method": "tools/call", "params": {"name": tool, "arguments": arguments, **meta}}


def text_of(message: dict[str, Any]) -> str:
    return str(message["result"]["content"][0]["text"])


def start_bridge(job: Remote, command: str = "['justenough-mcp']", *, ready: bool = True) -> None:
    """Start the bridge inside a job and initialize it."""
    job.run(BRIDGE.replace("COMMAND", command))
    if ready:
        (hello,) = job.run(f"says({INITIALIZE!r}); result = hears(1)")
        assert hello["result"]["protocolVersion"] == "2025-06-18"
        job.run(f"says({READY!r})")


@pytest.mark.servers
@pytest.mark.parametrize("mode, version", [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
def test_the_mcp_sdks_client_starts_the_bridge_and_uses_the_jobs_tools(job: Remote, shop: Shop, mode: str, version: str) -> None:
    order = tenant_order(shop)
    job.run(CLIENT)
    names, texts, resources, spoken = job.run(f"result = asyncio.run(used({mode!r}, 'find-order', order_id={order}))")
    assert names == sorted(SHOPS)
    assert [json.loads(text)["rows"][0]["id"] for text in texts] == [order] * 5
    assert (resources, spoken) == (1, version)
    assert shop.users_of(job.job) == []


@pytest.mark.servers
def test_progress_is_sent_during_an_approval_and_other_calls_continue(ops: Human, lead: Human, shop: Shop) -> None:
    order = tenant_order(shop)
    with launch_remote(ops) as job:
        start_bridge(job)
        slow = call("slow", "refund-order", progress=True, order_id=order, amount=2, reason="by the bridge")
        (heard,) = job.run(f"says({slow!r}); result = hears(1)")
        assert heard["method"] == "notifications/progress"
        assert "waiting for people's approval" in heard["params"]["message"]
        found: list[dict[str, Any]] = job.run(
            f"says({call(7, 'find-order', order_id=order)!r})\nresult = []\nwhile not any('id' in one for one in result): result += hears(1)"
        )
        assert (found[-1]["id"], json.loads(text_of(found[-1]))["rows"][0]["id"]) == (7, order)
        request = next(one["id"] for one in ops.job(job.job)["requests"] if one["resource"] == "refunds-db")
        assert lead.answer(await_request(lead, request)).status_code in ACCEPTED_STATUSES
        last = job.run("result = hears(1)\nwhile 'id' not in result[-1]: result += hears(1)")[-1]
        assert (last["id"], bool(last["result"].get("isError"))) == ("slow", False)
        assert job.run("result = ends()") == [[], 0, ""]


@pytest.mark.servers
def test_a_call_that_its_client_cancels_is_aborted_without_a_response(ops: Human, shop: Shop) -> None:
    with launch_remote(ops) as job:
        start_bridge(job)
        slow = call("slow", "refund-order", progress=True, order_id=tenant_order(shop), amount=2, reason="taken back")
        job.run(f"says({slow!r}); result = hears(1)")
        job.run(f"says({ {'method': 'notifications/cancelled', 'params': {'requestId': 'slow'}}!r})")
        told = until(lambda: entries(ops, job.job, "tool.called"), "the call is recorded")
        assert told[-1]["outcome"] == "pending"
        rest, code, said = job.run("result = ends()")
        assert ([one for one in rest if "id" in one], code, said) == ([], 0, "")
        assert ops.job(job.job)["credentials"] == []


@pytest.mark.servers
def test_at_the_end_of_stdin_pending_calls_are_answered_first(job: Remote, shop: Shop) -> None:
    start_bridge(job)
    order = tenant_order(shop)
    sent = [call(number, "find-order", order_id=order) for number in range(1, 11)]
    rest, code, said = job.run(f"says(*{sent!r}); result = ends()")
    assert sorted(one["id"] for one in rest) == list(range(1, 11))
    assert all(json.loads(text_of(one))["rows"][0]["id"] == order for one in rest)
    assert (code, said) == (0, "")


@pytest.mark.servers
def test_the_broker_on_loopback_is_reached_with_the_jobs_token(job: Remote) -> None:
    job.run("import os; kept = {name: value for name, value in os.environ.items() if name != 'JUSTENOUGH_BROKER'}")
    start_bridge(job, "['justenough-mcp'], env=kept")
    (listed,) = job.run("says({'id': 1, 'method': 'tools/list'}); result = hears(1)")
    assert "find-order" in {one["name"] for one in listed["result"]["tools"]}
    start_bridge(job, "['justenough-mcp'], env={**kept, 'JUSTENOUGH_BROKER_TOKEN': 'wrong'}", ready=False)
    (refused,) = job.run(f"says({INITIALIZE!r}); result = hears(1)")
    assert refused["error"]["message"] == "send `Authorization: Bearer $JUSTENOUGH_BROKER_TOKEN`"


@pytest.mark.servers
@pytest.mark.parametrize(
    "line, code, says",
    [
        (b"{", -32700, "this line is not JSON"),
        (b"[" * 100_000, -32700, "this line is not JSON"),
        (b'[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]', -32600, "a message must be one JSON object; MCP has no batches"),
        (b"7", -32600, "a message must be one JSON object"),
        (json.dumps({"jsonrpc": "2.0", "id": 1, "method": "no/such"}).encode(), -32601, ""),
        (
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "y" * 200_000}}).encode(),
            -32603,
            "broker answered 413: ",
        ),
    ],
    ids=["half", "deep", "batch", "number", "unknown", "large"],
)
def test_an_invalid_message_gets_an_error_and_the_next_message_is_served(job: Remote, line: bytes, code: int, says: str) -> None:
    start_bridge(job)
    (error,) = job.run(f"says({line!r}); result = hears(1)")
    assert (error["error"]["code"], says in error["error"]["message"]) == (code, True), error
    assert "result" in job.run(f"says({ {'id': 2, 'method': 'ping'}!r}); result = hears(1)")[0]
    assert job.run("result = ends()") == [[], 0, ""]


Answering = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


@contextmanager
def serve_broker(path: Path, answers: Answering) -> Iterator[None]:
    """Run a fake broker that sends this response to each message."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            answers(self, json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def address_string(self) -> str:
            return "a socket"

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True
        request_queue_size = 64

    with Server(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()
    path.unlink(missing_ok=True)


def send_response(handler: BaseHTTPRequestHandler, status: int, body: Any, kind: str = "application/json") -> None:
    content = json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


@contextmanager
def run_bridge(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the bridge against such a broker."""
    env = {"PYTHONPATH": str(SDK.parent), "JUSTENOUGH_BROKER": str(path)}
    command = [sys.executable, "-m", "justenough_job.mcp_stdio"]
    with run_child(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        yield running


def send_messages(running: subprocess.Popen[bytes], *messages: dict[str, Any]) -> None:
    assert running.stdin
    for message in messages:
        running.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
    running.stdin.flush()


def read_rest(running: subprocess.Popen[bytes]) -> tuple[dict[object, Any], int, str]:
    """Return its remaining responses by id, its exit code and its stderr, with its stdin still open."""
    assert running.stdout
    assert running.stderr
    found = [json.loads(line) for line in running.stdout]
    return {one["id"]: one for one in found}, running.wait(180), running.stderr.read().decode()


AT_ONCE = 32
GONE = "the job's access has been closed: its broker no longer accepts calls"


def test_once_access_is_closed_every_call_gets_that_error_and_the_bridge_ends(tmp_path: Path) -> None:
    reached, over = threading.Event(), threading.Event()

    def answers(handler: BaseHTTPRequestHandler, message: dict[str, Any]) -> None:
        if message["id"] == "waits":
            reached.set()
            over.wait(60)
            return
        assert reached.wait(180)
        send_response(handler, 410, {"status": 410, "detail": "the job's access has been closed"}, "application/problem+json")

    with serve_broker(tmp_path / "b.sock", answers), run_bridge(tmp_path / "b.sock") as running:
        send_messages(running, call("waits", "a"), call(2, "b"))
        found, code, why = read_rest(running)
        over.set()
    assert {about: one["error"] for about, one in found.items()} == {about: {"code": -32603, "message": GONE} for about in ("waits", 2)}
    assert (code, why) == (1, f"justenough-mcp: {GONE}\n")


def test_calls_over_the_limit_are_rejected_and_the_others_succeed(tmp_path: Path) -> None:
    go_on = threading.Event()

    def answers(handler: BaseHTTPRequestHandler, message: dict[str, Any]) -> None:
        assert go_on.wait(180)
        send_response(handler, 200, {"jsonrpc": "2.0", "id": message["id"], "result": {}})

    with serve_broker(tmp_path / "b.sock", answers), run_bridge(tmp_path / "b.sock") as running:
        assert running.stdout
        send_messages(running, *(call(number, "a") for number in range(1, AT_ONCE + 9)))
        refused = [json.loads(running.stdout.readline()) for _ in range(8)]
        go_on.set()
        done = [json.loads(running.stdout.readline()) for _ in range(AT_ONCE)]
    assert [one["id"] for one in refused] == list(range(AT_ONCE + 1, AT_ONCE + 9))
    assert {one["error"]["message"] for one in refused} == {f"{AT_ONCE} calls are already in progress: wait for one of them to end"}
    assert sorted(one["id"] for one in done if "result" in one) == list(range(1, AT_ONCE + 1))


def test_a_broker_that_is_gone_counts_as_closed_access(tmp_path: Path) -> None:
    with run_bridge(tmp_path / "b.sock") as running:
        send_messages(running, call(1, "a"))
        found, code, why = read_rest(running)
    assert (found[1]["error"]["message"], code, why) == (GONE, 1, f"justenough-mcp: {GONE}\n")


def test_a_broker_that_ends_during_a_call_counts_as_closed_access(tmp_path: Path) -> None:
    path = tmp_path / "b.sock"

    def answers(handler: BaseHTTPRequestHandler, message: dict[str, Any]) -> None:
        path.unlink()
        handler.connection.shutdown(socket.SHUT_RDWR)

    with serve_broker(path, answers), run_bridge(path) as running:
        send_messages(running, call(1, "a"))
        found, code, _ = read_rest(running)
    assert (found[1]["error"]["message"], code) == (GONE, 1)


@pytest.mark.parametrize(
    "answer, says",
    [
        (lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), "the job's broker does not answer"),
        (lambda handler: send_response(handler, 503, {"detail": "the store is away"}), "the store is away"),
        (lambda handler: send_response(handler, 500, {}), "the job's broker answered 500"),
        (lambda handler: send_response(handler, 413, "too large", "text/plain"), 'the job\'s broker answered 413: "too large"'),
        (lambda handler: send_response(handler, 400, {"jsonrpc": "2.0", "id": None, "error": {"code": -32602, "message": "bad"}}), "bad"),
        (lambda handler: send_response(handler, 200, {}, "text/event-stream"), "ended the stream without a response"),
    ],
)
def test_an_invalid_response_fails_only_its_own_call(tmp_path: Path, answer: Callable[[BaseHTTPRequestHandler], None], says: str) -> None:
    def answers(handler: BaseHTTPRequestHandler, message: dict[str, Any]) -> None:
        if message["id"] == 1:
            answer(handler)
        else:
            send_response(handler, 200, {"jsonrpc": "2.0", "id": message["id"], "result": {}})

    with serve_broker(tmp_path / "b.sock", answers), run_bridge(tmp_path / "b.sock") as running:
        assert running.stdout
        send_messages(running, call(1, "a"))
        error = json.loads(running.stdout.readline())
        assert (error["id"], says in error["error"]["message"]) == (1, True)
        send_messages(running, call(2, "a"))
        assert json.loads(running.stdout.readline()) == {"jsonrpc": "2.0", "id": 2, "result": {}}


def test_the_headers_of_later_protocol_versions_are_sent(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []

    def answers(handler: BaseHTTPRequestHandler, message: dict[str, Any]) -> None:
        seen.append({name.lower(): value for name, value in handler.headers.items() if name.lower().startswith("mcp-")})
        send_response(handler, 200, {"jsonrpc": "2.0", "id": message["id"], "result": {"protocolVersion": "2025-06-18"}})

    later = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
    with serve_broker(tmp_path / "b.sock", answers), run_bridge(tmp_path / "b.sock") as running:
        assert running.stdout
        for message in (
            INITIALIZE,
            call(1, "find"),
            {"id": 2, "method": "tools/call", "params": {"name": "fünd ", **later}},
            {"id": 3, "method": "resources/read", "params": {"uri": "a://b", **later}},
        ):
            send_messages(running, message)
            running.stdout.readline()
    assert seen == [
        {"mcp-method": "initialize"},
        {"mcp-method": "tools/call", "mcp-name": "find", "mcp-protocol-version": "2025-06-18"},
        {"mcp-method": "tools/call", "mcp-name": "=?base64?ZsO8bmQg?=", "mcp-protocol-version": "2026-07-28"},
        {"mcp-method": "resources/read", "mcp-name": "a://b", "mcp-protocol-version": "2026-07-28"},
    ]


def test_the_bridge_ends_if_its_output_is_closed(tmp_path: Path) -> None:
    def answers(handler: BaseHTTPRequestHandler, message: dict[str, Any]) -> None:
        send_response(handler, 200, {"jsonrpc": "2.0", "id": message["id"], "result": {}})

    with serve_broker(tmp_path / "b.sock", answers), run_bridge(tmp_path / "b.sock") as running:
        assert running.stdout
        running.stdout.close()
        send_messages(running, call(1, "a"))
        assert running.wait(180) == 1


def test_outside_a_job_the_bridge_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "justenough_job.mcp_stdio"], env={"PYTHONPATH": str(SDK.parent)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("justenough-mcp: this program is not running as a JustEnough job")
    assert not os.access("/run/justenough/broker.sock", os.F_OK)
