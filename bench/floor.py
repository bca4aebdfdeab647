"""The floor: one workflow, mint → work → revoke, three activities. No policy, approvals, signatures, ledger, guard or proof.

`python -m bench.floor` is its worker, a separate process; the benchmark passes all addresses in the environment.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    import hvac
    import requests

QUEUE = "bench-floor"
POLICY = "bench-floor"
CREDENTIAL = "orders-read-acme"
"""The database role that the measured jobs use too."""
AT_ONCE = 64
LIMIT = timedelta(seconds=60)


class Steps:
    """The three activities."""

    def __init__(self, address: str, token: str) -> None:
        self._address = address
        self._session = requests.Session()
        self._session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=AT_ONCE))
        self._vault = self._client(token)

    @activity.defn(name="mint")
    def mint(self, job: str) -> str:
        """Create a token, issue a database login with it, and return the accessor that revokes both."""
        del job
        auth = self._vault.auth.token.create(policies=[POLICY], ttl="10m", no_default_policy=True)["auth"]
        self._client(auth["client_token"]).secrets.database.generate_credentials(CREDENTIAL)
        return str(auth["accessor"])

    @activity.defn(name="work")
    def work(self, job: str) -> str:
        """Do nothing."""
        return job

    @activity.defn(name="revoke")
    def revoke(self, accessor: str) -> None:
        """Revoke the token. Vault then revokes its lease too, but later."""
        self._vault.auth.token.revoke_accessor(accessor)

    def _client(self, token: str) -> Any:
        return hvac.Client(url=self._address, token=token, session=self._session)


@workflow.defn(name="Floor")
class Floor:
    """Mint, work, revoke."""

    @workflow.run
    async def run(self, job: str) -> str:
        """Return the result of the work."""
        accessor = await workflow.execute_activity("mint", job, start_to_close_timeout=LIMIT, result_type=str)
        try:
            done: str = await workflow.execute_activity("work", job, start_to_close_timeout=LIMIT, result_type=str)
            return done
        finally:
            await asyncio.shield(workflow.execute_activity("revoke", accessor, start_to_close_timeout=LIMIT))


async def run_once(client: Client) -> float:
    """Run one workflow and return the seconds from its submission to its result."""
    job = uuid.uuid4().hex
    began = time.perf_counter()
    await client.execute_workflow(Floor.run, job, id=f"floor-{job}", task_queue=QUEUE)
    return time.perf_counter() - began


def allow(address: str, token: str) -> None:
    """Let tokens of the floor issue its one login."""
    rule = f'path "database/creds/{CREDENTIAL}" {{ capabilities = ["read"] }}'
    hvac.Client(url=address, token=token).sys.create_or_update_policy(POLICY, rule)


@contextmanager
def worker(temporal: str, address: str, token: str) -> Iterator[int]:
    """Run the floor's worker for a block; yield its process id."""
    addresses = {"BENCH_TEMPORAL": temporal, "BENCH_VAULT": address, "BENCH_TOKEN": token}
    with subprocess.Popen([sys.executable, "-m", "bench.floor"], env={**os.environ, **addresses}, stdin=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


async def main() -> None:
    """Run the worker."""
    client = await Client.connect(os.environ["BENCH_TEMPORAL"])
    steps = Steps(os.environ["BENCH_VAULT"], os.environ["BENCH_TOKEN"])
    with ThreadPoolExecutor(AT_ONCE) as pool:
        await Worker(
            client,
            task_queue=QUEUE,
            workflows=[Floor],
            activities=[steps.mint, steps.work, steps.revoke],
            activity_executor=pool,
            max_concurrent_activities=AT_ONCE,
        ).run()


if __name__ == "__main__":
    asyncio.run(main())
