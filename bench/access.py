"""`python -m bench.access`: what the broker adds to Vault's own time, per access of a running job under a live grant, and how many it serves at once."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from bench.figures import Figure, p50
from bench.people import Human, logged_in
from bench.pure import SHOP
from bench.report import table
from worker.stack import Stack, running_stack

SCOPE = {"tenant": "acme"}
BROKER = """
import http.client, json, os, socket, sys, time

class Broker(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["JUSTENOUGH_BROKER"])

    def asked(self, path, body):
        self.request("POST", path, json.dumps(body))
        answer = self.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 200, found
        return found
"""
"""What a measured program begins with: its broker, over the Unix socket."""
PROGRAM = (
    BROKER
    + """
resource, times = sys.argv[1], int(sys.argv[2])
broker, took, freed = Broker("broker"), [], []
wanted = {"resource": resource, "action": "read", "reason": "a measurement"}
broker.asked("/v1/access", wanted)
for _ in range(times):
    began = time.perf_counter()
    given = broker.asked("/v1/access", wanted)
    took.append(time.perf_counter() - began)
    began = time.perf_counter()
    broker.asked("/v1/access/%s/release" % given["credential_id"], {})
    freed.append(time.perf_counter() - began)
print(json.dumps({"took": took, "freed": freed}))
"""
)
PATHS = {"orders-db": "database/creds/orders-read-acme", "helpdesk-api": "kv/data/tenants/acme/helpdesk"}
"""What Vault itself is asked."""


async def measured(stack: Stack, *, times: int, jobs: int) -> list[Figure]:
    """Return what is added to Vault's own time, what giving back takes, and how many accesses a second some jobs have together."""
    figures = []
    async with logged_in(stack, "ops") as ops:
        for resource, path in PATHS.items():
            tell(f"{resource}, {times} times")
            floor = await asyncio.to_thread(_vaults_own, stack, path, times)
            (seen,) = await _ran(ops, resource, times, jobs=1)
            whole, own = p50([one * 1e3 for one in seen["took"]]), p50(floor)
            note = f"{whole:.1f} ms, of which Vault's own {own:.1f} ms"
            figures.append(
                Figure(
                    "access_added",
                    f"access under a live grant, added to Vault's own time, p50, {resource}",
                    whole - own,
                    "ms",
                    at_most=3,
                    note=note,
                )
            )
            freed = p50([one * 1e3 for one in seen["freed"]])
            figures.append(Figure("access_released", f"giving it back, p50, {resource}", freed, "ms"))
        tell(f"{jobs} jobs at once")
        began = time.monotonic()
        told_all = await _ran(ops, "helpdesk-api", times, jobs=jobs)
        longest = max(sum(one["took"]) for one in told_all)
        rate = jobs * times / longest
        figures.append(
            Figure(
                "accesses_per_second",
                f"accesses a second, {jobs} jobs at once, helpdesk-api",
                rate,
                "/s",
                at_least=200,
                note=f"{time.monotonic() - began:.1f} s in all",
            )
        )
    return figures


def _vaults_own(stack: Stack, path: str, times: int) -> list[float]:
    took = []
    with httpx.Client(
        base_url=f"{stack.vault}/v1/", headers={"X-Vault-Token": stack.admin_token_file.read_text().strip()}, trust_env=False, timeout=15
    ) as vault:
        for _ in range(times):
            began = time.perf_counter()
            found = vault.get(path).raise_for_status().json()
            took.append((time.perf_counter() - began) * 1e3)
            if found["lease_id"]:
                vault.put("sys/leases/revoke", json={"lease_id": found["lease_id"], "sync": True}).raise_for_status()
    return took


async def _ran(ops: Human, resource: str, times: int, *, jobs: int) -> list[dict[str, Any]]:
    command = ["python3", "-c", PROGRAM, resource, str(times)]
    spec = {"name": "accesses", "task": "Measure", "environment": "prod", "data_scope": SCOPE, "run": {"command": command}, "access": []}
    names = [await launched(ops, spec) for _ in range(jobs)]
    return [await told(ops, name) for name in names]


async def launched(ops: Human, spec: dict[str, Any]) -> str:
    """Launch a job; return its id."""
    return str((await ops.api.post("jobs", json=await ops.order(spec))).raise_for_status().json()["id"])


async def told(ops: Human, job: str, *, every: float = 0.1) -> dict[str, Any]:
    """Return what a job printed, as JSON, once it has succeeded; it is looked at `every` so many seconds."""
    while not (seen := (await ops.api.get(f"jobs/{job}")).json())["ended_at"]:  # noqa: ASYNC110 - the end is all that is waited for
        await asyncio.sleep(every)
    lines = "".join(item["text"] for item in (await ops.api.get(f"jobs/{job}/logs")).json()["items"])
    assert seen["state"] == "succeeded", (seen["reason"], lines)
    found: dict[str, Any] = json.loads(lines)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.access", description="Measure the broker beside Vault's own time.")
    parser.add_argument("--times", type=int, default=200, metavar="N", help="accesses of each job (200)")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="jobs at once (4)")
    wanted = parser.parse_args()
    tell("starting a stack")
    with tempfile.TemporaryDirectory(prefix="je-bench-") as folder, running_stack(Path(folder) / "home", SHOP) as stack:
        figures: Sequence[Figure] = asyncio.run(measured(stack, times=wanted.times, jobs=wanted.jobs))
        print(table(figures))


def tell(text: str) -> None:
    """Say on stderr how far it is."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
