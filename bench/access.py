"""`python -m bench.access`: what the broker adds to Vault's own time per access under a live grant, and how many accesses it serves at once."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

import httpx

from bench.figures import Figure, p50, table
from bench.people import Human, login
from bench.scratch import scratch_stack, tell
from worker.stack.stack_file import Stack

SCOPE = {"tenant": "acme"}
BROKER = """
import http.client, json, os, socket, sys, time

class Broker(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["JUSTENOUGH_BROKER"])

    def post(self, path, body):
        self.request("POST", path, json.dumps(body))
        response = self.getresponse()
        content = json.loads(response.read())
        assert response.status == 200, content
        return content
"""
"""The beginning of a measured program: its broker, over the Unix socket."""
PROGRAM = (
    BROKER
    + """
resource, times = sys.argv[1], int(sys.argv[2])
broker, access_s, release_s = Broker("broker"), [], []
access = {"resource": resource, "action": "read", "reason": "a measurement"}
broker.post("/v1/access", access)
for _ in range(times):
    began = time.perf_counter()
    credential = broker.post("/v1/access", access)
    access_s.append(time.perf_counter() - began)
    began = time.perf_counter()
    broker.post("/v1/access/%s/release" % credential["credential_id"], {})
    release_s.append(time.perf_counter() - began)
print(json.dumps({"access_s": access_s, "release_s": release_s}))
"""
)
PATHS = {"orders-db": "database/creds/orders-read-acme", "helpdesk-api": "kv/data/tenants/acme/helpdesk"}
"""The Vault path behind each resource."""


async def measure(stack: Stack, *, times: int, jobs: int) -> list[Figure]:
    """Return the time added to Vault's own, the time of a release, and the accesses per second of several jobs together."""
    figures = []
    async with login(stack, "ops") as ops:
        for resource, path in PATHS.items():
            tell(f"{resource}, {times} times")
            vault_ms = p50(await asyncio.to_thread(_read_vault, stack, path, times))
            (output,) = await _run_jobs(ops, resource, times, jobs=1)
            whole_ms, release_ms = p50(output["access_s"]) * 1e3, p50(output["release_s"]) * 1e3
            what = f"access under a live grant, added to Vault's own time, p50, {resource}"
            note = f"{whole_ms:.1f} ms, of which Vault's own {vault_ms:.1f} ms"
            figures.append(Figure("access_added", what, whole_ms - vault_ms, "ms", at_most=3, note=note))
            figures.append(Figure("access_released", f"release of the credential, p50, {resource}", release_ms, "ms"))
        tell(f"{jobs} jobs at once")
        began = time.monotonic()
        outputs = await _run_jobs(ops, "helpdesk-api", times, jobs=jobs)
        rate = jobs * times / max(sum(output["access_s"]) for output in outputs)
        what, note = f"accesses a second, {jobs} jobs at once, helpdesk-api", f"{time.monotonic() - began:.1f} s in all"
        figures.append(Figure("accesses_per_second", what, rate, "/s", at_least=200, note=note))
    return figures


def _read_vault(stack: Stack, path: str, times: int) -> list[float]:
    """Return the milliseconds of each read of a Vault path by hand."""
    took, token = [], {"X-Vault-Token": stack.admin_token_file.read_text().strip()}
    with httpx.Client(base_url=f"{stack.vault}/v1/", headers=token, trust_env=False, timeout=15) as vault:
        for _ in range(times):
            began = time.perf_counter()
            secret = vault.get(path).raise_for_status().json()
            took.append((time.perf_counter() - began) * 1e3)
            if secret["lease_id"]:
                vault.put("sys/leases/revoke", json={"lease_id": secret["lease_id"], "sync": True}).raise_for_status()
    return took


async def _run_jobs(ops: Human, resource: str, times: int, *, jobs: int) -> list[dict[str, Any]]:
    command = ["python3", "-c", PROGRAM, resource, str(times)]
    spec = {
        "name": "accesses",
        "task": "Measure",
        "environment": "prod",
        "data_scope": SCOPE,
        "run": {"command": command},
        "access": [],
        "beyond": "policy",
    }
    ids = [await ops.launch(await ops.order(spec)) for _ in range(jobs)]
    return [await output_of(ops, job) for job in ids]


async def output_of(ops: Human, job: str, *, poll_s: float = 0.1) -> dict[str, Any]:
    """Wait until a job has ended; return its output, parsed as JSON. Fails unless it succeeded."""
    while not (shown := (await ops.api.get(f"jobs/{job}")).json())["ended_at"]:  # noqa: ASYNC110 - the API has no blocking call for the end
        await asyncio.sleep(poll_s)
    lines = "".join(item["text"] for item in (await ops.api.get(f"jobs/{job}/logs")).json()["items"])
    assert shown["state"] == "succeeded", (shown["reason"], lines)
    output: dict[str, Any] = json.loads(lines)
    return output


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.access", description="Measure the broker beside Vault's own time.")
    parser.add_argument("--times", type=int, default=200, metavar="N", help="accesses of each job (200)")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="jobs at once (4)")
    options = parser.parse_args()
    with scratch_stack() as stack:
        print(table(asyncio.run(measure(stack, times=options.times, jobs=options.jobs))))


if __name__ == "__main__":
    main()
