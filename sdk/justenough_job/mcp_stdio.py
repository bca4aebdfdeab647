"""`justenough-mcp`: the job's tools for an MCP client that uses stdin and stdout. Forwards messages to the broker's /mcp.

One JSON-RPC message per line. Each request is a POST in its own thread, so that many can run at once; answers and progress are written as
they come. Only MCP is written to stdout.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import select
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from justenough_job.broker import SILENCE_TIMEOUT_S, BrokerClient
from justenough_job.errors import OutsideJob
from justenough_job.jsonrpc import JsonRpcCall, key_of, stream_events

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
MAX_CONCURRENT_CALLS = 32
"""Maximum concurrent calls; the broker closes connections of a job that has very many."""
MAX_LINE_BYTES = 1024 * 1024
"""Maximum bytes of a line from the client; the broker accepts less."""
PARSE_ERROR, INVALID_REQUEST, INTERNAL_ERROR = -32700, -32600, -32603
BROKER_GONE = "the job's access has been closed: its broker no longer accepts calls"
HELP_EPILOG = """\
Speaks MCP on stdin and stdout, one JSON-RPC message on each line, for a client that runs in the same job:

  {"mcpServers": {"justenough": {"command": "justenough-mcp"}}}

It finds the job's broker by JUSTENOUGH_BROKER, or JUSTENOUGH_BROKER_URL with JUSTENOUGH_BROKER_TOKEN; in the sandbox also without these
variables, if the client does not pass them on.

