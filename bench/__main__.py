"""`python -m bench`: start a stack in a temporary folder, measure, print a table or JSON. Progress on stderr, figures on stdout."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from bench import floor
from bench.evidence import measure_evidence_report
from bench.figures import Figure, table
from bench.loads import Crew
from bench.people import login
from bench.pure import measure_decisions, measure_replay, measure_verification
from bench.scratch import scratch_stack, tell
from bench.whole import Size, Whole
from worker.stack.stack_file import Stack

MEASUREMENTS = (measure_decisions, measure_replay, measure_verification, measure_evidence_report)


def main() -> None:
    """Measure and print. Exit 1 only if a measurement failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure beside the hand-written floor, in the same run.")
    parser.add_argument("--jobs", type=int, default=64, metavar="N", help="jobs in a parallel series (64)")
    parser.add_argument("--at-once", type=int, default=32, metavar="N", help="parallel jobs (32)")
    parser.add_argument("--quick", action="store_true", help="a little of everything: shows that it works; its figures mean nothing")
    parser.add_argument("--pure", action="store_true", help="only the benchmarks that need no servers")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    began = time.monotonic()
    figures = [measure(quick=options.quick) for measure in MEASUREMENTS]
    if not options.pure:
        size = Size(jobs=options.jobs, many=options.at_once, rounds=3, alone=25)
        if options.quick:
            size = Size(jobs=min(options.jobs, 16), many=min(options.at_once, 8), rounds=1, alone=3)
        with scratch_stack() as stack:
            token = stack.admin_token_file.read_text().strip()
            floor.allow(str(stack.vault), token)
            with floor.worker(str(stack.temporal), str(stack.vault), token) as floor_pid:
                figures = [*asyncio.run(_measure_stack(stack, size, {**stack.pids, "floor": floor_pid})), *figures]
    seconds = time.monotonic() - began
    if options.output == "json":
        report = {"cores": os.cpu_count(), "seconds": round(seconds, 1), "figures": [figure.as_json() for figure in figures]}
        print(json.dumps(report, indent=1))
        return
    print(table(figures))
    print(f"\n{os.cpu_count()} cores, {seconds:.0f} s in all. docs/explanation/benchmarks.md explains each figure.")


async def _measure_stack(stack: Stack, size: Size, pids: dict[str, int]) -> list[Figure]:
    temporal = await Client.connect(str(stack.temporal), data_converter=pydantic_data_converter)
    async with login(stack, "ops") as ops, login(stack, "lead") as lead:
        return await Whole(pids, Crew(ops, lead, temporal), size, tell).measure()


if __name__ == "__main__":
    main()
