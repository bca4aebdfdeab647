"""Which of several test processes runs what: files that share servers stay together, so that these are started once. No pytest hooks here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadScopeScheduling

SERVERS = {
    "activities/broker": "whole",
    "activities/process": "process",
    "adapters/store": "store",
    "attacks": "whole",
    "browser": "whole",
    "console/api/test_openapi.py": "whole",
    "console/cli": "whole",
    "console/pages": "pages",
    "jobs": "whole",
    "jobs/test_single_slot_worker.py": "small",
    "sdk": "whole",
    "triggers": "whole",
    "worker/provisioning": "provisioning",
    "worker/stack": "stack",
}
"""Which servers a folder or a file of tests/ needs, where they are not those of its first folder. `whole` is the fixture of that name."""
LONGEST_FIRST = (
    *("chaos", "whole", "pages", "activities", "console", "store", "small", "demo", "stack", "workflows", "provisioning"),
    *("process", "domain"),
)
FIRST = {"test_dashboard.py"}
"""Files that come first among those with the same servers: what waits for people in other files would push what they look for off a page."""
FREE = {"adapters", "bench", "domain", "house", "process"}
"""They need no servers, so that any process may run any of their files."""
WHOLE_FOLDERS = {"browser"}
"""Folders that one process runs as a whole: its browser is started once."""
WORTH_STARTING = 4
"""Files that must still wait for servers before another process starts the same ones in order to help."""


def servers_of(scope: str) -> str:
    """Return which servers a file or a folder needs, by a name that all who share them have in common."""
    parts = Path(scope).parts
    below = parts[len(parts) - parts[::-1].index("tests") :]
    prefixes = ("/".join(below[:length]) for length in range(len(below), 0, -1))
    return next((SERVERS[prefix] for prefix in prefixes if prefix in SERVERS), below[0])


def rank(scope: str) -> tuple[int, bool]:
    """Return where a file or folder stands in the queue: what takes longest begins, so that no process is left alone with it at the end."""
    servers = servers_of(scope)
    return LONGEST_FIRST.index(servers) if servers in LONGEST_FIRST else len(LONGEST_FIRST), Path(scope).name not in FIRST


def next_scope(waiting: Sequence[str], *, mine: Iterable[str], others: Iterable[str]) -> str | None:
    """Return what a process runs next of what waits, longest first; None if it should end.

    `mine` and `others` are the servers that it has started and that other processes have. It goes on with its own, then starts some that
    nobody has, then helps where enough is left.
    """
    held, theirs = {servers for servers in mine if servers not in FREE}, set(others)
    left = Counter(map(servers_of, waiting))
    choices: tuple[Callable[[str], bool], ...] = (
        lambda servers: servers in held,
        lambda servers: servers not in theirs | FREE,
        lambda servers: servers in FREE or left[servers] >= WORTH_STARTING,
    )
    return next((scope for fits in choices for scope in waiting if fits(servers_of(scope))), None)


class ByServers(LoadScopeScheduling):  # type: ignore[misc] # it ships no types
    """Gives a process one file after the other, as `next_scope` says."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        return str(file.parent) if file.parent.name in WHOLE_FOLDERS else str(file)

    def _assign_work_unit(self, node: Any) -> None:
        scope = self._next(node)
        if scope is None:
            node.shutdown()
        else:
            self.workqueue.move_to_end(scope, last=False)
            super()._assign_work_unit(node)

    def _next(self, node: Any) -> str | None:
        started = {each: {servers_of(scope) for scope in work} for each, work in self.assigned_work.items() if not each.shutting_down}
        others = {servers for each, theirs in started.items() if each is not node for servers in theirs}
        return next_scope(tuple(self.workqueue), mine=started.get(node, ()), others=others)
