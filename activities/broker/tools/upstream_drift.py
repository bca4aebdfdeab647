"""Withholds upstream MCP servers whose tools differ from the reviewed ones, and records each once. Calls no server itself."""

from __future__ import annotations

from collections.abc import Iterator

from justenough.domain.catalog.mcp_tool_list import ToolList, tool_list_changes
from justenough.domain.catalog.mcp_upstreams import UpstreamTool
from justenough.domain.core.redaction import Redactor
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.tools.definitions import Tool
from justenough.services.dependencies import Deps

MAX_CHANGES, MAX_CHANGE_CHARS = 20, 200
"""How many changes one ledger entry lists, and how many characters of each."""


class UpstreamDrift:
    """The upstream servers that are withheld from one job. The `record_…` methods block."""

    def __init__(self, deps: Deps, job: str, environment: str) -> None:
        self._deps = deps
        self._job = job
        self._environment = environment
        self._changed: set[tuple[str, str]] = set()
        """Servers that showed unreviewed tools at their last call, each with the reviewed digest."""
        self._recorded: set[str] = set()

    def may_be_offered(self, tool: Tool) -> bool:
        """Whether a tool may be offered; False if its server last showed unreviewed tools."""
        return not isinstance(tool, UpstreamTool) or (tool.upstream, tool.reviewed) not in self._changed

    def note_shown(self, tool: UpstreamTool, shown: ToolList) -> bool:
        """Note which tools a server shows; return whether they are the reviewed ones."""
        same = shown.digest == tool.reviewed
        (self._changed.discard if same else self._changed.add)((tool.upstream, tool.reviewed))
        return same

    def withheld_servers(self) -> dict[str, str]:
        """Return the servers of this job's environment whose tools are withheld, and why."""
        current = self._deps.config.current().catalog
        withheld = {
            name: why
            for name, why in current.upstreams.withheld.items()
            if current.resources[current.tools[name].uses.resource].environment == self._environment
        }
        return withheld | {
            name: why_changed(name) for name, tool in current.tools.items() if tool.mcp and (name, tool.mcp.tools) in self._changed
        }

    def record_withheld(self) -> None:
        self._record_new(
            build_event(
                EventType.UPSTREAM_REFUSED,
                self._job,
                at=self._deps.now(),
                about=f"{name}/{self._pinned_digest(name) or '-'}",
                upstream=name,
                reviewed=self._pinned_digest(name),
                shown=None,
                why=why,
                changes=[],
            )
            for name, why in self.withheld_servers().items()
            if name in self._deps.config.current().catalog.upstreams.withheld
        )

    def record_changed(self, tool: UpstreamTool, shown: ToolList, redactor: Redactor) -> str:
        """Record which tools a server shows instead of the reviewed ones; return the job's answer, which quotes no unreviewed text."""
        reviewed = self._deps.config.current().catalog.upstreams.reviewed.get(tool.upstream)
        changes = list(tool_list_changes(reviewed if reviewed and reviewed.digest == tool.reviewed else None, shown))[:MAX_CHANGES]
        text = "\n".join(change.replace("\n", " ") for change in changes)
        # A server may name a tool after the secret it was sent. Redact before truncating: half a secret would not be found.
        redacted = (redactor.feed(text.encode("utf-8", "replace")) + redactor.flush()).decode("utf-8", "replace")
        fact = build_event(
            EventType.UPSTREAM_REFUSED,
            self._job,
            at=self._deps.now(),
            about=f"{tool.upstream}/{tool.reviewed}/{shown.digest}",
            upstream=tool.upstream,
            reviewed=tool.reviewed,
            shown=shown.digest,
            why=why_changed(tool.upstream),
            changes=[line[:MAX_CHANGE_CHARS] for line in redacted.split("\n") if line],
        )
        self._record_new([fact])
        return f"Not done: {why_changed(tool.upstream)}"

    def _record_new(self, facts: Iterator[Event] | list[Event]) -> None:
        new = [fact for fact in facts if fact.id not in self._recorded]
        if new:
            self._deps.store.ledger.append(new)
            self._recorded.update(fact.id for fact in new)

    def _pinned_digest(self, name: str) -> str | None:
        upstream = self._deps.config.current().catalog.tools[name].mcp
        return upstream.tools if upstream else None


def why_changed(name: str) -> str:
    """Return the sentence that tells the job and the ledger that a server's tools have changed."""
    return (
        f"the tools of {name} now differ from the reviewed ones, so none of them can be called. To review them, "
        f"run `justenough catalog tools {name}`"
    )
