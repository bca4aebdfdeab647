"""A job that floods its broker: `flood.py KIND SECONDS`, on as many connections as it can, until it is cancelled or the time is over.

It prints what became of its requests.
"""

# ruff: noqa: T201 - its output is what it is for

import json
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import suppress

KIND, SECONDS = sys.argv[1], float(sys.argv[2])
CONNECTIONS, PIPELINED = 48, 8
KEYS = ",".join(f'"unknown_{number:04}":0' for number in range(6_600))
ASK = {"resource": "orders-db", "action": "read", "reason": "because"}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "find-order", "arguments": {"x": ["a"] * 20_000}}}

META = {"protocolVersion": "2026-07-28", "clientInfo": {"name": "x", "version": "1"}, "clientCapabilities": {}}
RESPONSE = {"role": "user", "model": "x", "content": [{}] * 30_000}
"""It is valid in so many ways that to find what is wrong with it takes a second."""
ANSWER = {
    "name": "find-order",
    "arguments": {},
    "inputResponses": {"x": RESPONSE},
    "_meta": {f"io.modelcontextprotocol/{name}": value for name, value in META.items()},
}
NEWEST = "Mcp-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: find-order\r\n"


def request(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    """Return one request as it is sent."""
    head = f"{method} {path} HTTP/1.1\r\nHost: broker\r\nAccept: application/json, text/event-stream\r\nContent-Type: application/json\r\n"
    return f"{head}{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


FLOODS = {
    "unknown keys": request("POST", "/v1/access", b"{" + KEYS.encode() + b"}"),
    "nesting": request("POST", "/v1/access", b"[" * 60_000),
    "wrong values": request("POST", "/v1/access", json.dumps({**ASK, "ttl": ["x"] * 15_000}).encode()),
    "unknown paths": request("GET", "/nowhere") * PIPELINED,
    "tool calls": request("POST", "/mcp", json.dumps(CALL).encode()),
    "input responses": request("POST", "/mcp", json.dumps({**CALL, "params": ANSWER}).encode(), NEWEST),
    "garbage": b"\x00\xff" * 1_000,
    "new connections": b"",
}


over = threading.Event()


def flood(seen: Counter[str], until: float) -> None:
    """Send the same again and again, and connect anew when the broker hangs up."""
    while time.monotonic() < until and not over.is_set():
        with suppress(OSError), socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(os.environ["JUSTENOUGH_BROKER"])
            seen["connections"] += 1
            while FLOODS[KIND] and time.monotonic() < until and not over.is_set():
                line.sendall(FLOODS[KIND])
                answer = line.recv(1 << 20)
                if not answer:
                    break
                seen[answer[:12].decode(errors="replace")] += 1


signal.signal(signal.SIGTERM, lambda *_: over.set())
counts = [Counter[str]() for _ in range(CONNECTIONS)]
end = time.monotonic() + SECONDS
threads = [threading.Thread(target=flood, args=(count, end)) for count in counts]
print("flooding", flush=True)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(dict(sum(counts, Counter[str]())), flush=True)
