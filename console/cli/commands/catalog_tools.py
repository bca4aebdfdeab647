"""`justenough catalog tools`: what an upstream MCP server shows, against what was reviewed of it; and pinning it.

The list is asked for from here, never by the console: that has no secrets, and is given none. Where the server wants a credential, the
person's own is read from a file or stdin, or the list itself is, as whoever may have it has printed it.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.cli import terminal
from console.cli.client import private_files
from console.cli.client.api import Json
from console.cli.client.config import config_folder
from console.cli.commands.catalog import Folder, catalog, checked
from console.cli.errors import Exit, Failure
from console.cli.options import command
from console.cli.render.output import emit, fields, note, rows
from console.presentation.terminal_text import plain

if TYPE_CHECKING:
    from justenough.domain.catalog.mcp_tool_list import Listed, ToolList
    from justenough.domain.tools.definitions import Tool, Upstream

__all__ = ["catalog", "tools"]

WAYS = (
    "give a credential of your own, as JSON of its fields in a file that only you can read, with --credential FILE (- for stdin); "
    "or give the list itself, as an MCP client printed it, with --shown FILE"
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The server, as the catalog's tools name it.")]
Credential = Annotated[
    Path | None,
    typer.Option("--credential", metavar="FILE", help="JSON of the fields that its headers need; - for stdin.", show_default=False),
]
Shown = Annotated[
    Path | None,
    typer.Option("--shown", metavar="FILE", help='Its list, {"tools": […]}, instead of asking it; - for stdin.', show_default=False),
]
Pin = Annotated[bool, typer.Option("--pin", help="Pin what it shows: write tools/NAME.json, and its digest into catalog.yaml.")]
ExitCode = Annotated[bool, typer.Option("--exit-code", help="Exit 1 where it shows other tools than those that are pinned.")]


@catalog.command("tools")
@command
def tools(
    name: Name, folder: Folder = None, credential: Credential = None, shown: Shown = None, pin: Pin = False, exit_code: ExitCode = False
) -> None:
    """Show an upstream MCP server's tools, by which action each goes through, and what has changed since they were reviewed; pin them."""
    where = folder or config_folder()
    found = checked(where).catalog
    tool = found.tools.get(name)
    if tool is None or tool.mcp is None:
        known = ", ".join(one for one, each in found.tools.items() if each.mcp) or "none"
        raise Failure(f"the catalog has no upstream MCP server {name}; it has {known}", code=Exit.NOT_FOUND)
    now = _read(shown) if shown else _asked(name, tool.mcp, credential)
    before = found.reviewed.get(name)
    reviewed = before if before and before.digest == tool.mcp.tools else None
    emit(
        _told(name, tool, now, reviewed),
        table=lambda told: _table(told, now, reviewed),
        names=lambda told: (one["name"] for one in told["tools"]),
    )
    same = now.digest == tool.mcp.tools
    if pin and not (same and reviewed):
        _pin(where, name, now)
        note(f"Pinned. Have {where}/tools/{name}.json and {where}/catalog.yaml reviewed, and taken to every worker and console.")
    elif not same:
        note(f"Nothing of {name} is called until what it shows is pinned: look at it, then run this again with --pin.")
        if exit_code:
            raise typer.Exit(Exit.FAILURE)


def _asked(name: str, upstream: Upstream, credential: Path | None) -> ToolList:
    from justenough.adapters.mcp_client import Unanswered, asked  # noqa: PLC0415 - loads MCP's whole SDK
    from justenough.domain.core.placeholders import SCOPE_PLACEHOLDER, filled  # noqa: PLC0415 - as the others
    from justenough.domain.tools.call import headers_of  # noqa: PLC0415 - loads JSON Schema
    from justenough.domain.tools.definitions import Upstream as Model  # noqa: PLC0415 - the same

    needed = sorted({field for text in upstream.headers.values() for field in SCOPE_PLACEHOLDER.findall(text)})
    if needed and not credential:
        raise Failure(f"{name} is asked with {', '.join(needed)} of a credential", code=Exit.USAGE, hint=WAYS)
    raw = filled(upstream.model_dump(mode="json"), os.environ, what="catalog.yaml", path=f"tools.{name}.mcp")
    there = Model.model_validate(raw)
    given = _fields(credential) if credential else {}
    headers = headers_of(there.headers, given)
    try:
        found = asyncio.run(asked(there, headers, lambda conversation: conversation.tools()))
    except Unanswered as error:
        raise Failure(f"{name}: {_without(str(error), given)}") from None
    if _without(found.text, given) != found.text:
        raise Failure(f"{name} puts the credential that it is sent into its list: it is neither shown nor pinned")
    return found


