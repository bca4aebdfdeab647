"""`python -m bench.calls`: one job that calls a tool very often: the time of a call compared with the query by hand, the job's history, our memory."""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import suppress

import httpx
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from temporalio.client import Client

from bench.access import BROKER, SCOPE, output_of
from bench.figures import Figure, p50, table
from bench.people import login
from bench.processes import resident
from bench.scratch import scratch_stack, tell
from worker.stack.stack_file import Stack

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
headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
for number in range(times):
    began = time.perf_counter()
    broker.request("POST", "/mcp", json.dumps(call), headers)
    text = broker.getresponse().read().decode()
    took.append(time.perf_counter() - began)
    result = json.loads(text.partition("data: ")[2] if text.startswith("event") else text)["result"]
    assert not result.get("isError"), result
    warm = warm or (number * 10 >= times and time.time())
print(json.dumps({"took": took, "warm": warm}))
"""
)


async def measure(stack: Stack, *, times: int) -> list[Figure]:
    """Return the time of a call, the length of the job's history, and the growth of the worker's memory after the first tenth."""
    tell(f"{BY_HAND} times by hand")
    by_hand = await asyncio.to_thread(_query_by_hand, stack)
    tell(f"{times:,} calls")
    async with login(stack, "ops") as ops:
        command = ["python3", "-c", PROGRAM, str(times), str(ORDER)]
        spec = {"name": "calls", "task": "Measure", "environment": "prod", "data_scope": SCOPE, "access": [], "beyond": "policy"}
        job = await ops.launch(await ops.order({**spec, "run": {"command": command, "timeout": "55m"}}))
        ended = asyncio.Event()
        watching = asyncio.create_task(_watch_memory(stack.pids["worker"], ended))
        output = await output_of(ops, job, poll_s=2)
        ended.set()
        memory = [size for at, size in await watching if at >= output["warm"]]
    took, client = [seconds * 1e3 for seconds in output["took"]], await Client.connect(str(stack.temporal))
    history = (await client.get_workflow_handle(job).describe()).history_length
    last = f"{p50(took[-times // 10 :]):.1f} ms in the last tenth"
    what, growth = "growth of the worker's memory after the first tenth", memory[-1] - memory[0]
    span = f"{memory[0]:.0f} to {memory[-1]:.0f} MB, at most {max(memory):.0f}"
    return [
        Figure("call", f"a tool's sql call, p50, {times:,} in one job", p50(took), "ms", p50(by_hand), at_most=2, of="ratio", note=last),
        Figure("call_history", f"history of a job with {times:,} calls", history, "events", at_most=100),
        Figure("call_memory", what, growth, "MB", at_most=20, note=span),
    ]


def _query_by_hand(stack: Stack) -> list[float]:
    """Return the milliseconds of each query by hand: create a role, log in and query with it, revoke it."""
    took, address = [], conninfo_to_dict(str(stack.shop_dsn))
    token = {"X-Vault-Token": stack.admin_token_file.read_text().strip()}
    with httpx.Client(base_url=f"{stack.vault}/v1/", headers=token, trust_env=False, timeout=15) as vault:
        for _ in range(BY_HAND):
            began = time.perf_counter()
            secret = vault.get(PATH).raise_for_status().json()
            user = {"user": secret["data"]["username"], "password": secret["data"]["password"]}
            with psycopg.connect(make_conninfo("", **{**address, **user})) as connection:
                assert connection.execute(STATEMENT.encode(), (ORDER,)).fetchall()
            vault.put("sys/leases/revoke", json={"lease_id": secret["lease_id"], "sync": True}).raise_for_status()
            took.append((time.perf_counter() - began) * 1e3)
    return took


async def _watch_memory(pid: int, ended: asyncio.Event) -> list[tuple[float, float]]:
    """Return the time and a process's memory in MB, once a second until `ended` is set."""
    samples = []
    while not ended.is_set():
        samples.append((time.time(), resident(pid)))
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), 1)
    return samples


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.calls", description="Measure a job that calls a tool very often.")
    parser.add_argument("--times", type=int, default=10_000, metavar="N", help="calls (10000)")
    options = parser.parse_args()
    with scratch_stack() as stack:
        print(table(asyncio.run(measure(stack, times=options.times))))


if __name__ == "__main__":
    main()
