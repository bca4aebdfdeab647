"""What of the catalog's tools one job is offered: a value."""

from __future__ import annotations

from dataclasses import dataclass

from justenough.access import Action, Decision
from justenough.tools import Tool


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool that this job may use, and what policy would say of a call now."""

    name: str
    tool: Tool
    action: Action
    decision: Decision
