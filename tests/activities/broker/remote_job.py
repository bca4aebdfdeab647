"""A job that makes the calls to its broker that a test requests: from within the job, as its user, in its sandbox."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from tests.support.people import Human

PROGRAM = """
import http.client, json, os, socket, sys

class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(300)
        self.sock.connect(os.environ["JUSTENOUGH_BROKER"])

def readable():
    yield "/proc/self/environ"
    for folder, inner, names in os.walk("/"):
        inner[:] = [name for name in inner if os.path.join(folder, name) not in {"/proc", "/sys", "/usr", "/lib", "/lib64", "/bin", "/sbin"}]
        yield from (os.path.join(folder, name) for name in names)

def found_in(path, needles):
    try:
        # Others are the machine's, or wait for somebody.
        if path.startswith("/proc") or (os.path.isfile(path) and os.path.getsize(path) < 10_000_000):
            content = open(path, "rb").read()
            return any(needle.encode() in content for needle in needles)
    except OSError:
        pass
    return False

told = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=300)
lines = told.makefile("rw")
print(json.dumps({name: value for name, value in os.environ.items() if name.startswith(("JUSTENOUGH", "OPENAI"))}), file=lines, flush=True)
for line in lines:
    asked = json.loads(line)
    if "finds" in asked:
        print(json.dumps({"found": [path for path in readable() if found_in(path, asked["finds"])]}), file=lines, flush=True)
        continue
    try:
        broker = Unix("broker")
        broker.request(asked["method"], asked["path"], asked["body"], asked["headers"])
        answer = broker.getresponse()
        while asked.get("streams") and (piece := answer.readline()):
            print(json.dumps({"line": piece.decode().rstrip()}), file=lines, flush=True)
        found = {"status": answer.status, "headers": dict(answer.getheaders()), "body": answer.read().decode()}
        broker.close()
    except Exception as error:
        found = {"status": 0, "headers": {}, "body": repr(error)}
    if asked.get("print"):
        print(found["body"], flush=True)
    print(json.dumps(found), file=lines, flush=True)
"""


@dataclass(frozen=True)
class Answer:
    """What the broker said."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(frozen=True)
class Puppet:
    """A running job."""

    job: str
    env: dict[str, str]
    _lines: TextIO

    def call(self, method: str, path: str, body: Any = None, *, raw: str | None = None, prints: bool = False, **headers: str) -> Answer:
        """Call the broker from within the job."""
        sent = raw if raw is not None else json.dumps(body) if body is not None else None
        self._send({"method": method, "path": path, "body": sent, "headers": headers, "print": prints})
        line = self._lines.readline()
        assert line, "the job is gone"
        return Answer(**json.loads(line))

    def start_call(self, method: str, path: str, body: Any) -> None:
        """Call the broker from within the job, and wait for no answer: nothing else can be asked of this job any more."""
        self._send({"method": method, "path": path, "body": json.dumps(body), "headers": {}})

    def stream_call(self, method: str, path: str, body: Any) -> Iterator[str]:
        """Call the broker from within the job, and yield each line of the answer when the job has it."""
        self._send({"method": method, "path": path, "body": json.dumps(body), "headers": {}, "streams": True})
        while "line" in (found := json.loads(self._lines.readline())):
            yield found["line"]

    def find_texts(self, *needles: str) -> list[str]:
        """Return the paths of files that the job can read and that hold one of these texts, its environment among them."""
        self._send({"finds": needles})
        found: list[str] = json.loads(self._lines.readline())["found"]
        return found

    def _send(self, command: dict[str, Any]) -> None:
        print(json.dumps(command), file=self._lines, flush=True)

    def request_access(self, resource: str, action: str = "read", **more: Any) -> Answer:
        """Ask for access."""
        return self.call("POST", "/v1/access", {"resource": resource, "action": action, "reason": "a test needs it", **more})


@contextmanager
def launch_puppet(
    ops: Human, *items: dict[str, Any], before: str = "", parent: str | None = None, beyond: str | None = "policy", **more: Any
) -> Iterator[Puppet]:
    """Launch one, with these access items; kill it at the block's end where it still runs.

    `before`: what its program does first. `beyond`: None to leave it out of the spec.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(300)
        run = {"command": ["python3", "-c", before + PROGRAM, str(server.getsockname()[1])], "timeout": "10m", **more.pop("run", {})}
        spec = {"name": "puppet", "task": "Do what a test says", "environment": "prod", "data_scope": {"tenant": "acme"}, **more}
        spec |= {"beyond": beyond} if beyond else {}
        job = ops.launch({**spec, "run": run, "access": list(items)}, **({"parent": parent} if parent else {}))
        connection, _ = server.accept()
        with connection, connection.makefile("rw") as lines:
            connection.settimeout(300)
            yield Puppet(job, json.loads(lines.readline()), lines)
        ops.api.post(f"jobs/{job}/kill")
        ops.until(job)
