"""`python -m bench.calls`: one job that has a tool called very often: what a call takes beside the query by hand, what its history and our memory grow by."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from temporalio.client import Client

from bench.access import BROKER, SCOPE, launched, tell, told
from bench.figures import Figure, p50
from bench.people import logged_in
from bench.processes import resident
from bench.pure import SHOP
from bench.report import table
from worker.stack import Stack, running_stack

ORDER = 100_001
STATEMENT = "SELECT id, customer_id, placed_at, sku, product, quantity, amount, currency, status FROM orders WHERE id = %s"
PATH = "database/creds/orders-read-acme"
BY_HAND = 200
PROGRAM = (
    BROKER
    + """
times, order, took, warm = int(sys.argv[1]), int(sys.argv[2]), [], 0
broker = Broker("broker")
call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "find-order", "arguments": {"order_id": order}}}
kind = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
for number in range(times):
    began = time.perf_counter()
    broker.request("POST", "/mcp", json.dumps(call), kind)
    text = broker.getresponse().read().decode()
    took.append(time.perf_counter() - began)
    found = json.loads(text.partition("data: ")[2] if text.startswith("event") else text)["result"]
    assert not found.get("isError"), found
    warm = warm or (number * 10 >= times and time.time())
print(json.dumps({"took": took, "warm": warm}))
"""
)


async def measured(stack: Stack, *, times: int) -> list[Figure]:
    """Return what a call takes, what the job's history has, and how much more memory the worker has at the end than after the first tenth."""
    tell(f"{BY_HAND} times by hand")
    by_hand = await asyncio.to_thread(_by_hand, stack)
    tell(f"{times:,} calls")
    async with logged_in(stack, "ops") as ops:
        command = ["python3", "-c", PROGRAM, str(times), str(ORDER)]
        spec = {"name": "calls", "task": "Measure", "environment": "prod", "data_scope": SCOPE, "access": []}
        job = await launched(ops, {**spec, "run": {"command": command, "timeout": "55m"}})
        ended = asyncio.Event()
        watching = asyncio.create_task(_memory(stack.pids["worker"], ended))
        found = await told(ops, job, every=2)
        ended.set()
        memory = [size for at, size in await watching if at >= found["warm"]]
    took = [one * 1e3 for one in found["took"]]
    last = f"{p50(took[-times // 10 :]):.1f} ms in the last tenth"
    return [
        Figure(
            *("call", f"a tool's sql call, p50, {times:,} in one job", p50(took), "ms"),
            floor=p50(by_hand),
            at_most=2,
            of="ratio",
            note=last,
        ),
        Figure("call_history", f"history of a job with {times:,} calls", await _events(stack, job), "events", at_most=100),
        Figure(
            *("call_memory", "what the worker's memory grows by after the first tenth", memory[-1] - memory[0], "MB"),
            at_most=20,
            note=f"{memory[0]:.0f} to {memory[-1]:.0f} MB, at most {max(memory):.0f}",
        ),
    ]


def _by_hand(stack: Stack) -> list[float]:
    """Return the milliseconds of the same query with a fresh role each time: made, used, ended."""
    took, at = [], conninfo_to_dict(str(stack.shop_dsn))
    token = {"X-Vault-Token": stack.admin_token_file.read_text().strip()}
    with httpx.Client(base_url=f"{stack.vault}/v1/", headers=token, trust_env=False, timeout=15) as vault:
        for _ in range(BY_HAND):
            began = time.perf_counter()
            found = vault.get(PATH).raise_for_status().json()
            login = {"user": found["data"]["username"], "password": found["data"]["password"]}
            with psycopg.connect(make_conninfo("", **{**at, **login})) as connection:
                assert connection.execute(STATEMENT.encode(), (ORDER,)).fetchall()
            vault.put("sys/leases/revoke", json={"lease_id": found["lease_id"], "sync": True}).raise_for_status()
            took.append((time.perf_counter() - began) * 1e3)
    return took


async def _memory(pid: int, ended: asyncio.Event) -> list[tuple[float, float]]:
    """Return a process's memory in MB each second until something has ended, with the time of each look."""
    seen = []
    while not ended.is_set():
        seen.append((time.time(), resident(pid)))
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), 1)
    return seen


async def _events(stack: Stack, job: str) -> int:
    client = await Client.connect(str(stack.temporal))
    return (await client.get_workflow_handle(job).describe()).history_length


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.calls", description="Measure a job that has a tool called very often.")
    parser.add_argument("--times", type=int, default=10_000, metavar="N", help="calls (10000)")
    wanted = parser.parse_args()
    tell("starting a stack")
    with tempfile.TemporaryDirectory(prefix="je-bench-") as folder, running_stack(Path(folder) / "home", SHOP) as stack:
        print(table(asyncio.run(measured(stack, times=wanted.times))))


if __name__ == "__main__":
    main()
