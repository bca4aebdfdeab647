"""Which upstream MCP servers a job's calls do not reach because their tools are not those that were reviewed; in the ledger, each once. Reaches none itself."""

from __future__ import annotations

from collections.abc import Iterator

from justenough.domain.catalog.mcp_tool_list import ToolList, changes
from justenough.domain.catalog.mcp_upstreams import PassedOn
from justenough.domain.core.redaction import Redactor
from justenough.domain.ledger.events import Event, EventType, event
from justenough.domain.tools.definitions import Tool
from justenough.services.dependencies import Deps

MOST_CHANGES, LONGEST_CHANGE = 20, 200
"""That one entry names: how many, and characters of each."""


class Reviews:
    """One job's. Blocking where it says that it records."""

    def __init__(self, deps: Deps, job: str, environment: str) -> None:
        self._deps = deps
        self._job = job
        self._environment = environment
        self._changed: set[tuple[str, str]] = set()
        """Servers that showed other tools at their last call, with the digest that they should have had."""
        self._recorded: set[str] = set()

    def stands(self, tool: Tool) -> bool:
        """Whether a tool may be offered, as far as was seen."""
        return not isinstance(tool, PassedOn) or (tool.upstream, tool.reviewed) not in self._changed

    def holds(self, tool: PassedOn, shown: ToolList) -> bool:
        """Take note of what a server shows; return whether it is what was reviewed."""
        same = shown.digest == tool.reviewed
        (self._changed.discard if same else self._changed.add)((tool.upstream, tool.reviewed))
        return same

    def withheld(self) -> dict[str, str]:
        """Return the servers of this job's environment of which nothing is passed on, and why."""
        current = self._deps.config.current().catalog
        found = {name: why for name, why in current.withheld.items() if self._is_ours(current.tools[name])}
        return found | {
            name: why_changed(name) for name, tool in current.tools.items() if tool.mcp and (name, tool.mcp.tools) in self._changed
        }

    def record(self) -> None:
        """Record what is withheld from the beginning."""
        self._put(
            event(
                EventType.UPSTREAM_REFUSED,
                self._job,
                at=self._deps.now(),
                about=f"{name}/{self._pinned(name) or '-'}",
                upstream=name,
                reviewed=self._pinned(name),
                shown=None,
                why=why,
                changes=[],
            )
            for name, why in self.withheld().items()
            if name in self._deps.config.current().catalog.withheld
        )

    def refused(self, tool: PassedOn, shown: ToolList, redactor: Redactor) -> str:
        """Record what a server shows instead, and return what the job is told: nothing of what nobody has reviewed."""
        told = "\n".join(one.replace("\n", " ") for one in self._changes(tool, shown)[:MOST_CHANGES])
        # A server may call a tool by what it was sent. Only then is it cut: half a secret would not be found.
        scrubbed = (redactor.feed(told.encode("utf-8", "replace")) + redactor.flush()).decode("utf-8", "replace")
        fact = event(
            EventType.UPSTREAM_REFUSED,
            self._job,
            at=self._deps.now(),
            about=f"{tool.upstream}/{tool.reviewed}/{shown.digest}",
            upstream=tool.upstream,
            reviewed=tool.reviewed,
            shown=shown.digest,
            why=why_changed(tool.upstream),
            changes=[one[:LONGEST_CHANGE] for one in scrubbed.split("\n") if one],
        )
        self._put([fact])
        return f"Not done: {why_changed(tool.upstream)}"

    def _changes(self, tool: PassedOn, shown: ToolList) -> list[str]:
        reviewed = self._deps.config.current().catalog.reviewed.get(tool.upstream)
        return list(changes(reviewed if reviewed and reviewed.digest == tool.reviewed else None, shown))

    def _put(self, facts: Iterator[Event] | list[Event]) -> None:
        new = [fact for fact in facts if fact.id not in self._recorded]
        if new:
            self._deps.store.record(new)
            self._recorded.update(fact.id for fact in new)

    def _pinned(self, name: str) -> str | None:
        upstream = self._deps.config.current().catalog.tools[name].mcp
        return upstream.tools if upstream else None

    def _is_ours(self, tool: Tool) -> bool:
        return self._deps.config.current().catalog.resources[tool.uses.resource].environment == self._environment


def why_changed(name: str) -> str:
    """Return what a job and the ledger are told of a server that shows other tools."""
    return (
        f"{name} shows other tools now than those that were reviewed, and none of them is called until somebody has looked: "
        f"a platform person does with `justenough catalog tools {name}`"
    )
