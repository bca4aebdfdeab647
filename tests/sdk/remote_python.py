"""A job that runs Python code from a test, so that tests use the SDK inside a real job, as its user and in its sandbox."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any, TextIO

from justenough.domain.jobs.bundle import bundle_digest, pack
from tests.support.people import Human

SDK = Path(__file__).parents[2] / "sdk" / "justenough_job"
PROGRAM = """
import json, socket, sys

told = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=110)
lines, scope = told.makefile("rw"), {}
for line in lines:
    scope.pop("result", None)
    try:
        exec(json.loads(line), scope)
        found = {"result": scope.get("result")}
    except BaseException as error:
        found = {"error": type(error).__name__, "says": str(error), **vars(error)}
    print(json.dumps(found, default=str), file=lines, flush=True)
"""


@dataclass(frozen=True)
class RemoteError:
    """An exception of a job's Python code."""

    kind: str
    says: str
    more: dict[str, Any]


@dataclass(frozen=True)
class Remote:
    """A running job."""

    job: str
    _lines: TextIO

    def run(self, code: str) -> Any:
        """Run code in the job; return its `result`. Fails if it raises. Its variables stay for the next code."""
        found = self._execute(code)
        assert "error" not in found, found
        return found["result"]

    def catch(self, code: str) -> RemoteError:
        """Run code in the job; return its exception. Fails if it raises none."""
        found = self._execute(code)
        assert "error" in found, found
        return RemoteError(found.pop("error"), found.pop("says"), found)

    def start(self, code: str) -> None:
        """Start code in the job; `wait` returns its outcome."""
        print(json.dumps(dedent(code)), file=self._lines, flush=True)

    def wait(self) -> dict[str, Any]:
        """Return the outcome of the started code: `result`, or `error` and `says`."""
        line = self._lines.readline()
        assert line, "the job is gone"
        found: dict[str, Any] = json.loads(line)
        return found

    def _execute(self, code: str) -> dict[str, Any]:
        self.start(code)
        return self.wait()


@contextmanager
def launch_remote(ops: Human, *items: dict[str, Any], python: Path | None = None, network: str = "host") -> Iterator[Remote]:
    """Launch such a job with these access items; kill it at the end of the block. `python`: an interpreter without the SDK, which gets this checkout's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(180)
        command = ["python3", "-c", PROGRAM, str(server.getsockname()[1])]
        run = {"command": command, "timeout": "5m", "network": network, **({"python": str(python), "workdir": "."} if python else {})}
        spec = {"name": "remote", "task": "Run what a test says", "environment": "prod", "data_scope": {"tenant": "acme"}}
        job = ops.launch({**spec, "run": run, "access": list(items), "beyond": "policy"}, bundle=_upload_sdk(ops) if python else None)
        connection, _ = server.accept()
        with connection, connection.makefile("rw") as lines:
            connection.settimeout(100)
            yield Remote(job, lines)
        ops.api.post(f"jobs/{job}/kill")
        ops.until(job)


def _upload_sdk(ops: Human) -> str:
    """Upload the SDK as a bundle; return its digest."""
    content = pack({f"justenough_job/{path.name}": (path.read_bytes(), False) for path in SDK.glob("*.py")})
    ops.api.post("bundles", content=content, headers={"Content-Type": "application/gzip"}).raise_for_status()
    return bundle_digest(content)
