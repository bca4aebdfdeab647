"""Compares the tool list of an MCP server with the reviewed one, and pins it, for `justenough catalog tools`.

This program fetches the list, because the console must not receive secrets. If the server requires a credential, the person gives it in a
file or on stdin. Instead, the person can give the list itself in a file or on stdin, if somebody with access has saved it.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import typer

from console.cli import private_files, terminal
from console.cli.client.config import load_config
from console.cli.errors import ExitCode, Failure, WrongUsage
from console.cli.files import read_text, replace_text
from console.cli.json_object import Json
from console.cli.render.output import emit, note, print_fields, print_table
from console.presentation.terminal_text import plain
from justenough.adapters.mcp_client.client import run_conversation
from justenough.adapters.mcp_client.errors import Unanswered
from justenough.domain.catalog.catalog_text import with_digest
from justenough.domain.catalog.loader import CATALOG_FILE, read_catalog
from justenough.domain.catalog.mcp_tool_list import TOOLS_KEY, ToolList, read_tool_list, tool_list_changes
from justenough.domain.catalog.mcp_upstreams import exposed_name, review_hints, why_left_out, with_upstream_tools
from justenough.domain.core.placeholders import SCOPE_PLACEHOLDER, fill_settings
from justenough.domain.core.redaction import Redactor
from justenough.domain.tools.call import action_of, fill_headers
from justenough.domain.tools.definitions import McpServerDef

CREDENTIAL_HINT = (
    "Give your own credential with --credential FILE (- for stdin): a JSON object of its fields, in a file that only you can read. "
    "Or give the list itself, as an MCP client printed it, with --shown FILE"
)


def compare_tool_list(name: str, folder: Path, *, credential: Path | None, shown: Path | None, pin: bool, exit_code: bool) -> None:
    """Print the tool list of an MCP server and how it differs from the reviewed one. `pin`: write it to the folder. Raises Failure, InvalidInput."""
    catalog = load_config(folder).catalog
    tool = catalog.tools.get(name)
    if tool is None or tool.mcp is None:
        known = ", ".join(name for name, tool in catalog.tools.items() if tool.mcp) or "none"
        raise Failure(f"the catalog has no MCP server {name}; its MCP servers: {known}", code=ExitCode.NOT_FOUND)
    now = _read_tool_list(name, tool.mcp, credential=credential, shown=shown)
    before = catalog.upstreams.reviewed.get(name)
    reviewed = before if before and before.digest == tool.mcp.tools else None
    listed_tools = []
    for listed in now.tools:
        problem, action = why_left_out(tool, listed), action_of(tool.uses, listed.name)
        listed_tools.append(
            {
                **listed.as_json(),
                "called": None if problem else exposed_name(tool, listed.name),
                "action": None if problem or action is None else action.value,
                "left_out": problem.message if problem else None,
                "doubts": list(review_hints(listed, action)),
            }
        )
    report: Json = {
        "upstream": name,
        "url": tool.mcp.url,
        "resource": tool.uses.resource,
        "digest": now.digest,
        "pinned": tool.mcp.tools,
        "changes": list(tool_list_changes(reviewed, now)),
        "tools": listed_tools,
    }
    emit(report, table=lambda _: _print_report(report, now, reviewed), names=lambda _: (tool["name"] for tool in report["tools"]))
    is_pinned = now.digest == tool.mcp.tools
    if pin and not (is_pinned and reviewed):
        _write_pin(folder, name, now)
        note(f"Pinned. Have {folder}/tools/{name}.json and {folder}/catalog.yaml reviewed, then deploy them to every worker and console.")
    elif not is_pinned:
        note(f"Jobs cannot call the tools of {name} until this list is pinned. Review it, then run this again with --pin.")
        if exit_code:
            raise typer.Exit(ExitCode.FAILURE)


def _read_tool_list(name: str, upstream: McpServerDef, *, credential: Path | None, shown: Path | None) -> ToolList:
    """Return the server's tool list as it is now: from the file `shown`, else from the server."""
    if shown:
        return read_tool_list(str(shown), read_text(shown))
    needed = sorted({field for text in upstream.headers.values() for field in SCOPE_PLACEHOLDER.findall(text)})
    if needed and not credential:
        raise WrongUsage(f"{name} requires a credential with {', '.join(needed)}", hint=CREDENTIAL_HINT)
    raw = fill_settings(upstream.model_dump(mode="json"), os.environ, what="catalog.yaml", path=f"tools.{name}.mcp")
    server = McpServerDef.model_validate(raw)
    fields: object = {}
    if credential:
        try:
            fields = json.loads(sys.stdin.read()) if str(credential) == "-" else private_files.read(credential)
        except ValueError:
            fields = None
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise WrongUsage(f'{credential} contains no credential; it must be a JSON object like {{"token": "…"}}')
    headers = fill_headers(server.headers, fields)
    try:
        tool_list = asyncio.run(run_conversation(server, headers, lambda conversation: conversation.list_tools()))
    except Unanswered as error:
        raise Failure(f"{name}: {_redact(str(error), fields)}") from None
    if _redact(tool_list.text, fields) != tool_list.text:
        raise Failure(
            f"the list of {name} contains the credential that was sent with the request, so the list was neither shown nor pinned"
        )
    return tool_list


def _redact(text: str, secrets: Mapping[str, str]) -> str:
    """Redact the secrets that were sent to a server from its answer."""
    redactor = Redactor(secrets.values())
    return (redactor.feed(text.encode()) + redactor.flush()).decode("utf-8", "replace")


def _write_pin(folder: Path, name: str, tool_list: ToolList) -> None:
    """Write both files. If the catalog would be invalid with them, raise InvalidInput before writing."""
    text = with_digest((folder / CATALOG_FILE).read_bytes().decode(), name, tool_list.digest)
    with_upstream_tools(read_catalog(text), {**load_config(folder).catalog.upstreams.reviewed, name: tool_list})
    try:
        (folder / TOOLS_KEY).mkdir(exist_ok=True)
        # No tool of the server is offered until both files are there.
        replace_text(folder / TOOLS_KEY / f"{name}.json", tool_list.text)
        replace_text(folder / CATALOG_FILE, text)
    except OSError as error:
        raise Failure(f"cannot write {error.filename or folder}: {error.strerror}") from error


def _print_report(report: Json, tool_list: ToolList, reviewed: ToolList | None) -> None:
    print_fields(*((key.capitalize(), report[key]) for key in ("upstream", "url", "resource", "digest", "pinned")))
    lines = [
        (tool["name"], tool["called"] or "-", tool["action"] or "-", "; ".join(filter(None, (tool["left_out"], *tool["doubts"]))))
        for tool in report["tools"]
    ]
    terminal.write_line("")
    print_table(("TOOL", "EXPOSED AS", "ACTION", "NOTE"), lines)
    # Everything that a language model would read, line by line. Without a reviewed list every line is new.
    old, new = (found.text.splitlines() if found else [] for found in (reviewed, tool_list))
    for number, line in enumerate(difflib.unified_diff(old, new, "reviewed", "shown now", lineterm="", n=3)):
        terminal.write_line(plain(line) if number else f"\n{plain(line)}")
