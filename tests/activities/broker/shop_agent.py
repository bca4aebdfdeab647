"""The shop's agent in a real job, and the model that ships with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from justenough.domain.jobs import bundle
from justenough.domain.jobs.spec import read_spec
from tests.support.people import ENDED, Human
from tests.support.wait import pause
from worker.stack.paths import StackPaths
from worker.stack.stack_file import Stack

SHOP = Path(__file__).resolve().parents[3] / "examples" / "shop"


@contextmanager
def serve_scripted_model(stack: Stack) -> Iterator[str]:
    """Have the model listen where the stack's catalog says that there is one; yield its URL."""
    port = json.loads(StackPaths(stack.home).ports.read_text())["model"]
    command = [sys.executable, "-I", str(SHOP / "scripted_model.py"), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PATH": os.defpath}) as serving:
        assert serving.stdout is not None
        try:
            said = serving.stdout.readline()
            assert said == f"A scripted model listens at http://127.0.0.1:{port}/v1\n"
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            serving.terminate()


def launch_agent(ops: Human, *arguments: str, **changes: Any) -> str:
    """Launch the example's job with more arguments and other keys in its spec; return its id."""
    spec = {**read_spec((SHOP / "jobs" / "support-agent.yaml").read_bytes()), **changes}
    spec["run"]["command"] = [*spec["run"]["command"], *arguments]
    files = {path.name: (path.read_bytes(), False) for path in (SHOP / "jobs" / "programs").glob("*.py")}
    sent = ops.api.post("bundles", content=bundle.pack(files), headers={"Content-Type": "application/gzip"}).raise_for_status()
    return ops.launch(spec, bundle=sent.json()["digest"])


def answer_until_ended(ops: Human, job: str, answer: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Answer each request that waits for a person until the job has ended; return the job."""
    began = time.monotonic()
    while (seen := ops.job(job))["state"] not in ENDED:
        for request in seen["requests"]:
            if request["state"] == "pending" and request["tier"]:
                answer(request)
        pause(since=began)
    return seen
