"""The embedded Temporal: the CLI's dev server on an SQLite file, with its web UI. Evaluation only: its file may not survive an upgrade."""

from __future__ import annotations

from collections.abc import Mapping

from justenough.adapters.runtime.private_files import make_private_folder
from justenough.domain.contracts.search_attributes import SEARCH_ATTRIBUTES
from worker.stack.binaries import Programs
from worker.stack.environment import server_environment
from worker.stack.managed_process import ChildSpec
from worker.stack.paths import StackPaths
from worker.stack.probes import is_http_ok

FAIRNESS = {
    "matching.useNewMatcher": "true",
    "matching.enableFairness": "true",
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
}
"""Dynamic configuration with which sessions take turns by account while all workers are full.

Turns are per partition, so there is only one partition.
"""
# 2.4 times the throughput of the default pragmas. Killing the process loses nothing; only a power cut could lose the last writes.
PRAGMAS = ("journal_mode=wal", "synchronous=normal")


def temporal_child(places: StackPaths, programs: Programs, ports: Mapping[str, int], *, namespace: str = "default") -> ChildSpec:
    """Describe the server. Raises ProgramMissing."""
    port, ui, http = ports["temporal"], ports["temporal_ui"], ports["temporal_http"]
    return ChildSpec(
        name="temporal",
        argv=(
            *(str(programs.temporal()), "server", "start-dev", "--ip", "127.0.0.1", "--ui-ip", "127.0.0.1"),
            *("--port", str(port), "--ui-port", str(ui), "--http-port", str(http), "--namespace", namespace),
            *("--db-filename", str(places.temporal / "temporal.db"), "--log-level", "warn", "--ui-disable-news-fetch"),
            *(part for pragma in PRAGMAS for part in ("--sqlite-pragma", pragma)),
            *(part for name, value in FAIRNESS.items() for part in ("--dynamic-config-value", f"{name}={value}")),
            *(part for name in SEARCH_ATTRIBUTES for part in ("--search-attribute", f"{name}=Keyword")),
        ),
        env=server_environment(places),
        prepare=lambda: make_private_folder(places.temporal),
        # The HTTP port belongs to the frontend that serves gRPC, so it answers when gRPC does.
        healthy=lambda: is_http_ok(http, f"/api/v1/namespaces/{namespace}"),
    )