def _fields(path: Path) -> Mapping[str, str]:
    found = _json(sys.stdin.read()) if str(path) == "-" else private_files.read(path)
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise Failure(f'{path} holds no credential: it must be like {{"token": "…"}}', code=Exit.USAGE)
    return found


def _without(text: str, sent: Mapping[str, str]) -> str:
    """Return a text without what was sent: a server may send it back."""
    from justenough.domain.core.redaction import Redactor  # noqa: PLC0415 - as the others

    redactor = Redactor(sent.values())
    return (redactor.feed(text.encode()) + redactor.flush()).decode("utf-8", "replace")


def _read(path: Path) -> ToolList:
    from justenough.domain.catalog.mcp_tool_list import read_tool_list  # noqa: PLC0415 - as the others

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read: {error}", code=Exit.USAGE) from error
    return read_tool_list(str(path), text)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _pin(folder: Path, name: str, now: ToolList) -> None:
    """Write both files. Raises InvalidInput where the catalog could not be read with them; then nothing has been written."""
    from justenough.domain.catalog.loader import CATALOG, read_catalog  # noqa: PLC0415 - as the others
    from justenough.domain.catalog.mcp_tool_list import TOOLS  # noqa: PLC0415 - the same
    from justenough.domain.catalog.mcp_upstreams import with_reviewed  # noqa: PLC0415 - the same
    from justenough.domain.catalog.pin_digest import with_digest  # noqa: PLC0415 - the same

    text = with_digest((folder / CATALOG).read_bytes().decode(), name, now.digest)
    with_reviewed(read_catalog(text), {**checked(folder).catalog.reviewed, name: now})
    try:
        (folder / TOOLS).mkdir(exist_ok=True)
        # Until both are there, nothing of it is passed on.
        (folder / TOOLS / f"{name}.json").write_text(now.text, encoding="utf-8")
        (folder / CATALOG).write_bytes(text.encode())
    except OSError as error:
        raise Failure(f"{error.filename} cannot be written: {error.strerror}") from error


def _told(name: str, tool: Tool, now: ToolList, reviewed: ToolList | None) -> Json:
    from justenough.domain.catalog.mcp_tool_list import changes  # noqa: PLC0415 - as the others

    return {
        "upstream": name,
        "url": tool.mcp.url if tool.mcp else "",
        "resource": tool.uses.resource,
        "digest": now.digest,
        "pinned": tool.mcp.tools if tool.mcp else None,
        "changes": list(changes(reviewed, now)),
        "tools": [_tool(tool, one) for one in now.tools],
    }


def _tool(tool: Tool, one: Listed) -> Json:
    from justenough.domain.catalog.mcp_upstreams import doubts, exposed_name, why_left_out  # noqa: PLC0415 - the same
    from justenough.domain.tools.call import action_of  # noqa: PLC0415 - as the others

    why, action = why_left_out(tool, one), action_of(tool.uses, one.name)
    return {
        **one.as_json(),
        "called": None if why else exposed_name(tool, one.name),
        "action": None if why or action is None else action.value,
        "left_out": why or None,
        "doubts": list(doubts(one, action)),
    }


def _table(told: Json, now: ToolList, reviewed: ToolList | None) -> None:
    fields((key.capitalize(), told[key]) for key in ("upstream", "url", "resource", "digest", "pinned"))
    header = ("TOOL", "CALLED", "ACTION", "NOTE")
    lines = [
        (
            one["name"],
            one["called"] or "-",
            one["action"] or "-",
            "; ".join([*([one["left_out"]] if one["left_out"] else ()), *one["doubts"]]),
        )
        for one in told["tools"]
    ]
    terminal.line("")
    rows(header, lines)
    # All of what a model would be told, line by line: what nobody has reviewed is new from its first line on.
    old, new = (found.text.splitlines() if found else [] for found in (reviewed, now))
    for number, line in enumerate(difflib.unified_diff(old, new, "reviewed", "shown now", lineterm="", n=3)):
        terminal.line(plain(line) if number else f"\n{plain(line)}")
