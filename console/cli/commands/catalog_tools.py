"""`justenough catalog tools`: compares the tool list of an MCP server with the reviewed one, and pins it.

This program fetches the list, not the console, which has no secrets and is given none. If the server requires a credential, the person's own is
read from a file or stdin. The list itself can be read from there too, if somebody with access has printed it.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli import terminal
from console.cli.client import private_files
from console.cli.client.config import config_folder
from console.cli.commands.catalog import Folder, load_config
from console.cli.errors import ExitCode, Failure
from console.cli.json_object import Json
from console.cli.options import command
from console.cli.render.output import emit, note, print_fields, print_table
from console.presentation.terminal_text import plain

if TYPE_CHECKING:
    from justenough.domain.catalog.mcp_tool_list import ListedTool, ToolList
    from justenough.domain.tools.definitions import McpServerDef, Tool

CREDENTIAL_HINT = (
    "Give your own credential with --credential FILE (- for stdin): a JSON object of its fields, in a file that only you can read. "
    "Or give the list itself, as an MCP client printed it, with --shown FILE"
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the MCP server under `tools` in the catalog.")]
Credential = Annotated[
    Path | None,
    typer.Option(
        "--credential",
        metavar="FILE",
        help="A JSON object with the fields that the server's headers need; - for stdin.",
        show_default=False,
    ),
]
Shown = Annotated[
    Path | None,
    typer.Option(
        "--shown",
        metavar="FILE",
        help='Read the list, {"tools": […]}, from this file instead of the server; - for stdin.',
        show_default=False,
    ),
]
Pin = Annotated[bool, typer.Option("--pin", help="Pin the list: write tools/NAME.json, and its digest into catalog.yaml.")]
ExitCodeOption = Annotated[bool, typer.Option("--exit-code", help="Exit 1 if the list differs from the pinned one.")]


def register(catalog: typer.Typer) -> None:
    """Add the command to the group `catalog`."""
    catalog.command("tools")(tools)


@command
def tools(
    name: Name,
    folder: Folder = None,
    credential: Credential = None,
    shown: Shown = None,
    pin: Pin = False,
    exit_code: ExitCodeOption = False,
) -> None:
    """Show the tools of an MCP server, the action that each needs, and what has changed since the review; pin the list."""
    where = folder or config_folder()
    found = load_config(where).catalog
    tool = found.tools.get(name)
    if tool is None or tool.mcp is None:
        known = ", ".join(name for name, tool in found.tools.items() if tool.mcp) or "none"
        raise Failure(f"the catalog has no MCP server {name}; it has {known}", code=ExitCode.NOT_FOUND)
    now = _read_list_file(shown) if shown else _fetch_tool_list(name, tool.mcp, credential)
    before = found.reviewed_lists.get(name)
    reviewed = before if before and before.digest == tool.mcp.tools else None
    emit(
        _build_report(name, tool, now, reviewed),
        table=lambda report: _print_report(report, now, reviewed),
        names=lambda report: (tool["name"] for tool in report["tools"]),
    )
    same = now.digest == tool.mcp.tools
    if pin and not (same and reviewed):
        _write_pin(where, name, now)
        note(f"Pinned. Have {where}/tools/{name}.json and {where}/catalog.yaml reviewed, then deploy them to every worker and console.")
    elif not same:
        note(f"Jobs cannot call the tools of {name} until this list is pinned. Review it, then run this again with --pin.")
        if exit_code:
            raise typer.Exit(ExitCode.FAILURE)


def _fetch_tool_list(name: str, upstream: McpServerDef, credential: Path | None) -> ToolList:
    from justenough.adapters.mcp_client import Unanswered, run_conversation  # noqa: PLC0415 - loads MCP's whole SDK
    from justenough.domain.core.placeholders import SCOPE_PLACEHOLDER, fill_settings  # noqa: PLC0415 - as the others
    from justenough.domain.tools.call import fill_headers  # noqa: PLC0415 - loads JSON Schema
    from justenough.domain.tools.definitions import McpServerDef as Model  # noqa: PLC0415 - the same

    needed = sorted({field for text in upstream.headers.values() for field in SCOPE_PLACEHOLDER.findall(text)})
    if needed and not credential:
        raise Failure(f"{name} requires a credential with {', '.join(needed)}", code=ExitCode.USAGE, hint=CREDENTIAL_HINT)
    raw = fill_settings(upstream.model_dump(mode="json"), os.environ, what="catalog.yaml", path=f"tools.{name}.mcp")
    server = Model.model_validate(raw)
    fields = _read_credential(credential) if credential else {}
    headers = fill_headers(server.headers, fields)
    try:
        found = asyncio.run(run_conversation(server, headers, lambda conversation: conversation.list_tools()))
    except Unanswered as error:
        raise Failure(f"{name}: {_redact(str(error), fields)}") from None
    if _redact(found.text, fields) != found.text:
        raise Failure(f"the list of {name} contains the credential that was sent to it; the list is neither shown nor pinned")
    return found


def _read_credential(path: Path) -> Mapping[str, str]:
    try:
        found = json.loads(sys.stdin.read()) if str(path) == "-" else private_files.read(path)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise Failure(f'{path} contains no credential; it must be a JSON object like {{"token": "…"}}', code=ExitCode.USAGE)
    return found


def _redact(text: str, secrets: Mapping[str, str]) -> str:
    """Redact the secrets that were sent to a server from its answer."""
    from justenough.domain.core.redaction import Redactor  # noqa: PLC0415 - as the others

    redactor = Redactor(secrets.values())
    return (redactor.feed(text.encode()) + redactor.flush()).decode("utf-8", "replace")


def _read_list_file(path: Path) -> ToolList:
    from justenough.domain.catalog.mcp_tool_list import read_tool_list  # noqa: PLC0415 - as the others

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read {path}: {error}", code=ExitCode.USAGE) from error
    return read_tool_list(str(path), text)


def _write_pin(folder: Path, name: str, tool_list: ToolList) -> None:
    """Write both files. Raises InvalidInput, before writing, if the catalog would be invalid with them."""
    from justenough.domain.catalog.loader import CATALOG_FILE, read_catalog  # noqa: PLC0415 - as the others
    from justenough.domain.catalog.mcp_tool_list import TOOLS_KEY  # noqa: PLC0415 - the same
    from justenough.domain.catalog.mcp_upstreams import with_upstream_tools  # noqa: PLC0415 - the same
    from justenough.domain.catalog.pin_digest import with_digest  # noqa: PLC0415 - the same

    text = with_digest((folder / CATALOG_FILE).read_bytes().decode(), name, tool_list.digest)
    with_upstream_tools(read_catalog(text), {**load_config(folder).catalog.reviewed_lists, name: tool_list})
    try:
        (folder / TOOLS_KEY).mkdir(exist_ok=True)
        # No tool of the server is offered until both files are there.
        (folder / TOOLS_KEY / f"{name}.json").write_text(tool_list.text, encoding="utf-8")
        (folder / CATALOG_FILE).write_bytes(text.encode())
    except OSError as error:
        raise Failure(f"cannot write {error.filename}: {error.strerror}") from error


def _build_report(name: str, tool: Tool, tool_list: ToolList, reviewed: ToolList | None) -> Json:
    from justenough.domain.catalog.mcp_tool_list import tool_list_changes  # noqa: PLC0415 - as the others

    return {
        "upstream": name,
        "url": tool.mcp.url if tool.mcp else "",
        "resource": tool.uses.resource,
        "digest": tool_list.digest,
        "pinned": tool.mcp.tools if tool.mcp else None,
        "changes": list(tool_list_changes(reviewed, tool_list)),
        "tools": [_tool_report(tool, listed) for listed in tool_list.tools],
    }


def _tool_report(tool: Tool, listed: ListedTool) -> Json:
    from justenough.domain.catalog.mcp_upstreams import exposed_name, review_hints, why_left_out  # noqa: PLC0415 - the same
    from justenough.domain.tools.call import action_of  # noqa: PLC0415 - as the others

    why, action = why_left_out(tool, listed), action_of(tool.uses, listed.name)
    return {
        **listed.as_json(),
        "called": None if why else exposed_name(tool, listed.name),
        "action": None if why or action is None else action.value,
        "left_out": why.message if why else None,
        "doubts": list(review_hints(listed, action)),
    }


def _print_report(report: Json, tool_list: ToolList, reviewed: ToolList | None) -> None:
    print_fields((key.capitalize(), report[key]) for key in ("upstream", "url", "resource", "digest", "pinned"))
    header = ("TOOL", "EXPOSED AS", "ACTION", "NOTE")
    lines = [
        (tool["name"], tool["called"] or "-", tool["action"] or "-", "; ".join(filter(None, (tool["left_out"], *tool["doubts"]))))
        for tool in report["tools"]
    ]
    terminal.write_line("")
    print_table(header, lines)
    # Everything that a language model would read, line by line. Without a reviewed list every line is new.
    old, new = (found.text.splitlines() if found else [] for found in (reviewed, tool_list))
    for number, line in enumerate(difflib.unified_diff(old, new, "reviewed", "shown now", lineterm="", n=3)):
        terminal.write_line(plain(line) if number else f"\n{plain(line)}")
