"""`python -m bench`: start a stack in a temporary folder, measure, print a table or JSON. Progress on stderr, figures on stdout."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from bench import evidence, floor, pure
from bench.figures import Figure
from bench.loads import Crew
from bench.people import logged_in
from bench.report import table
from bench.whole import Size, Whole
from worker.stack import Stack, running_stack


def main() -> None:
    """Measure and print; exit 1 only where a measurement could not be made."""
    asked = _arguments()
    began = time.monotonic()
    figures = [pure.deciding(quick=asked.quick), pure.replaying(quick=asked.quick), pure.verifying(quick=asked.quick)]
    figures.append(evidence.reporting(quick=asked.quick))
    if not asked.pure:
        figures = [*_on_a_stack(_size(asked)), *figures]
    if asked.output == "json":
        told = {"cores": os.cpu_count(), "seconds": round(time.monotonic() - began, 1), "figures": [figure.as_json() for figure in figures]}
        print(json.dumps(told, indent=1))
        return
    print(table(figures))
    print(f"\n{os.cpu_count()} cores, {time.monotonic() - began:.0f} s in all. docs/explanation/benchmarks.md says what each figure means.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure beside the hand-written floor, in the same run.")
    parser.add_argument("--jobs", type=int, default=64, metavar="N", help="jobs in a series with many at once (64)")
    parser.add_argument("--at-once", type=int, default=32, metavar="N", help="how many at once (32)")
    parser.add_argument("--quick", action="store_true", help="little of everything: shows that it works, its figures say nothing")
    parser.add_argument("--pure", action="store_true", help="only what needs no servers")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    return parser.parse_args()


def _size(asked: argparse.Namespace) -> Size:
    if asked.quick:
        return Size(jobs=min(asked.jobs, 16), many=min(asked.at_once, 8), rounds=1, alone=3)
    return Size(jobs=asked.jobs, many=asked.at_once, rounds=3, alone=25)


def _on_a_stack(size: Size) -> list[Figure]:
    _tell("starting Temporal, OpenBao, PostgreSQL, a worker and a console")
    with tempfile.TemporaryDirectory(prefix="je-bench-") as folder, running_stack(Path(folder) / "home", pure.SHOP) as stack:
        token = stack.admin_token_file.read_text().strip()
        floor.allow(str(stack.vault), token)
        with floor.working(str(stack.temporal), str(stack.vault), token) as worker:
            return asyncio.run(_measured(stack, size, {**stack.pids, "floor": worker}))


async def _measured(stack: Stack, size: Size, pids: dict[str, int]) -> list[Figure]:
    temporal = await Client.connect(str(stack.temporal), data_converter=pydantic_data_converter)
    async with logged_in(stack, "ops") as ops, logged_in(stack, "lead") as lead:
        return await Whole(pids, Crew(ops, lead, temporal), size, _tell).measured()


def _tell(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