exit codes: 0 the client has closed stdin and every answer is written, 1 the job's access has been closed, or this is not a job, 2 usage.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(
        "justenough-mcp",
        description="The tools of this job for an MCP client.",
        epilog=HELP_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(argv)
    try:
        return McpBridge(BrokerClient.from_environment(), sys.stdin.fileno(), sys.stdout.fileno()).run()
    except OutsideJob as error:
        print(f"justenough-mcp: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


class McpBridge:
    """The bridge of one client. `source` and `sink`: file descriptors to read its messages from and write answers to.

    They are not Python's streams: a thread that holds a stream's lock at exit would keep the program from ending.
    """

    def __init__(self, broker: BrokerClient, source: int, sink: int) -> None:
        self._broker = broker
        self._source = source
        self._sink = sink
        self._writing = threading.Lock()
        self._known = threading.Lock()
        self._calls: dict[str, JsonRpcCall] = {}
        self._version = ""
        self._session = ""
        self._stopped = threading.Event()
        self._woken, self._wake = os.pipe()

    def run(self) -> int:
        """Forward messages until the client has closed its end and every message is answered, or the job's access is closed.

        Return the exit code.
        """
        threads: list[threading.Thread] = []
        for line in self._lines():
            threads = [thread for thread in threads if thread.is_alive()] + self._handle_line(line)
        for thread in threads:
            thread.join()
        return EXIT_FAILED if self._stopped.is_set() else 0

    def _lines(self) -> Iterator[bytes]:
        held = b""
        while not self._stopped.is_set():
            ready, _, _ = select.select([self._source, self._woken], [], [])
            if self._woken in ready:
                return
            chunk = os.read(self._source, 65536)
            *lines, held = (held + chunk).split(b"\n")
            yield from (line for line in lines if line.strip())
            if len(held) > MAX_LINE_BYTES:
                self._write_error(None, INVALID_REQUEST, f"a message may have at most {MAX_LINE_BYTES:,} bytes")
                return
            if not chunk:
                if held.strip():
                    yield held
                return

    def _handle_line(self, line: bytes) -> list[threading.Thread]:
        """Forward one message; return the thread that forwards it, if it is a request that gets an answer."""
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            self._write_error(None, PARSE_ERROR, "this line is not JSON")
            return []
        if not isinstance(message, dict):
            self._write_error(None, INVALID_REQUEST, "a message must be one JSON object; MCP has no batches")
            return []
        if message.get("method") == "notifications/cancelled":
            # The broker knows a request only by its connection, so closing that cancels it.
            params = message.get("params")
            with self._known:
                cancelled = self._calls.get(key_of(params.get("requestId") if isinstance(params, dict) else None))
            if cancelled:
                cancelled.hang_up()
            return []
        call = JsonRpcCall(message)
        if not call.is_request:
            # Notifications are forwarded in order: a client may rely on it.
            self._forward(call)
            return []
        why = ""
        with self._known:
            if call.key in self._calls:
                why = f"request {call.key} is already in progress"
            elif len(self._calls) >= MAX_CONCURRENT_CALLS:
                why = f"{MAX_CONCURRENT_CALLS} calls are already in progress: wait for one of them to end"
            else:
                self._calls[call.key] = call
        if why:
            self._write_error(call.id, INVALID_REQUEST, why)
            return []
        thread = threading.Thread(target=self._forward, args=(call,), daemon=True)
        thread.start()
        return [thread]

    def _forward(self, call: JsonRpcCall) -> None:
        """Post one message and write the answer, or an error if there is none."""
        connection = self._broker.connection(SILENCE_TIMEOUT_S)
        try:
            connection.connect()
            if not call.attach(connection):
                return
            headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **self._broker.authorization}
            headers |= call.headers(version=self._version, session=self._session)
            connection.request("POST", "/mcp", json.dumps(call.message).encode(), headers)
            answer = connection.getresponse()
            if answer.status == 410:
                self._stop(call)
            elif answer.status >= 400:
                self._write_refusal(call, answer)
            else:
                self._session = answer.getheader("Mcp-Session-Id") or self._session
                self._write_answer(call, answer)
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            if self._is_gone():
                self._stop(call)
            else:
                self._fail(call, f"the job's broker does not answer: {str(error) or type(error).__name__}")
        finally:
            connection.close()
            with self._known:
                self._calls.pop(call.key, None)

    def _write_answer(self, call: JsonRpcCall, answer: http.client.HTTPResponse) -> None:
        """Write the answer's messages as they come."""
        kind = (answer.getheader("Content-Type") or "").partition(";")[0].strip().lower()
        answered = not call.is_request
        for text in stream_events(answer) if kind == "text/event-stream" else (answer.read(),):
            if not text.strip():
                continue
            message = json.loads(text)
            if call.method == "initialize":
                self._version = str((message.get("result") or {}).get("protocolVersion") or "")
            answered = answered or ("id" in message and "method" not in message)
            if not call.gone:
                self._write(message)
        if not answered:
            self._fail(call, "the job's broker ended the stream without a response")

    def _write_refusal(self, call: JsonRpcCall, answer: http.client.HTTPResponse) -> None:
        """Forward an error: a JSON-RPC error unchanged, an HTTP problem by its detail, plain text with its status."""
        content = answer.read()
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        text = "" if isinstance(body, dict) else content[:200].decode("utf-8", "replace").strip()
        body = body if isinstance(body, dict) else {}
        if isinstance(body.get("error"), dict) and call.is_request and not call.gone:
            self._write({"jsonrpc": "2.0", "id": call.id, "error": body["error"]})
        else:
            self._fail(call, str(body.get("detail") or f"the job's broker answered {answer.status}{text and f': {text}'}"))

    def _is_gone(self) -> bool:
        """Whether nothing listens at the broker's address any more. A broker never restarts."""
        connection = self._broker.connection(SILENCE_TIMEOUT_S)
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            return True
        except OSError:
            return False
        finally:
            connection.close()
        return False

    def _stop(self, call: JsonRpcCall) -> None:
        """Answer every call under way once, with the same error: the broker is gone for good."""
        with self._known:
            first, others = not self._stopped.is_set(), [other for other in self._calls.values() if other is not call]
            self._stopped.set()
        self._fail(call, BROKER_GONE)
        if not first:
            return
        for other in others:
            self._fail(other, BROKER_GONE)
            other.hang_up()
        print(f"justenough-mcp: {BROKER_GONE}", file=sys.stderr)
        os.write(self._wake, b"x")

    def _fail(self, call: JsonRpcCall, why: str) -> None:
        if call.is_request and not call.gone:
            self._write_error(call.id, INTERNAL_ERROR, why)

    def _write_error(self, request_id: Any, code: int, why: str) -> None:
        self._write({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": why}})

    def _write(self, message: Any) -> None:
        """Write one message; stop if the client has closed its end."""
        content = memoryview(json.dumps(message).encode() + b"\n")
        with self._writing:
            try:
                while content:
                    content = content[os.write(self._sink, content) :]
            except OSError:
                self._stopped.set()
                os.write(self._wake, b"x")


if __name__ == "__main__":
    sys.exit(main())
