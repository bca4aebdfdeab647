"""Assigns test files to test processes: files that share servers run in one process, which starts them once. Has no pytest hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
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
    "sdk": "whole",
    "triggers": "whole",
    "worker/provisioning": "provisioning",
    "worker/stack": "stack",
}
"""The servers that a folder or file of tests/ needs, if they are not those of its top folder. `whole` is the fixture of that name."""
LONGEST_FIRST = (
    *("chaos", "whole", "pages", "activities", "console", "store", "demo", "stack", "workflows", "provisioning"),
    *("process", "domain"),
)
FIRST = {"test_dashboard.py"}
"""Files that run first among those with the same servers: pending requests of other files would push their rows off a page."""
FREE = {"adapters", "bench", "domain", "house", "process"}
"""Their files need no servers, so that any process may run them."""
WHOLE_FOLDERS = {"browser"}
"""Folders that run in one process, which starts the browser once."""
WORTH_STARTING = 20
"""Another process starts the same servers only if at least so many of their files wait for each process that has them."""
STARTED_TWICE = {"chaos"}
"""Servers that two processes start at the beginning: their files take long, and wait more than they compute."""


@cache
def servers_of(scope: str) -> str:
    """Return the name of the servers that a file or folder needs. Files that share servers have the same name."""
    parts = Path(scope).parts
    below = parts[len(parts) - parts[::-1].index("tests") :]
    prefixes = ("/".join(below[:length]) for length in range(len(below), 0, -1))
    return next((SERVERS[prefix] for prefix in prefixes if prefix in SERVERS), below[0])


@cache
def rank(scope: str) -> tuple[int, bool]:
    """Return the sort key of a file or folder. The longest start first, so that none of them runs alone at the end."""
    servers = servers_of(scope)
    return LONGEST_FIRST.index(servers) if servers in LONGEST_FIRST else len(LONGEST_FIRST), Path(scope).name not in FIRST


def next_scope(waiting: Sequence[str], *, mine: Iterable[str], others: Iterable[str]) -> str | None:
    """Return the file or folder that a process runs next; None if the process should end. `waiting` is sorted by `rank`.

    `mine` and `others` are the servers of this process and of the other processes, as often as they have them. A process first uses its own
    servers, then starts servers that no other process has (or only one, see STARTED_TWICE), then helps other processes if enough files are
    left.
    """
    own, theirs = {servers for servers in mine if servers not in FREE}, Counter(others)
    left = Counter(map(servers_of, waiting))
    choices: tuple[Callable[[str], bool], ...] = (
        lambda servers: servers in own,
        lambda servers: theirs[servers] < 1 + (servers in STARTED_TWICE) and servers not in FREE,
        lambda servers: servers in FREE or left[servers] >= theirs[servers] * WORTH_STARTING,
    )
    return next((scope for fits in choices for scope in waiting if fits(servers_of(scope))), None)


class ByServers(LoadScopeScheduling):  # type: ignore[misc] # it ships no types
    """Assigns the files to a process one after another, in the order of `next_scope`."""

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
        others = [servers for each, theirs in started.items() if each is not node for servers in theirs]
        return next_scope(tuple(self.workqueue), mine=started.get(node, ()), others=others)
